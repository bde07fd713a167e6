"""Answer text -> one notation: LaTeX without layout, units apart, numbers as exact fractions."""

from __future__ import annotations

import dataclasses
import re
from fractions import Fraction

# What one character of text says in LaTeX.
_CHARACTERS = {
    "\u2212": "-", "\u2013": "-", "\u2014": "-", "\u2010": "-", "\u2011": "-",
    "\u00d7": r"\times ", "\u00b7": r"\cdot ", "\u22c5": r"\cdot ", "\u2217": "*", "\u00f7": "/",
    "\u2215": "/", "\u2044": "/", "\u03c0": r"\pi ", "\u221e": r"\infty ", "\u221a": r"\sqrt ",
    "\u00b0": r"^{\circ}", "\u2264": r"\le ", "\u2265": r"\ge ", "\u2260": r"\ne ",
    "\u222a": r"\cup ", "\u2229": r"\cap ", "\u2208": r"\in ", "\u2205": r"\emptyset ",
    "\u00b1": r"\pm ", "\u2213": r"\mp ", "\u2248": r"\approx ", "\u211d": r"\mathbb{R}",
    "\u00bd": r"\frac{1}{2}", "\u00bc": r"\frac{1}{4}", "\u00be": r"\frac{3}{4}",
    "\u2153": r"\frac{1}{3}", "\u2154": r"\frac{2}{3}",
    "\u00b2": "^2", "\u00b3": "^3", "\u2032": "'", "\u2018": "'", "\u2019": "'",
    "\uff0c": ",", "\uff08": "(", "\uff09": ")", "\uff1b": ";", "\uff1a": ":", "\u3002": ".",
    "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u200b": "",
    "\u20ac": "", "\u00a3": "", "\u00a5": "", "\u20b9": "",
}  # fmt: skip
_TRANSLATION = str.maketrans(_CHARACTERS)

# In this order; a rule may rely on those above it.
_REWRITES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r",\\!\s*", ","),  # "11,\! 111" separates thousands
        (r"\{,\}", ","),
        (r"\\(?:displaystyle|textstyle|limits|nolimits|centering|hfill)\b", " "),
        (r"\\(?:left|right|[bB]igg?[lrm]?)(?![a-zA-Z])\.?", ""),
        (r"\\phantom\{[^{}]*\}", " "),
        (r"(?<!\\)\\[(\[\])]", " "),  # \( \) \[ \]
        (r"\\!", ""),
        (r"(?<!\\)\\[,;:> \n]|\\q?quad|~(?!=)", " "),
        (r"\\?\$", ""),
        (r"~=|\\(?:simeq|thickapprox)\b", r"\\approx "),
        (r"\\(?:d|t|c)frac", r"\\frac"),
        (r"\\(?:d|t)binom", r"\\binom"),
        (r"\\(?:mbox|textbf|textit|textrm|textsf|textnormal|textup|mathrm|mathbf|mathit|mathsf"
         r"|operatorname|bf|rm)\s*\{", r"\\text{"),
        (r"\{\\(?:rm|bf|it)\s", r"\\text{"),
        (r"\\text\{\s*(?:~|\s)*(and|or)\s*\}", r" \1 "),
        (r"\\text\{\s*([eid])\s*\}", r"\1"),  # upright constants
        (r"\\text\{([a-zA-Z]{2,5})\}(?=\s*[(\\^{])", r"\\\1"),  # \operatorname{arctan}(x)
        (r"\\(?:lbrace|\{)", r"\\{"),
        (r"\\rbrace", r"\\}"),
        (r"\\lbrack", "["),
        (r"\\rbrack", "]"),
        (r"\\(?:lt|textless)\b", "<"),
        (r"\\(?:gt|textgreater)\b", ">"),
        (r"<=|\\leqslant\b|\\leq\b|\\leqq\b", r"\\le "),
        (r">=|\\geqslant\b|\\geq\b|\\geqq\b", r"\\ge "),
        (r"!=|\\neq\b|\\not\s*=", r"\\ne "),
        (r"\\(?:varnothing|O)\b|\\text\{\s*\\?O\s*\}", r"\\emptyset "),
        (r"\\(?:lvert|rvert|vert|mid)\b", "|"),
        (r"\\(?:degree|textdegree)\b", r"^{\\circ}"),
        (r"\^\s*\{?\s*\\circ\s*\}?", r"^{\\circ}"),
        (r"(?<![\\a-zA-Z])(?:\+\s*)?\\?(?:infinity|inf|oo)\b", r"\\infty "),
        (r"\+\s*\\infty", r"\\infty"),
        (r"\*\*", "^"),
        (r"(?<![\\a-zA-Z])(sqrt|pi|sin|cos|tan|cot|sec|csc|log|ln|arctan)(?![a-zA-Z])", r"\\\1 "),
        (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"\\sqrt\s*([0-9a-zA-Z])", r"\\sqrt{\1}"),
        (r"\\frac\s*([0-9a-zA-Z])\s*([0-9a-zA-Z])", r"\\frac{\1}{\2}"),
        (r"\\frac\s*([0-9a-zA-Z])\s*\{", r"\\frac{\1}{"),
        (r"\\frac\s*(\{[^{}]*\})\s*([0-9a-zA-Z])", r"\\frac\1{\2}"),
        (r"(?<![\d.])\.(?=\d)", "0."),
        (r"\\?%|\bpercent(?:age)?\b|\bpct\b|\\text\{\s*(?:percent(?:age)?|pct)\s*\}", r"\\%"),
        (r"\s+", " "),
    )
)  # fmt: skip

