"""What the by-hand API compiles, kept by what it was compiled for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from cegppo_jax.api.losses import SEED, LossChoice
from cegppo_jax.api.samples import ROW_MULTIPLE
from cegppo_jax.learner.forward import ForwardSettings, microbatch_statistics
from cegppo_jax.learner.learner import Learner, make_learner
from cegppo_jax.learner.optimizer import OptimizerSettings
from cegppo_jax.learner.update import BatchNeeds, batch_shardings
from cegppo_jax.models.attention.choose import AUTO, chosen_for
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.sampling.sampler import Sampler
from cegppo_jax.sampling.settings import SamplerSettings

ADAMW = OptimizerSettings(
    learning_rate=1e-6,
    warmup_steps=0,
    warmup_starts_at_zero=False,
    schedule="constant",
    decay_steps=0,
    beta1=0.9,
    beta2=0.999,
    epsilon=1e-8,
    weight_decay=0.0,
    decay_norms_and_embeddings=False,
    max_grad_norm=1.0,
)


def by_hand_forward(dtype: str, temperature: float, entropy_bonus: bool) -> ForwardSettings:
    """Returns how log-probabilities are computed."""
    return ForwardSettings(
        dtype=dtype,
        rematerialise="none",
        scan_unroll=1,
        temperature=temperature,
        logprob_chunk_tokens=ROW_MULTIPLE,
        differentiate_entropy=entropy_bonus,
        attention=AUTO,
    )


@functools.lru_cache(maxsize=2)  # each holds the memory of its slots
def sampler_of(
    mesh: Mesh, model: ModelConfig, settings: SamplerSettings, eos_ids: tuple[int, ...]
) -> Sampler:
    """Returns the sampler of some shapes; its slots keep their memory."""
    return Sampler(mesh, model, settings, eos_ids)


@functools.lru_cache(maxsize=16)
def statistics_of(mesh: Mesh, model: ModelConfig, forward: ForwardSettings) -> Callable[..., Any]:
    """Returns jitted (parameters, PackedBatch, micro-batch) -> TokenStatistics [R, C]."""
    return jax.jit(
        functools.partial(microbatch_statistics, model=model, forward=chosen_for(mesh, forward)),
        in_shardings=(None, batch_shardings(mesh), None),
    )


@functools.lru_cache(maxsize=16)
def learner_of(
    mesh: Mesh,
    model: ModelConfig,
    forward: ForwardSettings,
    optimizer: OptimizerSettings,
    choice: LossChoice,
) -> Learner:
    """Returns the learner of a loss."""
    method = choice.wrapped()
    needs = BatchNeeds(method.selections, method.draws, SEED)
    return make_learner(mesh, model, forward, optimizer, choice.loss(), needs)
