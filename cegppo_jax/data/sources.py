"""Where problems come from and in which order: a function of (seed, position).

A source has no state. Its order is a pure function of (seed, position), so a run that stops at
position 4,711 continues with the same problems from that one integer.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import Protocol

from cegppo_jax.data.tasks.table import Split, Task, check_steps, generate_problem
from cegppo_jax.types import Problem

# A generated source cannot be checked whole. Its first problems show a wrong alphabet or limit, and
# that many over-long ones in a row mean that (almost) none fits.
GENERATED_CHECKED = 256
GENERATED_PATIENCE = 4096


class Source(Protocol):
    """An endless sequence of problems."""

    @property
    def known_problems(self) -> Sequence[Problem]:
        """Every problem that is not generated."""
        ...

    def problems_to_check(self, seed: int) -> Sequence[Problem]:
        """The problems to check before a run: all of a list, the first ones of an endless
        source.
        """
        ...

    @property
    def patience(self) -> int:
        """If none of that many consecutive problems can be used, (almost) none can."""
        ...

    def problem_at(self, seed: int, position: int) -> Problem:
        """Returns the problem at a position >= 0 for a seed; a pure function."""
        ...


@dataclasses.dataclass(frozen=True)
class FiniteSource:
    """A list of problems, each exactly once an epoch, in a different order every epoch."""

    problems: Sequence[Problem]

    def __post_init__(self) -> None:
        if not self.problems:
            raise ValueError("a finite source needs at least 1 problem, and this one has 0")

    @property
    def known_problems(self) -> Sequence[Problem]:
        """All problems of the list."""
        return self.problems

    def problems_to_check(self, seed: int) -> Sequence[Problem]:
        """All problems of the list."""
        return self.problems

    @property
    def patience(self) -> int:
        """Two epochs minus one problem contain a whole epoch, whatever their start."""
        return 2 * len(self.problems) - 1

    def problem_at(self, seed: int, position: int) -> Problem:
        """The problem at epoch_order(...)[offset], with epoch, offset = divmod(position, size)."""
        epoch, offset = divmod(position, len(self.problems))
        return self.problems[epoch_order(seed, epoch, len(self.problems))[offset]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratedSource:
    """The training or held-out side of a built-in task: the position is the index of the
    problem.
    """

    task: Task
    split: Split
    min_steps: int
    max_steps: int
    bare_fraction: float = 0.0  # share of solutions that give the answer without the steps

    def __post_init__(self) -> None:
        check_steps(self.min_steps, self.max_steps)

    @property
    def known_problems(self) -> Sequence[Problem]:
        """None, since the problems never end."""
        return ()

    def problems_to_check(self, seed: int) -> Sequence[Problem]:
        """The first problems."""
        return [self.problem_at(seed, position) for position in range(GENERATED_CHECKED)]

    @property
    def patience(self) -> int:
        """Enough for all but hopeless limits."""
        return GENERATED_PATIENCE

    def problem_at(self, seed: int, position: int) -> Problem:
        """The task's problem with that index."""
        return generate_problem(
            self.task,
            self.split,
            seed,
            position,
            self.min_steps,
            self.max_steps,
            self.bare_fraction,
        )


@functools.lru_cache(maxsize=32)
def epoch_order(seed: int, epoch: int, size: int) -> tuple[int, ...]:
    """Returns shuffled(seed, epoch, size). The cache only saves time: 30 ms for an epoch of
    40,000 problems.
    """
    return shuffled(seed, epoch, size)


def shuffled(seed: int, epoch: int, size: int) -> tuple[int, ...]:
    """Returns a pseudo-random permutation of range(size) for (seed, epoch).

    Sorts the indices by a digest of (seed, epoch, index). A numpy Generator would be faster, but
    its streams may change between numpy versions, and a run resumed under another version would
    repeat some problems and miss others.
    """
    prefix = hashlib.blake2b(f"{seed}/{epoch}/".encode(), digest_size=8)

    def digest(index: int) -> bytes:
        """The sort key of one index."""
        keyed = prefix.copy()
        keyed.update(str(index).encode())
        return keyed.digest()

    return tuple(sorted(range(size), key=digest))
