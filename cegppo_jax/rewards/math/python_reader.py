"""Answer in one notation -> the tree of the same in Python, which knows precedence and brackets.

\\frac{1}{2}x -> ((1)/(2))*v_x; 5 \\text{ cm}^2 -> 5*u_cm**2; [0, 1) -> interval(0, 1, "[)")
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

MOST_TOKENS = 400
DEEPEST = 16  # brackets inside one another

TRIGONOMETRIC = [name + h for name in ("sin", "cos", "tan", "cot", "sec", "csc") for h in ("h", "")]
FUNCTIONS = [*("arc" + name for name in TRIGONOMETRIC), *TRIGONOMETRIC, "exp", "ln", "log", "lg",
             "abs", "floor", "ceil", "max", "min", "gcd", "lcm", "binom", "root"]  # fmt: skip

# Dimension, size and names of units
_UNITS = """length 1 m meter metre|length 0.0254 in inch inche|length 0.3048 ft foot feet
|length 0.9144 yd yard|length 1609.344 mi mile|mass 1 g gram gramme|mass 453.59237 lb pound
|mass 28.349523125 oz ounce|mass 1000000 ton tonne|volume 1 l liter litre|volume 3.785411784 gal gallon
|time 1 s sec second|time 60 min minute|time 3600 h hr hour|time 86400 day|time 604800 week wk
|month 1 month|month 12 year yr|money 100 dollar|money 1 cent|euro 1 euro|yuan 1 yuan
|celsius 1 celsius|fahrenheit 1 fahrenheit|speed 1 mph"""
_PREFIXES = {"k": 1000, "kilo": 1000, "c": "0.01", "centi": "0.01", "m": "0.001", "milli": "0.001",
             "d": "0.1", "deci": "0.1"}  # fmt: skip
UNITS = {
    word: (dimension, Fraction(size))
    for dimension, size, *words in (row.split() for row in _UNITS.split("|"))
    for word in words
}
for _prefix, _scale in _PREFIXES.items():
    for _word in (
        ("m", "g", "l") if len(_prefix) == 1 else ("meter", "metre", "gram", "liter", "litre")
    ):
        UNITS[_prefix + _word] = (UNITS[_word][0], UNITS[_word][1] * Fraction(_scale))
_KNOWN = "|".join(sorted((word for word in UNITS if len(word) > 1), key=len, reverse=True))

_SCALES = {
    "hundred": Fraction(100), "thousand": Fraction(1000), "million": Fraction(10**6),
    "billion": Fraction(10**9), "trillion": Fraction(10**12), "dozen": Fraction(12),
    "halve": Fraction(1, 2), "half": Fraction(1, 2), "quarter": Fraction(1, 4),
    **{word: Fraction(1, n) for n, word in enumerate(
        ["third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"], start=3)},
    "hundredth": Fraction(1, 100), "thousandth": Fraction(1, 1000),
}  # fmt: skip
_COUNTED = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
            "eleven", "twelve"]  # fmt: skip
_ORDINALS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth",
             "tenth"]  # fmt: skip
# Words that make another value of a number, so that they are no unit
_CHANGES = re.compile(
    r"(?i)\b(?:not|wrong|incorrect|false|or|and|except|less|more|fewer|least|most|than|greater|larger"
    r"|smaller|higher|lower|below|above|under|over|beyond|before|after|of|times|twice|double|triple|half"
    r"|between|modulo|mod|plus|minus|negative|squared|cubed|factorial|inverse|reciprocal|minimum|maximum"
    r"|up|upwards|onwards|short|off|power|root|percent|divided|multiplied|if|unless|base|[ap]\.? ?m)\b"
)


def _scaled(found: re.Match[str]) -> str:
    """ "3.5 million" -> 3500000; "2 thirds" -> \\frac{2}{3}"""
    value = Fraction(found[1]) * _SCALES[found[2].lower()]
    if value.denominator == 1:
        return str(value)
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def _with_unit(found: re.Match[str]) -> str:
    """Words behind a value -> what they say: " square feet" -> *\\unit_ft^2; unknown words nothing."""
    if _CHANGES.search(found[0]):
        return found[0]
    written, sign, power = "", "*", ""
    for word in re.findall(r"[a-z]+|/", found[0].replace(r"\text", "").lower()):
        unit = word if word in UNITS else word.removesuffix("s")
        if word in ("/", "per"):
            sign = "/"
        elif word in ("square", "sq", "cubic", "cu"):
            power = "^2" if word[0] == "s" else "^3"
        elif unit in UNITS:
            written, sign, power = written + sign + r"\unit_" + unit + power, "*", ""
    return written + " "


def _matrix(found: re.Match[str]) -> str:
    rows = [row.strip(" .") for row in found[1].replace(r"\hline", "").split(r"\\")]
    return "[" + ",".join("[" + row.replace("&", ",") + "]" for row in rows if row) + "]"


def _mixed(found: re.Match[str]) -> str:
    whole, above, below = found.groups()
    is_mixed = 0 < int(above) < int(below)
    return f"({whole}+{above}/{below})" if is_mixed else f"{whole}(({above})/({below}))"


def _name(found: re.Match[str]) -> str:
    return found[1] + "_" + re.sub(r"\W", "", found[2]) + " "


def _table(*rows: tuple[str, Any]) -> list[tuple[re.Pattern[str], Any]]:
    return [
        (re.compile(pattern.replace("{A}", r"\s*\{([^{}]*)\}")), write) for pattern, write in rows
    ]


# Of a whole value in words
_WORDS = _table(
    (r"(?i)^(?:negative|minus) (?=[\w\\])", "-"),
    (r"(?i)^(?:about|approximately|approx\.?|roughly|around|exactly) (?=[-\d\\])", ""),
    (rf"(?i)^(-?)({'|'.join(reversed(_COUNTED))})\b",
     lambda found: found[1] + str(_COUNTED.index(found[2].lower()))),
    (rf"(?i)^(?:the )?({'|'.join(_ORDINALS)})$",
     lambda found: str(_ORDINALS.index(found[1].lower()) + 1)),
    (rf"(?i)^(-?\d+(?:\.\d+)?) ?-?({'|'.join(_SCALES)})s?\b", _scaled),
    (r"^(-?\d+(?:\.\d+)?)[eE]([-+]?\d{1,3})$", r"\1\\cdot 10^{\2}"),
    (r"(?i)^(\S+) squared$", r"(\1)^2"),
    (r"(?i)^(\S+) cubed$", r"(\1)^3"),
    (r"(?i)^(\S+) factorial$", r"(\1)!"),
    (r"^(\d+) ?(?:\^ ?\{? ?)?(?:st|nd|rd|th) ?\}?$", r"\1"),
)  # fmt: skip
_BEFORE = re.compile(r"^\\text\{([^{}]*)\}\s*(?=[-\d\\(\[])(?!\\text)")
_BEHIND = _table(
    (r"(?<=[\d})])\s*(?:\\text\{\s*)?\bdegrees?\b(?:\s*\})?", "° "),
    (r"(?<=[^\s+\-*/=(,<>{^_\\])\s*(?:/\s*)?\\text\{[^{}]*\}", _with_unit),
    (r"(?<=\d) ?(?!and\b|or\b)[a-zA-Z]{3,}(?:[ ./]+(?!and\b|or\b)[a-zA-Z]+)*$", _with_unit),
    (
        rf"(?:(?<=[\d}})])|(?<=\\pi)) *(?:(?:square|cubic|sq\.?|cu\.?) )?(?:{_KNOWN})s?(?![a-zA-Z])\.?"
        rf"(?: ?(?:/|per) ?(?:{_KNOWN}|[mgslh])s?(?![a-zA-Z]))?",
        _with_unit,
    ),
    (r"(?<=\d) [mgslh](?: ?/ ?[mgslh])?(?=\s*(?:$|\^|[,;)]))", _with_unit),
)
# Commands with their arguments, from the inside out
_BRACES = _table(
    (r"\^\{\\circ\}", "° "),
    (r"(?<![\d.])(\d+)\s*\\frac\{(\d+)\}\{(\d+)\}", _mixed),
    (r"\\frac{A}(?:{A}|\s*(\w))", r"((\1)/(\2\3))"),
    (r"\\binom{A}{A}", r"\\binom(\1,\2)"),
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
_ENVIRONMENTS = _table(
    (
        r"(?s)[(\[]?\s*\\begin\{(?:[pbB]?matrix|smallmatrix|array)\}(?:\{[lcr| ]*\})?((?:(?!\\begin).)*?)"
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
    r"\ne": "!=", r"\equiv": "==", r"\cup": "|", r"\cap": "&", r"\setminus": "-", "and": " and ", "or": " or ",
}  # fmt: skip
_NO_NAME = re.compile(
    r"\\(frac|sqrt|binom|begin|end|text|left|right|sim|not\w*|in|to|\w*arrow|mapsto|sub\w*|sup\w*|iff|implies"
    r"|parallel|perp|[pb]?mod|forall|exists|pm|mp|[lcv]?dots|cong|propto|quad|hline|circ)"
)
_POSTFIXES = {"!": " .factorial", "!!": " .double", r"\%": " .percent", "°": " .degrees"}
_OPENING = {"(": "(", "[": "[", r"\{": "{", r"\lfloor": "floor(", r"\lceil": "ceil(", "|": "abs("}
_CLOSING = {")": ")", "]": "]", r"\}": "}", r"\rfloor": ")", r"\rceil": ")", "|": ")"}


class _NoFormulaError(Exception):
    pass


def _require(condition: Any) -> None:
    if not condition:
        raise _NoFormulaError


@lru_cache(maxsize=8192)
def read_answer(text: str) -> tuple[ast.expr, ...]:
    """Answer in one notation -> the trees of its parts, which commas separate; () where it is none."""
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
        text = _without_braces(_without_words(text))
    try:
        tokens = _TOKEN.findall(text)
        _require(len(tokens) <= MOST_TOKENS)
        call = ast.parse(f"answer({_python(tokens)})", mode="eval").body
        _require(isinstance(call, ast.Call) and not call.keywords)
        return tuple(call.args)  # type: ignore[attr-defined]
    except (_NoFormulaError, SyntaxError, ValueError, IndexError, RecursionError, MemoryError):
        return ()


def _without_words(text: str) -> str:
    """ "negative 7" -> -7; "3 million" -> 3000000; "5 square feet" -> 5*\\unit_ft^2"""
    words = " ".join(re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text).split())
    for pattern, write in _WORDS:
        changed = pattern.sub(write, words)
        text, words = (changed, changed) if changed != words else (text, words)
    before = _BEFORE.match(text)
    text = text[before.end() :] if before and not _CHANGES.search(before[1]) else text
    text = re.sub(r"[,;]\s*(and|or)\b", r" \1 ", text)
    for pattern, write in _BEHIND:
        text = pattern.sub(write, text)
    return text


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
    """LaTeX without braces -> Python, with signs of multiplication and brackets around arguments."""
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
                written.append(
                    f"decimal({int(whole + decimals)},{len(decimals)})"
                    if decimals
                    else str(int(whole))
                )
            elif token[0] == "\\" and word.partition("_")[0] in FUNCTIONS:
                end = i if tokens[i : i + 1] == ["("] else _end_of_argument(tokens, i)
                written.append(word + (f"({_python(tokens[i:end])})" if end > i else ""))
                operand, i = (")" if end > i else ""), end
            elif token in ("f", "g", "h", "F", "G", "P") and tokens[i : i + 1] == ["("]:
                written.append("f_" + token)
                operand = ""
            else:
                _require(word[:1].isalnum() and not _NO_NAME.fullmatch(token))
                written.append(
                    ("u" if word.startswith("unit_") else "v_")
                    + re.sub(r"\W", "_", word.removeprefix("unit"))
                )
    return "".join(written)


def _is_word(token: str) -> bool:
    return token.startswith(r"\text_") or (len(token) > 3 and token.isalpha())


def _end_of_argument(tokens: Sequence[str], i: int) -> int:
    """Without brackets, an argument ends at a sign, function or bracket: \\ln 2 \\cdot 3 is 3 ln 2."""
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


def _end_of_bracket(tokens: Sequence[str], i: int) -> int:
    depth = 0
    for i in range(i, len(tokens)):  # noqa: B020
        depth += (tokens[i] in "([") - (tokens[i] in ")]")
        if depth == 0:
            return i + 1
    raise _NoFormulaError
