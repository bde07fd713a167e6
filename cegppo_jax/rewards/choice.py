"""The verifier `choice`: judges a completion by its letter of a multiple choice."""

from __future__ import annotations

import re

from cegppo_jax.rewards.extraction import Reader, plain, read_answer
from cegppo_jax.rewards.finding import UNPARSED, Finding, judged, unreadable
from cegppo_jax.types import Problem

_LAYOUT = re.compile(
    r"\\(?:boxed|[fm]box|text(?:bf|it|rm)?|math(?:rm|bf|sf)|bf|rm|left|right)\b"
    r"|\\[()\[\] ,;]|[{}$*`]"
)
# All of a place: "B", "(b)", "B. 4", "Option B: blue"; a small letter needs a mark after it
_LABEL = re.compile(
    r"(?i:option |choice |answer:? )?[(\[]?([A-J]|[a-j](?=[)\].:]))(?:[)\].:](?:\s.*|\w.*)?)?",
    re.DOTALL,
)
_SPACED_LABEL = re.compile(r"[(\[]?([A-J])[)\]]?\s+[^A-Za-z].*", re.DOTALL)
# A letter by itself; "A" and "I" before a small letter are words: "A good", "I think"
_LETTER = re.compile(
    r"(?<![A-Za-z\\'\u2019_^])(?:([B-HJ]|[AI](?!\s+(?!(?:rather|because|since|and|but|as)\b)[a-z]))(?![A-Za-z'\u2019_^])|\(([a-j])\)|([a-j])[).](?=\s|$))"
)
_NOT = re.compile(
    r"(?i)(?:\bnot|n't(?: be)?|\bcannot be|\bnever|\bthan|\bof|\bexcept|\bnor|\bneither|不是)\W*$"
)
_SEVERAL = re.compile(
    r"(?<![A-Za-z])[A-J](?:\W{0,3}(?:\bor\b|\band\b|[,/&])\W{0,3}[A-J](?![A-Za-z']))+"
)
_IS_RIGHT = re.compile(r"(?<![A-Za-z])([A-J])[)\]]?\s+is (?:the )?(?:right|correct|best|answer)\b")
_AT_THE_END = re.compile(r"(?:^|[\s(\[])([A-J]|(?<=\()[a-j](?=\)))[)\].\s]*\Z")
_LONGEST_LABELLED = 300  # characters of a label and what it labels


def choice(completion_text: str, problem: Problem) -> Finding:
    """Judges whether the letter from A to J that a completion chooses is the problem's.

    extraction.RULES find the letter. A box or tag must be a label as a whole, alone or with the
    text that it labels; in a sentence, the first letter that it does not deny counts; in a text,
    the label that it begins or ends with. Worked examples for the answer "B":

        \\boxed{\\text{(B)}}     CORRECT     The answer is B, not A.    CORRECT
        B. Because of A         CORRECT     so I choose (B)            CORRECT
        Answer: (C)             WRONG       A good question            UNPARSED
        The answer is not B.    UNPARSED    \\boxed{12}                 UNPARSED

    Raises:
      ValueError: the problem's answer is not a letter from A to J, alone or as a label: "(B) blue".
    """
    gold = _whole(plain(problem.answer))
    if gold is None:
        raise unreadable("choice", problem, "a letter from A to J")
    reading = read_answer(completion_text, CHOICE)
    return (
        UNPARSED if reading is None else judged(reading.value == gold, reading.value, reading.rule)
    )


def _bare(text: str) -> str:
    return _LAYOUT.sub("", text[:_LONGEST_LABELLED]).strip()


def _whole(text: str) -> str | None:
    bare = _bare(text)
    small = bare.upper() if re.fullmatch("[a-j]", bare) else bare
    found = _LABEL.fullmatch(small) or _SPACED_LABEL.fullmatch(small)
    return found[1].upper() if found else None


def _alone(text: str) -> str | None:
    found = _LABEL.fullmatch(_bare(text))
    return found[1].upper() if found else None


def _stated(sentence: str) -> str | None:
    sentence = _LAYOUT.sub("", sentence)
    for found in _LETTER.finditer(sentence):
        if _is_chosen(sentence, found.start()):
            return (found[1] or found[2] or found[3]).upper()
    return _whole(sentence) if re.fullmatch(r"[a-j]\.?", sentence) else None


def _last(text: str) -> str | None:
    begin = re.match(r"[(\[]?([A-J])[)\].:]+(?!\w)", _bare(text))
    tail = _LAYOUT.sub("", text[-_LONGEST_LABELLED:]).strip()
    *_, right = (None, *_IS_RIGHT.finditer(tail))
    found = right or _AT_THE_END.search(tail)
    if begin and not right:
        return begin[1]
    return found[1].upper() if found and _is_chosen(tail, found.start(1)) else None


def _is_chosen(text: str, start: int) -> bool:
    """Whether the letter is chosen: neither "not B" nor "A or B"."""
    several = any(one.start() <= start < one.end() for one in _SEVERAL.finditer(text))
    return not several and not _NOT.search(text[max(0, start - 20) : start])


CHOICE = Reader(whole=_whole, alone=_alone, stated=_stated, last=_last)
