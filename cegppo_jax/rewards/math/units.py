"""One value in one notation -> what it says without words: its number or formula, and its unit."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from fractions import Fraction
from functools import lru_cache

from cegppo_jax.rewards.math.notation import TEXT_GROUP

Dimensions = tuple[tuple[str, int], ...]  # ("length", 2) for an area


def _table() -> dict[str, tuple[str, Fraction, int]]:
    """Word -> dimension, size in its smallest unit, power of the dimension."""
    rows = (
        ("length", "1", "m meter metre"), ("length", "0.0254", "in inch inche"),
        ("length", "0.3048", "ft foot feet"), ("length", "0.9144", "yd yard"),
        ("length", "1609.344", "mi mile"), ("mass", "1", "g gram gramme"),
        ("mass", "453.59237", "lb pound"), ("mass", "28.349523125", "oz ounce"),
        ("mass", "1000000", "ton tonne"), ("volume", "1", "l liter litre"),
        ("volume", "3.785411784", "gal gallon"), ("time", "1", "s sec second"),
        ("time", "60", "min minute"), ("time", "3600", "h hr hour"), ("time", "86400", "day"),
        ("time", "604800", "week wk"), ("month", "1", "month"), ("month", "12", "year yr"),
        ("money", "100", "dollar buck"), ("money", "1", "cent"), ("euro", "1", "euro"),
        ("pound", "1", "gbp"), ("yuan", "1", "yuan rmb"), ("celsius", "1", "celsius"),
        ("fahrenheit", "1", "fahrenheit"),
    )  # fmt: skip
    table = {
        word: (dimension, Fraction(size), 1)
        for dimension, size, words in rows
        for word in words.split()
    }
    prefixes = {"k": 1000, "kilo": 1000, "c": "0.01", "centi": "0.01", "m": "0.001",
                "milli": "0.001", "d": "0.1", "deci": "0.1"}  # fmt: skip
    for prefix, scale in prefixes.items():
        for word in ("m g l" if len(prefix) == 1 else "meter metre gram liter litre").split():
            dimension, size, _ = table[word]
            table[prefix + word] = (dimension, size * Fraction(scale), 1)
    return table


_UNITS = _table()
_SHORT = {"kmh": "km/h", "kph": "km/h", "mph": "mi/h", "cc": "cm^3"}
_UNIT_TOKEN = re.compile(r"[a-z]+|/|\^\s*\{?\s*(-?\d)")

_NUMBER = re.compile(r"-?\d[\d.,/]*|-?\\frac\{\d+\}\{\d+\}")
_SCALES = {
    "hundred": Fraction(100), "thousand": Fraction(1000), "million": Fraction(10**6),
    "billion": Fraction(10**9), "trillion": Fraction(10**12), "dozen": Fraction(12),
    "halve": Fraction(1, 2), "half": Fraction(1, 2), "third": Fraction(1, 3),
    "quarter": Fraction(1, 4), "fourth": Fraction(1, 4), "fifth": Fraction(1, 5),
    "sixth": Fraction(1, 6), "seventh": Fraction(1, 7), "eighth": Fraction(1, 8),
    "ninth": Fraction(1, 9), "tenth": Fraction(1, 10), "hundredth": Fraction(1, 100),
    "thousandth": Fraction(1, 1000),
}  # fmt: skip


def _scaled(found: re.Match[str]) -> str:
    """ "3.5 million" -> 3500000; "2 thirds" -> \\frac{2}{3}"""
    value = Fraction(found[1]) * _SCALES[found[2].lower()]
    return (
        str(value)
        if value.denominator == 1
        else rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
    )


_COUNTED = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
            "fifteen sixteen seventeen eighteen nineteen twenty").split()  # fmt: skip
_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth".split()
_WORDS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?i)^(?:negative|minus) (?=[\w\\])", "-"),
        (r"(?i)^(?:about|approximately|approx\.?|roughly|around|exactly) (?=[-\d\\])", ""),
        (rf"(?i)^(-?)({'|'.join(reversed(_COUNTED))})\b",
         lambda found: found[1] + str(_COUNTED.index(found[2].lower()))),
        (rf"(?i)^(?:the )?({'|'.join(_ORDINALS)})$", lambda found: str(_ORDINALS.index(found[1].lower()) + 1)),
        (rf"(?i)^(-?\d+(?:\.\d+)?) ?-?({'|'.join(_SCALES)})s?\b", _scaled),
        (r"(?i)^(\S+) squared$", r"(\1)^2"),
        (r"(?i)^(\S+) cubed$", r"(\1)^3"),
        (r"(?i)^(\S+) factorial$", r"(\1)!"),
        (r"^(\d+) ?(?:\^ ?\{? ?)?(?:st|nd|rd|th) ?\}?$", r"\1"),
    )
]  # fmt: skip
# Words that make another value of a number, so that they are no unit
_CHANGES = re.compile(
    r"(?i)\b(?:not|wrong|incorrect|false|or|and|except|less|more|fewer|least|most|than|greater|larger"
    r"|smaller|higher|lower|below|above|under|over|beyond|before|after|of|times|twice|double|triple|half"
    r"|between|modulo|mod|plus|minus|negative|squared|cubed|factorial|inverse|reciprocal|minimum|maximum"
    r"|up|upwards|onwards|short|off|power|root|per ?cent|divided|multiplied|if|unless|base)\b"
)
_UNIT_BEHIND = re.compile(
    r"^(?P<value>.*[^\s\\^_,(+*/-])\s*(?P<unit>\\text\{[^{}]*\}(?:\s*(?:/|\\text\{[^{}]*\}|\^\s*\{?\s*-?\d\s*\}?))*"
    r"|(?<=[\d})%])\s*(?:(?:square|cubic|sq\.?|cu\.?)\s+)?(?:[cmkd]m|km/h|kmh|mph|m/s|kg|mg|lbs?|ft|in"
    r"|ml|min|hrs?|sec|m(?=\s*\^))\b\.?(?:\s*/\s*[a-z]+)?(?:\s*\^\s*\{?\s*-?[123]\s*\}?)?)$"
)
_WORDS_BEHIND = re.compile(
    r"^(?P<value>.*(?:[\d})]|\\pi))(?P<unit>\s*(?:[a-zA-Z]{3,}|(?<=\s)[mgslh])\b\.?"
    r"(?:[\s./]+[a-zA-Z]+)*(?:\s*\^\s*\{?-?\d\}?)?)$"
)
_DEGREES = re.compile(r"\s*(?:\^\{\\circ\}|\bdegrees?|\\text\{\s*degrees?\s*\})$")
_TEXT_BEFORE = re.compile(r"^\\text\{([^{}]*)\}\s*(?=[-\d\\(\[])(?!\\text)")


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A value and its unit, as they were written."""

    text: str  # without unit, sign of degrees and words
    unit: Dimensions = ()  # () where there is none that is known
    size: Fraction = Fraction(1)  # of the unit
    degrees: bool = False


