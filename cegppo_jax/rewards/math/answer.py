"""Completion text -> Finding, by mathematics: the verifier `math`."""

from __future__ import annotations

import re
from functools import lru_cache

from cegppo_jax.rewards.extraction import Reader, plain, read_answer, with_changing_words
from cegppo_jax.rewards.finding import UNPARSED, Finding, judged, unreadable
from cegppo_jax.rewards.latex_spans import (
    COMMAND,
    PERCENT,
    find_boxes,
    find_formulas,
    joined_boxes,
    prose_in,
)
from cegppo_jax.rewards.math.equivalence import canonical_answer, same_answer
from cegppo_jax.rewards.math.notation import one_notation
from cegppo_jax.types import Problem

LONGEST_ANSWER = 2000  # characters; what is longer is no answer that anything could be equal to

_LONGEST_PLAIN_GOLD = 80  # characters
_LONGEST_TAIL = 5000  # of a completion, that is searched for its last number
_MOST_WORDS = 6  # of an answer in words that stands alone


def math_answer(completion_text: str, problem: Problem) -> Finding:
    """Completion text -> Finding: is its answer mathematically the problem's?

    Where the answer stands: extraction.RULES. What is the same answer: same_answer. Of several
    boxes the last one counts, unless the problem's answer is a list. Worked examples for the answer
    "\\frac{1}{2}":

        so $x = \\boxed{0.5}$      CORRECT     The answer is 2/4.    CORRECT
        \\boxed{1} or \\boxed{2}    WRONG       I do not know what to do here at all      UNPARSED

    Nothing here limits time.

    Raises:
      ValueError: nothing could equal the problem's answer: it is empty, signs alone or too long.
    """
    gold = gold_answer(problem.answer)
    if not is_readable(gold):
        needs = f"a formula or words of at most {LONGEST_ANSWER} characters"
        raise unreadable("math", problem, needs)
    reading = read_answer(completion_text, MATH)
    if reading is None:
        return UNPARSED
    read = reading.value
    if len(read) > LONGEST_ANSWER:
        return judged(False, read[:100], reading.rule)
    if reading.rule in ("box", "tag") and _SEVERAL.search(gold):
        read = joined_boxes(plain(completion_text)) or read
    place = one_notation(reading.place[:LONGEST_ANSWER])
    right = (
        one_notation(gold) == place  # whatever it is: prose with numbers in it, too
        or same_answer(gold, read)
        or (read != reading.value and same_answer(gold, reading.value))
    )
    return judged(right, canonical_answer(gold if right else read), reading.rule)


@lru_cache(maxsize=8192)
def gold_answer(text: str) -> str:
    """A problem's answer -> the answer inside: it may be wrapped in $ $ or a whole solution, which
    is longer than _LONGEST_PLAIN_GOLD.
    """
    text = text.strip()
    if find_boxes(text):
        return joined_boxes(text) or ""
    reading = read_answer(text, MATH)
    stated = reading is not None and reading.rule in ("tag", "hashes", "answer is")
    if reading is None or not (stated or len(text) > _LONGEST_PLAIN_GOLD):
        return text
    return reading.value


@lru_cache(maxsize=8192)
def is_readable(gold: str) -> bool:
    """Could anything be equal to a gold answer?"""
    return len(gold) <= LONGEST_ANSWER and bool(re.search(r"\w", one_notation(gold)))


_SEVERAL = re.compile(r"[,;]|\\pm|\b(?:and|or)\b")
_PLACEHOLDER = re.compile(
    r"\W*(?:(?:your|the|final|numerical|text|math\w+) ?[{}]?)*(?:answer|result)(?: here)?\W*"
    r"|[\W_]*(?:\\[lc]?dots)?[\W_]*"
)
# Words that say how an answer looks, and not what it is: "an integer", "in the box above"
_ABOUT = re.compile(
    r"(?i)\b(?:box(?:ed)?|above|below|digits?|decimals?|integer|simplif\w+|rounded|correct|follows"
    r"|put|placed|within|form|given|shown"
    r"|(?:an?|the) (?:\w+ )?(?:number|fraction|value|expression))\b"
)
_CLAUSE = re.compile(
    r",? \((?=[a-z]{2})|,? (?:which|since|because|where|when|rather than|so that)\b"
    r"|, (?:as|so|and|not|it|that|but|i\.e\.)\b(?! [$\\\d])|;| [\u2014\u2013-] (?=[a-z]{2})"
)
_NOT = re.compile(r"(?i)not\b(?!.*\bbut\b)")  # "the answer is not 7" says no 7
_VERB = re.compile(r"\b(?:is|are|equals)\b(?: ?:)?")
_MORE_FORMULAS = re.compile(r"\s*(?:[,;]|,?\s*\b(?:and|or)\b)?\s*")
_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.,])(?:\d{1,9}(?::\d{1,9})+(?: ?[aApP]\.?[mM]\b\.?)?"  # 3:2, 7:30 p.m.
    r"|-?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+ (?=\d+/\d)|\d+)?(?:[.,]?\d+)"
    r"(?:\s*/\s*\d+)?(?:[eE][-+]?\d+)?(?:\s*(?:\\?%|percent\b|pct\b))?)"
)
_NUMBER_AND_WORDS = re.compile(
    r"[-+]?\\?\$?[\d.,]*\d\$?\s*[A-Za-z]{2,}(?:\s+[A-Za-z]+){0,2}(?:\^\d)?\.?"
)
_WORD = re.compile(r"[^\W\d_]{2,}")


