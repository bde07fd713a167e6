"""The tree of a formula -> its values at a few points, exact where they are rational.

Two formulas are the same when their values are. Nothing is expanded or simplified, so the text
bounds the time: what has more than LARGEST digits anywhere or takes more than STEPS steps has no
value.
"""

from __future__ import annotations

import ast
import math
import operator
import random
import threading
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import mpmath

from cegppo_jax.rewards.math.python_reader import FUNCTIONS, UNITS

LARGEST = 10_000  # decimal digits of any value
STEPS = 2_000
DIGITS = 120  # of values that are not rational
POINTS = 3
# So near, values that are not rational are the same, times a value below 1; values below the
# smallest are compared as if they were it; of large values 110 digits decide
_NEAR, _SMALLEST, _RELATIVE = 1e-20, 1e-40, mpmath.mpf(10) ** -110

_OF_MPMATH = {
    **{name: name.replace("arc", "a", 1) for name in FUNCTIONS[:-5]}, "log": "log10", "lg": "log10",
    "abs": "fabs", "factorial": "factorial", "binom": "binomial", "double": "fac2",
}  # fmt: skip
_EXACT: Mapping[str, Callable[..., Any]] = {
    "abs": abs, "floor": math.floor, "ceil": math.ceil, "max": max, "min": min, "gcd": math.gcd,
    "lcm": math.lcm, "binom": math.comb, "factorial": math.factorial,
    "double": lambda n: math.prod(range(n, 0, -2)),
}  # fmt: skip
_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
              ast.Div: operator.truediv}  # fmt: skip
_of_thread = threading.local()  # mpmath's contexts are no business of other threads


class NoValueError(Exception):
    """A formula that has no value: no mathematics, or too large."""


def _require(condition: Any) -> None:
    if not condition:
        raise NoValueError


def context() -> Any:
    """mpmath at DIGITS digits, for this thread."""
    if not hasattr(_of_thread, "context"):
        _of_thread.context = mpmath.MPContext()
        _of_thread.context.dps = DIGITS
    return _of_thread.context


def inexact(value: Any) -> Any:
    """Value -> the same to DIGITS digits."""
    is_exact = isinstance(value, Fraction)
    return context().mpf(value.numerator) / value.denominator if is_exact else value


def both(compute: Callable[[Any, Any], Any], one: Any, other: Any) -> Any:
    """Computes with two values, exactly if they are."""
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return compute(one, other)
    return compute(inexact(one), inexact(other))


