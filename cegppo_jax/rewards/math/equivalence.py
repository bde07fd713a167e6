"""Two answers -> the same? Part by part: lists, tuples, equations, sets of numbers, formulas."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from cegppo_jax.rewards.math.formulas import (
    domain_of,
    same_value,
    same_zeros,
    spelled,
    values_at_points,
)
from cegppo_jax.rewards.math.notation import compact, one_notation
from cegppo_jax.rewards.math.parser import parse_answer
from cegppo_jax.rewards.math.regions import bracketed, is_region, same_region
from cegppo_jax.rewards.math.values import context, inexact

MOST_ITEMS = 64  # of lists compared regardless of order

_WORDS = re.compile(r"[a-zA-Z][a-zA-Z' \-]*")
_LABELLED = re.compile(r"\(?([A-J])(?:\)[.:]?|[.:](?=\D))\s*(.+)")  # "(C) 12", "C. Cecile"
_TIME = re.compile(r"(\d{1,2}):([0-5]\d)(?::([0-5]\d))?\s*(?:([AaPp])\.?\s*[Mm]\.?)?")
_CHOICE = re.compile(r"\(([A-Za-z])\)")
_FOR_ALL = re.compile(
    r"[,;]?\s*(?:\\text\{)?\s*(?:(?:for|where|with)\s+(?:all|any|every|each)\b|\\forall)[^=<>]*$"
)
_PARAMETER = re.compile(
    r"[,;(]?\s*(?:\\text\{)?\s*\(?(?:where|for|with)?\s*(?:any|all|some|every|each)?\s*(?:"
    r"integers?\b\s*\}?\s*([a-zA-Z])\b|\}?\s*(?<![a-zA-Z])([a-zA-Z])\s*(?:\\in\s*(?:\\mathbb)?\s*\{?Z\}?"
    r"|(?:\\text\{)?\s*(?:is |are )?(?:an |any )?integers?\s*\}?))\s*[)}]*$"
)
_PARAMETERS = re.compile(r"(?<![\\a-zA-Z])[kmnlj](?![a-zA-Z])")

Parts = Sequence[ast.expr]


def same_answer(gold: str, read: str) -> bool:
    """Gold answer, the answer read -> are they the same?

    The gold answer sets the form: x = 3 and 3 agree both ways, 2x + y = 3 and 3 do not; a decimal
    agrees with an exact value when it is that value rounded to at least LEAST_DIGITS digits; 20 %
    agrees with 20 and with 1/5. Units and degree signs may be missing on either side; where both
    have one, 5 m is 500 cm, and neither 5 cm nor 5 m^2.
    """
    left, right = one_notation(gold), one_notation(read)
    if not left or not right or _text_key(left) == _text_key(right):
        return bool(left and right)
    if _is_words(left) and _is_words(right):
        return False  # "on" and "no" would be products
    declared = [_PARAMETER.search(text) for text in (left, right)]
    if any(declared):
        left, right = map(_with_integer, (left, right), declared)
    return any(_same_parts(a, b) for a in _readings(left) for b in _readings(right))


def _with_integer(text: str, declared: re.Match[str] | None) -> str:
    """ "x = n\\pi, n \\in \\mathbb{Z}" -> x = \\integer\\pi: the parameter's name says nothing."""
    name = (declared[1] or declared[2]) if declared else next(iter(_PARAMETERS.findall(text)), "")
    text = text[: declared.start()] if declared else text
    return re.sub(rf"(?<![\\a-zA-Z]){name}(?![a-zA-Z])", r"\\integer ", text) if name else text


