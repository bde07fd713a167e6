"""Completion text -> Finding: is the answer right? Pure functions of text, without jax.

A verifier sees what a worker process can be sent: the completion's text and the problem. What
depends on tokens (lengths, limits) is known where completions are, and is not a verifier's
business.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Callable

from cegppo_jax.records import check_choice
from cegppo_jax.types import Outcome, Problem


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a verifier found in one completion."""

    outcome: Outcome
    answer: str | None  # as read and normalised; None exactly when the outcome is UNPARSED


Verifier = Callable[[str, Problem], Finding]  # (completion text, problem) -> Finding

_DIGIT_SUM = re.compile(r"[1-9](?:\+[1-9])*")
_SUM_CONDITIONS = re.compile(r"([0-9]+):([0-9]+)=((?:[1-9]\+)*)")
_SIGNED_DIGITS = re.compile(r"([+-]?) ?([0-9]+|[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,3}(?: [0-9]{3})+)")


def final_answer(completion_text: str, problem: Problem) -> Finding:
    """Completion text -> Finding, by what follows the last run of '#' on its line.

    Worked examples for the answer "1042":

        ...;#1042            CORRECT          #### 1,042.          CORRECT
        #7 ... #1042         CORRECT, the last run counts
        #1042;8+1=9          WRONG, an answer is all of the rest of the line
        so it is 1042        UNPARSED         ####                 UNPARSED

    Both sides are normalised (normalise_answer) and compared as text, so that whole numbers are
    compared as whole numbers and all else exactly.
    """
    _, mark, rest = completion_text.rpartition("#")
    answer = normalise_answer((rest.splitlines() or [""])[0])
    if not mark or not answer:
        return Finding(Outcome.UNPARSED, None)
    right = answer == normalise_answer(problem.answer)
    return Finding(Outcome.CORRECT if right else Outcome.WRONG, answer)


def normalise_answer(text: str) -> str:
    """Answer text -> its one spelling: " 1,042. " -> "1042", "-07" -> "-7", "x  +  1" -> "x + 1".

    Whitespace around and a full stop behind go, inner whitespace becomes one space. A whole number
    loses its plus sign, leading zeros and separators of thousands. A comma or space that separates
    no thousands stays: "1,2" is a pair and not 12. Digits stay text, since int() refuses numbers of
    more than 4,300 digits.
    """
    text = " ".join(text.split()).removesuffix(".").rstrip()
    number = _SIGNED_DIGITS.fullmatch(text)
    if number is None:
        return text
    sign, digits = number.groups()
    digits = digits.replace(",", "").replace(" ", "").lstrip("0") or "0"
    return f"-{digits}" if sign == "-" and digits != "0" else digits


def digit_sum(completion_text: str, problem: Problem) -> Finding:
    """Completion text -> Finding: is it a sum of digits from 1 to 9 that meets the conditions?

    The problem's answer holds the conditions, "<number of terms>:<value>=<how it begins>". Nothing
    is forgiven: the sum is all of the completion. Worked examples for the answer "5:23=3+":

        3+8+1+6+5       CORRECT           3+5+5+5+5        CORRECT
        3+8+1+6+6       WRONG, it is 24   3+8+7+5          WRONG, 4 terms
        8+3+1+6+5       WRONG, begins with 8
        3+8+0+7+5       UNPARSED, so are 3+20, 3+8+1+6+5=23, 3+8+1+6+, 8 + 1 and the empty text

    Raises:
      ValueError: the problem's answer is no such condition, so that nothing could be right.
    """
    conditions = _SUM_CONDITIONS.fullmatch(problem.answer)
    if conditions is None:
        raise ValueError(
            f"verifier 'digit_sum' cannot read {problem.answer!r}, the answer of problem "
            f"{problem.id!r}: it needs conditions like '5:23=3+' (task 'sums'), or choose another "
            "verifier"
        )
    if not _DIGIT_SUM.fullmatch(completion_text):
        return Finding(Outcome.UNPARSED, None)
    terms, value, beginning = conditions.groups()
    digits = [int(digit) for digit in completion_text.split("+")]
    right = (
        len(digits) == int(terms)
        and sum(digits) == int(value)
        # with a plus behind, since all the terms may be told: "3" begins with "3+"
        and f"{completion_text}+".startswith(beginning)
    )
    return Finding(Outcome.CORRECT if right else Outcome.WRONG, completion_text)


VERIFIERS: dict[str, Verifier] = {
    "final_answer": final_answer,
    "digit_sum": digit_sum,
}


@dataclasses.dataclass(frozen=True)
class VerifierExample:
    """A problem with a completion that is right and one that is wrong: what a verifier is tried on
    before a run.
    """

    problem: Problem
    correct: str
    wrong: str


EXAMPLES: dict[str, VerifierExample] = {
    "final_answer": VerifierExample(Problem("example", "6*7", "42", "example"), "#42", "#41"),
    "digit_sum": VerifierExample(Problem("example", "2:7=", "2:7=", "example"), "3+4", "3+5"),
}


def resolve_verifier(name: str) -> Verifier:
    """Name in VERIFIERS, or "package.module:function" -> Verifier.

    Raises:
      ValueError: there is none of that name.
    """
    module, colon, function = name.partition(":")
    if not colon:
        check_choice("reward.verifier", name, VERIFIERS)
        return VERIFIERS[name]
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"reward.verifier = {name!r} cannot be imported: {error}. It is written "
            "'package.module:function', and the module must be on Python's path"
        ) from error
