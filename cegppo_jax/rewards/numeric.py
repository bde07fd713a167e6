"""Completion text -> Finding, by its final number: the verifier `gsm8k`."""

from __future__ import annotations

import re
from fractions import Fraction

from cegppo_jax.rewards.extraction import last_match
from cegppo_jax.rewards.finding import UNPARSED, Finding, judged, unreadable
from cegppo_jax.types import Problem

_MARK = re.compile(r"####|\\boxed\s*\{|(?im:\banswer\b[^.\n\d]{0,40}?(?:\bis\b|[:=])|^\s*A:)")
_NUMBER = re.compile(
    r"(?<![\w.])-?\s?\$?\s?(?:\d{1,3}(?:,\d{3})+(?![\d,])|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3}(?!\d))?"
    r"|(?<![\w.])-?\$?\.\d+"
)
_SENTENCE_END = re.compile(r"\.(?:\s|$)|\n|\}|<\|")
_NOT_DIGITS = re.compile(r"[,$\s]")
_MOST_DIGITS = 1000
_LONGEST_TAIL = 5000


def numeric_answer(completion_text: str, problem: Problem) -> Finding:
    """Completion text -> Finding: is its final number the problem's, exactly?

    The final number stands behind the last of "####", "\\boxed{", "answer is", "answer:" and a line
    that begins with "A:": the first of that sentence, or the one behind its last "=". Without such
    a mark, or without a number behind it, it is the last number of the text. Commas between
    thousands, $ and % do not count, and numbers are compared as fractions: 18, $18.00 and 18% are
    one number. Worked examples for the answer "1,080":

        #### 1080          CORRECT     The answer is 1000 + 80 = $1,080.00.    CORRECT
        1080 of 2000       WRONG       A: many                                 UNPARSED

    Raises:
      ValueError: the problem's answer holds no number, so that nothing could be right.
    """
    gold = final_number(problem.answer)
    if gold is None:
        raise unreadable("gsm8k", problem, "a number")
    read = final_number(completion_text)
    return UNPARSED if read is None else judged(read == gold, str(read))


def final_number(text: str) -> Fraction | None:
    """Text -> its final number, exactly; None without one."""
    mark = last_match(_MARK, text)
    if mark is not None:
        tail = text[mark.end() : mark.end() + _LONGEST_TAIL].strip()
        end = _SENTENCE_END.search(tail)
        sentence = tail[: end.start()] if end else tail
        found = _NUMBER.search(sentence.rpartition("=")[2]) or _NUMBER.search(sentence)
        if found is not None:
            return _exact(found.group())
    numbers = _NUMBER.findall(text[-_LONGEST_TAIL:])
    return _exact(numbers[-1]) if numbers else None


def _exact(number: str) -> Fraction | None:
    digits = _NOT_DIGITS.sub("", number)
    return Fraction(digits) if len(digits) <= _MOST_DIGITS else None