@lru_cache(maxsize=8192)
def _readings(text: str) -> tuple[Parts, ...]:
    """One notation -> what it may mean: a comma separates items or decimals, and so on."""
    text = _FOR_ALL.sub("", text) or text
    exact, approximately, _ = text.removeprefix(r"\approx").partition(r"\approx")
    if approximately and ("=" in exact or re.search(r"\d", exact)):
        text = exact  # "\frac{1}{3} \approx 0.33": the exact value
    text = text.removeprefix(r"\approx").replace(r"\approx", "=")
    signs = [text.replace(r"\pm", a).replace(r"\mp", b) for a, b in ("+-", "-+")]
    readings: list[Parts] = [_flat(parse_answer(text))]
    if r"\pm" in text:
        readings = [_once(_flat([part for one in signs for part in parse_answer(one)]))]
    if re.fullmatch(r"[-+]?\d+,\d+", text):
        readings.append(parse_answer(text.replace(",", ".")))
    if 1 < text.count(r"\pm") < 4:
        texts = [text]
        for _ in range(text.count(r"\pm")):
            texts = [one.replace(r"\pm", sign, 1) for one in texts for sign in "+-"]
        readings.append(_once(_flat([part for one in texts for part in parse_answer(one)])))
    if time := _TIME.fullmatch(re.sub(r"\\text\{|\}", "", text)):
        hour = int(time[1]) % 12 + 12 * (time[4] in "Pp") if time[4] else int(time[1])
        readings.append(parse_answer(rf"\time_{{{hour}h{time[2]}m{time[3] or '00'}}}"))
    if choice := _LABELLED.fullmatch(compact(text)):
        readings += [parse_answer(choice[1]), parse_answer(choice[2])]
    return tuple(reading for reading in readings if reading)


def _flat(parts: Parts) -> list[ast.expr]:
    """Lists inside lists, {1, 2} and "1 or 2" count as their items."""
    items: list[ast.expr] = []
    for part in parts:
        inside: Parts = []
        if isinstance(part, ast.Set):
            inside = part.elts
        elif isinstance(part, ast.BoolOp) and not is_region(part):
            inside = part.values
        elif _is_equation(part) and isinstance(part.comparators[-1], ast.Set):  # type: ignore[attr-defined]
            inside = [part.comparators[-1]]  # type: ignore[attr-defined]
        items += _flat(inside) if inside else [part]
    return items


def _once(parts: Parts) -> Parts:
    return [*{ast.dump(part): part for part in parts}.values()]


def canonical_answer(text: str) -> str:
    """Answer text -> its spelling for votes and reports: equal answers share one where feasible.

    Numbers are fractions, 2\\frac{5}{8} -> 21/8, or have 12 digits; formulas with variables are
    spelled by their values at the points: x(x+1) -> "≈ 0.123, 0.335, 0.161"
    """
    notation = one_notation(text)
    declared = _PARAMETER.search(notation)
    notation = _with_integer(notation, declared) if declared else notation
    readings = (
        () if _is_words(notation) or _CHOICE.fullmatch(compact(notation)) else _readings(notation)
    )
    if not readings:
        return _text_key(notation) or text.strip()
    return ", ".join(sorted({_canonical(part) for part in readings[0]}))


def _canonical(node: ast.expr) -> str:
    if _is_equation(node) and _gives_value(node):
        return _canonical(node.comparators[-1])  # type: ignore[attr-defined]
    brackets, parts = bracketed(node)
    if parts:
        inside = ", ".join(map(_canonical, parts))
        return f"[{inside}]" if brackets == "matrix" else brackets[0] + inside + brackets[1]
    values = values_at_points(node, domain_of(node), units=False)
    if (
        not values
        or any(hasattr(value, "rows") for value in values)
        or (isinstance(node, ast.Name) and len(values) > 1)
    ):
        return re.sub(r"\b[vuf]_", "", ast.unparse(node))
    if len(values) == 1:
        return spelled(values[0])
    return "≈ " + ", ".join(context().nstr(inexact(value), 12) for value in values)


def _is_words(text: str) -> bool:
    """Is it plain words, as "odd" or "\\text{no solution}", and no formula?"""
    return bool(_WORDS.fullmatch(compact(text))) and len(compact(text)) > 1


def _text_key(text: str) -> str:
    key = _CHOICE.sub(r"\1", compact(text))
    return " ".join(key.casefold().split()) if _is_words(key) else key


