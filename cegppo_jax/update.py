"""TrainState, PackedBatch -> TrainState, metrics: jitted, donated, micro-batched."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from cegppo_jax.logprobs import TokenStatistics, token_statistics
from cegppo_jax.losses.contract import SurrogateKnobs
from cegppo_jax.losses.policy_loss import LossFunction, LossInputs
from cegppo_jax.losses.reduce import Maximum, Mean, Reductions, Total, merge, neutral
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.decoder import (
    Decoder,
    Params,
    abstract_params,
    init_params,
    output_head,
    run_decoder,
    segment_mask,
)
from cegppo_jax.optimizer import OptimizerSettings, learning_rate, make_optimizer
from cegppo_jax.packing import PackedBatch
from cegppo_jax.sharding import Leaf, named_sharding, tree_shardings


@flax.struct.dataclass
class TrainState:
    """Everything that training changes; what a checkpoint holds."""

    params: Params  # float32, stacked layers
    optimizer_state: Any
    step: Leaf  # [] int32, rollout steps finished
    updates: Leaf  # [] int32, optimizer updates made, skipped ones included


@dataclasses.dataclass(frozen=True)
class ForwardSettings:
    """How the trainer computes log-probabilities."""

    dtype: str  # of activations and matrix products; log-probs and losses are float32 regardless
    rematerialise: bool  # recompute blocks in the backward pass: less memory, a third more work
    scan_unroll: (
        int  # blocks in one iteration of the scan over layers: more compile time, fewer copies
    )
    temperature: float  # the sampler's
    logprob_chunk_tokens: int  # tokens of a row whose [.., V] logits exist at once


def batch_shardings(mesh: Mesh) -> PackedBatch:
    """Mesh -> the sharding of each field of a PackedBatch: rows are split, micro-batches not."""
    by_rows = named_sharding(mesh, None, "rows", None)
    layout: dict[str, Leaf] = {field.name: by_rows for field in dataclasses.fields(PackedBatch)}
    return PackedBatch(**(layout | {"num_microbatches": named_sharding(mesh)}))


def state_shardings(mesh: Mesh, model: ModelConfig, optimizer: OptimizerSettings) -> TrainState:
    """-> the sharding of every leaf of a TrainState; Adam's moments lie as their parameters do."""
    shapes, specs = abstract_params(model, unrolled=False)
    params = tree_shardings(mesh, specs)
    replicated = named_sharding(mesh)
    structure = jax.tree.structure(shapes)

    def mirrors_params(node: Any) -> bool:
        return bool(jax.tree.structure(node) == structure)  # type: ignore[operator]

    optimizer_state = jax.tree.map(
        lambda node: params if mirrors_params(node) else replicated,
        jax.eval_shape(make_optimizer(optimizer).init, shapes),
        is_leaf=mirrors_params,
    )
    return TrainState(params, optimizer_state, step=replicated, updates=replicated)


def init_state(
    mesh: Mesh, model: ModelConfig, optimizer: OptimizerSettings, key: jax.Array
) -> TrainState:
    """Key -> initial TrainState, made in its final layout: nothing ever holds it whole."""

    def make(key: jax.Array) -> TrainState:
        params = init_params(model, key)
        zero = jnp.zeros((), jnp.int32)
        return TrainState(params, make_optimizer(optimizer).init(params), step=zero, updates=zero)

    return jax.jit(make, out_shardings=state_shardings(mesh, model, optimizer))(key)


def microbatch_statistics(
    params: Params,
    batch: PackedBatch,
    index: jax.Array,
    model: ModelConfig,
    forward: ForwardSettings,
) -> TokenStatistics:
    """Parameters and micro-batch `index` of a batch -> token statistics [R, C]."""
    tokens, segment_ids, positions = (
        jax.lax.dynamic_index_in_dim(array, index, keepdims=False)
        for array in (batch.tokens, batch.segment_ids, batch.positions)
    )
    decoder = Decoder(
        model,
        jnp.dtype(forward.dtype),
        unrolled=False,
        rematerialise=forward.rematerialise,
        scan_unroll=forward.scan_unroll,
    )
    hidden, _ = run_decoder(decoder, params, tokens, positions, segment_mask(segment_ids))
    return token_statistics(
        hidden,
        output_head(params),
        tokens,
        temperature=forward.temperature,
        chunk_tokens=forward.logprob_chunk_tokens,
    )


