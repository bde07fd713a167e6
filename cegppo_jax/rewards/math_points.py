"""Two formulas -> the same? They are when their values agree at a few points."""

from __future__ import annotations

import operator
import random
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any

import mpmath

from cegppo_jax.rewards.math_formula import UnreadableError, both, context, evaluate, inexact

POINTS = 3
# Of values that are not rational: so near they are the same, times a value below 1; values below
# the smallest are compared as if they were it; of large values 110 digits decide
_NEAR, _SMALLEST, _RELATIVE = 1e-20, 1e-40, mpmath.mpf(10) ** -110


def point(number: int, signed: bool = False) -> Callable[[str], Fraction]:
    """-> the value of each name at one point: positive, as most variables are meant to be."""

    def value_of(name: str) -> Fraction:
        drawn = random.Random(f"{name} {number}")
        value = Fraction(drawn.randint(101, 1999), 1009)
        return -value if signed and drawn.random() < 0.5 else value

    return value_of


@lru_cache(maxsize=8192)
def values_at_points(text: str, signed: bool = False) -> tuple[Any, ...] | None:
    """Formula -> its values at the points, one for a constant; None where it has none."""
    names: list[str] = []
    values: list[Any] = []
    for number in range(POINTS):
        value_of = point(number, signed)
        try:
            values.append(
                evaluate(text, {}, lambda name, of=value_of: names.append(name) or of(name))
            )
        except UnreadableError:
            return None
        if not names:
            break
    return tuple(values)


def same_number(one: Any, other: Any) -> bool:
    """Two values -> equal? Fractions exactly, others to 20 digits behind the point."""
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one == other
    size, gap = abs(inexact(one)), abs(both(operator.sub, one, other))
    return bool(gap <= _NEAR * min(1, max(size, _SMALLEST)) or gap <= size * _RELATIVE)


def _signed(*texts: str) -> bool:
    return any(sign in text for text in texts for sign in ("|", r"\abs", "floor", "ceil"))


def same_formula(one: str, other: str) -> bool:
    """Two formulas -> equal at every point? False when one is unreadable."""
    signed = _signed(one, other)
    values = [values_at_points(text, signed) for text in (one, other)]
    left, right = ((one * POINTS)[:POINTS] for one in (values[0] or (), values[1] or ()))
    return len(left) == len(right) > 0 and all(map(same_number, left, right))


def constant(text: str) -> Any | None:
    """Formula -> its value, a Fraction or a real number; None for one with variables or no value."""
    values = values_at_points(text)
    return values[0] if values and len(values) == 1 and values[0].imag == 0 else None


def canonical_formula(text: str) -> str | None:
    """Formula -> one spelling for equal ones; None where it is unreadable.

    2\\frac{5}{8} -> 21/8; \\frac{\\sqrt{2}}{2} -> 0.707106781187; with variables the values at the
    points: x(x+1) -> "≈ 2.31, 5.86, 2.05"
    """
    values = values_at_points(text, _signed(text))
    if values is None:
        return None
    if len(values) == 1:
        return spelled(values[0])
    return "≈ " + ", ".join(context().nstr(inexact(value), 12) for value in values)


def spelled(value: Any) -> str:
    """A number as a fraction with a small denominator, or to 12 digits."""
    if not isinstance(value, Fraction) and value.imag == 0 and abs(value) < 10**9:
        near = Fraction(int(context().nint(value.real * 10**40)), 10**40).limit_denominator(10**6)
        value = near if same_number(near, value) else value
    is_short = isinstance(value, Fraction) and value.denominator <= 10**6
    return str(value) if is_short else context().nstr(inexact(value), 12)
