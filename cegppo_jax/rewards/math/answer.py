"""Completion text -> Finding, by mathematics: the verifier `math`."""

from __future__ import annotations

import re
from functools import lru_cache

from cegppo_jax.rewards.extraction import (
    LONGEST_ANSWER,
    last_expression,
    stands_alone,
    stated_answer,
)
from cegppo_jax.rewards.finding import UNPARSED, Finding, judged, unreadable
from cegppo_jax.rewards.math.equivalence import canonical_answer, same_answer
from cegppo_jax.rewards.math.notation import one_notation
from cegppo_jax.types import Problem

_LONGEST_PLAIN_GOLD = 80  # characters


def math_answer(completion_text: str, problem: Problem) -> Finding:
    """Completion text -> Finding: is its answer mathematically the problem's?

    The answer is what stands in the last \\boxed{...}; without one behind the last "####"; without
    that behind the last "answer is" or "answer:"; else all of a text that is nothing but a formula
    or a few words; else the last formula or number. Worked examples for the answer
    "\\frac{1}{2}":

        so $x = \\boxed{0.5}$      CORRECT     The answer is 2/4.    CORRECT
        \\boxed{1} or \\boxed{2}    WRONG       I do not know what to do here at all      UNPARSED

    What is the same answer: math_equivalence.same_answer. Nothing here limits time.

    Raises:
      ValueError: nothing could equal the problem's answer: it is empty, signs alone or too long.
    """
    gold = gold_answer(problem.answer)
    if not is_readable(gold):
        needs = f"a formula or words of at most {LONGEST_ANSWER} characters"
        raise unreadable("math", problem, needs)
    read = answer_of(completion_text)
    if read is None:
        return UNPARSED
    if len(read) > LONGEST_ANSWER:
        return judged(False, read[:100])
    right = same_answer(gold, read)
    return judged(right, canonical_answer(gold if right else read))


def answer_of(completion_text: str) -> str | None:
    """Completion text -> the answer that it gives, as written; None without one."""
    text = completion_text.strip()
    read = stated_answer(text)
    if read is None:
        read = text if stands_alone(text) else last_expression(text)
    return read if read and one_notation(read[:LONGEST_ANSWER]) else None


@lru_cache(maxsize=8192)
def gold_answer(text: str) -> str:
    """A problem's answer -> the answer inside: it may be wrapped in $ $ or a whole solution, which
    is longer than _LONGEST_PLAIN_GOLD.
    """
    text = text.strip()
    stated = stated_answer(text)
    if stated is not None:
        return stated
    if stands_alone(text) or len(text) <= _LONGEST_PLAIN_GOLD:
        return text
    return last_expression(text) or text


@lru_cache(maxsize=8192)
def is_readable(gold: str) -> bool:
    """Could anything be equal to a gold answer?"""
    return len(gold) <= LONGEST_ANSWER and bool(re.search(r"\w", one_notation(gold)))
