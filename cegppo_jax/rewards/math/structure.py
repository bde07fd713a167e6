"""Answer in one notation -> what it is made of: values, lists, tuples and intervals, matrices,
equations.
"""

from __future__ import annotations

import dataclasses
import re

from cegppo_jax.rewards.math.notation import compact, split_unit


@dataclasses.dataclass(frozen=True)
class Value:
    """One value: a number, a formula, words."""

    text: str  # without its unit
    unit: str = ""


@dataclasses.dataclass(frozen=True)
class Several:
    """Values of which the order says nothing: "1 and 2", {1, 2}, the parts of a union."""

    items: tuple[Node, ...]
    kind: str  # "list" | "set" | "union"
    text: str


@dataclasses.dataclass(frozen=True)
class Ordered:
    """Values of which the order counts: (1, 2), [1, 2), a matrix or a row of one."""

    items: tuple[Node, ...]
    brackets: str  # "()", "[)", ...; "matrix"
    text: str
    variable: str = ""  # of an inequality that was read as an interval


@dataclasses.dataclass(frozen=True)
class Equation:
    """first = ... = last."""

    first: Node
    last: Node
    text: str


Node = Value | Several | Ordered | Equation

_DEEPEST = 8
_SEPARATOR = re.compile(r"\s*(?:[,;]\s*(?:and|or)\b|[,;]|(?<![a-zA-Z\\])(?:and|or)\b)\s*")
_EQUALS = re.compile(r"(?<![<>!\\:])=")
_APPROXIMATELY = re.compile(r"\\approx(?![a-zA-Z])")
_MEMBER = re.compile(r"^\s*[a-zA-Z](?:_\w|_\{\w+\})?\s*\\in(?![a-zA-Z])\s*")
_RELATION = re.compile(r"(\\le(?![a-zA-Z])|\\ge(?![a-zA-Z])|<|>)")
_MATRIX = re.compile(
    r"[(\[]?\s*\\begin\{(?:[pbBv]?matrix|smallmatrix|array)\}(?:\{[lcr| ]*\})?(.*)"
    r"\\end\{(?:[pbB]?matrix|smallmatrix|array)\}\s*[)\]]?",
    re.DOTALL,
)
_CASES = re.compile(r"\\begin\{(?:cases|aligned)\}(.*)\\end\{(?:cases|aligned)\}", re.DOTALL)
_NAME = re.compile(
    r"(?:\\(?:frac|text|overline|angle|triangle|overrightarrow|vec|hat|bar|mathbb|mathcal|operatorname"
    r"|alpha|beta|gamma|delta|theta|lambda|mu|phi|varphi|omega|sigma|tau|rho|[xyz]?eta|Delta|max|min"
    r"|arg|Pr)(?![a-zA-Z])|[a-zA-Z]|_\{?[\w+\-, ]+\}?|\([\w, \\]*\)|[{}|:, ']"
    r"|\^\{?[-1'\\circ*]+\}?)+"
)


def read_structure(text: str, depth: int = 0) -> Node:
    """Answer in one notation -> its structure.

    Worked examples: "x = 3" -> Equation(x, 3); "1, 2 and 3" -> Several; "[0, 1)" -> Ordered;
    "x > 3" -> Ordered "(3, \\infty)" in x; "\\frac{1}{2}" -> Value
    """
    text = _MEMBER.sub("", text.strip())
    if depth > _DEEPEST:
        return Value(text)
    for read in (_read_matrix, _read_list, _read_equation, _read_inequality, _read_union,
                 _read_brackets, _read_plus_minus):  # fmt: skip
        node = read(text, depth + 1)
        if node is not None:
            return node
    return Value(*split_unit(text))


def _parts(text: str, separator: re.Pattern[str]) -> list[str]:
    """Text -> its parts between separators that stand in no bracket.

    Brackets of half-open intervals close one another: "[0, 1)".
    """
    parts, start, position, depth = [], 0, 0, 0
    while position < len(text):
        character = text[position]
        if character == "\\" and position + 1 < len(text):
            if text[position + 1] in "{}":
                depth += 1 if text[position + 1] == "{" else -1
                position += 2
                continue
        elif character in "{([":
            depth += 1
        elif character in "})]":
            depth -= 1
        if depth == 0:
            found = separator.match(text, position)
            if found and found.end() > position:
                parts.append(text[start : found.start()].strip())
                start = position = found.end()
                continue
        position += 1
    return [*parts, text[start:].strip()]


def _read_list(text: str, depth: int) -> Node | None:
    if not _SEPARATOR.search(text):
        return None
    parts = [part for part in _parts(text, _SEPARATOR) if part and part != r"\text{}"]
    if len(parts) < 2:
        return None
    return Several(tuple(read_structure(part, depth) for part in parts), "list", text)