_SIMPLE_SCRIPT = re.compile(r"([\^_])\{([0-9a-zA-Z])\}")
# All but those between two letters, and between two digits: "1 2" is not 12
_NO_SPACE_NEEDED = re.compile(
    r"\s+(?![a-zA-Z\d])|(?<![a-zA-Z\d])\s+|(?<=\d)\s+(?=[a-zA-Z])|(?<=[a-zA-Z])\s+(?=\d)"
)
_TEXT_GROUP = re.compile(r"\\text\{([^{}]*)\}")
_DOUBLED_COMMAND = re.compile(r"\\\\(?=[a-zA-Z])")


def one_notation(text: str) -> str:
    """Answer text -> the same in one spelling: what only lays out is gone.

    Worked examples: "$\\dfrac34$." -> \\frac{3}{4}; "11,\\! 111" -> 11,111; "x ≥ .5" -> x \\ge 0.5
    """
    text = text.strip()
    if r"\\begin" in text:
        text = text.replace(r"\\", "\\")  # escaped once too often
    text = text.translate(_TRANSLATION)
    if r"\begin" not in text:
        text = _DOUBLED_COMMAND.sub(r"\\", text)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return text.strip().rstrip(".,;:\\ ").strip()


def compact(text: str) -> str:
    """One notation -> its key for comparing as text: no spaces that carry nothing, no \\text."""
    text = _TEXT_GROUP.sub(r"\1", text)
    text = _SIMPLE_SCRIPT.sub(r"\1\2", text)
    return _NO_SPACE_NEEDED.sub("", text.strip()).strip("'\"")


_LENGTHS = {
    "mm": "mm millimeter millimetre", "cm": "cm centimeter centimetre", "dm": "dm",
    "m": "m meter metre", "km": "km kilometer kilometre", "in": "in inch inche",
    "ft": "ft feet foot", "yd": "yd yard", "mi": "mi mile",
    "mg": "mg milligram", "g": "g gram", "kg": "kg kilogram", "lb": "lb pound",
    "ml": "ml milliliter millilitre", "l": "l liter litre", "s": "s sec second",
    "min": "min minute", "h": "h hr hour", "day": "day", "week": "week wk", "month": "month",
    "year": "year yr",
}  # fmt: skip
_UNIT_OF = {word: unit for unit, words in _LENGTHS.items() for word in words.split()}
_PLAIN_UNIT = re.compile(
    r"(?<=[\d})%])\s*(?:(?:square|cubic|sq\.?|cu\.?)\s+)?"
    r"(?:(?:[cmkd]m|km/h|kmh|mph|m/s|kg|mg|lbs?|ft|in|ml|min|hrs?|sec)\b\.?|m(?=\^))"
    r"(?:\s*/\s*[a-z]+)?(?:\s*\^\s*\{?\s*-?[123]\s*\}?)?$"
)
_TEXT_UNIT = re.compile(
    r"(?<=[^\s+\-*/=(,<>])\s*\\text\{([^{}]*)\}\s*(?:/\s*\\text\{[^{}]*\}|\^\s*\{?\s*-?\d\s*\}?)*$"
)
_WORDS_BEHIND_NUMBER = re.compile(
    r"((?:^|(?<=\s))-?[\d.,/]*\d)\s*((?!and\b|or\b)[a-zA-Z]{3,}(?:[\s.]+[a-zA-Z]+)*(?:\^\d)?)$"
)
_DEGREES = re.compile(r"\s*(?:\^\{\\circ\}(?:\s*[CF])?|\bdegrees?(?:\s+[a-zA-Z]+)?)$")
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)")
_DEGREES_INSIDE = re.compile(r"(\d+(?:\.\d+)?)\s*\^\{\\circ\}")
# Words that are no unit, and change what a number says: "\\text{not } 7", "7 \\text{ or more}"
_SAYS_MORE = re.compile(r"(?i)\b(?:not|wrong|incorrect|false|or|except)\b")
_LEADING_TEXT = re.compile(r"^\\text\{[^{}]*\}\s*(?=-?[\d\\(\[])(?!\\text)")


