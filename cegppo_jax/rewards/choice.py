"""Completion text -> Finding, by the letter of a multiple choice: the verifier `choice`."""

from __future__ import annotations

import re

from cegppo_jax.rewards.extraction import last_boxed, last_match
from cegppo_jax.rewards.finding import UNPARSED, Finding, judged, unreadable
from cegppo_jax.types import Problem

# A letter by itself; "A" and "I" before a small letter are words: "A good", "I think"
_LETTER = re.compile(r"(?<![A-Za-z\\'\u2019])([B-HJ]|[AI](?!\s+[a-z]))(?![A-Za-z'\u2019])")
_MARK = re.compile(r"(?i)####|\banswer\b(?:[^.:\n]{0,60}?\bis\b\s*:?|\s*[:=])")
_COMMAND = re.compile(r"\\(?:text|textbf|mathrm|mathbf|textrm|mbox)\b")
_LABEL = re.compile(r"[\s*(\[$]*([A-J])[\s*]*(?:[).\]:$]|$)")
_AT_THE_END = re.compile(r"(?:^|[\s(\[*$])([A-J])[)\].*$\s]*\Z")
_LONGEST_TAIL = 200


def choice(completion_text: str, problem: Problem) -> Finding:
    """Completion text -> Finding: is the letter from A to J that it chooses the problem's?

    The letter is the first in the last \\boxed{...}; else the first behind the last "answer is",
    "answer:" or "####"; else the label that all of the text begins with; else the one that it ends
    in. Worked examples for the answer "B":

        \\boxed{\\text{(B)}}     CORRECT     The answer is B, not A.    CORRECT
        B. Because of A         CORRECT     so I choose (B)            CORRECT
        Answer: (C)             WRONG       A good question            UNPARSED

    Raises:
      ValueError: the problem's answer is no letter from A to J, alone or as a label: "(B) blue".
    """
    gold = _LABEL.match(_COMMAND.sub("", problem.answer).replace("{", "").replace("}", ""))
    if gold is None:
        raise unreadable("choice", problem, "a letter from A to J")
    read = _chosen(completion_text)
    return UNPARSED if read is None else judged(read == gold[1], read)


def _chosen(text: str) -> str | None:
    inside = last_boxed(text)
    if inside is not None:
        return _first_letter(inside)
    mark = last_match(_MARK, text)
    if mark is not None:
        letter = _first_letter(text[mark.end() : mark.end() + _LONGEST_TAIL])
        if letter is not None:
            return letter
    found = _LABEL.match(text[:_LONGEST_TAIL]) or _AT_THE_END.search(text[-_LONGEST_TAIL:])
    return found[1] if found else None


def _first_letter(text: str) -> str | None:
    found = _LETTER.search(_COMMAND.sub(" ", text))
    return found[1] if found else None