class Point:
    """Where formulas are evaluated: each name has a value, drawn by its spelling."""

    def __init__(self, number: int, names: Mapping[str, Any] | None = None, signed: bool = False,
                 units: bool = True):  # fmt: skip
        self.number, self.signed, self.units = number, signed, units
        self.names, self.drawn = dict(names or {}), False
        self.steps = STEPS

    def value(self, node: ast.expr) -> Any:
        """Fraction, mpmath's number or matrix.

        Raises:
          NoValueError: the formula has no value, or is too large.
        """
        try:
            return self._value(node)
        except (ArithmeticError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise NoValueError from error  # divisions by zero, orders of complex numbers

    def _value(self, node: ast.expr) -> Any:
        self.steps -= 1
        _require(self.steps > 0)
        match node:
            case ast.Constant(int(value)):
                return Fraction(value)
            case ast.Call(ast.Name("decimal"), [ast.Constant(digits), ast.Constant(decimals)]):
                return Fraction(digits, 10**decimals)
            case ast.Name(name):
                return self._named(name)
            case ast.UnaryOp(sign, operand):
                value = self._value(operand)
                return -value if isinstance(sign, ast.USub) else value
            case ast.BinOp(left, ast.Pow(), right):
                return self._raised(self._value(left), self._value(right))
            case ast.BinOp(left, sign, right) if type(sign) in _OPERATORS:
                return both(_OPERATORS[type(sign)], self._value(left), self._value(right))
            case ast.Attribute(operand, "percent" | "degrees" as mark):
                scale = Fraction(1, 100) if mark == "percent" else context().pi / 180
                return both(
                    operator.mul, self._value(operand), scale if self.units else Fraction(1)
                )
            case ast.Attribute(operand, name):
                return self._applied(name, self._value(operand))
            case ast.Call(ast.Name(name), arguments):
                units, self.units = self.units, True  # the sine of 30 degrees keeps them
                values = [*map(self._value, arguments)]
                self.units = units
                return self._applied(name, *values)
            case ast.List([ast.List(), *_] as rows):
                cells = [[inexact(self._value(cell)) for cell in row.elts] for row in rows]  # type: ignore[attr-defined]
                return context().matrix(cells)
        raise NoValueError

    def _named(self, name: str) -> Any:
        mp = context()
        constants = {"v_pi": mp.pi, "v_e": mp.e, "v_i": mp.j}
        if name in self.names or name in constants:
            return self.names[name] if name in self.names else +constants[name]
        if name.startswith("u_"):
            dimension, size = UNITS[name[2:]]
            return size * self._named(dimension) if self.units else Fraction(1)
        self.drawn = True
        drawn = random.Random(f"{name} {self.number}")
        if self.signed:
            return Fraction(drawn.choice((-1, 1)) * drawn.randint(5_001, 49_999), 1009)
        return Fraction(drawn.randint(101, 1999), 1009)  # positive, as most variables are meant

    def _raised(self, base: Any, exponent: Any) -> Any:
        if isinstance(base, Fraction) and isinstance(exponent, Fraction):
            bits = max(base.numerator.bit_length(), base.denominator.bit_length())
            _require(bits <= 1 or abs(exponent) * bits <= LARGEST * 3.33)
            if exponent.denominator == 1:
                return base ** int(exponent)
            root = _exact_root(base, exponent.denominator)
            if root is not None:
                return root**exponent.numerator
        self.steps -= 10
        base, exponent = inexact(base), inexact(exponent)
        _require(base == 0 or abs(exponent) * abs(context().ln(base)) <= LARGEST * 2.3)
        return base**exponent

    def _applied(self, name: str, *values: Any) -> Any:
        self.steps -= 10
        name, _, exponent = name.partition("_")
        if exponent and name != "f":
            power = Fraction(exponent) if exponent.isdigit() else self._named("v_" + exponent)
            return self._raised(self._applied(name, *values), power)
        if name == "root":
            base, index = values
            if (
                isinstance(index, Fraction)
                and index.numerator % 2
                and inexact(base).imag == 0 > base.real
            ):
                return -self._raised(-base, 1 / index)  # the real root
            return self._raised(base, 1 / index)
        if name in _EXACT and all(isinstance(value, Fraction) for value in values):
            if name in ("abs", "floor", "ceil", "max", "min"):
                return Fraction(_EXACT[name](*values))
            _require(all(abs(value) <= 3_000 for value in values))
            if all(value.denominator == 1 for value in values):
                return Fraction(_EXACT[name](*map(int, values)))
        mp, values = context(), tuple(map(inexact, values))
        if name == "f":  # a function that nobody knows
            parts = (value * self._named(f"{exponent}_{i}") for i, value in enumerate(values))
            return mp.cos(sum(parts))
        largest = {"exp": LARGEST * 2.3, "sinh": LARGEST * 2.3, "cosh": LARGEST * 2.3}.get(
            name, 1e40
        )
        _require(
            name in ("ln", "log", "lg", "abs") or all(abs(value) <= largest for value in values)
        )
        return getattr(mp, _OF_MPMATH[name])(*values)


def _exact_root(value: Fraction, index: int) -> Fraction | None:
    """The rational root, where there is one of reasonable size."""
    if not 0 <= value.numerator < 10**DIGITS > value.denominator or index > DIGITS:
        return None
    above, below = (int(context().nint(context().root(one, index)))
                    for one in (value.numerator, value.denominator))  # fmt: skip
    return Fraction(above, below) if Fraction(above, below) ** index == value else None


def values_at_points(node: ast.expr, signed: bool = False, units: bool = True) -> tuple[Any, ...]:
    """Formula -> its values at the points, one for a constant; () where it has none."""
    known = node.__dict__.setdefault("at_points", {})
    if (signed, units) not in known:
        values: list[Any] = []
        try:
            for number in range(POINTS):
                point = Point(number, signed=signed, units=units)
                values.append(point.value(node))
                if not point.drawn:
                    break
        except NoValueError:
            values = []
        known[signed, units] = tuple(values)
    return known[signed, units]


def same_number(one: Any, other: Any) -> bool:
    """Two values -> equal? Fractions exactly, others to 20 digits behind the point."""
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one == other
    if hasattr(one, "rows") or hasattr(other, "rows"):
        return getattr(one, "rows", 0) == getattr(other, "rows", 0) and one.cols == other.cols and (
            all(map(same_number, one, other)))  # fmt: skip
    size, gap = abs(inexact(one)), abs(both(operator.sub, one, other))
    return bool(gap <= _NEAR * min(1, max(size, _SMALLEST)) or gap <= size * _RELATIVE)


def constant(node: ast.expr, units: bool) -> Any | None:
    """Formula -> its value, a Fraction or real number; None for one with variables or no value."""
    values = values_at_points(node, units=units)
    return values[0] if len(values) == 1 and getattr(values[0], "imag", 1) == 0 else None


def spelled(value: Any) -> str:
    """A number as a fraction with a small denominator, or to 12 digits."""
    if not isinstance(value, Fraction) and value.imag == 0 and abs(value) < 10**9:
        near = Fraction(int(context().nint(value.real * 10**40)), 10**40).limit_denominator(10**6)
        value = near if same_number(near, value) else value
    is_short = isinstance(value, Fraction) and value.denominator <= 10**6 and abs(value) < 10**1000
    return str(value) if is_short else str(context().nstr(inexact(value), 12))
