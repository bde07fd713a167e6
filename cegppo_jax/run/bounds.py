"""The bounds of every number in a config, in one place.

Records refuse what does not go together (run/settings.py and the records that it names); here each
number alone is kept to sizes that mean something, before anything is allocated or looped over. The
numbers of a method have theirs beside the method (losses/contract.py: Number).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar

from cegppo_jax.read_settings import read_record
from cegppo_jax.saved_config import flat

Settings = TypeVar("Settings")

MOST_INT32 = 2**31 - 1
MANY_TOKENS, MANY_ROWS = 2**24, 2**20


@dataclasses.dataclass(frozen=True)
class NumberBounds:
    """The least and the most that a number may be."""

    least: float
    most: float
    above: bool = False  # the least itself is not allowed

    @property
    def words(self) -> str:
        """What may be, in words."""
        if math.isinf(self.most):
            return f"{'above' if self.above else 'at least'} {self.least:,}"
        if self.above:
            return f"above {self.least:,} and at most {self.most:,}"
        return f"from {self.least:,} to {self.most:,}"

    def check_most(self, place: str, value: float) -> None:
        """Raises ValueError for a number that is too large. An infinity is told of by the records,
        which know where it means something.
        """
        if value > self.most and value != math.inf:
            raise ValueError(f"{place} = {value}: {self.words}")

    def check_least(self, place: str, value: float) -> None:
        """Raises ValueError for a number that is too small."""
        if value < self.least or (self.above and value == self.least):
            raise ValueError(f"{place} = {value}: {self.words}")


STEPS, COUNT, ROWS = (
    NumberBounds(0, MOST_INT32),
    NumberBounds(1, MOST_INT32),
    NumberBounds(1, MANY_ROWS),
)
TOKENS, SEED = NumberBounds(1, MANY_TOKENS), NumberBounds(-MOST_INT32 - 1, MOST_INT32)
SHARE, BELOW_1 = NumberBounds(0, 1), NumberBounds(0, math.nextafter(1, 0))
POSITIVE, NOT_NEGATIVE = NumberBounds(0, math.inf, above=True), NumberBounds(0, math.inf)
REWARD, AXIS, ANY = (
    NumberBounds(-1e6, 1e6),
    NumberBounds(-1, 2**20),
    NumberBounds(-math.inf, math.inf),
)

_SAMPLING = {"temperature": NOT_NEGATIVE, "top_k": STEPS, "top_p": NumberBounds(0, 1, above=True)}
_OPTIMIZER = {
    "learning_rate": NOT_NEGATIVE,
    "warmup_steps": STEPS,
    "decay_steps": STEPS,
    "beta1": BELOW_1,
    "beta2": BELOW_1,
    "epsilon": POSITIVE,
    "weight_decay": NOT_NEGATIVE,
    "max_grad_norm": POSITIVE,
}

# By section, "" for what is in none
_SECTIONS: Mapping[str, Mapping[str, NumberBounds]] = {
    "": {"seed": SEED, "steps": STEPS},
    "mesh": {"data": AXIS, "fsdp": AXIS, "tensor": AXIS},
    "problems": {
        "min_steps": NumberBounds(1, 1000),  # each is worked out for every problem
        "max_steps": NumberBounds(1, 1000),
        "bare_fraction": SHARE,
    },
    "model": {
        "vocabulary_multiple": NumberBounds(1, 2**16),
        "width": NumberBounds(1, 2**20),
        "layers": NumberBounds(1, 1000),
        "heads": NumberBounds(1, 2**16),
        "kv_heads": NumberBounds(1, 2**16),
        "head_size": NumberBounds(2, 2**16),
        "mlp_width": NumberBounds(1, 2**22),
        "rope_theta": POSITIVE,
        "norm_epsilon": NumberBounds(0, 1, above=True),
    },
    "batch": {
        "prompts": ROWS,
        "samples_per_prompt": NumberBounds(2, 1024),
        "accuracy_low": SHARE,
        "accuracy_high": SHARE,
        "refill_prompts": ROWS,
        "max_refills": NumberBounds(0, 1000),
        "max_staleness_steps": COUNT,
        "trained_prompts": ROWS,
        "minibatch_prompts": ROWS,
        "rollout_lag_steps": NumberBounds(0, 1),
        "row_tokens": TOKENS,
        "rows_per_microbatch": ROWS,
    },
    "batch.difficulty": {
        "capacity_problems": NumberBounds(1, 2**26),
        "decay": SHARE,
        "prior_success": SHARE,
        "prior_samples": POSITIVE,
        "least_weight": SHARE,
    },
    "sampler": {
        "slots": ROWS,
        "prefill_prompts": ROWS,
        "max_prompt_tokens": TOKENS,
        "max_completion_tokens": TOKENS,
        "chunk_steps": NumberBounds(1, 2**20),
        "cache_read_ladder": TOKENS,
        "slot_ladder": ROWS,
        "page_tokens": TOKENS,
        "pages": NumberBounds(0, 2**26),
    },
    "sampling": _SAMPLING,
    "reward": {
        "overlong_buffer_tokens": NumberBounds(0, MANY_TOKENS),
        "overlong_penalty": NOT_NEGATIVE,
    },
    "reward.outcomes": dict.fromkeys(
        ("correct", "wrong", "unparsed", "timed_out", "crashed"), REWARD
    ),
    "reward.pool": {
        "workers": NumberBounds(-1, 1024),
        "timeout_seconds": NumberBounds(0, 86_400, above=True),
        "memory_megabytes": NumberBounds(0, 2**24),
        "retries": NumberBounds(0, 100),
    },
    "advantage": {
        "std_ddof": NumberBounds(0, 1),
        "std_epsilon": NOT_NEGATIVE,
        "pass_k": NumberBounds(1, 1024),
    },
    "loss": {"emulated_microbatch_sequences": ROWS},
    "steering.beta_schedule": {
        "steps": STEPS,
        "beta_low": NOT_NEGATIVE,
        "beta_high": NOT_NEGATIVE,
    },
    "steering.controller": {
        "entropy_low": NOT_NEGATIVE,
        "entropy_high": NOT_NEGATIVE,
        "proportional_gain": NOT_NEGATIVE,
        "integral_gain": NOT_NEGATIVE,
        "smoothing": BELOW_1,
        "hysteresis": SHARE,
        "beta_low_min": ANY,
        "beta_low_max": ANY,
        "beta_high_min": ANY,
        "beta_high_max": ANY,
    },
    "steering.guard": {
        "floor": NOT_NEGATIVE,
        "ceiling": NOT_NEGATIVE,
        "patience_steps": COUNT,
        "beta_step": NOT_NEGATIVE,
        "max_rollbacks": STEPS,
    },
    "steering.entropy_bonus": {
        "coef": NOT_NEGATIVE,
        "target": NOT_NEGATIVE,
        "step": NOT_NEGATIVE,
        "coef_min": ANY,
        "coef_max": ANY,
    },
    "mismatch": {"cap": NOT_NEGATIVE, "low": NOT_NEGATIVE, "high": NOT_NEGATIVE},
    "trainer": {"scan_unroll": NumberBounds(1, 1000), "logprob_chunk_tokens": TOKENS},
    "optimizer": _OPTIMIZER,
    "warm_start": {"steps": STEPS, "sequences": ROWS, "rows_per_microbatch": ROWS},
    "warm_start.optimizer": _OPTIMIZER,
    "evaluation": {
        "every_steps": STEPS,
        "problems": NumberBounds(1, 10**6),
        "problems_seed": SEED,
        "samples_per_problem": NumberBounds(1, 2**16),
    },
    "evaluation.sampling": _SAMPLING,
    "checkpoint": {
        "every_steps": COUNT,
        "keep": COUNT,
        "keep_every_steps": STEPS,
        "stop_after_skipped": COUNT,
    },
    "logging": {
        "samples_every_steps": STEPS,
        "samples_groups": STEPS,
        "samples_tokens": STEPS,
        "entropy_change_every_steps": STEPS,
    },
}
BOUNDS = {
    f"{section}.{name}" if section else name: bounds
    for section, members in _SECTIONS.items()
    for name, bounds in members.items()
}


def read_within_bounds(record: type[Settings], values: dict[str, Any]) -> Settings:
    """Reads a config's values as a record, as read_record does, and keeps its numbers to their
    bounds. Raises ValueError.
    """
    check_most(values)  # first: reading makes things of these sizes
    settings = read_record(record, values, "config")
    check_least(values)
    return settings


def check_most(values: Mapping[str, Any]) -> None:
    """Raises ValueError for the first number of a nested config that is too large, before anything
    is made of it.
    """
    for bounds, place, value in _numbers(values):
        bounds.check_most(place, value)


def check_least(values: Mapping[str, Any]) -> None:
    """Raises ValueError for the first that is too small: after the records, which say more."""
    for bounds, place, value in _numbers(values):
        bounds.check_least(place, value)


def _numbers(values: Mapping[str, Any]) -> list[tuple[NumberBounds, str, float]]:
    """Returns the numbers that have bounds, with these and their place in the config; those of a
    tuple one by one.
    """
    found = []
    for name, value in flat(values).items():
        if name not in BOUNDS:
            continue
        place, bounds = f"config.{name}", BOUNDS[name]
        if isinstance(value, tuple | list):
            places = {f"{place}[{i}]": one for i, one in enumerate(value)}
        else:
            places = {place: value}
        found += [(bounds, one, v) for one, v in places.items() if isinstance(v, int | float)]
    return found
