"""What verifies completions, where, and what each finding is worth: the section config.reward."""

from __future__ import annotations

import dataclasses
import math
import os

from cegppo_jax.read_settings import check_at_least, check_choice
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
    by_source: tuple[str, ...]  # "source=verifier"
    scope: str  # a name in SCOPES
    bonuses: tuple[str, ...]  # "verifier=weight"
    outcomes: RewardValues
    pool: PoolSettings
    overlong_policy: str  # a name in OVERLONG
    overlong_buffer_tokens: int
    overlong_penalty: float

    def __post_init__(self) -> None:
        check_choice("reward.scope", self.scope, SCOPES)
        scoring = self.scoring
        _check_verifier("reward.verifier", self.verifier, self.scope)
        for _, verifier in scoring.by_source:
            _check_verifier("reward.by_source", verifier, self.scope)
        for bonus in scoring.bonuses:
            resolve_verifier(bonus.verifier, "reward.bonuses")
        _check_once("reward.by_source", self.by_source, [name for name, _ in scoring.by_source])
        _check_once("reward.bonuses", self.bonuses, [bonus.verifier for bonus in scoring.bonuses])
        if self.outcomes.correct <= self.outcomes.highest_of_others + self.highest_bonus:
            raise ValueError(
                f"reward.bonuses = {self.bonuses} add up to {self.highest_bonus:g}, so that an "
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
        scoring = self.scoring
        others = {name for _, name in scoring.by_source}
        return {self.verifier, *others, *(bonus.verifier for bonus in scoring.bonuses)}

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
        return sum(bonus.weight for bonus in self.scoring.bonuses)

    @property
    def scoring(self) -> Scoring:
        """Everything that scores completions."""
        by_source = tuple(_pair("reward.by_source", one) for one in self.by_source)
        bonuses = tuple(_bonus(one) for one in self.bonuses)
        return Scoring(self.verifier, by_source, self.scope, bonuses, self.outcomes)


def usable_cores() -> int:
    """Returns the number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # Linux; a container may be given fewer than there are
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _pair(place: str, text: str) -> tuple[str, str]:
    """Splits "gsm8k/train=math" into ("gsm8k/train", "math")."""
    name, equals, value = text.rpartition("=")
    if not (equals and name.strip() and value.strip()):
        raise ValueError(f"{place}: {text!r} is not of the form 'name=value'")
    return name.strip(), value.strip()


def _bonus(text: str) -> Bonus:
    name, value = _pair("reward.bonuses", text)
    try:
        weight = float(value)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise ValueError(
            f"reward.bonuses: the weight of {text!r} is not a finite number above 0: 'format=0.1'"
        )
    return Bonus(name, weight)


def _check_verifier(place: str, name: str, scope: str) -> None:
    """Raises ValueError when there is no such verifier, or it could never read the scope."""
    resolve_verifier(name, place)
    scopes = SCOPES_READ.get(name, SCOPES)
    if scope not in scopes:
        raise ValueError(
            f"{place} = {name!r} finds no answer in reward.scope = {scope!r}: it reads "
            f"{' and '.join(scopes)}"
        )


def _check_once(place: str, written: tuple[str, ...], names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{place} = {written} names {twice} more than once")
