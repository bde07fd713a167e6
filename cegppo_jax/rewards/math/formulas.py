"""Two formulas -> the same? They are when their values agree at a few points, with their units,
degrees and percents, or without where one side has none.
"""

from __future__ import annotations

import ast
import operator
from fractions import Fraction
from itertools import pairwise
from typing import Any

import mpmath

from cegppo_jax.rewards.math.values import FAILURES, NoValueError, Point, both, context, inexact

LEAST_DIGITS = 4  # of a decimal that stands for an exact value: 1.732 for the root of 3
INTEGER = "v_integer"  # any integer: k\\pi
POINTS = 3
# So near, values that are not rational are the same, times a value below 1; values below the
# smallest are compared as if they were it; of large values 110 digits decide
_NEAR, _SMALLEST, _RELATIVE = 1e-20, 1e-40, mpmath.mpf(10) ** -110


def _words(*nodes: ast.expr) -> set[str]:
    """The names, functions and signs in formulas; "unit" for any unit."""
    every = [one for node in nodes for one in ast.walk(node)]
    names = {one.id for one in every if isinstance(one, ast.Name)}
    marks = {one.attr for one in every if isinstance(one, ast.Attribute)}
    return names | marks | {"unit" for name in names if name.startswith("u_")}


def domain_of(*nodes: ast.expr) -> str:
    """Where formulas must be compared: |x| is not x, and a sum has a whole number of terms."""
    words = _words(*nodes)
    if words & {"sumof", "prodof"}:
        return "counting"
    return "signed" if words & {"abs", "floor", "ceil"} else "positive"


def same_value(gold: ast.expr, read: ast.expr) -> bool:
    """Two formulas: with their units, degrees and percents, or without where one side has none."""
    if INTEGER in _words(gold, read) and _same_family(gold, read):
        return True
    domain = domain_of(gold, read)
    marked = [bool(_words(node) & {"unit", "degrees", "percent"}) for node in (gold, read)]
    for units in (True, False) if marked[0] != marked[1] else (True,):
        left, right = (values_at_points(node, domain, units) for node in (gold, read))
        left, right = (values * POINTS if len(values) == 1 else values for values in (left, right))
        if left and right and all(map(same_number, left, right)):
            return True
        if _rounds_to(gold, read, units) or _rounds_to(read, gold, units):
            return True
    return False


def _nearest(value: Any) -> Fraction:
    return Fraction(int(context().nint(inexact(value).real)))


def _rounds_to(decimal: ast.expr, exact: ast.expr, units: bool) -> bool:
    """Is a written decimal the value of a formula, rounded to at least LEAST_DIGITS digits?"""
    written, value = _digits(decimal), constant(exact, units)
    if not written or _digits(exact) or value is None or written < 10 ** (LEAST_DIGITS - 1):
        return False
    if same_number(value, _nearest(value)):
        return False  # 3.9999 is not 4
    rounded: Any = constant(decimal, units)
    half_unit = abs(rounded) / (2 * written)  # exact, as is the difference if the value is
    return bool(both(operator.le, abs(both(operator.sub, rounded, value)), half_unit))


def _digits(node: ast.expr) -> int | None:
    """-0.333 -> 333: the digits of a decimal; None for all else."""
    match node:
        case ast.Call(ast.Name("decimal"), [ast.Constant(int(digits)), _]):
            return digits
        case ast.UnaryOp(_, inside) | ast.Attribute(inside, "percent" | "degrees"):
            return _digits(inside)
        case ast.BinOp(left, ast.Mult(), ast.BinOp(ast.Constant(10), ast.Pow(), _)):
            return _digits(left)
        case ast.BinOp(left, ast.Mult() | ast.Div(), ast.Name(unit)) if unit.startswith("u_"):
            return _digits(left)
    return None


def _same_family(gold: ast.expr, read: ast.expr) -> bool:
    """a + bk and c - bk, for all integers k: the same numbers when b divides a - c."""
    try:
        (a, *_), _ = families = [
            [Point(0, {INTEGER: Fraction(k)}).value(node) for k in range(3)]
            for node in (gold, read)
        ]
        steps = [[both(operator.sub, y, x) for x, y in pairwise(family)] for family in families]
        shift = both(operator.truediv, both(operator.sub, a, families[1][0]), steps[0][0])
        sizes = abs(steps[0][0]), abs(steps[1][0])
        return all(same_number(*pair) for pair in (*steps, sizes, (shift, _nearest(shift))))
    except FAILURES:
        return False


def same_zeros(gold: Any, read: Any) -> bool:
    """x + 2y = 3 and 2x + 4y = 6: left less right side are the same but for a factor."""
    left, right = (ast.BinOp(one.left, ast.Sub(), one.comparators[-1]) for one in (gold, read))
    factors = values_at_points(ast.BinOp(left, ast.Div(), right), "positive", units=True)
    return bool(factors) and factors[0] != 0 and all(same_number(factors[0], x) for x in factors)


def values_at_points(
    node: ast.expr, domain: str = "positive", units: bool = True
) -> tuple[Any, ...]:
    """Formula -> its values at the points, one for a constant; () where it has none."""
    known = node.__dict__.setdefault("at_points", {})
    if (domain, units) not in known:
        values: list[Any] = []
        try:
            for number in range(POINTS):
                point = Point(number, domain=domain, units=units)
                values.append(point.value(node))
                if not point.drawn:
                    break
        except NoValueError:
            values = []
        known[domain, units] = tuple(values)
    return known[domain, units]


def same_number(one: Any, other: Any) -> bool:
    """Two values -> equal? Fractions exactly, others to 20 digits behind the point."""
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one == other
    if hasattr(one, "rows") and hasattr(other, "rows"):
        return (one.rows, one.cols) == (other.rows, other.cols) and all(
            map(same_number, one, other)
        )
    if hasattr(one, "rows") or hasattr(other, "rows"):
        return False
    size, gap = abs(inexact(one)), abs(both(operator.sub, one, other))
    return bool(gap <= _NEAR * min(1, max(size, _SMALLEST)) or gap <= size * _RELATIVE)


def constant(node: ast.expr, units: bool) -> Any | None:
    """Formula -> its value, a Fraction or real number; None for one with variables or no value."""
    values = values_at_points(node, domain_of(node), units)
    return values[0] if len(values) == 1 and getattr(values[0], "imag", 1) == 0 else None


def spelled(value: Any) -> str:
    """A number as a fraction with a small denominator, or to 12 digits."""
    if not isinstance(value, Fraction) and value.imag == 0 and abs(value) < 10**9:
        near = Fraction(int(context().nint(value.real * 10**40)), 10**40).limit_denominator(10**6)
        value = near if same_number(near, value) else value
    is_short = isinstance(value, Fraction) and value.denominator <= 10**6 and abs(value) < 10**1000
    return str(value) if is_short else str(context().nstr(inexact(value), 12))
