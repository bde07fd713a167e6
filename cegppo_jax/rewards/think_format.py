"""The verifier `format`: judges the form of a completion."""

from __future__ import annotations

from cegppo_jax.rewards.extraction import THINK_CLOSE, THINK_OPEN
from cegppo_jax.rewards.finding import UNPARSED, Finding, judged
from cegppo_jax.types import Problem

WELL_FORMED, MALFORMED = "well-formed", "malformed"


def think_format(completion_text: str, problem: Problem) -> Finding:
    """Judges whether a completion has one piece of thinking between tags, and something after it.

    The opening tag may be missing, since many chat templates end the prompt with it. Worked
    examples:

        <think>1+1</think>2              CORRECT     1+1</think>2               CORRECT
        <think>1+1</think>               WRONG       2                          WRONG
        <think></think><think></think>2  WRONG       so <think>1+1</think>2     WRONG
    """
    del problem  # any answer will do
    if not completion_text.strip():
        return UNPARSED
    thinking, _, answer = completion_text.partition(THINK_CLOSE)
    before, _, _ = thinking.rpartition(THINK_OPEN)
    right = (
        completion_text.count(THINK_CLOSE) == 1
        and completion_text.count(THINK_OPEN) == thinking.count(THINK_OPEN) <= 1
        and not before.strip()
        and bool(answer.strip())
    )
    return judged(right, WELL_FORMED if right else MALFORMED)
