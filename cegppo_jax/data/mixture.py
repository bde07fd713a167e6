"""Mixes several sources by weight into one."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from fractions import Fraction

from cegppo_jax.data.sources import Source, shuffled
from cegppo_jax.types import Problem

MAX_BLOCK = 1000  # positions; weights are rounded to shares of it where they do not fit exactly


@dataclasses.dataclass(frozen=True)
class MixtureSource:
    """Each position belongs to one member, in exact proportion in every block of positions.

    A block has as many positions as the weights need (block_counts). Which member has which
    position is shuffled differently for each seed and block. A member counts the positions that it
    had before, so a finite member still gives each of its problems once an epoch.

    Worked example, weights 2 and 1, a block of 3 positions:

        position               0  1  2 | 3  4  5 | 6 ...
        member                 a  b  a | a  a  b | b ...
        position in the member 0  0  1 | 2  3  1 | 2 ...
    """

    members: tuple[Source, ...]
    weights: tuple[Fraction, ...]  # of the same order; any positive numbers

    def __post_init__(self) -> None:
        if len(self.members) != len(self.weights) or not self.members:
            raise ValueError(
                f"a mixture of {len(self.members)} members has {len(self.weights)} weights: it "
                "needs at least 1 member, and a weight for each"
            )
        _ = self.counts  # made, to be checked

    @property
    def counts(self) -> tuple[int, ...]:
        """Positions of each member in a block."""
        return block_counts(self.weights)

    @property
    def known_problems(self) -> Sequence[Problem]:
        """The problems of the members that know theirs."""
        return [problem for member in self.members for problem in member.known_problems]

    def problems_to_check(self, seed: int) -> Sequence[Problem]:
        """The problems to check of all members."""
        return [problem for member in self.members for problem in member.problems_to_check(seed)]

    @property
    def patience(self) -> int:
        """The number of positions in which each member comes as often as its own patience asks."""
        counts = self.counts
        blocks = (
            math.ceil(member.patience / count) + 1
            for member, count in zip(self.members, counts, strict=True)
        )
        return max(blocks) * sum(counts)

    def problem_at(self, seed: int, position: int) -> Problem:
        """The problem of the member that has this position, at its position in the member."""
        counts = self.counts
        block, offset = divmod(position, sum(counts))
        member, earlier = shuffled_block(seed, block, counts)[offset]
        return self.members[member].problem_at(seed, block * counts[member] + earlier)


@functools.lru_cache(maxsize=64)
def block_counts(weights: tuple[Fraction, ...]) -> tuple[int, ...]:
    """Returns how often each member comes in a block: the smallest block with the exact proportions
    or, if that is longer than MAX_BLOCK, one of MAX_BLOCK, by largest remainders.

    Worked example: 0.7 and 0.3 -> 7 and 3; 1 and 1 -> 1 and 1; 1 and 2999 -> refused.

    Raises:
      ValueError: a weight is not positive, or less than one position in MAX_BLOCK.
    """
    if min(weights) <= 0:
        raise ValueError(f"a mixture has the weights {_words(weights)}: all must be above 0")
    shares = [weight / sum(weights) for weight in weights]
    length = math.lcm(*(share.denominator for share in shares))
    if length <= MAX_BLOCK:
        return tuple(int(share * length) for share in shares)
    if min(shares) < Fraction(1, MAX_BLOCK):
        raise ValueError(
            f"a mixture has the weights {_words(weights)}: the smallest is less than "
            f"1 / {MAX_BLOCK} of their sum, and would never be drawn"
        )
    counts = [int(share * MAX_BLOCK) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda i: counts[i] - shares[i] * MAX_BLOCK)
    for i in by_remainder[: MAX_BLOCK - sum(counts)]:
        counts[i] += 1
    return tuple(counts)


@functools.lru_cache(maxsize=8)
def shuffled_block(seed: int, block: int, counts: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Returns (member, how often it came earlier in this block) for each position of a block. A
    pure function; the cache avoids shuffling a block again for each of its positions.
    """
    members = [member for member, count in enumerate(counts) for _ in range(count)]
    earlier = [0] * len(counts)
    places = []
    for slot in shuffled(seed, block, len(members)):
        member = members[slot]
        places.append((member, earlier[member]))
        earlier[member] += 1
    return tuple(places)


def _words(weights: Sequence[Fraction]) -> str:
    return ", ".join(str(float(weight)) for weight in weights)
