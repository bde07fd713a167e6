"""Formula in one notation -> its value at a point, exact where it is rational.

A reader of its own and not sympy's, for its time: nothing is expanded or simplified, so the text
bounds it. What nests deeper than DEEPEST, has more than LARGEST digits anywhere or takes more steps
than its length allows is unreadable, and compared as text.
"""

from __future__ import annotations

import math
import operator
import re
import threading
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import mpmath

DEEPEST = 20  # brackets inside one another
LARGEST = 10_000  # decimal digits of any value
STEPS = 300, 20  # of one evaluation: at least, and for each token
DIGITS = 120  # of values that are not rational

_TOKEN = re.compile(r"\^\{\\circ\}|\\text\{[^{}]*\}|\d+(?:\.\d*)?|\\[a-zA-Z]+|\\.|[a-zA-Z]'*|!!|\S")
_TIMES, _OVER = {r"\cdot", r"\times", "*", r"\ast"}, {"/", r"\div", ":"}
_NO_OPERAND = re.compile(
    r"\\(cdot|times|ast|div|rfloor|rceil|le|ge|ne|in|cup|cap|pm|mp|setminus|approx|equiv|to|mathbb"
    r"|begin|end|emptyset|not|pmod)"
)
_CLOSING = {"(": ")", "{": "}", "[": "]", "|": "|", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil"}
_ROUNDING = {"|": "fabs", r"\lfloor": "floor", r"\lceil": "ceil"}
_ACCENT = re.compile(
    r"\\(over(line|rightarrow)|vec|hat|bar|tilde|d?dot|angle|triangle|mathcal|boldsymbol)"
)
_TRIGONOMETRIC = [
    name + h for name in ("sin", "cos", "tan", "cot", "sec", "csc") for h in ("", "h")
]
_NAMED = {
    **{"\\" + name: name for name in (*_TRIGONOMETRIC, "ln", "exp", "floor", "ceil")},
    **{"\\arc" + name: "a" + name for name in _TRIGONOMETRIC},
    r"\log": "log10", r"\lg": "log10", r"\abs": "fabs",
}  # fmt: skip
_EXACT: Mapping[str, Callable[..., int]] = {
    "fabs": abs, "floor": math.floor, "ceil": math.ceil,
    r"\max": max, r"\min": min, r"\gcd": math.gcd, r"\lcm": math.lcm, r"\binom": math.comb,
}  # fmt: skip
_LARGEST_ARGUMENT = {"exp": LARGEST * 2.3, "sinh": LARGEST * 2.3, "cosh": LARGEST * 2.3,
                     "ln": math.inf, "log10": math.inf, "fabs": math.inf}  # fmt: skip
_PROSE = re.compile(r"(?<![\\a-zA-Z{_])(?:[a-zA-Z]{5,}|[a-zA-Z]{3,}\s+[a-zA-Z]{2,})")
_of_thread = threading.local()  # mpmath's contexts are no business of other threads


class UnreadableError(Exception):
    """A formula that has no value: no mathematics, too large or too deep."""


def context() -> Any:
    """mpmath, at DIGITS digits, for this thread."""
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


def evaluate(text: str, values: Mapping[str, Any], value_of: Callable[[str], Any]) -> Any:
    """Formula in one notation -> its value: Fraction, or mpmath's real or complex number.

    Names have the given values, all others what value_of says.

    Raises:
      UnreadableError: it is no formula, has no value, or is too large.
    """
    _require(not _PROSE.search(text))
    reader = _Reader(_TOKEN.findall(text), dict(values), value_of)
    try:
        value = reader.sum()
    except (ArithmeticError, ValueError, TypeError, AttributeError) as error:
        raise UnreadableError from error  # divisions by zero, orders of complex numbers
    _require(reader.next == "")
    return value


def _require(condition: bool) -> None:
    if not condition:
        raise UnreadableError


def _whole(value: Any, most: float = math.inf) -> int:
    _require(isinstance(value, Fraction) and value.denominator == 1 and abs(value) <= most)
    return int(value)


class _Reader:
    """Reads tokens from left to right, and has their value when it is through."""

    def __init__(self, tokens: list[str], values: dict[str, Any], value_of: Callable[[str], Any]):
        self.tokens = [*tokens, ""]
        self.values, self.value_of = values, value_of
        self.at = self.depth = self.bars = 0
        self.steps = STEPS[0] + STEPS[1] * len(tokens)

    @property
    def next(self) -> str:
        return self.tokens[self.at]

    def take(self, *expected: str) -> str:
        token = self.next
        _require(token != "" and (not expected or token in expected))
        self.at += 1
        return token

    def sum(self) -> Any:
        self.depth += 1
        _require(self.depth <= DEEPEST)
        value = self.product()
        while self.next in ("+", "-"):  # which stays, as the sign of what follows
            value = both(operator.add, value, self.product())
        self.depth -= 1
        return value

    def product(self) -> Any:
        value = self.factors()
        while self.next in _TIMES | _OVER:
            compute = operator.truediv if self.take() in _OVER else operator.mul
            value = both(compute, value, self.factors())
        return value

    def factors(self, stop: Callable[[str], bool] = lambda token: False) -> Any:
        """Factors side by side bind more than those with a sign between: 1/2x is 1/(2x)."""
        sign = 1
        while self.next in ("+", "-"):
            sign *= -1 if self.take() == "-" else 1
        value = self.power()
        while self._begins_operand(self.next) and not stop(self.next):
            before, last = self.tokens[self.at - 2], self.tokens[self.at - 1]
            _require(not (self.next[0].isdigit() and last[0].isdigit() and before != "^"))  # "1 2"
            value = both(operator.mul, value, self.power())
        return -value if sign < 0 else value

    def _begins_operand(self, token: str) -> bool:
        if token in _CLOSING:
            return token != "|" or not self.bars
        return token[:1].isalnum() or (token[1:2].isalpha() and not _NO_OPERAND.fullmatch(token))

    def power(self) -> Any:
        value = self.primary()
        while (token := self.next) in ("!", "!!", r"\%", r"^{\circ}", "^"):
            self.take()
            if token == "^":
                value = self.raised(value, self.exponent())
            elif token[0] == "!":
                n = _whole(value, 3000)
                _require(n >= 0)
                value = Fraction(math.prod(range(n, 0, -len(token))))
            else:
                scale = Fraction(1, 100) if token == r"\%" else context().pi / 180
                value = both(operator.mul, value, scale)
        return value

    def exponent(self) -> Any:
        self.depth += 1
        _require(self.depth <= DEEPEST)
        value = self.group() if self.next == "{" else self.factors(lambda token: True)
        self.depth -= 1
        return value

    def bracket(self) -> list[Any]:
        """A bracket -> the values between its commas."""
        opening = self.take(*_CLOSING)
        bars, self.bars = self.bars, int(opening == "|")
        values = [self.sum()]
        while self.next == ",":
            self.take()
            values.append(self.sum())
        self.take(_CLOSING[opening])
        self.bars = bars
        return values

    def group(self) -> Any:
        """The argument of a command: {...} or one token."""
        if self.next not in _CLOSING:
            return self.primary()
        (value,) = self.bracket()
        return value

    def primary(self) -> Any:
        self.steps -= 1
        _require(self.steps > 0)
        token = self.next
        if token in _CLOSING:
            inside = self.group()
            return self.applied(_ROUNDING[token], inside) if token in _ROUNDING else inside
        self.take()
        if token[0].isdigit():
            return self.number(token)
        if token == r"\frac":
            return both(operator.truediv, self.group(), self.group())
        if token == r"\sqrt":
            index = self.bracket()[0] if self.next == "[" else Fraction(2)
            return self.root(self.group(), index)
        if token in (r"\sum", r"\prod"):
            return self.repeated(operator.add if token == r"\sum" else operator.mul)
        if token in _NAMED:
            return self.function(token)
        if token in _EXACT:
            places = [self.group(), self.group()] if token == r"\binom" else self.bracket()
            return Fraction(_EXACT[token](*(_whole(value, LARGEST) for value in places)))
        _require(self._begins_operand(token))
        return self.name(token)

    def number(self, token: str) -> Fraction:
        """A number, or the mixed number that it begins: 2\\frac{5}{8}"""
        mixed = "".join(self.tokens[self.at : self.at + 7]) if self.next == r"\frac" else ""
        found = re.fullmatch(r"\\frac\{(\d+)\}\{(\d+)\}", mixed)
        if found and token.isdigit() and 0 < int(found[1]) < int(found[2]):
            self.at += 7
            return Fraction(token) + Fraction(int(found[1]), int(found[2]))
        return Fraction(token)

    def name(self, token: str) -> Any:
        name = token + (self.raw() if _ACCENT.fullmatch(token) else "")
        if self.next == "_":
            self.take()
            name += "_" + self.raw()
        if name in self.values:
            return self.values[name]
        if name in (r"\pi", "e", "i"):
            mp = context()
            return {r"\pi": +mp.pi, "e": +mp.e, "i": mp.j}[name]
        if name[0] in "fghFGP" and self.next == "(":  # functions that nobody knows
            places = enumerate(map(inexact, self.bracket()))
            return context().cos(sum(x * self.value_of(f"{name}{i}") for i, x in places))
        return self.value_of(name)

    def raw(self) -> str:
        """A subscript, as text."""
        if self.take() != "{":
            return self.tokens[self.at - 1]
        begin, depth = self.at, 1
        while depth:
            depth += {"{": 1, "}": -1}.get(self.take(), 0)
        return "".join(self.tokens[begin : self.at - 1])

    def function(self, token: str) -> Any:
        named, exponent, base = _NAMED[token], Fraction(1), None
        if self.next == "_":
            self.take()
            named, base = "ln", self.applied("ln", self.group())
        if self.next == "^":
            self.take()
            exponent = self.exponent()
            if exponent == -1:
                named, exponent = "a" + named, Fraction(1)
        bracketed = self.next in _CLOSING
        value = self.applied(named, self.primary() if bracketed else self.argument(named))
        value = value if base is None else value / base
        return value if exponent == 1 else self.raised(value, exponent)

    def argument(self, named: str) -> Any:
        """Without brackets: \\ln 2 \\cdot 3 is 3 ln 2; \\sin 2x \\cos y a product; \\sin \\pi/6"""
        begin = self.at
        value = self.factors(lambda one: one in _NAMED or one in _CLOSING or one == "e")
        if named in _TRIGONOMETRIC and self.next == "/" and r"\pi" in self.tokens[begin : self.at]:
            self.take()
            value = both(operator.truediv, value, self.power())
        return value

    def repeated(self, combine: Callable[[Any, Any], Any]) -> Any:
        """\\sum_{k=1}^{20} k^2"""
        name = [self.take(*expected) for expected in ("_", "{", (), "=")][2]
        first = self.sum()
        self.take("}")
        self.take("^")
        last, begin, outer, total = self.exponent(), self.at, dict(self.values), None
        if not all(isinstance(one, Fraction) and one.denominator == 1 for one in (first, last)):
            # up to n, or to infinity: some multiple of the term
            self.values[name] = self.value_of("index")
            total = both(operator.mul, self.product(), self.value_of(f"{combine} {first} {last}"))
        else:
            _require(first <= last < first + self.steps)
            for index in range(int(first), int(last) + 1):
                self.at, self.values[name] = begin, Fraction(index)
                term = self.product()
                total = term if total is None else both(combine, total, term)
        self.values = outer
        return total

    def raised(self, base: Any, exponent: Any) -> Any:
        if isinstance(base, Fraction) and isinstance(exponent, Fraction):
            bits = max(base.numerator.bit_length(), base.denominator.bit_length())
            _require(bits <= 1 or abs(exponent) * bits <= LARGEST * 3.33)
            if exponent.denominator == 1:
                return base ** int(exponent)
            root = _exact_root(base, exponent.denominator)
            if root is not None:
                return root**exponent.numerator
        self.steps -= 5
        base, exponent = inexact(base), inexact(exponent)
        _require(base == 0 or abs(exponent) * abs(context().ln(base)) <= LARGEST * 2.3)
        return base**exponent

    def root(self, value: Any, index: Any) -> Any:
        is_odd = isinstance(index, Fraction) and index.numerator % 2 == 1
        if is_odd and value.imag == 0 > value.real:
            return -self.raised(-value, 1 / index)  # the real root
        return self.raised(value, 1 / index)

    def applied(self, named: str, value: Any) -> Any:
        self.steps -= 5
        if isinstance(value, Fraction) and named in _EXACT:
            return Fraction(_EXACT[named](value))
        value = inexact(value)
        _require(abs(value) <= _LARGEST_ARGUMENT.get(named, 1e40))
        return getattr(context(), named)(value)


def _exact_root(value: Fraction, index: int) -> Fraction | None:
    """The rational root, where there is one of reasonable size."""
    if not 0 <= value.numerator < 10**DIGITS > value.denominator or index > LARGEST:
        return None
    above, below = (int(context().nint(context().root(one, index)))
                    for one in (value.numerator, value.denominator))  # fmt: skip
    return Fraction(above, below) if Fraction(above, below) ** index == value else None