def _same_parts(golds: Parts, reads: Parts) -> bool:
    if len(golds) == len(reads) == 1:
        return _same(golds[0], reads[0])
    if 1 in (len(golds), len(reads)):
        one, several = (golds[0], reads) if len(golds) == 1 else (reads[0], golds)
        brackets, inside = bracketed(one)
        if (
            brackets == "()"
        ):  # "1, 2" for (1, 2): brackets may be missing, and then the order counts
            return _same_in_order(inside, several)
        if is_region(one) or any(map(is_region, several)):
            return same_region(one, ast.BoolOp(ast.And(), [*several]))
        return all(_same(one, other) for other in several)
    if len(golds) != len(reads):  # p = 5, q = 2; p = 7, q = 2 against (5, 2), (7, 2)
        if _same_in_order(_unbracketed(golds), _unbracketed(reads)):
            return True
        golds, reads = _once(golds), _once(reads)
    if len(golds) != len(reads):
        return False
    if _named(golds) != _named(reads):
        return _same_in_order(golds, reads)  # x = 1, y = 2 against 1, 2
    rest = [*reads]
    for one in golds if len(golds) <= MOST_ITEMS else []:
        match = next((i for i, other in enumerate(rest) if _same(one, other)), None)
        if match is None:
            return False
        del rest[match]
    return len(golds) <= MOST_ITEMS or sorted(map(_canonical, golds)) == sorted(
        map(_canonical, reads)
    )


def _same_in_order(golds: Parts, reads: Parts) -> bool:
    return len(golds) == len(reads) > 0 and all(map(_same, golds, reads))


def _unbracketed(parts: Parts) -> Parts:
    return [one for part in parts for one in (bracketed(part)[1] or [part])]


def _named(parts: Parts) -> bool:
    """Do parts give values to different names? x_1 and x_2 are roots of one equation."""
    names = {
        ast.unparse(part.left).partition("_")[2][:1]
        for part in parts
        if isinstance(part, ast.Compare)
    }
    return len(names) == len(parts)


def _same(gold: ast.expr, read: ast.expr) -> bool:
    if _is_equation(gold) or _is_equation(read):
        return _same_equation(gold, read)
    if is_region(gold) or is_region(read):
        return same_region(gold, read)
    (brackets, golds), (others, reads) = bracketed(gold), bracketed(read)
    if brackets and others:
        if "matrix" in (brackets, others) and brackets != others:
            golds, reads = _vector(golds), _vector(reads)
        elif brackets != others:
            return False
        return _same_in_order(golds, reads)
    return same_value(gold, read)


def _vector(parts: list[ast.expr]) -> list[ast.expr]:
    """A matrix of one row or column -> its entries."""
    rows = [bracketed(part)[1] for part in parts]
    if len(rows) == 1 and rows[0]:
        return rows[0]
    return [row[0] for row in rows] if all(len(row) == 1 for row in rows) else parts


def _is_equation(node: ast.expr) -> bool:
    return isinstance(node, ast.Compare) and not is_region(node)


def _gives_value(equation: Any) -> bool:
    """Does an equation say no more than its right side? x = 3, |AB| = 3 and 2 + 1 = 3 do not."""
    calls = (
        ast.unparse(one.func)[:2] for one in ast.walk(equation.left) if isinstance(one, ast.Call)
    )
    inside = re.sub(r"f_\w+\(.*?\)", "", ast.unparse(equation.left))
    is_name = all(call in ("f_", "ab") for call in calls) and not re.search(
        r"[-+]|\*\*|(?<!\w)\d", inside
    )
    return is_name or not any(isinstance(one, ast.Name) for one in ast.walk(equation))


def _same_equation(gold: Any, read: Any) -> bool:
    if _is_equation(gold) and _is_equation(read):
        if ast.dump(gold.left) == ast.dump(read.left):
            return _same(gold.comparators[-1], read.comparators[-1])
        return same_zeros(gold, read)
    equation, value = (gold, read) if _is_equation(gold) else (read, gold)
    return _gives_value(equation) and _same(equation.comparators[-1], value)
