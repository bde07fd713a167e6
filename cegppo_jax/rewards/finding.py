"""What a verifier is and what it finds: the records that all verifiers share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from cegppo_jax.types import Outcome, Problem

MAX_CREDIT = 1e6


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a verifier found in one completion."""

    outcome: Outcome
    answer: str | None  # as read and normalised; None exactly when the outcome is UNPARSED
    rule: str | None = None  # where the answer stood, a name in extraction.RULES; None: no rule
    # Partial credit: 0 earns what a wrong answer earns, 1 what a right one does, and 0.5 the mean
    # of the two. None: the outcome's reward. The outcome is what metrics and evaluation count
    credit: float | None = None

    def __post_init__(self) -> None:
        if self.credit is not None and not abs(self.credit) <= MAX_CREDIT:
            raise ValueError(
                f"a verifier gave the number {self.credit}: finite, and from -{MAX_CREDIT:g} to "
                f"{MAX_CREDIT:g}"
            )


# (completion text, problem) -> Finding; what else a user's may take and return: forms.py
Verifier = Callable[[str, Problem], Finding]

UNPARSED = Finding(Outcome.UNPARSED, None)


def judged(right: bool, answer: str, rule: str | None = None) -> Finding:
    """Returns the Finding of an answer that could be read, and that is right or not."""
    return Finding(Outcome.CORRECT if right else Outcome.WRONG, answer, rule)


@dataclasses.dataclass(frozen=True)
class VerifierExample:
    """A completion that a verifier must call right and one that it must call wrong, for a
    self-test.
    """

    problem: Problem
    right: str
    wrong: str


def unreadable(verifier: str, problem: Problem, needs: str) -> ValueError:
    """Returns the error for a problem whose answer a verifier cannot read."""
    return ValueError(
        f"verifier {verifier!r} cannot read {problem.answer!r}, the answer of problem "
        f"{problem.id!r} of source {problem.source!r}: it needs {needs}, or choose another verifier"
    )
