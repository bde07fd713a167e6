"""What a verifier is and what it finds: the records that all verifiers share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from cegppo_jax.types import Outcome, Problem


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a verifier found in one completion."""

    outcome: Outcome
    answer: str | None  # as read and normalised; None exactly when the outcome is UNPARSED
    rule: str | None = None  # where the answer stood, a name in extraction.RULES; None: no rule


Verifier = Callable[[str, Problem], Finding]  # (completion text, problem) -> Finding

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
