"""Answer text -> one notation: LaTeX without layout, numbers without separators."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

# What one character of text says in LaTeX, where NFKC does not say it.
_CHARACTERS = {
    **dict.fromkeys("\u2212\u2013\u2014\u2010\u2011", "-"), "\u00d7": r"\times ", "\u00f7": "/",
    "\u00b7": r"\cdot ", "\u22c5": r"\cdot ", "\u2217": "*", "\u2215": "/", "\u2044": "/",
    "\u03c0": r"\pi ", "\u03b8": r"\theta ", "\u221e": r"\infty ", "\u221a": r"\sqrt ",
    "\u00b0": r"^{\circ}", "\u2264": r"\le ", "\u2265": r"\ge ", "\u2260": r"\ne ",
    "\u222a": r"\cup ", "\u2229": r"\cap ", "\u2208": r"\in ", "\u2205": r"\emptyset ",
    "\u00b1": r"\pm ", "\u2213": r"\mp ", "\u2248": r"\approx ", "\u211d": r"\mathbb{R}",
    "\u2124": r"\mathbb{Z}", "\u2018": "'", "\u2019": "'", "\u3002": ".", "\u200b": "",
    **dict.fromkeys("\u20ac\u00a3\u00a5\u20b9", ""),
    **{chr(code): rf"\frac{{{n}}}{{{d}}}" for code, n, d in (
        (0xBC, 1, 4), (0xBD, 1, 2), (0xBE, 3, 4), (0x2153, 1, 3), (0x2154, 2, 3))},
}  # fmt: skip
_TRANSLATION = str.maketrans(_CHARACTERS)
_SUPERSCRIPTS = re.compile("[\u207b\u00b9\u00b2\u00b3\u2070\u2074-\u2079]+")


def _repeating(found: re.Match[str]) -> str:
    """0.1\\overline{6} -> \\frac{15}{90}"""
    whole, once, again = found[1], found[2], found[3] or found[4]
    nines = (10 ** len(again) - 1) * 10 ** len(once)
    return rf"\frac{{{int(whole + once + again) - int(whole + once)}}}{{{nines}}}"


def _without_separators(found: re.Match[str]) -> str:
    """12,500 -> 12500, but not where a list is meant: (12,500), x,100,200 and 0,100"""
    before = found.string[: found.start()].rstrip("+-")
    is_list = before.endswith(",") or (
        before.endswith(("(", "[", r"\{"))
        and found.string[found.end() :].startswith((")", "]", "\\}"))
    )
    is_thousands = re.fullmatch(r"[1-9]\d{0,2}(?:(?:,\d{3})+|(?: \d{3})+)", found[0])
    return re.sub("[, ]", "", found[0]) if is_thousands and not is_list else found[0]


_FUNCTIONS = (
    "sqrt|pi|theta|a?(?:rc)?(?:sin|cos|tan|cot|sec|csc)h?|log|ln|exp|abs|floor|ceil|gcd|lcm"
)
# In this order; a rule may rely on those above it.
_REWRITES: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r",\\!\s*|\s*\{\s*,\s*\}\s*", ","),  # "11,\! 111" separates thousands
        (r"\\(?:displaystyle|textstyle|limits|nolimits|centering|hfill|!)(?![a-zA-Z])", " "),
        (r"\\(?:left|right|[bB]igg?[lrm]?)(?![a-zA-Z])\.?|\\phantom\{[^{}]*\}", " "),
        (r"(?<!\\)\\[(\[\])]|(?<!\\)\\[,;:> \n]|\\q?quad|~(?!=)|\\?\$", " "),
        (r"~=|\\(?:simeq|thickapprox)\b", r"\\approx "),
        (r"\\(?:d|t|c)(frac|binom)", r"\\\1"),
        (r"\\(?:mbox|textbf|textit|textrm|textsf|textnormal|textup|mathrm|mathbf|mathit|mathsf"
         r"|operatorname|bf|rm)\s*\{|\{\\(?:rm|bf|it)\s", r"\\text{"),
        (r"\\text\{\s*(?:~|\s)*(and|or)\s*\}", r" \1 "),
        (r"\\text\{([^{}a-zA-Z]*|\s*[eid]\s*)\}", r" \1 "),  # upright constants
        (r"\\text\{([a-zA-Z]{2,6})\}(?=\s*[(\\^{])(?!\s*\^\s*\{?-?\d)", r"\\\1 "),
        (r"\\(?:lbrace|\{)", r"\\{"),
        (r"\\rbrace", r"\\}"),
        (r"\\(?:lbrack)\b", "["),
        (r"\\(?:rbrack)\b", "]"),
        (r"\\langle\b", "("),
        (r"\\rangle\b", ")"),
        (r"\\(?:lt|textless)\b", "<"),
        (r"\\(?:gt|textgreater)\b", ">"),
        (r"<=|\\leq(?:slant|q)?\b", r"\\le "),
        (r">=|\\geq(?:slant|q)?\b", r"\\ge "),
        (r"!=|\\neq\b|\\not\s*=", r"\\ne "),
        (r"\\(?:varnothing|O)\b|\\text\{\s*\\?O\s*\}", r"\\emptyset "),
        (r"\\(?:lvert|rvert|vert|mid)\b", "|"),
        (r"\\(?:backslash|smallsetminus)\b", r"\\setminus "),
        (r"\\(?:degree|textdegree)\b|\^\s*\{?\s*\\circ\s*\}?", r"^{\\circ}"),
        (r"\^\{\\circ\}\s*(?:\\text\{)?\s*C\b\}?", r"\\text{celsius}"),
        (r"\^\{\\circ\}\s*(?:\\text\{)?\s*F\b\}?", r"\\text{fahrenheit}"),
        (r"(?<![\\a-zA-Z])\\?(?:infinity|inf|oo)\b", r"\\infty "),
        (r"\+\s*\\infty", r"\\infty"),
        (r"\*\*", "^"),
        (rf"(?<![\\a-zA-Z])({_FUNCTIONS})(?![a-zA-Z])", r"\\\1 "),
        (r"\\a(?=(?:sin|cos|tan)h?\b)", r"\\arc"),
        (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"\\sqrt\s*([0-9a-zA-Z])", r"\\sqrt{\1}"),
        (r"\\frac\s*([0-9a-zA-Z])\s*([0-9a-zA-Z])", r"\\frac{\1}{\2}"),
        (r"\\frac\s*([0-9a-zA-Z])\s*\{", r"\\frac{\1}{"),
        (r"\\frac\s*(\{[^{}]*\})\s*([0-9a-zA-Z])", r"\\frac\1{\2}"),
        (r"(?<![\d.])\.(?=\d)", "0."),
        (r"(?<!\d)(\d{1,40}\.\d{0,20}?)(\d)\2{2,40}\s*(?:\.{3}|\\[lc]?dots)", r"\1\\overline{\2}"),
        (r"(?<!\d)(\d+)\.(\d*)(?:\\(?:overline|bar|dot)\s*\{?(\d+)\}?|\((\d+)\))", _repeating),
        (r"\\?%|\b(?:per ?cent(?:age)?|pct)\b|\\text\{\s*(?:percent(?:age)?|pct)\s*\}", r"\\%"),
        (r"\s+", " "),
        (r"(?<![\d.])\d+(?:,\d+)+|(?<![\d.,])\d{1,3}(?: \d{3})+(?!\d)", _without_separators),
        (r"(?<!\d)(\d+) (?:and )?(\d+)/(\d+)(?![\d.])", r"\1\\frac{\2}{\3}"),  # 1 1/2
    )
)  # fmt: skip

_SIMPLE_SCRIPT = re.compile(r"([\^_])\{([0-9a-zA-Z])\}")
# All but those between two letters, and between two digits: "1 2" is not 12
_NO_SPACE_NEEDED = re.compile(
    r"\s+(?![a-zA-Z\d])|(?<![a-zA-Z\d])\s+|(?<=\d)\s+(?=[a-zA-Z])|(?<=[a-zA-Z])\s+(?=\d)"
)
TEXT_GROUP = re.compile(r"\\text\{([^{}]*)\}")


@lru_cache(maxsize=8192)
def one_notation(text: str) -> str:
    """Answer text -> the same in one spelling: what only lays out is gone.

    Worked examples: "$\\dfrac34$." -> \\frac{3}{4}; "11,\\! 111" -> 11111; "x ≥ .5" -> x \\ge 0.5
    """
    text = text.strip()
    if r"\\begin" in text:
        text = text.replace(r"\\", "\\")  # escaped once too often
    text = _SUPERSCRIPTS.sub(lambda found: f"^{{{unicodedata.normalize('NFKC', found[0])}}}", text)
    text = unicodedata.normalize("NFKC", text.translate(_TRANSLATION)).translate(_TRANSLATION)
    if r"\begin" not in text:
        text = re.sub(r"\\\\(?=[a-zA-Z])", r"\\", text)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return text.strip().rstrip(".,;:\\ ").strip()


def compact(text: str) -> str:
    """One notation -> its key for comparing as text: no spaces that carry nothing, no \\text."""
    text = _SIMPLE_SCRIPT.sub(r"\1\2", TEXT_GROUP.sub(r"\1", text))
    return _NO_SPACE_NEEDED.sub("", text.strip()).strip("'\"")
