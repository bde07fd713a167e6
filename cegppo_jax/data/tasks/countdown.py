"""Countdown problems: make a number from given ones by + - * /, in English."""

from __future__ import annotations

import random
import string

from cegppo_jax.data.tasks.worked import Worked

LARGEST_GIVEN = 99
LARGEST_REACHED = 999  # by any part of the worked expression

PROBLEM = (
    "Using the numbers {numbers}, each exactly once, and + - * /, make {target}. End with the "
    "expression, with parentheses where it needs them."
)
# Every character of these texts, of answers and of solutions.
ALPHABET = "".join(sorted({*PROBLEM.format(numbers=" and ", target=""), *string.digits, *"():"}))


def draw_countdown(rng: random.Random, steps: int) -> Worked:
    """Draws steps + 1 numbers and a target that they can make in `steps` operations.

    Worked example, steps = 2:

        problem   Using the numbers 19, 35 and 44, each exactly once, and + - * /, make 98. End
                  with the expression, with parentheses where it needs them.
        solution  (44 + 19) + 35          as drawn; 35 + 44 + 19 is also right
        answer    98:19,35,44             the conditions: target, colon, the numbers

    The target is the value of a random expression, every part of which is a whole number from 1 to
    LARGEST_REACHED: there is a solution. The numbers are listed in ascending order, so the same
    numbers and target always have the same text and cannot be on both sides of the split.
    """
    numbers = [rng.randint(1, LARGEST_GIVEN) for _ in range(steps + 1)]
    parts = [(number, str(number)) for number in numbers]
    while len(parts) > 1:
        one, other = (parts.pop(rng.randrange(len(parts))) for _ in range(2))
        parts.append(_combine(rng, one, other))
    [(target, expression)] = parts
    *others, last = (str(number) for number in sorted(numbers))
    return Worked(
        problem=PROBLEM.format(numbers=f"{', '.join(others)} and {last}", target=target),
        answer=f"{target}:{','.join([*others, last])}",
        solution=expression,
        bare_solution=None,
    )


def _combine(rng: random.Random, one: tuple[int, str], other: tuple[int, str]) -> tuple[int, str]:
    """Combines two (value, expression) by an operation that stays within the limits. There
    always is one: the larger minus the smaller, or / of equals.
    """
    (a, _), (b, _) = (left, right) = sorted((one, other), reverse=True)  # a >= b
    results = {"+": a + b, "-": a - b, "*": a * b}
    if a % b == 0:
        results["/"] = a // b
    allowed = [sign for sign, value in results.items() if 1 <= value <= LARGEST_REACHED]
    sign = rng.choice(allowed)
    if sign in "+*" and rng.random() < 0.5:
        left, right = right, left
    texts = (f"({text})" if " " in text else text for _, text in (left, right))
    return results[sign], f" {sign} ".join(texts)
