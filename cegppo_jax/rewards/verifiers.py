"""Completion text -> Finding: is the answer right? Pure functions of text, without jax.

A verifier sees what a worker process can be sent: the completion's text and the problem. What
depends on tokens (lengths, limits) is known where completions are, and is not a verifier's
business.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

from cegppo_jax.types import Outcome, Problem


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a verifier found in one completion."""

    outcome: Outcome
    answer: str | None  # as read and normalised; None exactly when the outcome is UNPARSED


Verifier = Callable[[str, Problem], Finding]  # (completion text, problem) -> Finding

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


VERIFIERS: dict[str, Verifier] = {
    "final_answer": final_answer,
}
