"""Two answers -> the same? By structure, then value by value: text, exact number, formula."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

from cegppo_jax.rewards.math.notation import compact, one_notation
from cegppo_jax.rewards.math.structure import Node, is_name, read_structure
from cegppo_jax.rewards.math.units import read_quantity
from cegppo_jax.rewards.math_formula import UnreadableError, both, context, evaluate, inexact
from cegppo_jax.rewards.math_points import (
    canonical_formula,
    constant,
    point,
    same_formula,
    same_number,
)
from cegppo_jax.rewards.math_regions import canonical_region, same_region

LEAST_DIGITS = 4  # of a decimal that stands for an exact value: 1.732 for the root of 3
MOST_ITEMS = 64  # of lists compared regardless of order

_WORDS = re.compile(r"[a-zA-Z][a-zA-Z' \-]*")
_LABELLED = re.compile(r"\(?([A-J])(?:\)[.:]?|[.:](?=\D))\s*(.+)")  # "(C) 12", "C. Cecile"
_BASE = re.compile(r"\d+_(?:\d|\{\d+\})")  # 1021_3
_CHOICE = re.compile(r"\(([A-Za-z])\)")
_DECIMAL = re.compile(
    r"[-+]?(\d+)\.(\d+)(?:\s*(?:\\cdot|\\times|\*)\s*10\s*\^\s*\{?\s*(-?\d{1,3})\s*\}?)?"
)
_SCIENTIFIC = re.compile(r"^([-+]?\d+(?:\.\d+)?)[eE]([-+]?\d{1,3})$")
_TIME = re.compile(
    r"(\d{1,2}):([0-5]\d)(?::([0-5]\d))?\s*(?:(?:\\text\{)?\s*([AaPp])\.?\s*[Mm]\.?\s*\}?)?"
)
_FOR_ALL = re.compile(
    r"[,;]?\s*(?:\\text\{)?\s*(?:(?:for|where|with)\s+(?:all|any|every|each)\b|\\forall)[^=<>]*$"
)
_PARAMETER = re.compile(
    r"[,;(]?\s*(?:\\text\{)?\s*\(?(?:where|for|with)?\s*(?:any|all|some|every|each)?\s*(?:"
    r"integers?\s*\}?\s*([a-zA-Z])|\}?\s*([a-zA-Z])\s*(?:\\in\s*(?:\\mathbb)?\s*\{?Z\}?"
    r"|(?:\\text\{)?\s*(?:is |are )?(?:an |any )?integers?\s*\}?))\s*[)}]*$"
)
_PARAMETERS = re.compile(r"(?<![\\a-zA-Z])[kmnlj](?![a-zA-Z])")


def same_answer(gold: str, read: str) -> bool:
    """Gold answer, the answer read -> are they the same?

    The gold answer sets the form: x = 3 and 3 agree both ways, 2x + y = 3 and 3 do not; a decimal
    agrees with an exact value when it is that value rounded to at least LEAST_DIGITS digits; 20 %
    agrees with 20 and with 1/5. Units and degree signs may be missing on either side; where both
    have one, 5 m is 500 cm, and neither 5 cm nor 5 m^2.
    """
    left, right = one_notation(gold), one_notation(read)
    if not left or not right:
        return False
    if _text_key(left) == _text_key(right):
        return True
    families = [_PARAMETER.search(text) for text in (left, right)]
    if any(families):
        left, right = (
            _family(text, found) for text, found in zip((left, right), families, strict=True)
        )
    return any(_same(a, b) for a in _readings(left) for b in _readings(right))


def _family(text: str, declared: re.Match[str] | None) -> str:
    """ "x = n\\pi, n \\in \\mathbb{Z}" -> x = \\integer\\pi: the parameter's name says nothing."""
    name = declared[1] or declared[2] if declared else next(iter(_PARAMETERS.findall(text)), "")
    text = text[: declared.start()] if declared else text
    return re.sub(rf"(?<![\\a-zA-Z]){name}(?![a-zA-Z])", r"\\integer ", text) if name else text


