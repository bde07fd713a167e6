"""Units that an answer may carry, and the words behind a value that are no unit."""

from __future__ import annotations

import re
from fractions import Fraction

# Dimension, size and names of units
_UNITS = """length 1 m meter metre|length 0.0254 in inch inche|length 0.3048 ft foot feet
|length 0.9144 yd yard|length 1609.344 mi mile|mass 1 g gram gramme|mass 453.59237 lb pound
|mass 28.349523125 oz ounce|mass 1000000 ton tonne|volume 1 l liter litre
|volume 3.785411784 gal gallon|time 1 s sec second|time 60 min minute|time 3600 h hr hour
|time 86400 day|time 604800 week wk
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
KNOWN_UNITS = "|".join(sorted((word for word in UNITS if len(word) > 1), key=len, reverse=True))

# Words that make another value of a number, so that they are no unit
CHANGES_VALUE = re.compile(
    r"(?i)\b(?:not|wrong|incorrect|false|or|and|except|less|more|fewer|least|most|than|greater"
    r"|larger"
    r"|smaller|higher|lower|below|above|under|over|beyond|before|after|of|times|twice|double|triple"
    r"|half"
    r"|between|modulo|mod|plus|minus|negative|squared|cubed|factorial|inverse|reciprocal"
    r"|minimum|maximum"
    r"|up|upwards|onwards|short|off|power|root|percent|divided"
    r"|multiplied|if|unless|base|[ap]\.? ?m)\b"
)


def with_unit(found: re.Match[str]) -> str:
    """Words behind a value -> what they say: " square feet" -> *\\unit_ft^2; others nothing."""
    if CHANGES_VALUE.search(found[0]):
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