def split_unit(text: str) -> tuple[str, str]:
    """One value in one notation -> (the value without unit and degree sign, the unit).

    The unit is "" where there is none and where it is not one of a few that are known by several
    names. Worked examples: "10 \\text{ cm}^2" -> 10, cm; "64 square feet" -> 64, ft;
    "75^{\\circ}" -> 75; \\text{Evelyn} stays.
    """
    if read_time(text) is not None or _SAYS_MORE.search(text):
        return text, ""
    for pattern in (_TEXT_UNIT, _PLAIN_UNIT):
        found = pattern.search(text)
        if found and found.start() > 0:
            unit = _known_unit(found.group())
            text = text[: found.start()].strip()
            break
    else:
        found = _WORDS_BEHIND_NUMBER.fullmatch(text)
        unit = _known_unit(found.group(2)) if found else ""
        if found and not re.match(r"degrees?\b", found.group(2)):
            text = found.group(1)
    text = _LEADING_TEXT.sub("", text)
    if _TRIGONOMETRIC.search(text):
        return _DEGREES_INSIDE.sub(r"(\1 \\cdot \\frac{\\pi}{180})", text), unit
    without = _DEGREES.sub("", text)
    return (without, unit) if without.strip() else (text, unit)


def _known_unit(words: str) -> str:
    for word in re.findall(r"[a-z]+", words.lower().replace("\\text", " ")):
        unit = _UNIT_OF.get(word) or _UNIT_OF.get(word.removesuffix("s"))
        if unit:
            return unit
    return ""


@dataclasses.dataclass(frozen=True)
class Number:
    """A number as it was written."""

    value: Fraction  # 20 % is 1/5
    percent: bool
    decimals: int  # digits written behind the point; 0 for whole numbers and fractions
    digits: int  # of the significant ones written


_PLAIN = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d+)(?:\.\d*)?|[-+]?\.\d+")
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+")
_SCIENTIFIC = re.compile(
    r"([-+]?\d+(?:\.\d+)?)\s*(?:[eE]\s*|(?:\*|\\times|\\cdot)\s*10\s*\^\s*)"
    r"\{?\(?\s*([-+]?\d{1,3})\s*\)?\}?"
)
_FRACTION = re.compile(
    r"([-+]?)\s*(?:\\frac\s*\{\s*([-+]?[\d,.]+)\s*\}\s*\{\s*([-+]?[\d,.]+)\s*\}"
    r"|\(?\s*([-+]?[\d,.]+)\s*\)?\s*/\s*\(?\s*([-+]?[\d,.]+)\s*\)?)"
)
_MIXED = re.compile(
    r"([-+]?)\s*(\d+)(?:\s*\\frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}|\s+(?:and\s+)?(\d+)/(\d+))"
)
_MAX_DIGITS = 2000


def read_number(text: str) -> Number | None:
    """Value in one notation -> the exact number that it writes; None for all that is more.

    Worked examples: "1,000.50" -> 2001/2; "20\\%" -> 1/5, percent; "2\\frac{5}{8}" -> 21/8;
    "2/(-3)" -> -2/3; "3.54e-07"; "\\sqrt{2}", "x" and "1,2" -> None
    """
    text = text.strip()
    percent = text.endswith(r"\%")
    text = text.removesuffix(r"\%").strip()
    if re.fullmatch(r"[({][^(){}]*[)}]", text):
        text = text[1:-1]
    if len(text) > _MAX_DIGITS:
        return None
    value, written = _read_value(text)
    if value is None:
        return None
    decimals = len(written.partition(".")[2]) if "." in written else 0
    digits = len(re.sub(r"\D", "", written).lstrip("0"))
    return Number(value / 100 if percent else value, percent, decimals, digits)


def _read_value(text: str) -> tuple[Fraction | None, str]:
    """-> the value, and the digits that were written as a decimal."""
    if _PLAIN.fullmatch(text):
        return _exact(text), text
    if found := _SCIENTIFIC.fullmatch(text):
        return _exact(found[1]) * Fraction(10) ** int(found[2]), found[1]
    if found := _MIXED.fullmatch(text):
        sign, whole = found[1], Fraction(int(found[2]))
        above, below = int(found[3] or found[5]), int(found[4] or found[6])
        if 0 < above < below:
            return (whole + Fraction(above, below)) * (-1 if sign == "-" else 1), ""
    if found := _FRACTION.fullmatch(text):
        numbers = [one for one in found.groups()[1:] if one is not None]
        if all(_PLAIN.fullmatch(one) for one in numbers) and _exact(numbers[1]) != 0:
            return _exact(numbers[0]) / _exact(numbers[1]) * (-1 if found[1] == "-" else 1), ""
    return None, ""


def _exact(text: str) -> Fraction:
    return Fraction(text.replace(",", "").replace(" ", "").rstrip("."))


def read_decimal_comma(text: str) -> Fraction | None:
    """ "2,74" -> 2.74, where a comma may be the decimal point; None for all else."""
    return Fraction(text.replace(",", ".")) if _DECIMAL_COMMA.fullmatch(text) else None


_TIME = re.compile(
    r"(\d{1,2}):([0-5]\d)(?::([0-5]\d))?\s*(?:(?:\\text\{)?\s*([AaPp])\.?\s*[Mm]\.?\s*\}?)?"
)


def read_time(text: str) -> tuple[int, int, int] | None:
    """ "08:34 P.M." -> (20, 34, 0); None for what is no time of day."""
    found = _TIME.fullmatch(text)
    if not found or int(found[1]) > 24:
        return None
    hour = int(found[1])
    if found[4]:
        hour = hour % 12 + (12 if found[4] in "Pp" else 0)
    return hour, int(found[2]), int(found[3] or 0)
