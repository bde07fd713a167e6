"""One drawn problem of a generated task, worked out."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Worked:
    """One drawn problem, before it has an id and a side."""

    problem: str
    answer: str  # what the task's verifier compares with
    solution: str  # every step written out
    # Only the answer, in the form that the verifier reads; None if there are no other steps.
    bare_solution: str | None
