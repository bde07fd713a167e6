"""Completion text -> the part that a verifier reads, and the answer that the part ends in."""

from __future__ import annotations

import re

from cegppo_jax.read_settings import check_choice

SCOPES = ("full", "after_think", "boxed_only")

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"

_BRACES = re.compile(r"\\?\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(r"\\(?:boxed|fbox)\s*([^\s{}$\\]+)")
# Between two boxes that are one answer: "\boxed{1}, \boxed{2}", "\boxed{1} and y = \boxed{2}"
_LAYOUT = re.compile(r"\\q?quad|\\text\s*\{|\\[()\[\],;:!> ]|[$}]|\s+")
_JOINED = re.compile(r"[^.:,;=]{0,30}(?:\b(?:and|or)\b|[,;])+[^.:,;=]{0,9}=?|\s*")
_CONNECTORS = re.compile(r"\b(?:and|or)\b")

_HASHES = re.compile(r"####[ \t]*([^\n]*)")
_ANSWER = re.compile(
    r"(?i)\b(final\s+)?answer\b\**(?:[^.:\n$\\=]{0,60}?\b(?:is|are)\b(?:\s*:)?|\s*[:=]|(?=\s*[$\\]))"
)
_VERB = re.compile(r"\b(?:is|are|equals)\b(?:\s*:)?")
_NOT = re.compile(r"(?i)(?:is\s+|are\s+)?not\b(?!.*\bbut\b)")  # "the answer is not 7" says no 7
_SENTENCE_END = re.compile(r"[.!?](?=\s|$|\*)|\n\s*\n|\n(?=\s*\w)")
_MATH = re.compile(
    r"\$\$(?:\\.|[^$\\])+\$\$|(?<!\\)\$(?:\\.|[^$\\])+\$|\\\[(?:(?!\\\]).)+\\\]|\\\((?:(?!\\\)).)+\\\)",
    re.DOTALL,
)
_MORE_MATH = re.compile(r"\s*(?:,|;|,?\s*\b(?:and|or)\b)?\s*")
_PERCENT = re.compile(r"\s*(?:\\?%|(?:percent(?:age)?|pct)\b)", re.IGNORECASE)
_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.,])-?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?:[.,]?\d+)(?:\s*/\s*\d+)?(?:[eE][-+]?\d+)?"
    r"(?:\s*(?:\\?%|percent\b|pct\b))?"
)
LONGEST_ANSWER = 2000  # characters; what is longer is no answer that anything could be equal to
_COMMAND = re.compile(
    r"\\(?:text|mbox|textbf|mathrm|textnormal)\s*\{[^{}]*\}|\\(?:begin|end)\{[^{}]*\}|\\[a-zA-Z]+"
)
_WORD = re.compile(r"[^\W\d_]{2,}")
_PROSE = re.compile(
    r"(?i)[a-z]{4,}|\b(?:the|is|are|was|we|so|of|to|it|if|in|on|at|an|as|not|for|but|by)\b"
    r"|[\u0400-\u1fff\u3040-\ud7ff]+"  # scripts other than Latin and Greek
)
_FORMULA_WORDS = frozenset(("sqrt", "arctan", "infinity", "percent", "percentage", "degrees"))
_NUMBER_AND_WORDS = re.compile(
    r"[-+]?\\?\$?[\d.,]*\d\$?\s*[A-Za-z]{2,}(?:\s+[A-Za-z]+){0,2}(?:\^\d)?\.?"
)
_MOST_WORDS = 6  # of an answer in words that stands alone
_LONGEST_TAIL = 600  # of the text behind "the answer is": no answer is longer


def last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """-> the last match of a pattern in a text."""
    match = None
    for match in pattern.finditer(text):  # noqa: B007 the last one outlives the loop
        pass
    return match