def _whole(text: str) -> str | None:
    return None if _PLACEHOLDER.fullmatch(text[:LONGEST_ANSWER]) else text


def _alone(text: str) -> str | None:
    return text if stands_alone(text) and not _ABOUT.search(text) else None


def stands_alone(text: str) -> bool:
    """Is all of a text one answer: a formula, a number with its unit, or a few words?"""
    if not text or len(text) > LONGEST_ANSWER or not re.search(r"\w", text):
        return False
    if _NUMBER_AND_WORDS.fullmatch(text):
        return True
    words = prose_in(text)
    if re.search(r"\d", text):
        return all(word.isupper() for word in words)  # names of points and the like: AB = 4
    return len(_WORD.findall(COMMAND.sub(" ", text))) <= _MOST_WORDS and "\n" not in text


def _stated(sentence: str) -> str | None:
    """The sentence behind "the answer is" -> a formula, a number with its unit, or a few words."""
    if _NOT.match(sentence):
        return sentence
    head = _CLAUSE.split(sentence, maxsplit=1)[0].strip(" *:,")
    verbs = [verb for verb in _VERB.finditer(head) if verb.end() < len(head)]
    head = head[verbs[-1].end() :].strip(" *:") if verbs else head
    if _ABOUT.search(head):
        return None
    formulas = find_formulas(head)
    if formulas and not re.search(r"\d", head[: formulas[0][0]]):
        return _run(head, formulas, 0)
    if stands_alone(head):
        return head
    number = _NUMBER.match(head)  # "42 apples in 7 boxes"
    return (
        _with_words(head, *_bare_formula(head, *number.span())) if number else last_expression(head)
    )


def last_expression(text: str) -> str | None:
    """Text -> its last formula or number, whichever stands later, with words that change it."""
    tail = text[-_LONGEST_TAIL:]
    *_, number = (None, *_NUMBER.finditer(tail))
    formulas = find_formulas(tail)
    if formulas and (number is None or number.start() < formulas[-1][1]):
        first = len(formulas) - 1
        while first and _MORE_FORMULAS.fullmatch(tail[formulas[first - 1][1] : formulas[first][0]]):
            first -= 1
        return _run(tail, formulas, first)
    return _with_words(tail, *_bare_formula(tail, *number.span())) if number else None


def _run(text: str, formulas: list[tuple[int, int, str]], first: int) -> str:
    """A formula, those joined to it ("$1$, $2$ and $3$") and the words that change them."""
    run = [formulas[first]]
    for following in formulas[first + 1 :]:
        if not _MORE_FORMULAS.fullmatch(text[run[-1][1] : following[0]]):
            break
        run.append(following)
    percent = r"\%" if PERCENT.match(text, run[-1][1]) else ""
    inside = ", ".join(content for _, _, content in run) + percent
    return _with_words(text, run[0][0], run[-1][1], inside)


def _with_words(text: str, start: int, end: int, inside: str | None = None) -> str:
    """What stands there, or more of the text where its neighbours change it: "less than 7"."""
    low, high = with_changing_words(text, start, end)
    changed = (low, high) != (start, end)
    return text[low:high] if changed or inside is None else inside


def _bare_formula(text: str, start: int, end: int) -> tuple[int, int]:
    """Span of a number -> that of the formula around it, which nothing marks: 2 + \\frac{3}{4}."""
    low, high = start, end
    while True:
        while low and text[low - 1] not in " \n,;:$=\"'":
            low -= 1
        operator = re.search(r"[^\s,;:$=]*[\d}] [-+*/] $", text[max(0, low - 60) : low])
        if operator is None:
            break
        low = low - len(operator[0])
    while high < len(text) and text[high] not in " \n,;:$=\"'":
        high += 1
    token = text[low:high].rstrip(".?!*`")
    token = token[:-1] if token.endswith(")") and "(" not in token else token
    high = low + len(token)
    marked = re.search(r"[\\^/]| [-+*/] |\d[-+*]\d", token)
    return (low, high) if high >= end and marked and not prose_in(token) else (start, end)


MATH = Reader(whole=_whole, alone=_alone, stated=_stated, last=last_expression)
