"""Two formulas in LaTeX -> are they equal? Numbers first, then math-verify over sympy.

Nothing here uses signals or clocks, so it runs in any thread; who calls it ends what takes too
long. Formulas that could explode are never parsed (magnitude.explodes).
"""

from __future__ import annotations

import logging
import random
import re
from functools import lru_cache
from typing import Any

import sympy
from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify

from cegppo_jax.rewards.math.magnitude import explodes

# Both warn, once a process, that nobody limits their time.
for _name in ("math_verify.parser", "math_verify.grader"):
    logging.getLogger(_name).setLevel(logging.ERROR)

_LATEX = (
    LatexExtractionConfig(
        boxed_match_priority=-1,
        # Its units are letters as well: it would read 3t as 3 (tons)
        normalization_config=NormalizationConfig(
            basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none"
        ),
    ),
)
_DECIMAL = re.compile(r"(\d+)\.(\d+)")
_POINTS = 3  # at which formulas with variables are compared
_DIGITS = 30
_CLOSE = sympy.Float(10) ** -20  # times a value below 1: 2^{-100} is not 2^{-101}
_NOTHING = sympy.Float(10) ** -40  # values below it are compared as if they were it


@lru_cache(maxsize=8192)
def parse_formula(text: str) -> Any | None:
    """LaTeX without delimiters -> sympy's expression; None where it says nothing, or explodes."""
    if not text.strip() or explodes(text):
        return None
    try:
        # Timeouts of math-verify are signals, which only a main thread may set
        formula = f"${_exact_decimals(text)}$"
        found = parse(formula, _LATEX, fallback_mode="no_fallback", parsing_timeout=None)
    except Exception:  # the parser's own errors are many; none says more than "not mathematics"
        return None
    if not found or isinstance(found[0], str):
        return None
    return _with_imaginary_unit(found[0])


def _exact_decimals(text: str) -> str:
    """LaTeX -> the same with fractions for decimals, which sympy would round to 15 digits."""
    return _DECIMAL.sub(
        lambda found: rf"{{\frac{{{found[1]}{found[2]}}}{{{10 ** len(found[2])}}}}}", text
    )


def _with_imaginary_unit(expression: Any) -> Any:
    """math-verify reads the i of 2i as a variable: here it is always the root of -1."""
    if not isinstance(expression, sympy.Expr) or expression.has(sympy.Sum, sympy.Product):
        return expression
    letters = {one: sympy.I for one in expression.free_symbols if one.name == "i"}
    return expression.subs(letters) if letters else expression


def same_formula(gold: str, other: str) -> bool:
    """Two LaTeX formulas -> equal for every value of their variables? False when unreadable."""
    left, right = parse_formula(gold), parse_formula(other)
    if left is None or right is None:
        return False
    agree = _agree_at_points(left, right)
    if agree is not None:
        return agree
    try:
        return bool(verify(left, right, timeout_seconds=None))
    except Exception:  # sympy raises all kinds of errors on what it cannot compare
        return False


def constant(text: str) -> sympy.Float | None:
    """LaTeX -> its real value, to 30 digits; None for what has variables or no value."""
    value = _value(parse_formula(text), {})
    return value if isinstance(value, sympy.Float | sympy.Integer) else None


def canonical_formula(text: str) -> str | None:
    """LaTeX -> one spelling for equal formulas as far as feasible; None where it is unreadable.

    Constants become 12 digits, formulas with variables are expanded: \\frac{1}{\\sqrt{2}} and
    \\frac{\\sqrt{2}}{2} -> 0.707106781187; (x+1)^2 -> x**2 + 2*x + 1
    """
    expression = parse_formula(text)
    if expression is None:
        return None
    value = _value(expression, {})
    try:
        exact = _evaluated(expression)
        if value is not None and not exact.is_Rational:
            return str(sympy.N(value, 12))
        return str(sympy.expand(exact))
    except Exception:  # relations and sets have no expansion
        return None


def _agree_at_points(left: Any, right: Any) -> bool | None:
    """Do two formulas have the same values where both have one? None: that cannot be told.

    Cheap and decisive where simplify() may take minutes: two analytic formulas that agree to 20
    digits behind the point at three random points are the same one. Rational values must be the
    same: 2^{1000} is not 2^{1000} + 1. Points are positive, as most variables are meant to be, but
    where there is an absolute value.
    """
    if not (isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr)):
        return None
    if left.free_symbols != right.free_symbols:
        return None
    draws = random.Random(0)
    compared = 0
    signed = left.has(sympy.Abs) or right.has(sympy.Abs)
    for i in range(_POINTS if left.free_symbols else 1):
        point = {
            symbol: sympy.Rational(draws.randint(101, 1999) * (-1) ** (signed * (i + j)), 1009)
            for j, symbol in enumerate(sorted(left.free_symbols, key=str))
        }
        agree = _agree_at(left, right, point)
        if agree is False:
            return False
        compared += agree is True
    return True if compared else None


def _agree_at(left: Any, right: Any, point: dict[Any, Any]) -> bool | None:
    """Two formulas -> have they one value at a point? None where one of them has none."""
    one, other = _value(left, point), _value(right, point)
    if one is None or other is None:
        return None
    exact = [_evaluated(formula.subs(point)) for formula in (left, right)]
    if all(value.is_Rational for value in exact):
        return bool(exact[0] == exact[1])
    size = abs(one)
    if size > 1:  # as many digits behind the point as of a small value
        digits = _DIGITS + int(sympy.log(size, 10).evalf()) + 1
        one, other = _value(left, point, digits), _value(right, point, digits)
        if one is None or other is None:
            return None
    return bool(abs(one - other) <= _CLOSE * min(1, max(size, _NOTHING)))


def _evaluated(expression: Any) -> Any:
    """Sums and products worked out; integrals stay, since sympy searches minutes for a closed form
    where a numeric value takes milliseconds.
    """
    return expression if expression.has(sympy.Integral) else expression.doit()


def _value(expression: Any, point: dict[Any, Any], digits: int = _DIGITS) -> Any | None:
    """Expression -> its number at a point, real or complex; None where it has none."""
    try:
        if not isinstance(expression, sympy.Expr) or expression.free_symbols - point.keys():
            return None
        value = sympy.N(_evaluated(expression.subs(point)), digits)
        return value if value.is_number and value.is_finite else None
    except Exception:  # e.g. of integrals that do not converge
        return None