def in_scope(text: str, scope: str) -> str | None:
    """Completion text -> the part of it that counts; None: there is no such part, so no answer.

        full         all of it, thinking included (the official code of CE-GPPO)
        after_think  what stands behind the last </think>; a completion whose thinking never ended
                     has none
        boxed_only   the last \\boxed{...}, wherever it stands

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
        inside = last_boxed(text)
        return None if inside is None else f"\\boxed{{{inside}}}"
    return text


def last_boxed(text: str) -> str | None:
    """Text -> what its last \\boxed{...} holds, with the boxes joined to it; None without a box.

    Braces balance, and a box that never closes is none. Boxes are one answer when no more than a
    word or two and a single comma, "and" or "or" stand between them:

        \\boxed{1}, \\boxed{2} and \\boxed{3}     -> 1, 2, 3
        \\boxed{1}. Now y: \\boxed{2}             -> 2
    """
    if "\\boxed" not in text and "\\fbox" not in text:
        return None
    boxes = _closed_boxes(text)
    if not boxes:
        bare = _BARE_BOX.findall(text)
        return bare[-1].rstrip(".,;") if bare else None
    start, end, inside = boxes[-1]
    # What is too long for an answer may hold boxes in boxes in boxes
    contents = [(last_boxed(inside) if len(inside) <= LONGEST_ANSWER else None) or inside]
    for previous_start, previous_end, previous in reversed(boxes[:-1]):
        if start - previous_end > 80 or not _joins(text[previous_end:start]):
            break
        if previous not in contents:
            contents.append(previous)
        start = previous_start
    following = _PERCENT.match(text, end) or _PERCENT.match(text, end + 1)
    return ", ".join(reversed(contents)) + (r"\%" if following else "")


def _closed_boxes(text: str) -> list[tuple[int, int, str]]:
    """Text -> (start, end, content) of its outermost closed boxes, in one pass over the braces."""
    boxes: list[tuple[int, int, int, int]] = []  # start, end, those of the content
    opened: list[tuple[int, int] | None] = []  # None: a brace that is no box's
    for match in _BRACES.finditer(text):
        token = match.group()
        if token == "{":
            opened.append(None)
        elif token == "}":
            box = opened.pop() if opened else None
            if box is not None:
                start, content_start = box
                while boxes and boxes[-1][0] > start:
                    boxes.pop()
                boxes.append((start, match.end(), content_start, match.start()))
        elif token.endswith("{") and token != "\\{":
            opened.append((match.start(), match.end()))
    return [(start, end, text[low:high].strip()) for start, end, low, high in boxes]


def _joins(between: str) -> bool:
    plain = _LAYOUT.sub(" ", between).strip()
    return bool(_JOINED.fullmatch(plain)) and len(_CONNECTORS.findall(plain)) <= 1


def stated_answer(text: str) -> str | None:
    """Text -> what it states as its answer, by the strongest sign that it has; None: no sign.

    In this order, the last of a kind: \\boxed{...} or a "Final answer: ..." behind it, "#### ...",
    "the answer is ...".
    """
    inside = last_boxed(text)
    boxed_until = max(text.rfind("\\boxed"), text.rfind("\\fbox")) if inside is not None else -1
    answers = list(_ANSWER.finditer(text))
    final = answers and answers[-1].group(1) and answers[-1].end() > boxed_until
    if inside is not None and not final:
        return inside
    hashes = _HASHES.findall(text)
    if hashes and hashes[-1].strip():
        return hashes[-1].strip()
    if answers:
        tail = text[answers[-1].end() : answers[-1].end() + _LONGEST_TAIL].lstrip(" \t\n*:")
        return _stated_in(tail)
    return None


def _stated_in(tail: str) -> str | None:
    """The text behind "the answer is" -> the answer: a formula, or the words of the sentence."""
    formulas = list(_MATH.finditer(tail))
    end = _sentence_end(tail, formulas)
    sentence = tail[:end].strip(" \t\n*")
    if _NOT.match(sentence):
        return sentence
    verbs = [verb for verb in _VERB.finditer(sentence) if verb.end() < len(sentence)]
    if verbs:
        sentence = sentence[verbs[-1].end() :].strip(" \t\n*:")
    before = _MATH.search(sentence)
    if before and not any(character.isdigit() for character in sentence[: before.start()]):
        return _formula_with_neighbours(sentence, before)
    if not sentence or stands_alone(sentence):
        return sentence or None
    return last_expression(sentence) or sentence


def _sentence_end(tail: str, formulas: list[re.Match[str]]) -> int:
    for end in _SENTENCE_END.finditer(tail):
        if not any(one.start() <= end.start() < one.end() for one in formulas):
            return end.start()
    return len(tail)


def _formula_with_neighbours(text: str, formula: re.Match[str]) -> str:
    """A formula, those joined to it ("$1$, $2$ and $3$") and the unit or percent sign behind."""
    found, end = [_inside(formula.group())], formula.end()
    while True:
        gap = _MORE_MATH.match(text, end)
        following = _MATH.match(text, gap.end()) if gap and gap.end() > end else None
        if following is None:
            break
        found.append(_inside(following.group()))
        end = following.end()
    percent = r"\%" if _PERCENT.match(text, end) else ""
    return ", ".join(found) + percent


def _inside(formula: str) -> str:
    width = 2 if formula.startswith(("$$", "\\")) else 1
    return formula[width:-width].strip()


def last_expression(text: str) -> str | None:
    """Text -> its last formula or number, whichever stands later; None where there is neither."""
    tail = text[-5000:]
    number = last_match(_NUMBER, tail)
    formula = last_match(_MATH, tail)
    if formula and (number is None or number.start() < formula.end()):
        return _last_joined(tail)
    return number.group().strip() if number else None


def _last_joined(text: str) -> str:
    """Text with a formula -> its last run of joined formulas."""
    position, run = 0, ""
    while formula := _MATH.search(text, position):
        run = _formula_with_neighbours(text, formula)
        end = formula.end()
        while (gap := _MORE_MATH.match(text, end)) and gap.end() > end:
            following = _MATH.match(text, gap.end())
            if following is None:
                break
            end = following.end()
        position = end
    return run


def stands_alone(text: str) -> bool:
    """Is all of a text one answer: a formula, a number with its unit, or a few words?"""
    if not text or len(text) > LONGEST_ANSWER:
        return False
    if _NUMBER_AND_WORDS.fullmatch(text):
        return True
    bare = _COMMAND.sub(" ", text)
    words = [word for word in _PROSE.findall(bare) if word.lower() not in _FORMULA_WORDS]
    if any(character.isdigit() for character in bare):
        return all(word.isupper() for word in words)  # names of points and the like: AB = 4
    return len(_WORD.findall(bare)) <= _MOST_WORDS and "\n" not in text
