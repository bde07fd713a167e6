"""What verifies completions, where, and what each finding is worth: the section config.reward."""

from __future__ import annotations

import dataclasses
import os

from cegppo_jax import short_forms
from cegppo_jax.read_settings import SHORT_ENTRY, check_at_least, check_choice
from cegppo_jax.rewards.extraction import SCOPES
from cegppo_jax.rewards.scoring import Bonus, RewardValues, Scoring
from cegppo_jax.rewards.verifiers import SCOPES_READ, resolve_verifier

# Verifiers that are linear in the completion's length and execute nothing of what it says: they may
# run in the main process, where nothing could stop them.
CANNOT_HANG = frozenset({"final_answer", "digit_sum"})

AUTOMATIC = -1  # pool.workers
MOST_AUTOMATIC_WORKERS = 8


@dataclasses.dataclass(frozen=True)
class PoolSettings:
    """The processes that verify, and their limits."""

    workers: int  # 0: the main process; -1: RewardSettings.workers chooses
    timeout_seconds: float  # a completion
    memory_megabytes: int  # address space beyond that of the imports; 0: no limit
    retries: int  # of a completion whose process died
    network: bool  # whether verifiers may use it; else they cannot, where the kernel lets it be

    def __post_init__(self) -> None:
        check_at_least(AUTOMATIC, "reward.pool", self, "workers")
        check_at_least(0, "reward.pool", self, "memory_megabytes", "retries")
        if self.timeout_seconds <= 0:
            raise ValueError(
                f"reward.pool.timeout_seconds = {self.timeout_seconds}: a positive number"
            )


@dataclasses.dataclass(frozen=True)
class RewardSettings:
    """What verifies which part of a completion and where, and what each outcome is worth."""

    verifier: str  # a name in VERIFIERS, or "package.module:function"
    by_source: tuple[tuple[str, str], ...] = dataclasses.field(  # (source, verifier)
        metadata={SHORT_ENTRY: short_forms.pair}
    )
    scope: str  # a name in SCOPES
    bonuses: tuple[Bonus, ...] = dataclasses.field(metadata={SHORT_ENTRY: short_forms.number_pair})
    outcomes: RewardValues
    pool: PoolSettings
    overlong_policy: str  # a name in OVERLONG
    overlong_buffer_tokens: int
    overlong_penalty: float

    def __post_init__(self) -> None:
        check_choice("reward.scope", self.scope, SCOPES)
        _check_verifier("reward.verifier", self.verifier, self.scope)
        for _, verifier in self.by_source:
            _check_verifier("reward.by_source", verifier, self.scope)
        for bonus in self.bonuses:
            resolve_verifier(bonus.verifier, "reward.bonuses")
        _check_once("reward.by_source", [source for source, _ in self.by_source])
        _check_once("reward.bonuses", [bonus.verifier for bonus in self.bonuses])
        if self.outcomes.correct <= self.outcomes.highest_of_others + self.highest_bonus:
            raise ValueError(
                f"reward.bonuses add up to {self.highest_bonus:g}, so that an "
                f"answer that is not correct could earn {self.outcomes.highest_of_others:g} + "
                f"{self.highest_bonus:g}, and a correct one without them only "
                f"{self.outcomes.correct:g}: lower the weights, or raise reward.outcomes.correct"
            )

        if self.pool.workers == 0 and not self.cannot_hang:
            raise ValueError(
                f"reward.pool.workers = 0 with the verifiers {sorted(self.verifiers)}: only "
                f"{sorted(CANNOT_HANG)} may run in the main process, where nothing could stop a "
                "verifier that hangs. Set 1 or more workers, or -1 for a number that fits"
            )

    @property
    def verifiers(self) -> set[str]:
        """The names of all verifiers, including those of bonuses."""
        others = {verifier for _, verifier in self.by_source}
        return {self.verifier, *others, *(bonus.verifier for bonus in self.bonuses)}

    @property
    def cannot_hang(self) -> bool:
        """Whether the verifiers may run in the main process."""
        return self.verifiers <= CANNOT_HANG

    @property
    def workers(self) -> int:
        """The number of worker processes; 0: the main process verifies."""
        if self.pool.workers != AUTOMATIC:
            return self.pool.workers
        if self.cannot_hang:
            return 0
        return min(MOST_AUTOMATIC_WORKERS, max(1, usable_cores() // 2))

    @property
    def highest_bonus(self) -> float:
        """The sum of all bonuses."""
        return sum(bonus.weight for bonus in self.bonuses)

    @property
    def scoring(self) -> Scoring:
        """Everything that scores completions."""
        return Scoring(self.verifier, self.by_source, self.scope, self.bonuses, self.outcomes)


def usable_cores() -> int:
    """Returns the number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # Linux; a container may be given fewer than there are
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _check_verifier(place: str, name: str, scope: str) -> None:
    """Raises ValueError when there is no such verifier, or it could never read the scope."""
    resolve_verifier(name, place)
    scopes = SCOPES_READ.get(name, SCOPES)
    if scope not in scopes:
        raise ValueError(
            f"{place} = {name!r} finds no answer in reward.scope = {scope!r}: it reads "
            f"{' and '.join(scopes)}"
        )


def _check_once(place: str, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{place} names {twice} more than once")
