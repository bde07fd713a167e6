"""Completion text -> Score: a verifier's finding, and the reward that training sees for it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

from cegppo_jax.rewards.extraction import in_scope
from cegppo_jax.rewards.finding import UNPARSED, Finding
from cegppo_jax.rewards.verifiers import VERIFIERS, check_gold, resolve_verifier
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
        if self.correct <= self.highest_of_others:
            raise ValueError(
                f"a correct answer must earn more than any other outcome, found {values}: "
                "raise correct, or lower the others"
            )

    @property
    def highest_of_others(self) -> float:
        """The reward of the best-paid outcome that is not CORRECT."""
        return max(v for name, v in dataclasses.asdict(self).items() if name != "correct")


@dataclasses.dataclass(frozen=True)
class Bonus:
    """A further verifier, whose CORRECT adds to the reward."""

    verifier: str
    weight: float

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise ValueError(f"weight = {self.weight}: a finite number above 0")


@dataclasses.dataclass(frozen=True)
class Scoring:
    """All that scores completions, by name, so that it can be sent to any process."""

    verifier: str  # a name in VERIFIERS, or "package.module:function"
    by_source: tuple[tuple[str, str], ...]  # (Problem.source, the verifier of its problems)
    scope: str  # a name in SCOPES
    bonuses: tuple[Bonus, ...]
    values: RewardValues

    def verifier_of(self, problem: Problem) -> str:
        """The name of the verifier that reads a problem's completions."""
        return dict(self.by_source).get(problem.source, self.verifier)


def reward_of(outcome: Outcome, values: RewardValues) -> float:
    """Outcome -> reward."""
    return float(getattr(values, outcome.value))


def check_answers(problems: Iterable[Problem], scoring: Scoring) -> None:
    """Raises ValueError for the first problem whose answer its verifier, or that of a bonus, cannot
    read: every completion of it would count as crashed.

    A user's own verifier is not asked: nothing could stop it here (self_test.py tries it).
    """
    bonuses = [bonus.verifier for bonus in scoring.bonuses]
    for problem in problems:
        for verifier in (scoring.verifier_of(problem), *bonuses):
            if verifier in VERIFIERS:
                check_gold(problem, verifier)


def check_sources(sources: set[str], scoring: Scoring) -> None:
    """Raises ValueError when a verifier is named for a source that no problem has: a slip of the
    pen would give its problems to the verifier of all others, and nothing would say so.
    """
    unknown = sorted({source for source, _ in scoring.by_source} - sources)
    if unknown:
        raise ValueError(
            f"reward.by_source names {unknown}, and the problems are of the sources "
            f"{sorted(sources)}"
        )


def find(completion_text: str, problem: Problem, scoring: Scoring) -> Finding:
    """Completion text -> what the problem's verifier finds in the part of it that is in scope."""
    text = in_scope(completion_text, scoring.scope)
    if text is None:
        return UNPARSED
    return resolve_verifier(scoring.verifier_of(problem))(text, problem)


def bonus_of(completion_text: str, problem: Problem, scoring: Scoring) -> float:
    """Completion text -> the sum of the bonuses that it earns. Bonuses read all of it, whatever the
    scope, since what stands outside is their business: `format` wants to see the thinking.
    """
    return sum(
        bonus.weight
        for bonus in scoring.bonuses
        if resolve_verifier(bonus.verifier)(completion_text, problem).outcome is Outcome.CORRECT
    )


def score(completion_text: str, problem: Problem, scoring: Scoring) -> Score:
    """Completion text -> Score: the outcome is the verifier's, the reward that of the outcome with
    the bonuses added.

    Args:
      completion_text: the decoded completion, without special tokens.
      problem: that it answers.
      scoring: who verifies what, and what it is worth.
    """
    finding = find(completion_text, problem, scoring)
    reward = reward_of(finding.outcome, scoring.values)
    reward += bonus_of(completion_text, problem, scoring)
    return Score(reward, finding.outcome, finding.answer, finding.rule)
