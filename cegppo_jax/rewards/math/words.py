"""Words in an answer: "negative 7", "3 million", "5 square feet" in signs, numbers and units."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

# Dimension, size and names of units
_UNITS = """length 1 m meter metre|length 0.0254 in inch inche|length 0.3048 ft foot feet
|length 0.9144 yd yard|length 1609.344 mi mile|mass 1 g gram gramme|mass 453.59237 lb pound
|mass 28.349523125 oz ounce|mass 1000000 ton tonne|volume 1 l liter litre
|volume 3.785411784 gal gallon|time 1 s sec second|time 60 min minute|time 3600 h hr hour
|time 86400 day|time 604800 week wk|month 1 month|month 12 year yr|money 100 dollar|money 1 cent
|euro 1 euro|yuan 1 yuan|celsius 1 celsius|fahrenheit 1 fahrenheit"""
_PREFIXES = {"k": "1000", "kilo": "1000", "c": "0.01", "centi": "0.01", "m": "0.001",
             "milli": "0.001", "d": "0.1", "deci": "0.1"}  # fmt: skip
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
_LONGER = [word for word in UNITS if len(word) > 1]
_KNOWN = "|".join(sorted(["mph", *_LONGER], key=len, reverse=True))

_SCALES = {
    "hundred": Fraction(100), "thousand": Fraction(1000), "million": Fraction(10**6),
    "billion": Fraction(10**9), "trillion": Fraction(10**12), "dozen": Fraction(12),
    "halve": Fraction(1, 2), "half": Fraction(1, 2), "quarter": Fraction(1, 4),
    **{word: Fraction(1, n) for n, word in enumerate(
        ["third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"], start=3)},
    "hundredth": Fraction(1, 100), "thousandth": Fraction(1, 1000),
}  # fmt: skip
_ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
         "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
         "nineteen"]  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
COUNTED = {word: n for n, word in enumerate(_ONES)} | {
    f"{word}-{_ONES[n]}" if n else word: 10 * tens + n
    for tens, word in enumerate(_TENS, start=2)
    for n in range(10)
}
SPOKEN = re.compile(rf"(?i)\b(?:{'|'.join(sorted(COUNTED, key=len, reverse=True))})\b")
_ORDINALS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth",
             "tenth", "eleventh", "twelfth"]  # fmt: skip
# Words that make another value of a number, so that they are no unit
_CHANGES = re.compile(
    r"(?i)\b(?:not|wrong|incorrect|false|or|and|except|less|more|fewer|least|most|than|greater|larger"
    r"|smaller|higher|lower|below|above|under|over|beyond|before|after|of|times|twice|double|triple"
    r"|half|between|modulo|mod|plus|minus|negative|squared|cubed|factorial|inverse|reciprocal"
    r"|minimum|maximum|up|upwards|onwards|short|off|power|root|percent|divided|multiplied"
    r"|if|unless|base|[ap]\.? ?m)\b"
)


def _scaled(found: re.Match[str]) -> str:
    """ "3.5 million" -> 3500000; "2 thirds" -> \\frac{2}{3}"""
    value = Fraction(found[1]) * _SCALES[found[2].lower()]
    if value.denominator == 1:
        return str(value)
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def _with_unit(found: re.Match[str]) -> str:
    """Words behind a value -> its unit: " square feet" -> *\\unit_ft^2, " apples" -> nothing."""
    if _CHANGES.search(found[0]):
        return found[0]
    written, sign, power = "", "*", ""
    words = found[0].replace(r"\text", "").lower().replace("mph", "mi/h")
    for word in re.findall(r"[a-z]+|/", words):
        unit = word if word in UNITS else word.removesuffix("s")
        if word in ("/", "per"):
            sign = "/"
        elif word in ("square", "sq", "cubic", "cu"):
            power = "^2" if word[0] == "s" else "^3"
        elif unit in UNITS:
            written, sign, power = written + sign + r"\unit_" + unit + power, "*", ""
    return written + " "


def table(*rows: tuple[str, Any]) -> list[tuple[re.Pattern[str], Any]]:
    return [
        (re.compile(pattern.replace("{A}", r"\s*\{([^{}]*)\}")), write) for pattern, write in rows
    ]


# Of a whole value in words
_WORDS = table(
    (r"(?i)^(?:negative|minus) (?=[\w\\])", "-"),
    (r"(?i)^(?:about|approximately|approx\.?|roughly|around|exactly) (?=[-\d\\])", ""),
    (rf"(?i)^(-?)({SPOKEN.pattern[4:]})", lambda found: found[1] + str(COUNTED[found[2].lower()])),
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
_BEHIND = table(
    (r"(?<=[\d})])\s*(?:\\text\{\s*)?\bdegrees?\b(?:\s*\})?", "° "),
    (r"(?<=[^\s+\-*/=(,<>{^_\\])\s*(?:/\s*)?\\text\{[^{}]*\}", _with_unit),
    (r"(?<=\d) ?(?!and\b|or\b)[a-zA-Z]{3,}(?:[ ./]+(?!and\b|or\b)[a-zA-Z]+)*$", _with_unit),
    (
        rf"(?:(?<=[\d}})])|(?<=\\pi)) *(?:(?:square|cubic|sq\.?|cu\.?) )?(?:{_KNOWN})s?(?![a-zA-Z])"
        rf"(?: ?(?:/|per) ?(?:{_KNOWN}|[mgslh])s?(?![a-zA-Z]))?",
        _with_unit,
    ),
    (r"(?<=\d) [mgslh](?: ?/ ?[mgslh])?(?=\s*(?:$|\^|[,;)]))", _with_unit),
)


def without_words(text: str) -> str:
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
