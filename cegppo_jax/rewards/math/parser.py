"""Answer in one notation -> the tree of the same in Python, which knows precedence and brackets.

\\frac{1}{2}x -> ((1)/(2))*v_x; 5 \\text{ cm}^2 -> 5*u_cm**2; [0, 1) -> interval(0, 1, "[)")
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from cegppo_jax.rewards.math.words import table, without_words

MOST_TOKENS = 400
DEEPEST = 16  # brackets inside one another

TRIGONOMETRIC = [name + h for name in ("sin", "cos", "tan", "cot", "sec", "csc") for h in ("h", "")]
FUNCTIONS = [*("arc" + name for name in TRIGONOMETRIC), *TRIGONOMETRIC, "exp", "ln", "log", "lg",
             "abs", "floor", "ceil", "max", "min", "gcd", "lcm", "binom", "root"]  # fmt: skip


def _matrix(found: re.Match[str]) -> str:
    rows = [row.strip(" .") for row in found[1].replace(r"\hline", "").split(r"\\")]
    return "[" + ",".join("[" + row.replace("&", ",") + "]" for row in rows if row) + "]"


def _mixed(found: re.Match[str]) -> str:
    whole, above, below = found.groups()
    is_mixed = 0 < int(above) < int(below)
    return f"({whole}+{above}/{below})" if is_mixed else f"{whole}(({above})/({below}))"


def _name(found: re.Match[str]) -> str:
    return found[1] + "_" + re.sub(r"\W", "", found[2]) + " "


# Commands with their arguments, from the inside out
_BRACES = table(
    (r"\^\{\\circ\}", "° "),
    (r"(?<![\d.])(\d+)\s*\\frac\{(\d+)\}\{(\d+)\}", _mixed),
    (r"\\frac{A}(?:{A}|\s*(\w))", r"((\1)/(\2\3))"),
    (r"\\binom{A}{A}", r"\\binom(\1,\2)"),
    (r"(?<![{}])\{([^{}]*)\\choose([^{}]*)\}", r"\\binom(\1,\2)"),
    (r"\\(sum|prod)\s*\^(?:{A}|\s*(\w))\s*(_\s*\{[^{}]*\})", r"\\\1\4^{\2\3}"),
    (
        r"\\(sum|prod)\s*_\s*\{\s*([a-zA-Z])\s*=([^{}]*)\}\s*\^(?:{A}|\s*(\w))",
        r"\\\1of_\2 (\3,\4\5)",
    ),
    (r"\\sqrt\s*\[([^][{}]*)\]{A}", r"\\root(\2,\1)"),
    (r"\\sqrt{A}", r"\\root(\1,2)"),
    (r"\\log\s*_(?:{A}|(\w))", r"((1)/(\\ln(\1\2)))\\ln "),
    (rf"\\({'|'.join(TRIGONOMETRIC)})\s*\^\s*(?:\{{\s*-1\s*\}}|\(-1\))", r"\\arc\1 "),
    (rf"\\({'|'.join(FUNCTIONS[:-7])})\s*\^\s*(?:\{{\s*(\w+)\s*\}}|(\w))", r"\\\1_\2\3 "),
    (
        r"(\\(?:over(?:line|rightarrow)|vec|hat|bar|tilde|d?dot|mathcal|mathbb|boldsymbol|text)){A}",
        _name,
    ),
    (r"(?<![a-zA-Z\d])(\\?[a-zA-Z\d]+)_{A}", _name),
    (r"\^{A}", r"^(\1)"),
    (r"(?<![\w}\]^_\\])\{([^{}]*)\}", r"(\1)"),
)
_ENVIRONMENTS = table(
    (
        r"(?s)[(\[]?\s*\\begin\{(?:[pbB]?matrix|smallmatrix|array)\}(?:\{[lcr| ]*\})?"
        r"((?:(?!\\begin).)*?)"
        r"\\end\{(?:[pbB]?matrix|smallmatrix|array)\}\s*[)\]]?",
        _matrix,
    ),
    (
        r"(?s)\\begin\{(?:cases|aligned)\}((?:(?!\\begin).)*?)\\end\{(?:cases|aligned)\}",
        lambda found: re.sub(r"\\\\|,\s*\\\\", ",", found[1].replace("&", " ")).strip(" ,"),
    ),
    (r"^\s*[a-zA-Z](?:_\w|_\{\w+\})?\s*\\in(?![a-zA-Z])", ""),
    (r"\\\{\s*([^|:]+?)\s*(?:\||:)(.*)\\\}$", r"(\2)"),
)

_TOKEN = re.compile(
    r"\d++(?:\.\d*+)?(?!_)|\\?[a-zA-Z\d]+_\w+|\\[a-zA-Z]+|\\.|[a-zA-Z]{4,}|(?:and|or)\b|[^\W\d_]'*|!!|\S"
)
_OPERATORS = {
    "+": "+", "-": "-", r"\cdot": "*", r"\times": "*", "*": "*", "/": "/", r"\div": "/", ":": "/",
    "^": "**", ",": ",", ";": ",", "=": "==", "<": "<", ">": ">", r"\le": "<=", r"\ge": ">=",
    r"\ne": "!=", r"\equiv": "==", r"\cup": "|", r"\cap": "&", r"\setminus": "-",
    "and": " and ", "or": " or ",
}  # fmt: skip
_WEAKER = [sign for sign in _OPERATORS if _OPERATORS[sign] not in ("+", "-", "*", "/", "**")]
_NO_NAME = re.compile(
    r"\\(frac|sqrt|binom|begin|end|text|left|right|sim|not\w*|in|to|\w*arrow|mapsto|sub\w*|sup\w*|iff|implies"
    r"|parallel|perp|[pb]?mod|forall|exists|pm|mp|[lcv]?dots|cong|propto|quad|hline|circ)"
)
_POSTFIXES = {"!": " .factorial", "!!": " .double", r"\%": " .percent", "°": " .degrees"}
_OPENING = {"(": "(", "[": "[", r"\{": "{", r"\lfloor": "floor(", r"\lceil": "ceil(", "|": "abs("}
_CLOSING = {")": ")", "]": "]", r"\}": "}", r"\rfloor": ")", r"\rceil": ")", "|": ")"}


def _require(condition: Any) -> None:
    if not condition:
        raise ValueError


@lru_cache(maxsize=8192)
def parse_answer(text: str) -> tuple[ast.expr, ...]:
    """Answer in one notation -> the trees of its parts, which commas separate; () for prose."""
    depth = deepest = 0
    for character in text:
        depth += (character in "{([") - (character in "})]")
        deepest = max(deepest, depth)
    if deepest > DEEPEST or len(text) > 4 * MOST_TOKENS:
        return ()
    if re.fullmatch(r"(?:\(\d\)\s*){2,}", text):  # statements by their numbers, and no product
        text = ",".join(re.findall(r"\d", text))
    if text.count(":") > 1 and not re.search(r"[|=]", text):
        first, *others = text.split(":")
        text = f"(1,{','.join(f'({other})/({first})' for other in others)})"
    if re.search(r"[a-zA-Z{]", text):
        text = _without_braces(without_words(text))
    try:
        tokens = _TOKEN.findall(text)
        _require(len(tokens) <= MOST_TOKENS)
        call = ast.parse(f"answer({_python(tokens)})", mode="eval").body
        _require(isinstance(call, ast.Call) and not call.keywords)
        return tuple(call.args)  # type: ignore[attr-defined]
    except (SyntaxError, ValueError, IndexError, RecursionError, MemoryError):
        return ()


def _without_braces(text: str) -> str:
    """\\frac{1}{\\sqrt{2}} -> ((1)/(\\root(2,2)))"""
    for pattern, write in _ENVIRONMENTS:
        text = pattern.sub(write, text)
    text = re.sub(r"\s+\{", "{", text)
    if text.startswith("{") and text.endswith("}") and "," in text:
        text = "\\" + text[:-1] + r"\}"
    for _ in range(2 * DEEPEST):
        for pattern, write in _BRACES:
            text = pattern.sub(write, text)
        if "{" not in text.replace(r"\{", ""):
            break
    return re.sub(r"(?<!\\)\{", "(", re.sub(r"(?<!\\)\}", ")", text))


def _python(tokens: Sequence[str]) -> str:
    """LaTeX without braces -> Python, with signs of multiplication, brackets around arguments."""
    written: list[str] = []
    opened: list[tuple[str, int]] = []
    operand, i = "", 0  # the operand that ends here
    while i < len(tokens):
        token, i = tokens[i], i + 1
        word = token.lstrip("\\")
        if token in _OPERATORS:
            written.append(_OPERATORS[token])
            operand = ""
        elif token in _POSTFIXES:
            _require(operand)
            written.append(_POSTFIXES[token])
            operand = "!"
        elif token in _CLOSING and (token != "|" or (operand and opened and opened[-1][0] == "|")):
            opening, at = opened.pop()
            if opening + token in ("[)", "(]"):
                written[at] = "interval("
                written.append(f',"{opening}{token}")')
            else:
                written.append(_CLOSING[token])
            operand = token
        else:
            if operand:
                _require(not (token[0].isdigit() and operand[0].isdigit()))  # 1 2 is not 12
                _require(not _is_word(token) and not _is_word(operand))
                written.append("*")
            operand = "^" if written[-1:] == ["**"] else token
            if token in _OPENING:
                opened.append((token, len(written)))
                written.append(_OPENING[token])
                operand = ""
            elif re.fullmatch(r"\d+(\.\d*)?", token):
                whole, _, decimals = token.partition(".")
                digits = str(int(whole + decimals))
                written.append(f"decimal({digits},{len(decimals)})" if decimals else digits)
            elif token[0] == "\\" and word.partition("_")[0] in FUNCTIONS:
                end = i if tokens[i : i + 1] == ["("] else _end_of_argument(tokens, i)
                written.append(word + (f"({_python(tokens[i:end])})" if end > i else ""))
                operand, i = (")" if end > i else ""), end
            elif token.startswith((r"\sumof_", r"\prodof_")) and tokens[i : i + 1] == ["("]:
                limits, end = _end_of_bracket(tokens, i), _end_of_term(tokens, i)
                sign, _, index = word.partition("_")
                body = _python(tokens[limits:end])
                written.append(f"{sign}(v_{index},{_python(tokens[i + 1 : limits - 1])},{body})")
                operand, i = ")", end
            elif token in ("f", "g", "h", "F", "G", "P") and tokens[i : i + 1] == ["("]:
                written.append("f_" + token)
                operand = ""
            else:
                _require(word[:1].isalnum() and not _NO_NAME.fullmatch(token))
                name = re.sub(r"\W", "_", word)
                written.append(re.sub("^v_unit_", "u_", f"v_{name}"))
    return "".join(written)


def _is_word(token: str) -> bool:
    return token.startswith(r"\text_") or (len(token) > 3 and token.isalpha())


def _end_of_argument(tokens: Sequence[str], i: int) -> int:
    """Without brackets it ends at a sign, function or bracket: \\ln 2 \\cdot 3 is 3 ln 2."""
    begin, i = i, i + (tokens[i : i + 1] == ["-"])
    if tokens[i : i + 1] and tokens[i].lstrip("\\") in FUNCTIONS:
        is_call = tokens[i + 1 : i + 2] == ["("]
        return _end_of_bracket(tokens, i + 1) if is_call else _end_of_argument(tokens, i + 1)
    if tokens[i : i + 1] and tokens[i] in _OPENING:
        i = _end_of_bracket(tokens, i)
    while (
        i < len(tokens)
        and tokens[i] not in (*_OPERATORS, *_OPENING, *_CLOSING, *_POSTFIXES, "e")
        and (tokens[i].lstrip("\\").partition("_")[0] not in FUNCTIONS)
    ):
        i += 1
        if tokens[i : i + 1] == ["^"]:
            i = _end_of_bracket(tokens, i + 1) if tokens[i + 1 : i + 2] == ["("] else i + 2
        i += tokens[i : i + 1] == ["°"]
    return i + 2 if tokens[i : i + 1] == ["/"] and r"\pi" in tokens[begin:i] else i


def _end_of_term(tokens: Sequence[str], i: int) -> int:
    """A sum's term ends at a plus, a minus or what binds less: \\sum k + 1 is 1 + \\sum k."""
    while i < len(tokens) and tokens[i] not in ("+", "-", *_CLOSING, *_WEAKER):
        i = _end_of_bracket(tokens, i) if tokens[i] in "([" else i + 1
    return i


def _end_of_bracket(tokens: Sequence[str], i: int) -> int:
    depth = 0
    for i in range(i, len(tokens)):  # noqa: B020
        depth += (tokens[i] in "([") - (tokens[i] in ")]")
        if depth == 0:
            return i + 1
    raise ValueError
