"""Finds pairs of training and evaluation problems whose texts share n consecutive words."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence

from cegppo_jax.types import Problem

_WORD = re.compile(r"[^\W_]+")
_LAYOUT = re.compile(r"[\s$]|\\[,;!:( )\[\]]|[.?!]+$")


@dataclasses.dataclass(frozen=True)
class Match:
    """A training problem and an evaluation problem that have words in common."""

    train: int  # places in their lists
    evaluation: int
    share: float  # of the evaluation problem's n-grams that the training problem has; whole: 1
    # The evaluation problem's words that shared n-grams cover, run by run; of short ones the text
    shared: tuple[str, ...]


def find_overlap(
    train: Sequence[Problem], evaluation: Sequence[Problem], ngram_words: int
) -> list[Match]:
    """Returns every pair of problems that shares an n-gram of words, ordered by training problem.

    Words are runs of letters and digits of the text in lower case (words_of): punctuation, dollars
    and operators do not count. A problem of fewer than n words is compared whole with others as
    short, by all of its characters except spaces and dollars (whole_text): by their words "1 + 2"
    and "1 - 2" would be the same.

    Worked example, n = 3:

        train        A cat sat on the mat and slept.
        evaluation   Why has the cat sat on the rug?
        shared       cat sat on the              (2 of the 6 n-grams of the evaluation problem)

    Args:
      train, evaluation: only their texts are compared.
      ngram_words: n, at least 1.

    Raises:
      ValueError: ngram_words is below 1.
    """
    if ngram_words < 1:
        raise ValueError(f"ngram_words is {ngram_words}: n-grams have at least 1 word")
    holders, grams_of = _index(evaluation, ngram_words)
    matches = []
    for i, problem in enumerate(train):
        grams = _grams(problem.problem, ngram_words)
        held = (holders[gram] for gram in grams if gram in holders)
        for j in sorted({j for evaluations in held for j in evaluations}):
            own, others = grams_of[j], set(grams)
            both = [gram in others for gram in own]
            matches.append(Match(i, j, sum(both) / len(own), _runs(own, both)))
    return matches


def words_of(text: str) -> list[str]:
    """Returns the words of a text in lower case: "Find $\\frac{1}{2}$!" -> find, frac, 1, 2."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


def whole_text(text: str) -> str:
    """Returns the characters of a text in lower case, without spaces, dollars and a final full
    stop.
    """
    return _LAYOUT.sub("", unicodedata.normalize("NFKC", text).lower().strip())


Gram = tuple[str, ...]  # n words, or the one whole text of a short problem


def _grams(text: str, n: int) -> list[Gram]:
    """Returns the n-grams of a text in order."""
    words = words_of(text)
    if len(words) < n:
        return [("", whole_text(text))]  # "" is no word: never equal to an n-gram, also of n = 2
    return list(zip(*(words[i:] for i in range(n)), strict=False))


def _index(problems: Sequence[Problem], n: int) -> tuple[dict[Gram, list[int]], list[list[Gram]]]:
    """Returns which problems contain each n-gram, and the n-grams of each problem."""
    holders: dict[Gram, list[int]] = defaultdict(list)
    grams_of = [_grams(problem.problem, n) for problem in problems]
    for j, grams in enumerate(grams_of):
        for gram in set(grams):
            holders[gram].append(j)
    return dict(holders), grams_of


def _runs(grams: Sequence[Gram], both: Sequence[bool]) -> tuple[str, ...]:
    """Returns the runs of words that the shared n-grams cover; `both` says which of the n-grams
    are shared.
    """
    runs: list[str] = []
    before = False
    for gram, is_shared in zip(grams, both, strict=True):
        if is_shared:
            if before:
                runs[-1] += f" {gram[-1]}"
            else:
                runs.append(" ".join(gram).strip())
        before = is_shared
    return tuple(runs)