@lru_cache(maxsize=8192)
def _readings(text: str) -> tuple[Node, ...]:
    """One notation -> what it may mean: a comma separates items or decimals."""
    text = _FOR_ALL.sub("", text) or text
    readings = [read_structure(text)]
    if re.fullmatch(r"[-+]?\d+,\d+", text):
        readings.append(Node("value", text.replace(",", ".")))
    if text.count(r"\pm") > 1 and readings[0].kind == "list":  # every choice of signs
        texts = [text]
        while any(r"\pm" in one for one in texts) and len(texts) < 16:
            texts = [one.replace(r"\pm", sign, 1) for one in texts for sign in "+-"]
        texts = [re.sub(r"(?<=[(,])\s*\+", "", one) for one in texts]
        readings.append(Node("list", text, tuple(map(read_structure, texts))))
    choice = _LABELLED.fullmatch(compact(text))
    if choice:
        readings += [Node("value", choice[1]), read_structure(choice[2])]
    return tuple(readings)


def canonical_answer(text: str) -> str:
    """Answer text -> its spelling for votes and reports: equal answers share one where feasible."""
    notation = one_notation(text)
    declared = _PARAMETER.search(notation)
    notation = _family(notation, declared) if declared else notation
    return _canonical(_readings(notation)[0]) or notation or text.strip()


def _canonical(node: Node) -> str:
    if node.kind == "equation" and _gives_value(node):
        return _canonical(node.items[-1])
    if node.kind == "list":
        return ", ".join(sorted(set(map(_canonical, node.items))))
    is_interval = (
        len(node.items) == 2 and node.brackets[:1] in ("(", "[") and node.text[-1:] in ")]"
    )
    if (node.kind == "region" or is_interval) and (region := canonical_region(node.text)):
        return region
    if node.kind == "ordered":
        inside = ", ".join(map(_canonical, node.items))
        return "[{}]".format(inside) if node.brackets == "matrix" else (
            node.brackets[0] + inside + node.brackets[1])  # fmt: skip
    text = read_quantity(node.text).text if node.kind == "value" else node.text
    key = _text_key(text)
    if node.kind != "value" or is_words(key) or _BASE.fullmatch(key):
        return key
    return canonical_formula(_SCIENTIFIC.sub(r"\1\\cdot 10^{\2}", text)) or compact(text)


def is_words(text: str) -> bool:
    """Is it plain words, as "odd" or "\\text{no solution}", and no formula?"""
    return bool(_WORDS.fullmatch(compact(text)))


def _text_key(text: str) -> str:
    key = _CHOICE.sub(r"\1", compact(text))
    is_long_word = len(key) > 1 and _WORDS.fullmatch(key)
    return " ".join(key.casefold().split()) if is_long_word else key


def _same(gold: Node, read: Node) -> bool:
    kinds = {gold.kind, read.kind}
    if "equation" in kinds:
        return _same_equation(gold, read)
    if kinds == {"value"}:
        return _same_value(gold.text, read.text)
    if kinds == {"ordered"}:
        if "matrix" in (gold.brackets, read.brackets) and gold.brackets != read.brackets:
            return _same_in_order(_as_vector(gold), _as_vector(read))
        return gold.brackets == read.brackets and _same_in_order(gold.items, read.items)
    if kinds == {"list"}:
        return _same_in_any_order(gold, read)
    if kinds == {"list", "ordered"} and "()" in (gold.brackets, read.brackets):
        # "1, 2" for (1, 2): brackets may be missing, and then the order counts
        if not any(node.text.startswith(("{", r"\{")) for node in (gold, read)) and (
            _same_in_order(gold.items, read.items)
        ):
            return True
    if kinds == {"list", "value"}:
        several, value = (gold, read) if gold.kind == "list" else (read, gold)
        return all(_same(value, one) for one in several.items)
    if r"\begin" in gold.text + read.text:
        return _same_matrices(gold.text, read.text)
    has_region = any(one.kind == "region" for one in (gold, read, *gold.items, *read.items))
    return has_region and same_region(gold.text, read.text)


