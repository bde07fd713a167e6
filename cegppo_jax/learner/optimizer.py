"""AdamW with gradient clipping, a decay mask and a schedule."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from cegppo_jax.read_settings import UNLIMITED, check_at_least, check_choice


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """AdamW (arXiv 1711.05101) and its schedule."""

    learning_rate: float  # peak
    warmup_steps: int  # linear; 0: none
    # Step t (from 0) of the warm-up has t / warmup_steps of the peak; False: (t + 1) / warmup_steps
    warmup_starts_at_zero: bool
    schedule: str  # a name in SCHEDULES, after the warm-up
    decay_steps: int  # length of a decaying schedule, warm-up included; 0 for "constant"
    beta1: float
    beta2: float
    epsilon: float
    weight_decay: float
    decay_norms_and_embeddings: bool  # the official code decays every parameter
    # Clips the global norm; inf: never
    max_grad_norm: float = dataclasses.field(metadata=UNLIMITED)

    def __post_init__(self) -> None:
        sizes = ("learning_rate", "warmup_steps", "decay_steps", "weight_decay")
        check_at_least(0, "optimizer", self, *sizes)
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"optimizer.{name} = {getattr(self, name)}: must be in [0, 1)")
        for name in ("epsilon", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"optimizer.{name} = {getattr(self, name)}: must be positive")
        check_choice("optimizer.schedule", self.schedule, SCHEDULES)
        if self.schedule != "constant" and self.decay_steps <= self.warmup_steps:
            raise ValueError(
                f"optimizer.schedule = {self.schedule!r} decays until decay_steps = "
                f"{self.decay_steps}, which must lie "
                f"beyond warmup_steps = {self.warmup_steps}"
            )


# Progress through the decay in [0, 1] -> factor on the peak learning rate.
SCHEDULES = {
    "constant": jnp.ones_like,
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: 0.5 * (1 + jnp.cos(jnp.pi * progress)),
}


def learning_rate(settings: OptimizerSettings, step: jax.Array) -> jax.Array:
    """Returns the learning rate [] float32 of a step (0-based, traced).

    As a share of the peak, with a warm-up of 10 steps:

        step                            0     1     2   ...  8     9     10
        warmup_starts_at_zero = False   0.1   0.2   0.3      0.9   1     1
        warmup_starts_at_zero = True    0     0.1   0.2      0.8   0.9   1

    In both cases a decay begins at step warmup_steps, from the peak.
    """
    step = jnp.asarray(step, jnp.float32)
    warmup = jnp.ones(())
    if settings.warmup_steps:
        begun = step if settings.warmup_starts_at_zero else step + 1
        warmup = jnp.minimum(1.0, begun / settings.warmup_steps)
    span = max(settings.decay_steps - settings.warmup_steps, 1)
    progress = jnp.clip((step - settings.warmup_steps) / span, 0.0, 1.0)
    return settings.learning_rate * warmup * SCHEDULES[settings.schedule](progress)


def decay_mask(params: Any) -> Any:
    """Returns True for the parameters that weight decay applies to: projections and an untied head,
    not norms, biases and embeddings.
    """

    def decays(path: tuple[Any, ...], leaf: Any) -> bool:
        del leaf
        return path[-1].key in ("kernel", "head")

    return jax.tree_util.tree_map_with_path(decays, params)


def make_optimizer(settings: OptimizerSettings) -> optax.GradientTransformation:
    """Returns clipping, Adam and decay *without* the learning rate, by which the update scales.

    The schedule counts rollout steps, as the official code's scheduler does, and not updates;
    optax's own schedules cannot see them.
    """
    mask = None if settings.decay_norms_and_embeddings else decay_mask
    return optax.chain(
        optax.clip_by_global_norm(settings.max_grad_norm),
        optax.scale_by_adam(settings.beta1, settings.beta2, settings.epsilon),
        optax.add_decayed_weights(settings.weight_decay, mask),
    )
