"""Answer in one notation -> what it is made of: values, lists, tuples, matrices, equations, sets."""

from __future__ import annotations

import dataclasses
import re

from cegppo_jax.rewards.math.notation import compact


@dataclasses.dataclass(frozen=True)
class Node:
    """A part of an answer."""

    kind: str  # "value" | "list" | "ordered" | "equation" | "region"
    text: str
    items: tuple[Node, ...] = ()  # of a list, in brackets, or the sides of an equation
    brackets: str = ""  # of "ordered": "()", "[)", ...; "matrix"


_DEEPEST = 8
_SEPARATOR = re.compile(r"\s*(?:[,;]\s*(?:and|or)\b|[,;]|(?<![a-zA-Z\\])(?:and|or)\b)\s*")
_EQUALS = re.compile(r"(?<![<>!\\:])=")
_RELATION = re.compile(r"(\\(?:le|ge|ne)(?![a-zA-Z])|<|>)")
_SET_SIGN = re.compile(r"\\(?:cup|cap|setminus|mathbb)(?![a-zA-Z])")
_MEMBER = re.compile(r"^\s*[a-zA-Z](?:_\w|_\{\w+\})?\s*\\in(?![a-zA-Z])\s*")
_BUILDER = re.compile(r"\\\{\s*([^|:]+?)\s*(?:\||:)(.*)\\\}$")
_MATRIX = re.compile(
    r"[(\[]?\s*\\begin\{(?:[pbB]?matrix|smallmatrix|array)\}(?:\{[lcr| ]*\})?((?:(?!\\begin).)*)"
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


def is_name(text: str) -> bool:
    """Is it what a value is given to, as x, f(x), x_1, |AB|, \\frac{NO}{BO}, (p, q)?"""
    return bool(_NAME.fullmatch(text.strip()))


def read_structure(text: str, depth: int = 0) -> Node:
    """Answer in one notation -> its structure.

    Worked examples: "x = 3" -> equation of x and 3; "1, 2 and 3" -> list; "[0, 1)" -> ordered;
    "x > 3", "(0,1) \\cup (2,3)", "\\{x | x > 3\\}" -> regions; "\\frac{1}{2}" -> value
    """
    text = _MEMBER.sub("", text.strip())
    if depth <= _DEEPEST:
        for read in (_read_matrix, _read_list, _read_region, _read_equation,
                     _read_brackets):  # fmt: skip
            node = read(text, depth + 1)
            if node is not None:
                return node
    return Node("value", text)


def _all(kind: str, texts: list[str], text: str, depth: int, brackets: str = "") -> Node:
    return Node(kind, text, tuple(read_structure(one, depth) for one in texts), brackets)


def parts(text: str, separator: re.Pattern[str]) -> list[str]:
    """Text -> its parts between separators that stand in no bracket.

    Brackets of half-open intervals close one another: "[0, 1)".
    """
    found, start, depth, depths = [], 0, 0, []
    for character in text:
        depth += (character in "{([") - (character in "})]")
        depths.append(depth)
    for match in separator.finditer(text):
        if match.end() > match.start() >= start and not depths[match.start() - 1] * match.start():
            found.append(text[start : match.start()].strip())
            start = match.end()
    return [*found, text[start:].strip()]


def _read_list(text: str, depth: int) -> Node | None:
    found = [part for part in parts(text, _SEPARATOR) if part and part != r"\text{}"]
    return _all("list", found, text, depth) if len(found) > 1 else None


def _read_matrix(text: str, depth: int) -> Node | None:
    if cases := _CASES.fullmatch(text):
        rows = [row.replace("&", " ").strip(" ,") for row in cases[1].split(r"\\")]
        return _all("list", [row for row in rows if row], text, depth)
    found = _MATRIX.fullmatch(text)
    if found is None:
        return None
    rows = [row.strip() for row in found[1].replace(r"\hline", "").split(r"\\")]
    cells = tuple(_all("ordered", row.split("&"), row, depth, "matrix") for row in rows if row)
    return Node("ordered", text, cells, "matrix")


def _read_region(text: str, depth: int) -> Node | None:
    is_region = _RELATION.search(text) or _SET_SIGN.search(text) or _BUILDER.fullmatch(text)
    return Node("region", text) if is_region and r"\begin" not in text else None


def _read_equation(text: str, depth: int) -> Node | None:
    exact, *approximations = re.split(r"\\approx(?![a-zA-Z])", text)
    sides = parts(exact, _EQUALS)
    if approximations and len(sides) == 1:
        if not is_name(sides[0]):  # "\frac{1}{3} \approx 0.33": the exact value
            return read_structure(exact, depth)
        sides.append(approximations[0])  # "x \approx 11"
    if len(sides) < 2 or not all(sides):
        return None
    return _all("equation", [sides[0], sides[-1]], text, depth)


def _read_plus_minus(text: str, depth: int) -> Node | None:
    if not re.search(r"\\[pm][mp](?![a-zA-Z])", text):
        return None
    signs = {r"\pm": "+-", r"\mp": "-+"}
    both = [
        re.sub(r"\\(?:pm|mp)(?![a-zA-Z])", lambda sign, i=i: signs[sign[0]][i], text).strip()  # type: ignore[misc]
        for i in (0, 1)
    ]
    return _all("list", [one.removeprefix("+") for one in both], text, depth)


def _read_brackets(text: str, depth: int) -> Node | None:
    """ "(1, 2)", "[0, 1)", "\\{1, 2\\}", "{1, 2}" -> what is inside, if they close one another."""
    is_set = text.startswith(("\\{", "{")) and text.endswith("}")
    inside = re.sub(r"^\\?\{|\\?\}$", "", text) if is_set else text[1:-1]
    if not inside or not (is_set or (text[0] in "([" and text[-1] in ")]")) or not _closes(inside):
        return _read_plus_minus(text, depth)
    found = parts(inside, _SEPARATOR if is_set else re.compile("[,;]"))
    if is_set and len(found) > 1:
        return _all("list", found, text, depth)
    if listed := _read_plus_minus(text if not is_set else inside, depth):
        return listed
    if len(found) > 1:
        return _all("ordered", found, text, depth, text[0] + text[-1])
    return read_structure(inside, depth) if text[0] != "[" and text[-1] != "]" else None


def _closes(inside: str) -> bool:
    depth = 0
    for character in inside:
        depth += (character in "{([") - (character in "})]")
        if depth < 0:
            return False
    return depth == 0
