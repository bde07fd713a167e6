"""Estimates each problem's success rate from its groups, and so decides which prompts to draw.

A group whose completions are all right, or all wrong, teaches nothing. Earlier groups of a problem
predict whether its next one will be such a group: a prompt is skipped with a probability that grows
as the chance of a useful group falls. A problem that was never seen is never skipped.

Problems are identified by their id. The id of a generated problem is made from its text, so a
problem that comes again is recognised. The store holds at most `capacity_problems`; after that it
forgets the problem that was seen least recently.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from cegppo_jax.data.prompts import PromptStream
from cegppo_jax.read_settings import check_at_least
from cegppo_jax.types import Prompt

QUANTILES = {
    "difficulty/success_q10": 0.1,
    "difficulty/success_q50": 0.5,
    "difficulty/success_q90": 0.9,
}
PEAK_GRID = 101  # success rates 0, 0.01 ... 1, among which the most useful one is looked for


@dataclasses.dataclass(frozen=True)
class DifficultySettings:
    """How success rates are estimated, and how far an estimate may keep a prompt away."""

    capacity_problems: int  # remembered at most; 0: none
    decay: float  # of a problem's older counts at each new group; 1: none
    prior_success: float  # estimate before any completion
    prior_samples: float  # completions that the prior counts for
    least_weight: float  # of a prompt: its chance to be drawn, however useless it looks

    def __post_init__(self) -> None:
        check_at_least(0, "batch.difficulty", self, "capacity_problems", "decay", "prior_samples")
        for name in ("decay", "prior_success"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"batch.difficulty.{name} = {getattr(self, name)}: from 0 to 1")
        # 0 would mean prompts that never come again, and a stream that may never end to be skipped
        if not 0.01 <= self.least_weight <= 1:
            raise ValueError(f"batch.difficulty.least_weight = {self.least_weight}: from 0.01 to 1")


class Tally(NamedTuple):
    """Counts of a problem's completions so far; older ones are discounted."""

    correct: float
    samples: float
    tokens: float = 0.0  # of those samples; 0: a checkpoint of an earlier version lacks them


class Seen(NamedTuple):
    """One group, as the store sees it."""

    problem_id: str
    correct: int
    samples: int  # completions that a verifier judged
    tokens: int = 0  # of them


@dataclasses.dataclass(frozen=True, eq=False)
class DifficultyStore:
    """A Tally for each problem id, least recently seen first."""

    tallies: dict[str, Tally]

    def __eq__(self, other: object) -> bool:
        """Compares the order too: it decides which problem is forgotten first."""
        return isinstance(other, DifficultyStore) and list(self.tallies.items()) == list(
            other.tallies.items()
        )

    def __hash__(self) -> int:
        return hash(tuple(self.tallies.items()))

    def to_saved(self) -> tuple[list[str], np.ndarray]:
        """Returns ids and their tallies, [n, 3] float64, from which `from_saved` rebuilds the same
        store.
        """
        tallies = np.asarray(list(self.tallies.values()), np.float64)
        return list(self.tallies), tallies.reshape(-1, len(Tally._fields))

    @classmethod
    def from_saved(cls, ids: list[str], tallies: np.ndarray) -> DifficultyStore:
        """Rebuilds the store that `to_saved` saved. Raises ValueError unless each id has its
        tally.
        """
        rows = (Tally(*row) for row in tallies.tolist())
        return cls(dict(zip(ids, rows, strict=True)))


NOTHING_SEEN = DifficultyStore({})


def observe(
    store: DifficultyStore, groups: Iterable[Seen], settings: DifficultySettings
) -> DifficultyStore:
    """Returns the store after it has seen a step's groups, in order. The old store is not changed.

    Worked example, decay = 0.5: 4 of 8 right, then 8 of 8

        Tally(4, 8) -> Tally(0.5 * 4 + 8, 0.5 * 8 + 8) = Tally(10, 12)

    A group in which nothing was judged (every verifier timed out) changes nothing.
    """
    tallies = dict(store.tallies)
    for problem_id, correct, samples, tokens in groups:
        if not samples:
            continue
        old = tallies.pop(problem_id, Tally(0.0, 0.0))  # its new place is the last
        # Where older lengths are not known, they count as long as these
        old_tokens = old.tokens or old.samples * tokens / samples
        tallies[problem_id] = Tally(
            settings.decay * old.correct + correct,
            settings.decay * old.samples + samples,
            settings.decay * old_tokens + tokens,
        )
    for problem_id in list(tallies)[: max(0, len(tallies) - settings.capacity_problems)]:
        del tallies[problem_id]
    return DifficultyStore(tallies)