@lru_cache(maxsize=8192)
def read_quantity(text: str) -> Quantity:
    """One value in one notation -> the value without unit, degree sign and words, and its unit.

    Worked examples: "10 \\text{ cm}^2" -> 10, an area; "3 million dollars" -> 3*10^6, money;
    "75^{\\circ}" -> 75, degrees; "negative 7" -> -7; "less than 7" and \\text{Evelyn} stay.
    """
    if len(text) > 200 or not re.search(r"[a-zA-Z]", text):
        return Quantity(text)
    words = " ".join(TEXT_GROUP.sub(r" \1 ", text).split())
    for pattern, replacement in _WORDS:
        changed = pattern.sub(replacement, words)  # type: ignore[arg-type]
        text, words = (changed, changed) if changed != words else (text, words)
    before = _TEXT_BEFORE.match(text)
    if before and not _CHANGES.search(before[1]):
        text = text[before.end() :]
    if degrees := _DEGREES.search(text):
        rest = text[: degrees.start()].strip()
        return Quantity(rest, degrees=True) if re.search(r"\w", rest) else Quantity(text)
    found = _UNIT_BEHIND.match(text) or _WORDS_BEHIND.match(text)
    if not found or _CHANGES.search(found["unit"]):
        return Quantity(text)
    value, unit = found["value"].strip(), _read_unit(found["unit"])
    is_clear = unit[0] or "text" in found["unit"] or _NUMBER.fullmatch(value)
    return Quantity(value, *unit) if is_clear else Quantity(text)


def _read_unit(words: str) -> tuple[Dimensions, Fraction]:
    """ "square feet" -> (("length", 2),), 0.3048^2; words that are no known unit say nothing."""
    words = re.sub(
        r"[a-z]+", lambda word: _SHORT.get(word[0], word[0]), words.replace(r"\text", " ").lower()
    )
    powers: Counter[str] = Counter()
    size, sign, power, last = Fraction(1), 1, 1, None
    for found in _UNIT_TOKEN.finditer(words):
        word = found[0]
        if word in ("/", "per"):
            sign = -1
        elif word in ("square", "sq", "cubic", "cu"):
            power = 2 if word.startswith("s") else 3
        elif found[1] and last:  # one of it is counted already
            more = sign * (int(found[1]) - 1)
            powers[last[0]] += more
            size *= last[1] ** more
        elif known := _UNITS.get(word) or _UNITS.get(word.removesuffix("s")):
            last = known[0], known[1]
            powers[last[0]] += sign * power
            size *= last[1] ** (sign * power)
            power = 1
    return tuple(sorted((one, n) for one, n in powers.items() if n)), size
