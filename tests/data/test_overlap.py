"""Overlap: by words, by hand and against a search without an index."""

import random

import pytest

from cegppo_jax.data.overlap import Match, find_overlap, whole_text, words_of
from cegppo_jax.types import Problem


def problems(*texts):
    return [Problem(str(i), text, "0", "s") for i, text in enumerate(texts)]


def overlap(train, evaluation, n):
    return find_overlap(problems(*train), problems(*evaluation), n)


def test_by_hand():
    found = overlap(["A cat sat on the mat and slept."], ["Why has the CAT  sat on the rug?"], 3)
    assert found == [Match(0, 0, 2 / 6, ("cat sat on the",))]


def test_longest_runs():
    found = overlap(["a b c d x f g h"], ["a b c d e f g h"], 2)
    assert found == [Match(0, 0, 5 / 7, ("a b c d", "f g h"))]


def test_nothing_in_common():
    assert overlap(["a b c d"], ["b c a d"], 3) == []
    assert overlap([], ["a b c"], 3) == overlap(["a b c"], [], 3) == []


def test_words():
    assert words_of("Find $\\frac{1}{2}$ of É_x!") == ["find", "frac", "1", "2", "of", "é", "x"]
    assert words_of("\uff21 \u2460") == ["a", "1"]  # full-width and circled: NFKC


def test_short_problems_are_compared_whole_and_by_all_their_characters():
    evaluation = ["What is $1 + 2$?"]
    assert overlap(["what is 1+2"], evaluation, 9) == [Match(0, 0, 1.0, ("whatis1+2",))]
    assert overlap(["What is 1 - 2?"], evaluation, 9) == []
    assert overlap(["What is 1 + 2 and then five more, if you know?"], evaluation, 9) == []
    assert whole_text(" What\n is \\( 1\\,000 \\)?. ") == "whatis1000"


def test_short_texts_are_no_n_grams():
    assert overlap(["ab"], ["a b", "x ab"], 2) == []


def test_each_pair_once_and_all_of_them():
    """Against comparing the sets of n-grams of every pair."""
    rng = random.Random(0)
    texts = [" ".join(rng.choices("abc", k=rng.randint(4, 12))) for _ in range(80)]
    train, evaluation = texts[:50], texts[50:]

    def grams(text):
        words = text.split()
        return {tuple(words[i : i + 4]) for i in range(len(words) - 3)}

    expected = [
        (i, j) for i, t in enumerate(train) for j, e in enumerate(evaluation) if grams(t) & grams(e)
    ]
    found = overlap(train, evaluation, 4)
    assert [(match.train, match.evaluation) for match in found] == expected
    assert 0 < len(expected) < 50 * 30
    for match in found:
        for run in match.shared:
            assert run in evaluation[match.evaluation]
            assert grams(run) <= grams(train[match.train])


def test_n_grams_have_words():
    with pytest.raises(ValueError, match=r"ngram_words is 0: .* 1 word"):
        overlap(["a"], ["a"], 0)