def success_estimate(tally: Tally, settings: DifficultySettings) -> float:
    """Returns the expected share of right completions, from a tally's counts and the prior's.

    Worked example, prior_success = 0.5, prior_samples = 2: Tally(8, 8) -> (1 + 8) / (2 + 8) = 0.9
    """
    prior = settings.prior_success * settings.prior_samples
    return (prior + tally.correct) / (settings.prior_samples + tally.samples)


@dataclasses.dataclass(frozen=True)
class UsefulBand:
    """Which groups are useful: those whose share of right completions lies between two limits."""

    samples: int  # G
    low: float  # exclusive
    high: float

    def holds(self, correct: int, samples: int) -> bool:
        """Whether a group with these counts is useful. A group in which nothing was judged is
        not.
        """
        return samples > 0 and self.low < correct / samples < self.high

    def chance(self, success: float) -> float:
        """Returns the probability that a group of G is useful, given the success rate of one
        completion.

        With the limits 0 and 1: 1 - p^G - (1 - p)^G.
        """
        return sum(
            math.comb(self.samples, k) * success**k * (1 - success) ** (self.samples - k)
            for k in range(self.samples + 1)
            if self.holds(k, self.samples)
        )


@functools.lru_cache(maxsize=8)
def best_chance(band: UsefulBand) -> float:
    """Returns the chance of a useful group at the success rate where it is largest."""
    return max(band.chance(step / (PEAK_GRID - 1)) for step in range(PEAK_GRID))


def full_weight(
    store: DifficultyStore, band: UsefulBand, settings: DifficultySettings, problem_id: str
) -> float:
    """Every prompt is drawn."""
    del store, band, settings, problem_id
    return 1.0


def weight_by_difficulty(
    store: DifficultyStore, band: UsefulBand, settings: DifficultySettings, problem_id: str
) -> float:
    """Returns a problem's chance of a useful group divided by the largest such chance, and at least
    `least_weight`; 1 for a problem that the store does not know.

    Worked example, G = 4, limits 0 and 1: 0.9 estimated -> (1 - 0.9^4 - 0.1^4) / 0.875 = 0.39
    """
    tally = store.tallies.get(problem_id)
    if tally is None:
        return 1.0
    chance = band.chance(success_estimate(tally, settings)) / best_chance(band)
    return max(settings.least_weight, min(1.0, chance))


PROMPT_WEIGHTING: dict[
    str, Callable[[DifficultyStore, UsefulBand, DifficultySettings, str], float]
] = {"none": full_weight, "difficulty": weight_by_difficulty}


def lot(seed: int, position: int) -> float:
    """Returns a pseudo-random number in [0, 1) for (seed, position). It is the same in every
    process and version, so a resumed run skips the same prompts.
    """
    digest = hashlib.blake2b(f"{seed}/{position}/difficulty".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


class WeightedDraw(NamedTuple):
    """The result of `take_weighted`. Every position is a prompt, too long, or skipped."""

    prompts: list[Prompt]
    next_position: int
    too_long: int
    passed_over: int


def take_weighted(
    stream: PromptStream, position: int, count: int, weight: Callable[[str], float]
) -> WeightedDraw:
    """Takes the next `count` prompts from a position of the stream, skipping some by their weight.

    A prompt of weight w is skipped when the lot of its position is w or more. With an unchanged
    store, taking 3 and then 5 prompts gives the same as taking 8.
    """
    prompts: list[Prompt] = []
    too_long = passed_over = 0
    while len(prompts) < count:
        drawn = stream.take(position, 1)
        [prompt] = drawn.prompts
        position, too_long = drawn.next_position, too_long + drawn.skipped
        if lot(stream.seed, prompt.index) < weight(prompt.problem.id):
            prompts.append(prompt)
        else:
            passed_over += 1
    return WeightedDraw(prompts, position, too_long, passed_over)


def difficulty_metrics(store: DifficultyStore, settings: DifficultySettings) -> dict[str, float]:
    """Returns how many problems the store knows, and the quantiles of their estimates."""
    metrics: dict[str, float] = {"difficulty/problems": len(store.tallies)}
    if store.tallies:
        estimates = [success_estimate(tally, settings) for tally in store.tallies.values()]
        values = np.quantile(estimates, list(QUANTILES.values()))
        metrics |= zip(QUANTILES, map(float, values), strict=True)
    return metrics