def _as_vector(node: Node) -> tuple[Node, ...]:
    """A matrix of one row or column -> its entries; others and (1, 2): what they hold."""
    if node.brackets != "matrix":
        return node.items if node.brackets in ("()", "[]") else ()
    if all(len(row.items) == 1 for row in node.items):
        return tuple(row.items[0] for row in node.items)
    return node.items[0].items if len(node.items) == 1 else node.items


def _same_matrices(gold: str, read: str) -> bool:
    """Sums and products of matrices."""
    try:
        left, right = _matrix(gold), _matrix(read)
        return (left.rows, left.cols) == (right.rows, right.cols) and all(
            map(same_number, left, right)
        )
    except (UnreadableError, ValueError, AttributeError):
        return False


def _matrix(text: str) -> Any:
    between_and_inside = re.split(r"\\begin\{[pbB]matrix\}(.*?)\\end\{[pbB]matrix\}", text)
    total = term = None
    for sign, inside in zip(between_and_inside[::2], between_and_inside[1::2]):
        rows = [row.split("&") for row in inside.split(r"\\") if row.strip()]
        one = context().matrix(
            [[inexact(evaluate(cell, {}, point(0))) for cell in row] for row in rows]
        )
        if sign.strip() == "+":
            total, term = term if total is None else total + term, one
        else:
            term = one if term is None else term * one
    return term if total is None else total + term


def _same_equation(gold: Node, read: Node) -> bool:
    if gold.kind == read.kind:
        if _text_key(gold.items[0].text) == _text_key(read.items[0].text):
            return _same(gold.items[1], read.items[1])
        return _same_zeros(gold, read)
    if gold.kind != "equation":
        gold, read = read, gold
    return _gives_value(gold) and _same(gold.items[1], read)


def _gives_value(equation: Node) -> bool:
    """Does an equation say no more than its right side? x = 3, |AB| = 3 and 2 + 1 = 3 do not."""
    bare = re.sub(r"\\[a-zA-Z]+", "", equation.text)
    return is_name(equation.items[0].text) or not re.search(r"[a-zA-Z]", bare)


def _same_zeros(gold: Node, read: Node) -> bool:
    """x + 2y = 3 and 2x + 4y = 6: left less right side are the same but for a factor."""
    factors = []
    try:
        for number in range(3):
            left, right = (
                both(operator.sub, *(evaluate(side.text, {}, point(number)) for side in node.items))
                for node in (gold, read)
            )
            factors.append(both(operator.truediv, left, right))
    except (UnreadableError, ArithmeticError):
        return False
    return factors[0] != 0 and all(same_number(factors[0], one) for one in factors)


def _same_in_order(gold: Sequence[Node], read: Sequence[Node]) -> bool:
    return len(gold) == len(read) > 0 and all(map(_same, gold, read))


def _same_in_any_order(gold: Node, read: Node) -> bool:
    golds, reads = _flat(gold), _flat(read)
    if len(golds) != len(reads):
        # p = 5, q = 2; p = 7, q = 2 against (5, 2), (7, 2)
        if _same_in_order(_unbracketed(golds), _unbracketed(reads)):
            return True
        golds, reads = (
            [*{compact(one.text): one for one in some}.values()] for some in (golds, reads)
        )
    if len(golds) != len(reads):
        return False
    if len(golds) > MOST_ITEMS:
        return sorted(map(_canonical, golds)) == sorted(map(_canonical, reads))
    if _names(golds) and not _names(reads) or _names(reads) and not _names(golds):
        return _same_in_order(golds, reads)  # x = 1, y = 2 against 1, 2
    for one in sorted(golds, key=lambda node: node.kind == "value"):
        match = next((i for i, candidate in enumerate(reads) if _same(one, candidate)), None)
        if match is None:
            return False
        del reads[match]
    return True


def _names(items: list[Node]) -> bool:
    """Do items give values to different names?"""
    names = {
        compact(one.items[0].text).partition("_")[0] for one in items if one.kind == "equation"
    }
    return len(names) == len(items)


def _flat(several: Node) -> list[Node]:
    """Lists inside lists ("-2, 1 \\pm \\sqrt{5}") count as their items."""
    items: list[Node] = []
    for item in several.items:
        if item.kind == "equation" and item.items[1].kind == "list":
            item = item.items[1]
        items += _flat(item) if item.kind == "list" else [item]
    return items


