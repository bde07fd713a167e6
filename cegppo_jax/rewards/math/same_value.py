"""Two formulas -> do they have the same value? Units, rounded decimals, families over integers."""

from __future__ import annotations

import ast
import operator
from fractions import Fraction
from itertools import pairwise

from cegppo_jax.rewards.math.values import (
    NoValueError,
    Point,
    both,
    constant,
    inexact,
    same_number,
    values_at_points,
)

LEAST_DIGITS = 4  # of a decimal that stands for an exact value: 1.732 for the root of 3
INTEGER = "v_integer"  # what the name of an integer parameter becomes


def is_signed(*nodes: ast.expr) -> bool:
    """Points of either sign where that matters: |x| is not x."""
    names = {one.id for node in nodes for one in ast.walk(node) if isinstance(one, ast.Name)}
    return bool(names & {"abs", "floor", "ceil"})


def _has_marks(node: ast.expr) -> bool:
    """Is there a unit, a sign of degrees or of percent?"""
    return any(
        (isinstance(one, ast.Name) and one.id.startswith("u_"))
        or (isinstance(one, ast.Attribute) and one.attr in ("degrees", "percent"))
        for one in ast.walk(node)
    )


def same_value(gold: ast.expr, read: ast.expr) -> bool:
    """Two formulas: with their units, degrees and percents, or without where one side has none."""
    if INTEGER in ast.dump(gold) + ast.dump(read) and _same_family(gold, read):
        return True
    signed = is_signed(gold, read)
    for units in (True, False) if _has_marks(gold) != _has_marks(read) else (True,):
        left, right = (values_at_points(node, signed, units) for node in (gold, read))
        count = max(len(left), len(right))
        if (
            left
            and right
            and all(map(same_number, (left * count)[:count], (right * count)[:count]))
        ):
            return True
        for decimal, exact in ((gold, read), (read, gold)):
            if _rounds_to(decimal, exact, units):
                return True
    return False


def _rounds_to(decimal: ast.expr, exact: ast.expr, units: bool) -> bool:
    """Is a written decimal the value of a formula, rounded to at least LEAST_DIGITS digits?"""
    written, value = _decimal(decimal), constant(exact, units)
    if not written or _decimal(exact) or value is None or len(str(written[0])) < LEAST_DIGITS:
        return False
    if same_number(value, Fraction(round(float(value)))):
        return False  # 3.9999 is not 4
    rounded = constant(decimal, units)
    gap, half_unit = (
        abs(both(operator.sub, rounded, value)),
        abs(inexact(rounded)) / (2 * written[0]),
    )
    return bool(inexact(gap) <= half_unit)


def _decimal(node: ast.expr) -> tuple[int, int] | None:
    """-0.333 -> its digits and how many are behind the point; None where more is written."""
    match node:
        case ast.Call(ast.Name("decimal"), [ast.Constant(digits), ast.Constant(decimals)]):
            return digits, decimals
        case ast.UnaryOp(_, inside) | ast.Attribute(inside, "percent" | "degrees"):
            return _decimal(inside)
        case ast.BinOp(left, ast.Mult(), ast.BinOp(ast.Constant(10), ast.Pow(), _)):
            return _decimal(left)
        case ast.BinOp(left, ast.Mult() | ast.Div(), ast.Name(unit)) if unit.startswith("u_"):
            return _decimal(left)
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
    except (NoValueError, ArithmeticError):
        return False
    linear = all(same_number(*step) for step in steps)
    nearest = Fraction(round(float(shift.real)))
    return (
        linear and same_number(abs(steps[0][0]), abs(steps[1][0])) and same_number(shift, nearest)
    )
