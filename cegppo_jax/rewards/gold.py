"""Completions that give a problem's known answer, which a verifier must therefore find right."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

_MOST_NUMBERS = 4  # of a countdown that is solved here: 5 take a second, 6 a minute


def stated_forms(answer: str) -> Iterator[str]:
    """Yields completions that state an answer: in a box, and after ####."""
    yield f"\\boxed{{{answer}}}"
    yield f"#### {answer}"


def answer_forms(answer: str) -> Iterator[str]:
    """Yields completions that give an answer: those of stated_forms, and the answer alone."""
    yield from stated_forms(answer)
    yield answer


def sum_for(terms: int, value: int, beginning: str) -> str:
    """Returns a sum that meets the conditions of the verifier digit_sum or, if there is none, one
    that does not.

    Worked example: 5 terms, 23, "3+" -> 3+9+9+1+1.
    """
    digits = [int(digit) for digit in beginning.split("+") if digit]
    left = value - sum(digits)
    for others in reversed(range(terms - len(digits))):
        digits.append(max(1, min(9, left - others)))
        left -= digits[-1]
    return "+".join(map(str, digits))


def expression_for(target: int, numbers: list[int]) -> str | None:
    """Returns an expression that meets the conditions of the verifier countdown; None if none
    exists. For more than _MOST_NUMBERS numbers it does not search and returns "".
    """
    if len(numbers) > _MOST_NUMBERS:
        return ""
    return _reach([(float(number), str(number)) for number in numbers], target)


def _reach(parts: list[tuple[float, str]], target: int) -> str | None:
    """Returns an expression of all parts, given with their values, whose value is the target."""
    if len(parts) == 1:
        value, text = parts[0]
        return text if abs(value - target) < 1e-6 else None
    for (i, (a, left)), (j, (b, right)) in itertools.permutations(enumerate(parts), 2):
        others = [part for k, part in enumerate(parts) if k not in (i, j)]
        made = [(a - b, f"({left}-{right})")]
        if i < j:
            made += [(a + b, f"({left}+{right})"), (a * b, f"({left}*{right})")]
        if b:
            made.append((a / b, f"({left}/{right})"))
        for one in made:
            found = _reach([*others, one], target)
            if found is not None:
                return found
    return None
