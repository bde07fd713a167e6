"""Sets of real numbers: intervals, inequalities, unions, set-builders. The same where they hold
the same numbers, of all ends that either names, their middles and some more.
"""

from __future__ import annotations

import ast
import operator
import random
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Any

from cegppo_jax.rewards.math.formulas import same_number
from cegppo_jax.rewards.math.values import NoValueError, Point, inexact

_FAR = 10**30  # stands for infinity
_SIGNS = {ast.Lt: operator.lt, ast.Gt: operator.gt, ast.LtE: operator.le, ast.GtE: operator.ge,
          ast.Eq: operator.eq, ast.NotEq: operator.ne}  # fmt: skip


def bracketed(node: ast.expr) -> tuple[str, list[ast.expr]]:
    """A tuple or interval -> its brackets, and what they hold; a matrix -> "matrix", its rows."""
    match node:
        case ast.Tuple(parts):
            return "()", parts
        case ast.List([ast.List(), *_] as rows):
            return "matrix", rows
        case ast.List(parts):
            return "[]", parts
        case ast.Call(ast.Name("interval"), [*parts, ast.Constant(brackets)]):
            return str(brackets), parts
        case ast.UnaryOp(ast.USub(), operand) if bracketed(operand)[0] == "()":
            return "()", [ast.UnaryOp(ast.USub(), part) for part in bracketed(operand)[1]]
        case ast.UnaryOp(ast.UAdd(), operand):
            return bracketed(operand)
    return "", []


def is_region(node: ast.expr) -> bool:
    """Is it an inequality, a union or a set of numbers by name, and no mere interval?"""
    match node:
        case ast.Compare(_, signs):
            return not all(isinstance(sign, ast.Eq) for sign in signs)
        case ast.BoolOp(_, values):
            return any(map(is_region, values))
        case ast.BinOp(left, ast.BitOr() | ast.BitAnd() | ast.Sub() as sign, _):
            return not isinstance(sign, ast.Sub) or is_region(left)
    return isinstance(node, ast.Name) and node.id in ("v_mathbb_R", "v_emptyset")


def same_region(one: ast.expr, other: ast.expr) -> bool:
    """Two sets of numbers -> do they hold the same ones?"""
    regions = _Region(one), _Region(other)
    if len({region.variable for region in regions} - {""}) > 1:
        return False
    drawn = random.Random(0)
    marks = sorted(
        {sign * end for region in regions for end in region.ends() for sign in (1, -1)} or {0}
    )
    numbers = [*marks, marks[0] - 1, *((a + b) / 2 for a, b in pairwise(marks)), marks[-1] + 1,
               *(inexact(Fraction(drawn.uniform(-9, 9))) for _ in range(6))]  # fmt: skip
    try:
        if any(regions[0].holds(x) != regions[1].holds(x) for x in numbers):
            return False
    except (NoValueError, TypeError):
        return False
    # Two inequalities may name none of their ends: 2x < 4 and 4x \le 8
    left, right = (sorted(isinstance(one, ast.Lt | ast.Gt) for one in ast.walk(region.node)
                          if isinstance(one, ast.cmpop)) for region in regions)  # fmt: skip
    return not (left and right) or left == right


class _Region:
    def __init__(self, node: ast.expr):
        self.node = node
        inequalities = (one for one in ast.walk(node) if isinstance(one, ast.Compare))
        sides = [side for one in inequalities for side in (one.left, *one.comparators)]
        names = (*sides, *(name for side in sides for name in ast.walk(side)))
        self.variable = next((ast.unparse(name) for name in names if _is_variable(name)), "")

    def ends(self) -> Iterator[Any]:
        """The numbers that it names."""
        sets = ast.Compare, ast.Tuple, ast.List, ast.Call, ast.Set
        for part in (one for one in ast.walk(self.node) if isinstance(one, sets)):
            for side in ast.iter_child_nodes(part):
                try:
                    end = inexact(self._value(side, Fraction(0)))
                except NoValueError:
                    continue
                if getattr(end, "imag", 1) == 0 and abs(end) < _FAR / 2:
                    yield end.real

    def _value(self, side: Any, x: Any) -> Any:
        is_variable = self.variable and ast.unparse(side) == self.variable  # as f(x) may be
        return (
            x
            if is_variable
            else Point(0, {self.variable: x, "v_infty": Fraction(_FAR)}).value(side)
        )

    def holds(self, x: Any, node: ast.expr | None = None) -> bool:
        """Is a number in it?"""
        node = node or self.node
        match node:
            case ast.Compare(left, signs, sides):
                values = [self._value(side, x) for side in (left, *sides)]
                return all(map(_compare, signs, values, values[1:]))
            case ast.BoolOp(sign, parts):
                held = [self.holds(x, part) for part in parts]
                return any(held) if isinstance(sign, ast.Or) else all(held)
            case ast.BinOp(left, ast.BitOr(), right):
                return self.holds(x, left) or self.holds(x, right)
            case ast.BinOp(left, ast.BitAnd() | ast.Sub() as sign, right):
                return self.holds(x, left) and self.holds(x, right) == isinstance(sign, ast.BitAnd)
            case ast.Set(parts):
                return any(_compare(ast.Eq(), self._value(part, x), x) for part in parts)
            case ast.Name("v_mathbb_R" | "v_emptyset" as name):
                return name == "v_mathbb_R"
        brackets, ends = bracketed(node)
        if len(ends) != 2:
            raise NoValueError
        low, high = (self._value(end, x) for end in ends)
        signs = [ast.Lt() if bracket in "()" else ast.LtE() for bracket in brackets]
        return _compare(signs[0], low, x) and _compare(signs[1], x, high)


def _is_variable(node: ast.AST) -> bool:
    match node:
        case ast.Call(ast.Name(name)):
            return name.startswith("f_")
        case ast.Name(name):
            return name.startswith("v_") and name not in ("v_pi", "v_e", "v_i", "v_infty")
    return False


def _compare(sign: ast.cmpop, one: Any, other: Any) -> bool:
    one, other = inexact(one), inexact(other)
    if one.imag or other.imag:
        return False
    return bool(_SIGNS[type(sign)](*((0, 0) if same_number(one, other) else (one, other))))
