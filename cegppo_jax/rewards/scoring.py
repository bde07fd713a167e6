"""Completion text -> Score: a verifier's finding, and the reward that training sees for it."""

from __future__ import annotations

import dataclasses
import math

from cegppo_jax.rewards.verifiers import Verifier
from cegppo_jax.types import Outcome, Problem, Score


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardValues:
    """The reward of each outcome: one field an outcome, of the same name."""

    correct: float
    wrong: float
    unparsed: float
    timed_out: float
    crashed: float

    def __post_init__(self) -> None:
        values = dataclasses.asdict(self)
        if not all(math.isfinite(value) for value in values.values()):
            raise ValueError(f"rewards must be finite numbers, found {values}")
        if self.correct <= max(self.wrong, self.unparsed, self.timed_out, self.crashed):
            raise ValueError(
                f"a correct answer must earn more than any other outcome, found {values}: "
                "raise correct, or lower the others"
            )


def reward_of(outcome: Outcome, values: RewardValues) -> float:
    """Outcome -> reward."""
    return float(getattr(values, outcome.value))


def score(completion_text: str, problem: Problem, verify: Verifier, values: RewardValues) -> Score:
    """Completion text -> Score.

    Args:
      completion_text: the decoded completion, without special tokens.
      problem: that it answers.
      verify: one of VERIFIERS.
      values: the reward of each outcome.
    """
    outcome = verify(completion_text, problem).outcome
    return Score(reward=reward_of(outcome, values), outcome=outcome)
