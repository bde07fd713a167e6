"""Nested integer arithmetic with precedence and parentheses, asked in English."""

from __future__ import annotations

import random
import string
from typing import NamedTuple

from cegppo_jax.data.tasks.worked import Worked

LARGEST_GIVEN = 20
LARGEST_REACHED = 999  # in absolute value

PROBLEM = "What is {expression}?"
# Every character of these texts, of answers and of solutions.
ALPHABET = "".join(sorted({*PROBLEM.format(expression=""), *string.digits, *"+-*()=#\n"}))

PRECEDENCE = {"+": 1, "-": 1, "*": 2}
NUMBER = 3  # precedence of a plain number, which never needs parentheses


class Expression(NamedTuple):
    """An expression, its value, and the lines that work it out, innermost first."""

    text: str
    value: int
    precedence: int  # of its last operation
    lines: tuple[str, ...]


def draw_expression(rng: random.Random, steps: int) -> Worked:
    """Draw an expression of as many operations, with no more parentheses than it needs.

    Worked example, steps = 3:

        problem   What is (3 + 4) * 2 - 5?
        solution  3 + 4 = 7
                  7 * 2 = 14
                  14 - 5 = 9
                  #### 9
        answer    9

    Values may be negative ("3 - -4 = 7" in a solution), none is beyond LARGEST_REACHED.
    """
    drawn = _draw(rng, steps)
    return Worked(
        problem=PROBLEM.format(expression=drawn.text),
        answer=str(drawn.value),
        solution="\n".join([*drawn.lines, f"#### {drawn.value}"]),
        bare_solution=f"#### {drawn.value}",
    )


def _draw(rng: random.Random, steps: int) -> Expression:
    """Draws a random tree: each number of operations on the left is equally likely."""
    if steps == 0:
        number = rng.randint(1, LARGEST_GIVEN)
        return Expression(str(number), number, NUMBER, ())
    on_the_left = rng.randrange(steps)
    left, right = _draw(rng, on_the_left), _draw(rng, steps - 1 - on_the_left)
    results = {
        "+": left.value + right.value,
        "-": left.value - right.value,
        "*": left.value * right.value,
    }
    # One always is within: the sum of values of different signs, the difference of others.
    allowed = [sign for sign, value in results.items() if abs(value) <= LARGEST_REACHED]
    sign = rng.choice(allowed)
    value, precedence = results[sign], PRECEDENCE[sign]
    # a - (b - c) and a * (b * c): on the right, operations of one precedence need parentheses
    text = f"{_within(left, precedence)} {sign} {_within(right, precedence + 1)}"
    line = f"{left.value} {sign} {right.value} = {value}"
    return Expression(text, value, precedence, (*left.lines, *right.lines, line))


def _within(part: Expression, least: int) -> str:
    """Returns the text of a part whose last operation must bind at least as strongly as `least`."""
    return part.text if part.precedence >= least else f"({part.text})"