def _read_matrix(text: str, depth: int) -> Node | None:
    cases = _CASES.fullmatch(text)
    if cases:
        rows = [row.replace("&", " ").strip(" ,") for row in cases[1].split(r"\\")]
        return Several(tuple(read_structure(row, depth) for row in rows if row), "list", text)
    found = _MATRIX.fullmatch(text)
    if found is None or r"\begin" in found[1] or "vmatrix" in text:
        return None
    rows = [row.strip() for row in found[1].replace(r"\hline", "").split(r"\\")]
    return Ordered(
        tuple(
            Ordered(tuple(read_structure(c, depth) for c in row.split("&")), "matrix", row)
            for row in rows
            if row
        ),
        "matrix",
        text,
    )


def _read_equation(text: str, depth: int) -> Node | None:
    if _RELATION.search(text):
        return None
    exact, *approximations = _APPROXIMATELY.split(text)
    sides = _parts(exact, _EQUALS)
    if approximations and len(sides) == 1:
        if not is_name(sides[0]):  # "\frac{1}{3} \approx 0.33": the exact value
            return read_structure(exact, depth)
        sides.append(approximations[0])  # "x \approx 11"
    if len(sides) < 2 or not all(sides):
        return None
    first, last = (read_structure(side, depth) for side in (sides[0], sides[-1]))
    return Equation(first, last, text)


def is_name(text: str) -> bool:
    """Is it what a value is given to, as x, f(x), x_1, |AB|, \\frac{NO}{BO}, (p, q)?"""
    return bool(_NAME.fullmatch(text.strip()))


def _read_inequality(text: str, depth: int) -> Node | None:
    """ "a < x \\le b" and "x > a" -> an interval with the name of the variable."""
    parts = _RELATION.split(text)
    sides, relations = [part.strip() for part in parts[0::2]], parts[1::2]
    if len(sides) not in (2, 3) or not all(sides):
        return None
    if all(relation in (">", r"\ge") for relation in relations):
        sides.reverse()
        relations = ["<" if one == ">" else r"\le" for one in reversed(relations)]
    if not all(relation in ("<", r"\le") for relation in relations):
        return None
    if len(sides) == 2:
        is_left = _is_variable(sides[0])
        if is_left == _is_variable(sides[1]):
            return None
        sides = [r"-\infty", *sides] if is_left else [*sides, r"\infty"]
        relations = ["<", *relations] if is_left else [*relations, "<"]
    low, variable, high = sides
    if not _is_variable(variable) or _is_variable(low) or _is_variable(high):
        return None
    brackets = ("[" if relations[0] == r"\le" else "(") + ("]" if relations[1] == r"\le" else ")")
    ends = read_structure(low, depth), read_structure(high, depth)
    return Ordered(ends, brackets, text, compact(variable))


def _is_variable(text: str) -> bool:
    return bool(re.fullmatch(r"[a-zA-Z](?:_\w|_\{\w+\})?|[a-zA-Z]\(\w\)|\\[a-z]{2,7}", text)) and (
        text not in (r"\infty", r"\pi")
    )


def _read_union(text: str, depth: int) -> Node | None:
    parts = _parts(text, re.compile(r"\\cup(?![a-zA-Z])"))
    if len(parts) < 2 or not all(parts):
        return None
    return Several(tuple(read_structure(part, depth) for part in parts), "union", text)


def _read_brackets(text: str, depth: int) -> Node | None:
    """ "(1, 2)", "[0, 1)", "\\{1, 2\\}", "{1, 2}" -> what is inside, if they close one another."""
    is_set = text.startswith("\\{") and text.endswith("\\}")
    width = 2 if is_set else 1
    if len(text) < 2 * width + 1 or not (is_set or (text[0] in "([{" and text[-1] in ")]}")):
        return None
    inside = text[width:-width]
    if not _closes(inside):
        return None
    is_set = is_set or text[0] == "{"
    if is_set != (text[-1] == "}"):
        return None
    parts = _parts(inside, re.compile(r"[,;]|\s+(?:and|or)\s+" if is_set else r"[,;]"))
    if len(parts) < 2:
        if text[0] in "({" and text[-1] in ")}" and not _RELATION.search(inside):
            return read_structure(inside, depth) if parts[0] else None
        return None
    nodes = tuple(read_structure(part, depth) for part in parts)
    return Several(nodes, "set", text) if is_set else Ordered(nodes, text[0] + text[-1], text)


def _closes(inside: str) -> bool:
    depth = 0
    for character in inside:
        depth += (character in "{([") - (character in "})]")
        if depth < 0:
            return False
    return depth == 0


def _read_plus_minus(text: str, depth: int) -> Node | None:
    if not re.search(r"\\[pm][mp](?![a-zA-Z])", text):
        return None
    plus = re.sub(r"\\mp(?![a-zA-Z])", "-", re.sub(r"\\pm(?![a-zA-Z])", "+", text))
    minus = re.sub(r"\\mp(?![a-zA-Z])", "+", re.sub(r"\\pm(?![a-zA-Z])", "-", text))
    both = tuple(read_structure(one.strip().removeprefix("+"), depth) for one in (plus, minus))
    return Several(both, "list", text)