def _unbracketed(items: list[Node]) -> list[Node]:
    return [part for one in items for part in (one.items if one.brackets == "()" else (one,))]


def _same_value(gold: str, read: str) -> bool:
    times = [_time(text) for text in (gold, read)]
    if all(times):
        return times[0] == times[1]
    left, right = read_quantity(gold), read_quantity(read)
    if left.unit and right.unit:
        if left.unit != right.unit:
            return False
        texts = [f"({one.text})\\cdot({one.size})" for one in (left, right)]
        if left.size != right.size:
            return same_formula(*texts)
    if left.degrees != right.degrees and not (left.unit or right.unit):
        angle, other = (left, right) if left.degrees else (right, left)
        if same_formula(f"({angle.text})\\cdot\\frac{{\\pi}}{{180}}", other.text):
            return True
    return _same_text(left.text, right.text)


def _same_text(gold: str, read: str) -> bool:
    """Two values without units."""
    if _text_key(gold) == _text_key(read):
        return True
    if _BASE.fullmatch(compact(gold)) or _BASE.fullmatch(compact(read)):
        return False  # the digits or the base differ
    if is_words(gold) and is_words(read) and min(len(gold), len(read)) > 1:
        return False  # words that differ; "ab" and "ba" would be products
    gold, read = (_SCIENTIFIC.sub(r"\1\\cdot 10^{\2}", text) for text in (gold, read))
    percents = [text.endswith(r"\%") for text in (gold, read)]
    gold, read = (text.removesuffix(r"\%") for text in (gold, read))
    if percents[0] == percents[1]:
        return _same_formula(gold, read)
    percent, other = (gold, read) if percents[0] else (read, gold)
    pairs = (percent, other), (percent, f"({other})\\cdot 100"), (f"({percent})/100", other)
    return any(_same_formula(*pair) for pair in pairs)


def _same_formula(gold: str, read: str) -> bool:
    if r"\integer" in gold + read and _same_family(gold, read):
        return True
    return same_formula(gold, read) or _rounds_to(gold, read) or _rounds_to(read, gold)


def _same_family(gold: str, read: str) -> bool:
    """a + bk and c - bk, for all integers k: the same numbers when b divides a - c."""
    try:
        first, second = (
            [evaluate(text, {r"\integer": Fraction(k)}, point(0)) for k in range(3)]
            for text in (gold, read)
        )
        steps = [
            [both(operator.sub, b, a) for a, b in zip(one, one[1:])] for one in (first, second)
        ]
        shift = both(operator.truediv, both(operator.sub, first[0], second[0]), steps[0][0])
    except (UnreadableError, ArithmeticError):
        return False
    linear = all(same_number(*step) for step in steps)
    nearest = Fraction(round(float(shift.real)))
    return (
        linear and same_number(abs(steps[0][0]), abs(steps[1][0])) and same_number(shift, nearest)
    )


def _rounds_to(decimal: str, formula: str) -> bool:
    """Is a written decimal the value of a formula, rounded to at least LEAST_DIGITS digits?"""
    found = _DECIMAL.fullmatch(decimal)
    if (
        not found
        or _DECIMAL.fullmatch(formula)
        or len((found[1] + found[2]).lstrip("0")) < LEAST_DIGITS
    ):
        return False
    value, written = constant(formula), constant(decimal)
    if value is None or written is None or same_number(value, Fraction(round(float(value)))):
        return False
    half_unit = Fraction(10) ** (int(found[3] or 0) - len(found[2])) / 2
    return bool(inexact(abs(both(operator.sub, written, value))) <= inexact(half_unit))


def _time(text: str) -> tuple[int, int, int] | None:
    """ "08:34 P.M." -> (20, 34, 0); None for what is no time of day."""
    found = _TIME.fullmatch(text)
    if not found or int(found[1]) > 24:
        return None
    hour = int(found[1])
    if found[4]:
        hour = hour % 12 + (12 if found[4] in "Pp" else 0)
    return hour, int(found[2]), int(found[3] or 0)
