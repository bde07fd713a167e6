"""What verifies completions, where, and what each finding is worth: the section config.reward."""

from __future__ import annotations

import dataclasses
import os

from cegppo_jax.records import check_at_least, check_finite
from cegppo_jax.rewards.scoring import RewardValues
from cegppo_jax.rewards.verifiers import resolve_verifier

# Verifiers that are linear in the completion's length and execute nothing of what it says: they may
# run in the main process, where nothing could stop them.
CANNOT_HANG = frozenset({"final_answer", "digit_sum"})

AUTOMATIC = -1  # pool.workers
MOST_AUTOMATIC_WORKERS = 8


@dataclasses.dataclass(frozen=True)
class PoolSettings:
    """The processes that verify, and what they are allowed."""

    workers: int  # 0: the main process; -1: RewardSettings.workers chooses
    timeout_seconds: float  # a completion
    memory_megabytes: int  # address space beyond that of the imports; 0: no limit
    retries: int  # of a completion whose process died

    def __post_init__(self) -> None:
        check_at_least(AUTOMATIC, "reward.pool", self, "workers")
        check_at_least(0, "reward.pool", self, "memory_megabytes", "retries")
        check_finite("reward.pool", self, "timeout_seconds")
        if self.timeout_seconds <= 0:
            raise ValueError(
                f"reward.pool.timeout_seconds = {self.timeout_seconds}: a positive number"
            )


@dataclasses.dataclass(frozen=True)
class RewardSettings:
    """The verifier, where it runs and what each of its outcomes is worth."""

    verifier: str  # a name in VERIFIERS, or "package.module:function"
    outcomes: RewardValues
    pool: PoolSettings
    overlong_policy: str  # a name in OVERLONG
    overlong_buffer_tokens: int
    overlong_penalty: float

    def __post_init__(self) -> None:
        resolve_verifier(self.verifier)
        if self.pool.workers == 0 and not self.cannot_hang:
            raise ValueError(
                f"reward.pool.workers = 0 with reward.verifier = {self.verifier!r}: only "
                f"{sorted(CANNOT_HANG)} may run in the main process, where nothing could stop a "
                "verifier that hangs. Set 1 or more workers, or -1 for a number that fits"
            )

    @property
    def cannot_hang(self) -> bool:
        """Whether the verifier may run in the main process."""
        return self.verifier in CANNOT_HANG

    @property
    def workers(self) -> int:
        """-> worker processes; 0: the main process verifies."""
        if self.pool.workers != AUTOMATIC:
            return self.pool.workers
        if self.cannot_hang:
            return 0
        return min(MOST_AUTOMATIC_WORKERS, max(1, usable_cores() // 2))


def usable_cores() -> int:
    """-> cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # Linux; a container may be given fewer than there are
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
