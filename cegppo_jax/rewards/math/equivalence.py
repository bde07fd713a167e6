"""Two answers -> the same? By structure, then value by value: text, exact number, formula."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

import sympy

from cegppo_jax.rewards.math.notation import (
    Number,
    compact,
    one_notation,
    read_decimal_comma,
    read_number,
    read_time,
)
from cegppo_jax.rewards.math.structure import (
    Equation,
    Node,
    Ordered,
    Several,
    Value,
    is_name,
    read_structure,
)
from cegppo_jax.rewards.math.symbolic import canonical_formula, constant, same_formula

LEAST_DIGITS = 4  # of a decimal that stands for an exact value: 1.732 for the root of 3
MOST_ITEMS = 64  # of lists compared regardless of order

_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_WORDS = re.compile(r"[a-zA-Z][a-zA-Z' \-]*")
_LABELLED = re.compile(r"\(?([A-J])(?:\)[.:]?|[.:](?=\D))\s*(.+)")  # "(C) 12", "C. Cecile"
_BASE = re.compile(r"\d+_(?:\d|\{\d+\})")  # 1021_3
_CHOICE = re.compile(r"\(([A-Za-z])\)")


def same_answer(gold: str, other: str) -> bool:
    """Gold answer, another -> are they the same answer?

    The gold answer sets the form: x = 3 and 3 agree both ways, 2x + y = 3 and 3 do not; a decimal
    agrees with an exact value when it is that value rounded to at least LEAST_DIGITS digits; 20 %
    agrees with 20 and with 1/5. Units and degree signs may be missing on either side.
    """
    left, right = one_notation(gold), one_notation(other)
    if not left or not right:
        return False
    if _text_key(left) == _text_key(right):
        return True
    return any(same(a, b) for a in _readings(left) for b in _readings(right))


@lru_cache(maxsize=8192)
def _readings(text: str) -> tuple[Node, ...]:
    """One notation -> what it may mean: a comma separates thousands, items or decimals."""
    if _THOUSANDS.fullmatch(text):
        items = tuple(Value(part) for part in text.split(","))
        return Value(text), Several(items, "list", text)
    readings = [read_structure(text)]
    if read_decimal_comma(text) is not None:
        readings.append(Value(text.replace(",", ".")))
    choice = _LABELLED.fullmatch(compact(text))
    if choice:
        readings += [Value(choice[1]), read_structure(choice[2])]
    return tuple(readings)


def canonical_answer(text: str) -> str:
    """Answer text -> its spelling for votes and reports: equal answers share one where feasible."""
    notation = one_notation(text)
    return _canonical(_readings(notation)[0]) or notation or text.strip()


def _canonical(node: Node) -> str:
    if isinstance(node, Equation):
        return _canonical(node.last if is_name(_source(node.first)) else Value(node.text))
    if isinstance(node, Several):
        return ", ".join(sorted(map(_canonical, node.items)))
    if isinstance(node, Ordered):
        inside = ", ".join(map(_canonical, node.items))
        brackets = "[]" if node.brackets == "matrix" else node.brackets
        return f"{brackets[0]}{inside}{brackets[1]}"
    number = read_number(node.text)
    if number is not None:
        return str(number.value)
    if is_words(node.text) or _BASE.fullmatch(compact(node.text)):
        return _text_key(node.text)
    return canonical_formula(node.text) or compact(node.text)


def is_words(text: str) -> bool:
    """Is it plain words, as "odd" or "\\text{no solution}", and no formula?"""
    return bool(_WORDS.fullmatch(compact(text)))


def _text_key(text: str) -> str:
    key = _CHOICE.sub(r"\1", compact(text))
    is_long_word = len(key) > 1 and _WORDS.fullmatch(key)
    return " ".join(key.casefold().split()) if is_long_word else key


def same(gold: Node, other: Node) -> bool:
    """Two structures -> the same answer?"""
    if isinstance(gold, Equation) or isinstance(other, Equation):
        return _same_equation(gold, other)
    if isinstance(gold, Value) and isinstance(other, Value):
        return _same_value(gold, other)
    if isinstance(gold, Ordered) and isinstance(other, Ordered):
        if "matrix" in (gold.brackets, other.brackets) and gold.brackets != other.brackets:
            return _same_in_order(_as_vector(gold), _as_vector(other))
        return (
            gold.brackets == other.brackets
            and (gold.variable == other.variable or not (gold.variable and other.variable))
            and _same_in_order(gold.items, other.items)
        )
    if isinstance(gold, Several) and isinstance(other, Several):
        return _same_in_any_order(gold, other)
    if isinstance(gold, Several | Ordered) and isinstance(other, Several | Ordered):
        # "1, 2" for (1, 2): brackets may be missing, and then the order counts
        if {_brackets(gold), _brackets(other)} == {"()", "list"}:
            return _same_in_order(gold.items, other.items)
        return _same_relation(gold, other)
    return _same_relation(gold, other)


def _as_vector(node: Ordered) -> tuple[Node, ...]:
    """A matrix of one row or column -> its entries; others and (1, 2): what they hold."""
    if node.brackets != "matrix":
        return node.items if node.brackets in ("()", "[]") else ()
    rows = [row.items for row in node.items if isinstance(row, Ordered)]
    if all(len(row) == 1 for row in rows):
        return tuple(row[0] for row in rows)
    return rows[0] if len(rows) == 1 else node.items


def _brackets(node: Several | Ordered) -> str:
    return node.kind if isinstance(node, Several) else node.brackets


def _source(node: Node) -> str:
    return node.text


def _same_relation(gold: Node, other: Node) -> bool:
    """A relation against a set, "1 < |x| < 2", or a sum of matrices against a matrix: sympy's
    business, and nothing else is.
    """
    signs = ("<", ">", r"\le", r"\ge", r"\begin")
    if not any(sign in _source(gold) + _source(other) for sign in signs):
        return False
    return same_formula(_source(gold), _source(other))


def _same_equation(gold: Node, other: Node) -> bool:
    if isinstance(gold, Equation) and isinstance(other, Equation):
        names = [_text_key(_source(side)) for side in (gold.first, other.first)]
        if names[0] == names[1]:
            return same(gold.last, other.last)
        return same_formula(gold.text, other.text)
    if isinstance(gold, Equation):
        return is_name(_source(gold.first)) and same(gold.last, other)
    assert isinstance(other, Equation)
    first = _source(other.first)
    return (is_name(first) or not re.search(r"[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", first))) and (
        same(gold, other.last)
    )


def _same_in_order(gold: tuple[Node, ...], other: tuple[Node, ...]) -> bool:
    return len(gold) == len(other) and all(map(same, gold, other))


def _same_in_any_order(gold: Several, other: Several) -> bool:
    golds, others = _flat(gold), _flat(other)
    if len(golds) != len(others):
        # p = 5, q = 2; p = 7, q = 2 against (5, 2), (7, 2)
        if _same_in_order(_unbracketed(golds), _unbracketed(others)):
            return True
        golds, others = _without_repeats(golds), _without_repeats(others)
        if len(golds) != len(others):
            return False
    if len(golds) > MOST_ITEMS:
        return sorted(map(_canonical, golds)) == sorted(map(_canonical, others))
    rest = list(others)
    for one in sorted(golds, key=lambda node: isinstance(node, Value)):
        match = next((i for i, candidate in enumerate(rest) if same(one, candidate)), None)
        if match is None:
            return False
        del rest[match]
    return True


def _flat(several: Several) -> list[Node]:
    """Lists inside lists ("-2, 1 \\pm \\sqrt{5}") count as their items."""
    items: list[Node] = []
    for item in several.items:
        if isinstance(item, Equation) and isinstance(item.last, Several):
            item = item.last
        items += _flat(item) if isinstance(item, Several) else [item]
    return items


def _without_repeats(items: list[Node]) -> list[Node]:
    return list({compact(_source(item)): item for item in items}.values())


def _unbracketed(items: list[Node]) -> tuple[Node, ...]:
    return tuple(
        part
        for item in items
        for part in (item.items if isinstance(item, Ordered) and item.brackets == "()" else (item,))
    )


def _same_value(gold: Value, other: Value) -> bool:
    if gold.unit and other.unit and gold.unit != other.unit:
        return False
    if _text_key(gold.text) == _text_key(other.text):
        return True
    if _BASE.fullmatch(compact(gold.text)) or _BASE.fullmatch(compact(other.text)):
        return False  # the digits or the base differ
    left, right = read_number(gold.text), read_number(other.text)
    if left is not None and right is not None:
        return _same_number(left, right)
    times = read_time(gold.text), read_time(other.text)
    if times[0] is not None and times[1] is not None:
        return times[0] == times[1]
    if is_words(gold.text) and is_words(other.text) and min(len(gold.text), len(other.text)) > 1:
        return False  # words that differ; "ab" and "ba" are products for sympy
    if left is not None and left.decimals:
        return _rounds_to(left, constant(other.text))
    if right is not None and right.decimals:
        return _rounds_to(right, constant(gold.text))
    return same_formula(gold.text, other.text)


def _same_number(gold: Number, other: Number) -> bool:
    if gold.value == other.value:
        return True
    if gold.percent != other.percent:
        scale = Fraction(100) if gold.percent else Fraction(1, 100)
        if gold.value * scale == other.value:
            return True
    for decimal, exact in ((gold, other), (other, gold)):
        if decimal.decimals and not exact.decimals and exact.value.denominator > 1:
            return _rounds_to(decimal, exact.value)
    return False


def _rounds_to(decimal: Number, exact: Fraction | sympy.Float | None) -> bool:
    """Is a written decimal the exact value, rounded to at least LEAST_DIGITS digits?"""
    if exact is None:
        return False
    if not isinstance(exact, Fraction):
        exact = Fraction(str(sympy.N(exact, 25)))
    value = decimal.value * 100 if decimal.percent else decimal.value
    gap = abs(value - (exact * 100 if decimal.percent else exact))
    if gap <= abs(exact) / 10**20:
        return True
    half_unit = Fraction(1, 2 * 10**decimal.decimals)
    return decimal.digits >= LEAST_DIGITS and gap <= half_unit
