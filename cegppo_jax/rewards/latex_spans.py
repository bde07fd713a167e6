"""Finds boxes and formulas in a text, each in one pass."""

from __future__ import annotations

import re
from functools import lru_cache

_BRACES = re.compile(r"\\?\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(r"\\(?:boxed|fbox)\s*([-+]?[\d.,/]*\d%?|[A-Za-z](?![A-Za-z]))")
PERCENT = re.compile(r" ?[$*]* ?(?:\\?%|(?:percent(?:age)?|pct)\b)", re.IGNORECASE)
# Between two boxes that are one answer: "\boxed{1}, \boxed{2}", "\boxed{1} and y = \boxed{2}"
_LAYOUT = re.compile(r"\\q?quad|\\text\s*\{|\\[()\[\],;:!> ]|[$}]|\s+")
_JOINED = re.compile(r"[^.:,;=]{0,30}(?:\b(?:and|or)\b|[,;])+[^.:,;=]{0,9}=?|\s*")
_CONNECTORS = re.compile(r"\b(?:and|or)\b")


@lru_cache(maxsize=4)
def find_boxes(text: str) -> list[tuple[int, int, str]]:
    """Returns (start, end, content) of a text's outermost closed boxes, in one pass over the
    braces.

    If a box contains another, the inner one counts. A percent sign after a box belongs to it. A box
    that never closes does not count; "\\boxed 9" counts if there is no other box.
    """
    if "box" not in text:
        return []
    boxes: list[tuple[int, int, int, int]] = []  # start, end, those of the content
    opened: list[tuple[int, int] | None] = []  # None: a brace that opens no box
    for match in _BRACES.finditer(text):
        token = match.group()
        if token == "{":
            opened.append(None)
        elif token == "}":
            box = opened.pop() if opened else None
            if box is not None:
                nested = boxes and boxes[-1][0] > box[0]
                # of "\boxed{\boxed{5}}" the content is 5: outside there are only braces
                content = boxes[-1][2:] if nested else (box[1], match.start())
                while boxes and boxes[-1][0] > box[0]:
                    boxes.pop()
                boxes.append((box[0], match.end(), *content))
        elif token.endswith("{") and token != "\\{":
            opened.append((match.start(), match.end()))
    spans = boxes or [(*m.span(), *m.span(1)) for m in _BARE_BOX.finditer(text)]
    return [
        (start, end, text[low:high].strip() + (r"\%" if PERCENT.match(text, end) else ""))
        for start, end, low, high in spans
    ]


def joined_boxes(text: str) -> str | None:
    """Returns the content of the last box that is not empty, with the boxes joined to it.

    Boxes are joined when no more than a word or two and a single comma, "and" or "or" separate
    them: "\\boxed{1}, \\boxed{2} and \\boxed{3}" is 1, 2, 3; "\\boxed{1}. Now y: \\boxed{2}" is 2.
    """
    boxes = [box for box in find_boxes(text) if box[2]]
    contents: list[str] = []
    for i in reversed(range(len(boxes))):
        if contents and not are_joined(text[boxes[i][1] : boxes[i + 1][0]]):
            break
        if boxes[i][2] not in contents[-30:]:
            contents.append(boxes[i][2])
    return ", ".join(reversed(contents)) or None


def are_joined(between: str) -> bool:
    spaced = _LAYOUT.sub(" ", between[:99]).strip()
    joined = len(between) <= 80 and _JOINED.fullmatch(spaced)
    return bool(joined) and len(_CONNECTORS.findall(spaced)) <= 1


_DELIMITERS = re.compile(r"\\[\\$]|\\[()\[\]]|\\(?:begin|end)\{|\$\$?|\n\n")
_CLOSED_BY = {"$": "$", "$$": "$$", r"\(": r"\)", r"\[": r"\]", r"\begin{": r"\end{"}


def find_formulas(text: str) -> list[tuple[int, int, str]]:
    """Returns (start, end, content) of what is in $ $, \\( \\), \\[ \\] or an environment.

    "$5 and $6" is not a formula: a dollar sign before a digit does not close one, and neither do
    two with prose between them.
    """
    found: list[tuple[int, int, str]] = []
    opened: re.Match[str] | None = None
    for match in _DELIMITERS.finditer(text):
        token = match.group()
        if opened is None or (opened.group() == "$" and token == "\n\n"):
            opened = match if token in _CLOSED_BY else None
        elif token == _CLOSED_BY[opened.group()]:
            end = match.end()
            inside = text[opened.end() : match.start()].strip()
            if token == "$" and (text[end : end + 1].isdigit() or is_prose(inside)):
                opened = match
                continue
            if token == r"\end{":
                end = text.find("}", end) + 1 or len(text)
                inside = text[opened.start() : end]
            if inside:
                found.append((opened.start(), end, inside))
            opened = None
    return found


COMMAND = re.compile(
    r"\\(?:text|mbox|textbf|mathrm|textnormal)\s?\{[^{}]*\}|\\(?:begin|end)\{[^{}]*\}|\\[a-zA-Z]+"
)
_PROSE = re.compile(
    r"(?i)[a-z]{4,}|\b(?:the|is|are|was|we|so|of|to|it|if|in|on|at|an|as|not|for|but|by)\b"
    r"|[\u0400-\u1fff\u3040-\ud7ff]+"  # scripts other than Latin and Greek
)
_FORMULA_WORDS = re.compile(
    r"(?i)sqrt|a?(?:sin|cos|tan)h?|arc\w+|infinity|percent(?:age)?|degrees?"
)


def prose_in(text: str) -> list[str]:
    """Returns the words of a text that are neither part of a formula nor in \\text{...}."""
    words = _PROSE.findall(COMMAND.sub(" ", text))
    return [word for word in words if not _FORMULA_WORDS.fullmatch(word)]


def is_prose(text: str) -> bool:
    """Whether a text contains words that are not part of a formula."""
    return bool(prose_in(text))
