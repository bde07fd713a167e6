"""The update: TrainState, PackedBatch -> TrainState, metrics. Jitted, donated, micro-batched."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from cegppo_jax.learner.optimizer import OptimizerSettings, learning_rate, make_optimizer
from cegppo_jax.learner.train_state import TrainState, state_shardings
from cegppo_jax.losses.contract import Knobs
from cegppo_jax.losses.logprobs import TokenStatistics, token_statistics
from cegppo_jax.losses.policy_loss import LossFunction, LossInputs, OldStatistics
from cegppo_jax.losses.reduce import Maximum, Mean, Reductions, Total, merge, neutral, whole
from cegppo_jax.losses.selection import SELECTIONS, BatchView, token_uniforms
from cegppo_jax.models.attention.choose import choose_attention
from cegppo_jax.models.attention.mask import SegmentMask
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.decoder import (
    Decoder,
    Params,
    abstract_params,
    output_head,
    run_decoder,
)
from cegppo_jax.packing import PackedBatch
from cegppo_jax.sharding import Leaf, named_sharding, platform_of, tree_shardings


@dataclasses.dataclass(frozen=True)
class ForwardSettings:
    """How the trainer computes log-probabilities."""

    dtype: str  # of activations and matrix products; log-probs and losses are float32 regardless
    rematerialise: str  # models/decoder.py: REMATERIALISED
    scan_unroll: (
        int  # blocks in one iteration of the scan over layers: more compile time, fewer copies
    )
    temperature: float  # the sampler's
    logprob_chunk_tokens: int  # tokens of a row whose [.., V] logits exist at once
    differentiate_entropy: bool  # for an entropy bonus in the loss
    attention: str  # models/attention/choose.py: ATTENTION_SETTINGS

    def on(self, mesh: Mesh) -> ForwardSettings:
        """Returns them with the implementation of attention that the mesh's devices get.

        Raises:
          ValueError: they cannot run what was asked for.
        """
        found = choose_attention(self.attention, platform_of(mesh))
        return dataclasses.replace(self, attention=found)


@dataclasses.dataclass(frozen=True)
class BatchNeeds:
    """What a loss needs beyond its micro-batch; see losses/contract.py: Method."""

    selections: tuple[str, ...]
    draws: bool
    seed: int  # of the draws; they are functions of (seed, update, sequence, position)


def batch_shardings(mesh: Mesh) -> PackedBatch:
    """Returns the sharding of each field of a PackedBatch: rows are split over the mesh,
    micro-batches are not.
    """
    by_rows = named_sharding(mesh, None, "rows", None)
    layout: dict[str, Leaf] = {field.name: by_rows for field in dataclasses.fields(PackedBatch)}
    return PackedBatch(**(layout | {"num_microbatches": named_sharding(mesh)}))


def at_microbatch(tree: Any, index: jax.Array | int) -> Any:
    """Selects micro-batch `index` from a tree of arrays [U, ...]; scalars stay as they are."""
    return jax.tree.map(
        lambda a: jax.lax.dynamic_index_in_dim(a, index, keepdims=False) if jnp.ndim(a) else a, tree
    )


def microbatch_statistics(
    params: Params,
    batch: PackedBatch,
    index: jax.Array,
    model: ModelConfig,
    forward: ForwardSettings,
) -> TokenStatistics:
    """Returns the token statistics [R, C] of micro-batch `index`; 0 but at completion tokens."""
    micro = at_microbatch(batch, index)
    decoder = Decoder(
        model,
        jnp.dtype(forward.dtype),
        unrolled=False,
        attention=forward.attention,
        rematerialise=forward.rematerialise,
        scan_unroll=forward.scan_unroll,
    )
    mask = SegmentMask(micro.segment_ids, micro.prompt_segments)
    hidden, _ = run_decoder(decoder, params, micro.tokens, micro.positions, mask)
    return token_statistics(
        hidden,
        output_head(params),
        micro.tokens,
        temperature=forward.temperature,
        chunk_tokens=forward.logprob_chunk_tokens,
        differentiate_entropy=forward.differentiate_entropy,
        unused_ids=model.unused_ids,
        predictors=micro.predictors,
        wanted=micro.completion_mask,
    )


def batch_statistics(
    params: Params, batch: PackedBatch, model: ModelConfig, forward: ForwardSettings
) -> tuple[jax.Array, jax.Array]:
    """Returns log-probabilities and entropies [U, R, C] float32, without gradients; 0 in unused
    micro-batches.
    """
    params = jax.lax.stop_gradient(params)

    def body(index: jax.Array, filled: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        statistics = microbatch_statistics(params, batch, index, model, forward)
        values = statistics.logprobs, statistics.entropy
        return jax.tree.map(
            lambda whole, part: jax.lax.dynamic_update_index_in_dim(whole, part, index, axis=0),
            filled,
            values,
        )

    empty = jnp.zeros(batch.tokens.shape, jnp.float32)
    return jax.lax.fori_loop(0, batch.num_microbatches, body, (empty, empty))


# (parameters, batch) -> log-probabilities and entropies [U, R, C]
Logprobs = Callable[[Params, PackedBatch], tuple[jax.Array, jax.Array]]


def make_logprobs(mesh: Mesh, model: ModelConfig, forward: ForwardSettings) -> Logprobs:
    """Returns a jitted function (parameters, PackedBatch) -> log-probabilities and entropies
    [U, R, C] float32.

    Called on every mini-batch before a step's first update, it gives the trainer's own
    OldStatistics; called with the reference's parameters, it gives the reference's
    log-probabilities.
    """
    forward = dataclasses.replace(forward.on(mesh), differentiate_entropy=False)

    def logprobs(params: Params, batch: PackedBatch) -> tuple[jax.Array, jax.Array]:
        return batch_statistics(params, batch, model, forward)

    _, specs = abstract_params(model, unrolled=False)
    layout = batch_shardings(mesh)
    return jax.jit(
        logprobs,
        in_shardings=(tree_shardings(mesh, specs), layout),
        out_shardings=(layout.tokens, layout.tokens),
    )


Update = Callable[[TrainState, PackedBatch, OldStatistics, Knobs], tuple[TrainState, Reductions]]


def make_update(
    mesh: Mesh,
    model: ModelConfig,
    forward: ForwardSettings,
    optimizer: OptimizerSettings,
    loss_function: LossFunction,
    needs: BatchNeeds,
) -> Update:
    """Returns a jitted function (TrainState, PackedBatch, OldStatistics [U, R, C], knobs) ->
    (TrainState, metrics).

    It takes one optimizer update. Gradients are summed over the micro-batches in use; their number
    is traced, so a new mix of lengths compiles nothing. The batch's loss_weights already contain
    the division, so it does not matter how tokens are split. The state is donated. A gradient that
    is not finite changes no parameter and is counted.
    """
    transform, forward = make_optimizer(optimizer), forward.on(mesh)

    def update(
        state: TrainState, batch: PackedBatch, old: OldStatistics, knobs: Knobs
    ) -> tuple[TrainState, Reductions]:
        uniform, selected = _asked_for(state, batch, old, knobs, model, forward, needs)

        def loss(params: Params, index: jax.Array) -> tuple[jax.Array, Reductions]:
            statistics = microbatch_statistics(params, batch, index, model, forward)
            inputs = at_microbatch((batch, old, uniform, selected), index)
            return loss_function(LossInputs(statistics, *inputs), knobs)

        value, gradients, reductions = _accumulate(loss, state.params, batch.num_microbatches)
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
        one = jnp.ones(())
        return new_state, whole(reductions) | {
            "update/loss": Mean(value, one),
            "update/grad_norm": Mean(grad_norm, one),
            "update/grad_norm_max": Maximum(grad_norm),
            "update/learning_rate": Mean(rate, one),
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


def _asked_for(
    state: TrainState,
    batch: PackedBatch,
    old: OldStatistics,
    knobs: Knobs,
    model: ModelConfig,
    forward: ForwardSettings,
    needs: BatchNeeds,
) -> tuple[jax.Array | None, dict[str, jax.Array]]:
    """Returns the uniform draws [U, R, C] and the selections' masks that the loss needs. A
    selection costs a forward pass over the batch.
    """
    if not (needs.draws or needs.selections):
        return None, {}
    key = jax.random.fold_in(jax.random.key(needs.seed), state.updates)
    uniform = token_uniforms(key, batch.draw_ids, batch.positions)
    if not needs.selections:
        return uniform, {}
    logprobs, entropy = batch_statistics(state.params, batch, model, forward)
    view = BatchView(
        logprobs,
        entropy,
        logprobs - old.logprobs,
        batch.advantages,
        batch.trained_mask,
        uniform,
    )
    return uniform, {name: SELECTIONS[name](view, knobs) for name in needs.selections}


def _accumulate(
    loss: Callable[[Params, jax.Array], tuple[jax.Array, Reductions]],
    params: Params,
    microbatches: jax.Array,
) -> tuple[jax.Array, Params, Reductions]:
    """Sums a loss, its gradient and its reductions over the micro-batches in use."""
    value_and_gradient = jax.value_and_grad(loss, has_aux=True)
    Carry = tuple[jax.Array, Params, Reductions]

    def body(index: jax.Array, carry: Carry) -> Carry:
        value, summed, reductions = carry
        (new_value, new), gradients = value_and_gradient(params, index)
        return (
            value + new_value,
            jax.tree.map(jnp.add, summed, gradients),
            merge(reductions, new),
        )

    (_, shapes), _ = jax.eval_shape(lambda: value_and_gradient(params, jnp.int32(0)))
    start = jnp.zeros(()), jax.tree.map(jnp.zeros_like, params), neutral(shapes)
    return jax.lax.fori_loop(0, microbatches, body, start)