def make_logprobs(
    mesh: Mesh, model: ModelConfig, forward: ForwardSettings
) -> Callable[[Params, PackedBatch], jax.Array]:
    """-> jitted (parameters, PackedBatch) -> log-probabilities [U, R, C], 0 in unused micro-
    batches.

    Called on every mini-batch before a step's first update, it gives the trainer's own
    old_logprobs.
    """

    def logprobs(params: Params, batch: PackedBatch) -> jax.Array:
        def body(index: jax.Array, filled: jax.Array) -> jax.Array:
            statistics = microbatch_statistics(params, batch, index, model, forward)
            return jax.lax.dynamic_update_index_in_dim(filled, statistics.logprobs, index, axis=0)

        empty = jnp.zeros(batch.tokens.shape, jnp.float32)
        return jax.lax.fori_loop(0, batch.num_microbatches, body, empty)

    _, specs = abstract_params(model, unrolled=False)
    batch_layout = batch_shardings(mesh)
    return jax.jit(
        logprobs,
        in_shardings=(tree_shardings(mesh, specs), batch_layout),
        out_shardings=batch_layout.tokens,
    )


Update = Callable[[TrainState, PackedBatch, Leaf, SurrogateKnobs], tuple[TrainState, Reductions]]


def make_update(
    mesh: Mesh,
    model: ModelConfig,
    forward: ForwardSettings,
    optimizer: OptimizerSettings,
    loss_function: LossFunction,
) -> Update:
    """-> jitted (TrainState, PackedBatch, old_logprobs [U, R, C], knobs) -> (TrainState, metrics).

    One optimizer update: gradients are summed over the micro-batches in use (a traced number: a new
    mix of lengths compiles nothing) and divided once, by the completion tokens of the whole batch.
    The state is donated. A gradient that is not finite changes no parameter and is counted.
    """
    transform = make_optimizer(optimizer)

    def update(
        state: TrainState, batch: PackedBatch, old_logprobs: jax.Array, knobs: SurrogateKnobs
    ) -> tuple[TrainState, Reductions]:
        gradients, reductions = _accumulate(
            state.params, batch, old_logprobs, knobs, model, forward, loss_function
        )
        grad_norm = optax.tree.norm(gradients)
        rate = learning_rate(optimizer, state.step)
        deltas, optimizer_state = transform.update(gradients, state.optimizer_state, state.params)
        params = jax.tree.map(lambda p, delta: p - rate * delta, state.params, deltas)
        finite = jnp.isfinite(grad_norm)
        params, optimizer_state = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old),
            (params, optimizer_state),
            (state.params, state.optimizer_state),
        )
        new_state = TrainState(params, optimizer_state, state.step, state.updates + 1)
        return new_state, reductions | {
            "update/grad_norm": Mean(grad_norm, jnp.ones(())),
            "update/grad_norm_max": Maximum(grad_norm),
            "update/learning_rate": Mean(rate, jnp.ones(())),
            "update/skipped": Total.count(~finite),
        }

    state_layout, batch_layout = state_shardings(mesh, model, optimizer), batch_shardings(mesh)
    replicated = named_sharding(mesh)
    return jax.jit(
        update,
        donate_argnums=0,
        in_shardings=(state_layout, batch_layout, batch_layout.tokens, replicated),
        out_shardings=(state_layout, replicated),
    )


def _accumulate(
    params: Params,
    batch: PackedBatch,
    old_logprobs: jax.Array,
    knobs: SurrogateKnobs,
    model: ModelConfig,
    forward: ForwardSettings,
    loss_function: LossFunction,
) -> tuple[Params, Reductions]:
    """-> (gradient of the batch's token-mean loss, merged reductions), over the micro-batches in
    use.
    """
    count = jnp.maximum(jnp.sum(batch.completion_mask, dtype=jnp.float32), 1.0)

    def loss(params: Params, index: jax.Array) -> tuple[jax.Array, Reductions]:
        statistics = microbatch_statistics(params, batch, index, model, forward)
        mask, advantages, old, sampler = (
            jax.lax.dynamic_index_in_dim(array, index, keepdims=False)
            for array in (
                batch.completion_mask,
                batch.advantages,
                old_logprobs,
                batch.sampler_logprobs,
            )
        )
        total, reductions = loss_function(
            LossInputs(statistics, mask, advantages, old, sampler), knobs
        )
        return total / count, reductions

    gradient = jax.grad(loss, has_aux=True)

    def body(index: jax.Array, carry: tuple[Params, Reductions]) -> tuple[Params, Reductions]:
        summed, reductions = carry
        gradients, new = gradient(params, index)
        return jax.tree.map(jnp.add, summed, gradients), merge(reductions, new)

    shapes = jax.eval_shape(lambda: gradient(params, jnp.int32(0)))
    start = jax.tree.map(jnp.zeros_like, params), neutral(shapes[1])
    return jax.lax.fori_loop(0, batch.num_microbatches, body, start)
