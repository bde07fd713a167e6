"""Sets of real numbers: intervals, inequalities, unions, set-builders. The same where they hold
the same numbers, of all ends that either names, their middles and some more.
"""

from __future__ import annotations

import contextlib
import operator
import random
import re
from fractions import Fraction
from itertools import pairwise
from typing import Any

from cegppo_jax.rewards.math.notation import compact
from cegppo_jax.rewards.math.structure import parts
from cegppo_jax.rewards.math_formula import UnreadableError, evaluate, inexact
from cegppo_jax.rewards.math_points import point, same_number, spelled

_MOST_ENDS = 24
_FAR = 10**30  # stands for infinity
_RELATION = re.compile(r"(\\(?:le|ge|ne)(?![a-zA-Z])|<|>|=)")
_MEMBER = re.compile(r"^\s*(\S+?)\s*\\in(?![a-zA-Z])\s*")
_BUILDER = re.compile(r"\\\{\s*(.+?)\s*(?:\||:|;)(.*)\\\}")
_PIECE = re.compile(
    r"[\[\](),;<>|=]|\\(?:[{}]|cup|cap|le|ge|ne|in|setminus|mathbb)(?![a-zA-Z])|\b(?:and|or)\b"
)
_VARIABLE = re.compile(r"[a-zA-Z](?:_\w|_\{\w+\})?|[a-zA-Z]\(\w\)|\\(?!infty|pi)[a-z]{2,7}")
_COMPARE = {"<": operator.lt, ">": operator.gt, r"\le": operator.le, r"\ge": operator.ge}


class _Region:
    """One set of numbers, as it was written."""

    def __init__(self, text: str):
        self.text = text
        sides = [side.strip() for side in _PIECE.split(text)]
        between = [side.strip() for side in _RELATION.split(text)[::2]]
        self.variable = next((side for side in between + sides if _VARIABLE.fullmatch(side)), "")
        letters = re.findall(r"(?<![\\a-zA-Z])[a-df-hj-zA-Z](?![a-zA-Z])", text)
        if not self.variable and _RELATION.search(text):
            self.variable = letters[0] if letters else ""
        self.ends: list[Any] = []  # that it names
        for side in sides[:_MOST_ENDS]:
            if self.variable not in side or not self.variable:
                with contextlib.suppress(UnreadableError):
                    end = inexact(self._value(side, Fraction(0)))
                    self.ends += [end] if end.imag == 0 and abs(end) < _FAR else []

    def _value(self, side: str, x: Fraction) -> Any:
        if side == self.variable:
            return x
        return evaluate(side, {self.variable: x, r"\infty": Fraction(_FAR)}, point(0))

    def holds(self, x: Any, text: str | None = None) -> bool:
        """Is a number in it?"""
        text = (self.text if text is None else text).strip()
        for separator, combine in (
            (r"\\cup(?![a-zA-Z])|\bor\b", any),
            (r"\\cap(?![a-zA-Z])|\band\b|[,;]", all),
        ):
            found = parts(text, re.compile(separator))
            if len(found) > 1:
                return combine(self.holds(x, one) for one in found)
        whole, *removed = parts(text, re.compile(r"\\setminus(?![a-zA-Z])"))
        if removed:
            return self.holds(x, whole) and not any(self.holds(x, one) for one in removed)
        if builder := _BUILDER.fullmatch(text):
            return self.holds(x, builder[2])
        if member := _MEMBER.match(text):
            return self.holds(x, text[member.end() :])
        if compact(text) in (r"\mathbb{R}", r"\mathbbR", r"\emptyset"):
            return "R" in text
        if re.search(r"[<>]|\\(?:le|ge|ne)(?![a-zA-Z])", text):
            sides = _RELATION.split(text)
            values = [self._value(side.strip(), x) for side in sides[::2]]
            return all(map(self._compare, sides[1::2], values, values[1:]))
        if text.startswith((r"\{", "{")):
            return any(
                self._compare("=", self._value(one, x), x)
                for one in parts(text.strip("\\{}"), re.compile(","))
            )
        ends = parts(text[1:-1], re.compile("[,;]"))
        if len(ends) != 2 or text[0] not in "([" or text[-1] not in ")]":
            raise UnreadableError
        low, high = (self._value(one, x) for one in ends)
        return self._compare("<" if text[0] == "(" else r"\le", low, x) and (
            self._compare("<" if text[-1] == ")" else r"\le", x, high)
        )

    def _compare(self, sign: str, one: Any, other: Any) -> bool:
        if one.imag or other.imag:
            return False
        if sign in ("=", r"\ne"):
            return same_number(one, other) == (sign == "=")
        is_same = same_number(one, other)
        return (
            sign in (r"\le", r"\ge")
            if is_same
            else bool(_COMPARE[sign](inexact(one), inexact(other)))
        )


def same_region(one: str, other: str) -> bool:
    """Two texts, one of them with an inequality or a sign of sets -> the same set of numbers?"""
    left, right = _Region(one), _Region(other)
    if left.variable and right.variable and compact(left.variable) != compact(right.variable):
        return False
    marks = sorted({sign * end for end in [*left.ends, *right.ends] for sign in (1, -1)})
    drawn = random.Random(0)
    numbers = [
        *marks,
        *_between(marks),
        *(inexact(Fraction(drawn.uniform(-9, 9))) for _ in range(6)),
    ]
    try:
        if not all(left.holds(x) == right.holds(x) for x in numbers):
            return False
    except (UnreadableError, TypeError):
        return False
    # Two inequalities may name none of their ends: 2x < 4 and 4x \le 8
    strict = [
        sorted(sign in ("<", ">") for sign in _RELATION.findall(text)) for text in (one, other)
    ]
    return not (strict[0] and strict[1]) or strict[0] == strict[1]


def canonical_region(text: str) -> str | None:
    """A set of numbers -> its intervals, where it names all their ends: x > 3 -> (3, oo)"""
    region = _Region(text)
    marks = sorted(set(region.ends))
    try:
        gaps = [region.holds(x) for x in _between(marks)]
        at = [False, *map(region.holds, marks), False]
    except (UnreadableError, TypeError):
        return None
    names = ["-oo", *map(spelled, marks), "oo"]
    found, begin = [], "("
    for i, inside in enumerate(gaps):
        joined = i > 0 and gaps[i - 1] and at[i]
        begin = begin if joined else ("[" if at[i] else "(") + names[i]
        if at[i] and not inside and not gaps[i - 1]:
            found.append(f"{{{names[i]}}}")
        if inside and not (i + 1 < len(gaps) and gaps[i + 1] and at[i + 1]):
            found.append(f"{begin}, {names[i + 1]}{']' if at[i + 1] else ')'}")
    return " u ".join(found) or None


def _between(marks: list[Any]) -> list[Any]:
    """Sorted numbers -> one below, one between each two, one above."""
    if not marks:
        return [inexact(Fraction(0))]
    return [marks[0] - 1, *((a + b) / 2 for a, b in pairwise(marks)), marks[-1] + 1]
