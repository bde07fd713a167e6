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

from cegppo_jax.rewards.math.parser import FUNCTIONS
from cegppo_jax.rewards.math.words import UNITS

LARGEST = 10_000  # decimal digits of any value
STEPS = 22_000  # a function counts as 100 of them
DIGITS = 120  # of values that are not rational
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


# What computing raises: divisions by zero, orders of complex numbers, matrices that do not fit
FAILURES = (NoValueError, ArithmeticError, ValueError, TypeError, AttributeError, LookupError,
            RecursionError)  # fmt: skip


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


def _least_steps(node: ast.expr) -> int:
    """Returns how many steps a value takes at least; what a call does with its arguments is not
    looked at.
    """
    match node:
        case ast.BinOp(left, _, right):
            return 1 + _least_steps(left) + _least_steps(right)
        case ast.UnaryOp(_, operand):
            return 1 + _least_steps(operand)
    return 1


class Point:
    """Where formulas are evaluated: each name has a value, drawn by its spelling."""

    def __init__(self, number: int, names: Mapping[str, Any] | None = None,
                 domain: str = "positive", units: bool = True):  # fmt: skip
        self.number, self.domain, self.units = number, domain, units
        self.names, self.drawn = dict(names or {}), False
        self.steps = STEPS

    def value(self, node: ast.expr) -> Any:
        """Fraction, mpmath's number or matrix.

        Raises:
          NoValueError: the formula has no value, or is too large.
        """
        try:
            value = self._value(node)
            is_number = isinstance(value, Fraction) or hasattr(value, "rows")
            _require(is_number or context().isfinite(value))
            return value
        except FAILURES as error:
            raise NoValueError from error

    def _value(self, node: ast.expr) -> Any:
        self.steps -= 1
        _require(self.steps > 0)
        match node:
            case ast.Constant(int(value)):
                return Fraction(value)
            case ast.Call(ast.Name("decimal"), [ast.Constant(int(digits)), decimals]):
                return Fraction(digits) / 10 ** int(self._value(decimals))
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
                value = self._value(operand)
                return both(operator.mul, value, scale) if self.units else value
            case ast.Attribute(operand, name):
                return self._applied(name, self._value(operand))
            case ast.Call(ast.Name("sumof" | "prodof" as name), [ast.Name(index), low, high, term]):
                return self._total(name, index, self._value(low), self._value(high), term)
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
        if self.domain == "counting":
            return Fraction(drawn.randint(3, 25))
        if self.domain == "signed":  # whole numbers, odd and even, and others
            n = 2 * drawn.randint(3, 25) + self.number % 2
            return drawn.choice((-1, 1)) * (n + Fraction(self.number == 0, 3))
        return Fraction(drawn.randint(101, 1999), 1009)  # positive, as most variables are meant

    def _total(self, name: str, index: str, low: Any, high: Any, term: ast.expr) -> Any:
        """A finite sum or product."""
        _require(isinstance(low, Fraction) and isinstance(high, Fraction))
        _require(low.denominator == high.denominator == 1)
        _require((high - low) * _least_steps(term) < self.steps)  # else they run out on the way
        compute, neutral = (operator.add, 0) if name == "sumof" else (operator.mul, 1)
        total, outside = Fraction(neutral), self.names
        for k in range(int(low), int(high) + 1):
            self.names = {**outside, index: Fraction(k)}
            value = self._value(term)
            total = both(compute, total, value)
            for one in (value, total):
                if isinstance(one, Fraction):  # long numbers take time
                    bits = one.numerator.bit_length()
                    self.steps -= one.denominator.bit_length() // 100 + bits // 1000
                    _require(bits <= LARGEST * 3.33)
        self.names = outside
        return total

    def _raised(self, base: Any, exponent: Any) -> Any:
        if isinstance(base, Fraction) and isinstance(exponent, Fraction):
            bits = max(base.numerator.bit_length(), base.denominator.bit_length())
            _require(bits <= 1 or abs(exponent) * bits <= LARGEST * 3.33)
            if exponent.denominator == 1:
                return base ** int(exponent)
        self.steps -= 100
        base, exponent = inexact(base), inexact(exponent)
        _require(base == 0 or abs(exponent) * abs(context().ln(base)) <= LARGEST * 2.3)
        return base**exponent

    def _applied(self, name: str, *values: Any) -> Any:
        self.steps -= 100
        name, _, exponent = name.partition("_")
        if exponent and name != "f":
            power = Fraction(exponent) if exponent.isdigit() else self._named("v_" + exponent)
            return self._raised(self._applied(name, *values), power)
        if name == "root":
            base, index = values
            is_odd = isinstance(index, Fraction) and index.numerator % 2
            if is_odd and inexact(base).imag == 0 > base.real:
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
        largest = LARGEST * 2.3 if name in ("exp", "sinh", "cosh") else 1e40
        _require(name in ("ln", "log", "lg", "abs") or all(abs(x) <= largest for x in values))
        return getattr(mp, _OF_MPMATH[name])(*values)
