"""The verifier `gsm8k`: judges a completion by its final number."""

from __future__ import annotations

import re
from fractions import Fraction

from cegppo_jax.rewards.extraction import Reader, read_answer, with_changing_words
from cegppo_jax.rewards.finding import UNPARSED, Finding, judged, unreadable
from cegppo_jax.rewards.math.words import COUNTED, SPOKEN
from cegppo_jax.types import Problem

_LAYOUT = (
    (re.compile(r"\\(?:text|mbox|mathrm)\s*\{\s*([^{}]*)\}"), r"\1"),
    (re.compile(r"\{,\}|,\\!|\\,(?=\d{3})"), ","),
    (re.compile(r"\\[dtc]?frac\s*(\d)\s*(\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\[dtc]frac\b"), r"\\frac"),
    (
        re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|left|right|boxed)\b|\\[()\[\],;! ]|\*\*"),
        " ",
    ),
    (re.compile(r"\\(?=[$%])"), ""),
    (re.compile(r"\\(?:times|cdot)\b|\u00d7"), "*"),
)
_NUMBER = re.compile(
    r"""(?ix) (?<![\w.,^/\\]) (?<!\^\{) (?<!sqrt\{) (?P<sign>-\ ?|negative\ |minus\ )? \$?\ ?
    (?: (?:(?P<whole>\d+)\ ?)? \\frac\ ?\{\ ?(?P<above>\d+)\ ?\}\ ?\{\ ?(?P<under>\d+)\ ?\}
      | (?P<plain_whole>\d+)\ (?P<plain_above>\d+)/(?P<plain_under>\d+)
      | (?P<digits>(?:\d{1,3}(?:,\d{3})+(?!,?\d)|\d+)(?:\.\d+)?|\.\d+)
        (?: \ ?/\ ?(?P<below>\d+) | (?:e|\ ?\*\ ?10\ ?\^\ ?\{?)(?P<ten>[-+]?\d{1,3}(?!\d))\}?
          | \ ?\^\ ?\{?(?P<power>\d{1,3}(?!\d))\}? | \ (?P<word>
            hundred|thousand|million|billion|trillion|dozen)\b )? )
    (?! \ ?[\^/]\ ?[\d({] | \^ | [.,]?\d | \ ?\\(?:sqrt|pi|frac) | [xyn](?![a-z]) )"""
)
_WORDS = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9,
          "trillion": 10**12, "dozen": 12}  # fmt: skip
# Behind a number that is all of a place: a unit of a few words
_UNIT = re.compile(r"[\s.%$}\u20ac]*(?:[A-Za-z\u00b0/{}]+(?:\^\{?[23]\}?)?[\s.}]*){0,6}[\s.!%]*")
PARTS = ("whole", "above", "under")
_MOST_DIGITS = 1000
_LONGEST_TAIL = 5000


def numeric_answer(completion_text: str, problem: Problem) -> Finding:
    """Judges whether a completion's final number is exactly the problem's.

    extraction.RULES find the number. In a sentence, the first number counts, or the one
    after its last "=". Commas between thousands, units, $ and % do not count, and numbers are
    compared as fractions: 18, $18.00 and 18% are one number. A number is read whole: 2/3, 10^6,
    3 1/2 and "2 million" each are one. Worked examples for the answer "1,080":

        #### 1080          CORRECT     The answer is 1000 + 80 = $1,080.00.    CORRECT
        1080 of 2000       WRONG       A: many                                 UNPARSED

    Raises:
      ValueError: the problem's answer holds no number, so that nothing could be right.
    """
    gold = final_number(problem.answer)
    if gold is None:
        raise unreadable("gsm8k", problem, "a number")
    reading = read_answer(completion_text, NUMBER)
    if reading is None:
        return UNPARSED
    return judged(reading.value == gold, str(reading.value), reading.rule)


def final_number(text: str) -> Fraction | None:
    """Returns the final number of a text, exactly; None without one."""
    reading = read_answer(text, NUMBER)
    return None if reading is None else reading.value


def _laid_out(text: str) -> str:
    for pattern, replacement in _LAYOUT:
        text = pattern.sub(replacement, text)
    return text


def _whole(text: str) -> Fraction | None:
    text = _laid_out(text[:_LONGEST_TAIL]).rpartition("=")[2].strip(" {}$")
    found = _NUMBER.match(text)
    return _exact(found) if found and _UNIT.fullmatch(text, found.end()) else None


def _stated(sentence: str) -> Fraction | None:
    sentence = _laid_out(sentence)
    side = sentence.rpartition("=")[2]
    found = _NUMBER.search(side) or _NUMBER.search(sentence)
    spoken = SPOKEN.match(sentence)
    if spoken and not found:
        return Fraction(COUNTED[spoken[0].lower()])
    return _unchanged(found)


def _last(text: str) -> Fraction | None:
    *_, found = (None, *_NUMBER.finditer(_laid_out(text[-_LONGEST_TAIL:])))
    return _unchanged(found)


def _unchanged(found: re.Match[str] | None) -> Fraction | None:
    """A number as it was found -> its value; None where words change it: "less than 7"."""
    if found is None or with_changing_words(found.string, *found.span()) != found.span():
        return None
    return _exact(found)


def _exact(found: re.Match[str]) -> Fraction | None:
    """Returns the value of a number that was found; None if it has too many digits."""
    if len(found[0]) > _MOST_DIGITS:
        return None
    whole, above, under = (found[name] or found[f"plain_{name}"] for name in PARTS)
    if under:
        value = int(whole or 0) + Fraction(int(above), int(under)) if int(under) else None
    else:
        value = Fraction(found["digits"].replace(",", ""))
        if found["digits"] == found[0]:
            return value
        value *= Fraction(10) ** int(found["ten"] or 0) * _WORDS.get(
            (found["word"] or "").lower(), 1
        )
        value **= int(found["power"] or 1)
        below = int(found["below"] or 1)
        value = value / below if below else None
    return -value if value is not None and found["sign"] else value


NUMBER = Reader(whole=_whole, alone=_whole, stated=_stated, last=_last)
