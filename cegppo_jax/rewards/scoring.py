"""Scores completions: a verifier's finding, and the reward that training sees for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from cegppo_jax.rewards.extraction import in_scope
from cegppo_jax.rewards.finding import UNPARSED, Finding
from cegppo_jax.rewards.verifiers import VERIFIERS, check_gold, resolve_verifier
from cegppo_jax.types import Outcome, Problem, Score

MOST_REWARD = 1e6


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardValues:
    """The reward of each outcome; each field has the name of its outcome."""

    correct: float
    wrong: float
    unparsed: float
    timed_out: float
    crashed: float

    def __post_init__(self) -> None:
        values = dataclasses.asdict(self)
        for name, value in values.items():
            if not abs(value) <= MOST_REWARD:
                raise ValueError(
                    f"reward.outcomes.{name} = {value:g}: must be from {-MOST_REWARD:g} to "
                    f"{MOST_REWARD:g}, beyond which float32 loses the differences of rewards"
                )
        if self.correct <= self.highest_of_others:
            raise ValueError(
                f"a correct answer must earn more than any other outcome, found {values}: "
                "raise correct, or lower the others"
            )

    @property
    def highest_of_others(self) -> float:
        """The highest reward of an outcome other than CORRECT."""
        return max(v for name, v in dataclasses.asdict(self).items() if name != "correct")


@dataclasses.dataclass(frozen=True)
class Bonus:
    """A further verifier, whose CORRECT adds to the reward."""

    verifier: str
    weight: float

    def __post_init__(self) -> None:
        if not 0 < self.weight <= MOST_REWARD:
            raise ValueError(f"weight = {self.weight}: above 0 and at most {MOST_REWARD:g}")


@dataclasses.dataclass(frozen=True)
class Scoring:
    """Everything that scores completions, by name, so that it can be sent to any process."""

    verifier: str  # a name in VERIFIERS, or "package.module:function"
    by_source: tuple[tuple[str, str], ...]  # (Problem.source, the verifier of its problems)
    scope: str  # a name in SCOPES
    bonuses: tuple[Bonus, ...]
    values: RewardValues

    def verifier_of(self, problem: Problem) -> str:
        """The name of the verifier that reads a problem's completions."""
        return dict(self.by_source).get(problem.source, self.verifier)


def reward_of(outcome: Outcome, values: RewardValues) -> float:
    """Returns the reward of an outcome."""
    return float(getattr(values, outcome.value))


def credited(finding: Finding, values: RewardValues) -> float:
    """Finding -> reward: that of its outcome; with a credit (1 - credit) wrong + credit correct."""
    if finding.credit is None:
        return reward_of(finding.outcome, values)
    return (1 - finding.credit) * values.wrong + finding.credit * values.correct


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
    """Raises ValueError when a verifier is assigned to a source that no problem has. Such a slip
    would otherwise silently give its problems to the default verifier.
    """
    unknown = sorted({source for source, _ in scoring.by_source} - sources)
    if unknown:
        raise ValueError(
            f"reward.by_source names {unknown}, but the problems have the sources {sorted(sources)}"
        )


def find(completion_text: str, problem: Problem, scoring: Scoring) -> Finding:
    """Returns what the problem's verifier finds in the part of the completion that is in scope."""
    text = in_scope(completion_text, scoring.scope)
    if text is None:
        return UNPARSED
    return resolve_verifier(scoring.verifier_of(problem))(text, problem)


def bonus_of(completion_text: str, problem: Problem, scoring: Scoring) -> float:
    """Returns the sum of the bonuses that a completion earns: the weight of each that finds it
    right, or the share of its weight that its credit says. Bonuses read all of it, whatever
    the scope: `format`, for one, needs to see the thinking.

    Raises:
      ValueError: a bonus's credit is not in [0, 1]; it could outweigh a right answer.
    """
    total = 0.0
    for bonus in scoring.bonuses:
        finding = resolve_verifier(bonus.verifier)(completion_text, problem)
        share = finding.credit
        if share is None:
            share = float(finding.outcome is Outcome.CORRECT)
        if not 0 <= share <= 1:
            raise ValueError(
                f"the bonus {bonus.verifier!r} gave {share:g}: from 0 to 1, its weight is "
                f"{bonus.weight:g}"
            )
        total += bonus.weight * share
    return total


def score_completion(completion_text: str, problem: Problem, scoring: Scoring) -> Score:
    """Scores a completion: the outcome is the verifier's; the reward is that of the outcome, or of
    the partial credit, plus the bonuses.

    Args:
      completion_text: the decoded completion, without special tokens.
      problem: the problem that it answers.
      scoring: what verifies which problems, and what each outcome is worth.
    """
    finding = find(completion_text, problem, scoring)
    reward = credited(finding, scoring.values)
    reward += bonus_of(completion_text, problem, scoring)
    return Score(reward, finding.outcome, finding.answer, finding.rule)
