"""Completion text -> the place where its answer stands, by one table of rules for all verifiers."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Generic, TypeVar

from cegppo_jax.read_settings import check_choice
from cegppo_jax.rewards.latex_spans import PERCENT, are_joined, find_boxes, find_formulas

SCOPES = ("full", "after_think", "boxed_only")
THINK_OPEN, THINK_CLOSE = "<think>", "</think>"

MOST_PLACES = 30  # of one rule that are tried, from the last one back
LONGEST_SENTENCE = 600  # characters behind "the answer is"
LONGEST_INSIDE = 5000  # characters at the end of a tag that are read

Value = TypeVar("Value")


@dataclasses.dataclass(frozen=True)
class Reader(Generic[Value]):
    """What counts as a value for one verifier: text of a place -> the value, or None."""

    whole: Callable[[str], Value | None]  # all that a box or tag holds
    alone: Callable[[str], Value | None]  # a text that must be one value and nothing else
    stated: Callable[[str], Value | None]  # the sentence behind "the answer is"
    last: Callable[[str], Value | None]  # the last value of a text


@dataclasses.dataclass(frozen=True)
class Reading(Generic[Value]):
    """A value, the text of the place that holds it, and the rule that found the place."""

    value: Value
    place: str
    rule: str


@dataclasses.dataclass(frozen=True)
class Rule:
    """One kind of place. Its places are tried from the last one back."""

    name: str
    example: str  # a completion in which this rule finds 42
    places: Callable[[str], Iterable[str]]
    read_as: str  # a field of Reader; "inside": by all rules again, and as a whole otherwise


def read_answer(text: str, reader: Reader[Value]) -> Reading[Value] | None:
    """Completion text -> its answer by the first of RULES with a place that holds a value.

    A place without a value (an empty box, "the final answer is an integer") does not win: the next
    place and then the next rule is tried. Linear in the length of the text.
    """
    text = plain(text)
    for rule in RULES:
        for place in itertools.islice(rule.places(text), MOST_PLACES):
            if rule.read_as == "inside":
                inner = read_answer(place, reader)
                value = reader.whole(place) if inner is None else inner.value
                place = place if inner is None else inner.place
            else:
                value = getattr(reader, rule.read_as)(place)
            if value is not None:
                return Reading(value, place, rule.name)
    return None


_WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}  # full-width digits and letters
_CHARACTERS = _WIDE | {0x2212: "-", 0x3002: ". ", **dict.fromkeys((0x3000, 0xA0, 0x202F), " ")}
_SPECIAL_TOKEN = re.compile(r"<\|\w{1,30}\|>")
_BLANKS = re.compile(r"[\t\r][ \t\r]*| [ \t\r]+")
_BLANK_LINES = re.compile(r"\n(?: ?\n)+")


def plain(text: str) -> str:
    """Text with full-width characters in ASCII, one blank for many and one empty line for many."""
    text = text if text.isascii() else text.translate(_CHARACTERS)
    text = _SPECIAL_TOKEN.sub("\n", text)
    return _BLANK_LINES.sub("\n\n", _BLANKS.sub(" ", text)).strip()


def in_scope(text: str, scope: str) -> str | None:
    """Completion text -> the part of it that counts; None: there is no such part, so no answer.

        full         all of it, thinking included (the official code of CE-GPPO)
        after_think  what follows the last </think>; a completion whose thinking never ended
                     has none
        boxed_only   its boxes, \\boxed{...}, wherever they stand

    Worked examples:

        text                              full    after_think   boxed_only
        <think>\\boxed{1}</think> so 2     all     " so 2"       \\boxed{1}
        <think>\\boxed{1} but              all     None          \\boxed{1}
        so \\boxed{2}                      all     None          \\boxed{2}
        so 2                              all     None          None
    """
    check_choice("reward.scope", scope, SCOPES)
    if scope == "after_think":
        _, closed, rest = text.rpartition(THINK_CLOSE)
        return rest if closed and THINK_OPEN not in rest else None
    if scope == "boxed_only":
        boxes = find_boxes(text)
        gaps = [text[a[1] : b[0]] for a, b in itertools.pairwise(boxes)]
        between = [" ", *(gap if are_joined(gap) else ".\n" for gap in gaps)]
        parts = (f"{gap}\\boxed{{{box[2]}}}" for gap, box in zip(between, boxes, strict=False))
        return "".join(parts).strip() or None
    return text


_STATED = re.compile(
    r"""(?ix)(?<![a-z<\\/]) (?:(?P<final>final\ ) (?:correct\ )?)?
    (?:answers? | (?:correct|right|best)\ (?:option|choice)) (?![a-z]|\ (?:choices?|options?|key)\b)
    (?: (?:\*\*|__)?
        (?: [^.:\n$\\=]{0,60}? \b(?:is|are|be|was|equals)\b (?:\ ?:)? | \ ?[:=] | (?=\ ?[$\\]) )
      | (?P<heading> (?:\*\*|__)? (?=\n) ) )
    | 答案 (?:\ ?[:=] | [是为為])
    | (?:réponse|respuesta|resposta|risposta|antwort|ответ) \ ?
      (?: : | [^.:\n$\\=]{0,60}? \b(?:est|es|é|è|ist|lautet)\b )"""
)
_KEYWORDS = ("answer", "option", "choice", "答案", "ponse", "posta", "puesta", "antwort", "ответ")
_HEADING = re.compile(r"(?i)[#*_> ]*(?:the )?")
_DENIED = re.compile(r"(?i)n't\b|\b(?:not|cannot|never)\b")
_SENTENCE_END = re.compile(
    r"(?<!approx)(?<!i\.e)(?<!e\.g)[.?](?=\s|$|[*\"')\]])|!(?=\s[^=]|\s?$|\*)|\n"
)


@lru_cache(maxsize=2)
def _announcements(text: str) -> tuple[re.Match[str], ...]:
    """Text -> where it says "the answer is", "answer:" and the like; the last ones of very many."""
    lowered = text.lower()
    if not any(word in lowered for word in _KEYWORDS):
        return ()
    return tuple(
        found
        for found in collections.deque(_STATED.finditer(text), 10 * MOST_PLACES)
        if found["heading"] is None
        or _HEADING.fullmatch(text[max(0, found.start() - 40) : found.start()].rpartition("\n")[2])
    )


def _sentence(text: str, begin: int) -> str | None:
    """Text and a place in it -> the sentence there; None where it never ends."""
    tail = text[begin : begin + LONGEST_SENTENCE].replace('\\"', '"').lstrip(" \n*_:>#")
    formulas = find_formulas(tail)
    ends = (
        end.start()
        for end in _SENTENCE_END.finditer(tail)
        if not any(low <= end.start() < high for low, high, _ in formulas)
    )
    end = next(ends, len(tail) if begin + LONGEST_SENTENCE >= len(text) else None)
    return None if end is None else tail[:end].strip(' \n*_"\u201c\u201d')


_CHANGED_BEFORE = re.compile(
    r"(?i)(?:n't(?: be)?|\b(?:cannot be|over|under|except|not?(?: be)?"
    r"|(?:root|square|cube|reciprocal|inverse) of"
    r"|(?:less|more|fewer|greater|larger|smaller|other|rather) than"
    r"|at (?:least|most)|negative|minus|multiples? of|powers? of|divisible by"
    r"|up to|between|twice|half|below|above))\s+(?:of |a |the |or equal to |[$(]|\\[(\[])*\s*$"
)
_CHANGED_BEHIND = re.compile(
    r"(?i)(?:[$)]|\\[)\]])*\s+(?:\w+ )?(?:at (?:least|most)|or (?:more|less|fewer)|squared|cubed"
    r"|and (?:above|up)|plus|minus|(?:divided|multiplied) by|(?:less|more|fewer|greater) than"
    r"|(?:hundred|thousand|[mbtr]+illion|dozen)s?)\b"
)


def with_changing_words(text: str, start: int, end: int) -> tuple[int, int]:
    """Text and the span of a value -> the span with the words that change it: "less than 7"."""
    low = max(0, start - 40)
    before = _CHANGED_BEFORE.search(text[low:start])
    behind = _CHANGED_BEHIND.match(text, end)
    return low + before.start() if before else start, behind.end() if behind else end


def _statements(text: str) -> Iterator[str]:
    """The sentences behind "the answer is", from the last one back."""
    for found in reversed(_announcements(text)):
        if sentence := _sentence(text, found.end()):
            yield f"not {sentence}" if _DENIED.search(found[0]) else sentence


def _final_behind_box(text: str) -> Iterator[str]:
    boxes = find_boxes(text)
    strong_end = max(boxes[-1][1] if boxes else 0, text.rfind("</answer>"))
    for found in reversed(_announcements(text) if strong_end > 0 else ()):
        if found.start() < strong_end:
            return
        sentence = _sentence(text, found.end()) if found["final"] else None
        # words alone speak about the answer: "the final answer is correct"
        if sentence and (re.search(r"\d", sentence) or len(sentence.strip("().$")) == 1):
            yield sentence


def _tags(text: str) -> Iterator[str]:
    marks = list(re.finditer(r"(?i)<(/?)answer>", text))
    boxed = max((start for start, _, _ in find_boxes(text)), default=-1)
    for opening, closing in reversed(list(itertools.pairwise(marks))):
        if closing.end() < boxed:
            return  # the last word counts
        if not opening[1] and closing[1]:
            percent = PERCENT.match(text, closing.end())
            inside = text[opening.end() : closing.start()].strip()[-LONGEST_INSIDE:]
            yield inside + (r"\%" if percent else "")


def _boxes(text: str) -> Iterator[str]:
    return (inside for _, _, inside in reversed(find_boxes(text)))


def _hashes(text: str) -> Iterator[str]:
    for match in reversed(re.findall(r"####(?!#) ?([^\n]*)", text)):
        yield match.strip(" *")


def _emphasis_at_end(text: str) -> Iterator[str]:
    line = text[text.rfind("\n") + 1 :].rstrip(" .!")
    for mark in ("**", "__", "`"):
        begin = line.rfind(mark, 0, len(line) - len(mark))
        if line.endswith(mark) and begin >= 0:
            yield line[begin + len(mark) : -len(mark)].strip(" .:`$*_")


def _lines_with_a(text: str) -> Iterator[str]:
    return (line for line in reversed(re.findall(r"(?m)^A: ?([^\n]+)", text)))


# In order of precedence: the name in Finding.rule, a completion that this rule reads as 42, where
# its places are, and how a verifier's Reader looks for a value there. The first two count only
# behind the last box. Of one rule's places the last with a value wins. "Answer" stands for the word
# in a few other languages as well.
RULES = (
    Rule("final answer", r"\boxed{7} a day. Final answer: 42", _final_behind_box, "alone"),
    Rule("tag", "<answer>42</answer>", _tags, "inside"),
    Rule("box", r"\boxed{7}, no: \boxed{42}. I put it in \boxed{}.", _boxes, "whole"),
    Rule("hashes", "6*7 is 42\n#### 42", _hashes, "alone"),
    Rule("answer is", "The answer is 42, as 6*7 is. So we are done.", _statements, "stated"),
    Rule("emphasis at the end", "So there are **42**.", _emphasis_at_end, "alone"),
    Rule("whole text", "42", lambda text: (text,), "alone"),
    Rule("A:", "A: 42 apples in 7 boxes", _lines_with_a, "stated"),
    Rule("last value", "6 times 7 makes 42 then", lambda text: (text,), "last"),
)
