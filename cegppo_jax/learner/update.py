"""The update: TrainState, PackedBatch -> TrainState, metrics. Jitted, donated, micro-batched."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from cegppo_jax.learner.forward import (
    ForwardSettings,
    PolicyStatistics,
    at_microbatch,
    batch_statistics,
    microbatch_statistics,
    no_statistics,
    put_microbatch,
)
from cegppo_jax.learner.optimizer import OptimizerSettings, learning_rate, make_optimizer
from cegppo_jax.learner.train_state import TrainState, state_shardings
from cegppo_jax.losses.contract import Knobs
from cegppo_jax.losses.logprobs import TokenStatistics
from cegppo_jax.losses.policy_loss import LossFunction, LossInputs, OldStatistics
from cegppo_jax.losses.reduce import Maximum, Mean, Reductions, Total, merge, neutral, whole
from cegppo_jax.losses.selection import SELECTIONS, BatchView, token_uniforms
from cegppo_jax.models.attention.choose import chosen_for
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.decoder import Params, abstract_params
from cegppo_jax.packing import PackedBatch
from cegppo_jax.sharding import Leaf, named_sharding, tree_shardings


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


Logprobs = Callable[[Params, PackedBatch], PolicyStatistics]


def make_logprobs(mesh: Mesh, model: ModelConfig, forward: ForwardSettings) -> Logprobs:
    """Returns a jitted function (parameters, PackedBatch) -> log-probabilities and entropies
    [U, R, C] float32.

    Called on a mini-batch before a step's first update, it gives the trainer's own OldStatistics;
    called with the reference's parameters, it gives the reference's log-probabilities.
    """
    forward = dataclasses.replace(chosen_for(mesh, forward), differentiate_entropy=False)

    def logprobs(params: Params, batch: PackedBatch) -> PolicyStatistics:
        return batch_statistics(params, batch, model, forward)

    _, specs = abstract_params(model, unrolled=False)
    layout = batch_shardings(mesh)
    return jax.jit(
        logprobs,
        in_shardings=(tree_shardings(mesh, specs), layout),
        out_shardings=(layout.tokens, layout.tokens),
    )


Update = Callable[
    [TrainState, PackedBatch, OldStatistics, Knobs, np.bool_],
    tuple[TrainState, Reductions, PolicyStatistics],
]


def make_update(
    mesh: Mesh,
    model: ModelConfig,
    forward: ForwardSettings,
    optimizer: OptimizerSettings,
    loss_function: LossFunction,
    needs: BatchNeeds,
) -> Update:
    """Returns a jitted function (TrainState, PackedBatch, OldStatistics [U, R, C], knobs, is_old)
    -> (TrainState, metrics, log-probabilities and entropies [U, R, C] before the update).

    is_old: whether the state's policy is pi_old itself, as in a step's first update. Its
    log-probabilities and entropies are then those that the update computes anyway, all ratios are
    1, and those given are not read.

    It takes one optimizer update. Gradients are summed over the micro-batches in use; their number
    is traced, so a new mix of lengths compiles nothing. loss_weights contain the division, so it
    does not matter how tokens are split. The state is donated. A gradient that is not finite
    changes no parameter and is counted.
    """
    transform, forward = make_optimizer(optimizer), chosen_for(mesh, forward)

    def update(
        state: TrainState,
        batch: PackedBatch,
        old: OldStatistics,
        knobs: Knobs,
        is_old: jax.Array,
    ) -> tuple[TrainState, Reductions, PolicyStatistics]:
        asked = asked_for(
            state.params, state.updates, batch, old, knobs, is_old, model, forward, needs
        )

        def loss(params: Params, index: jax.Array) -> tuple[jax.Array, _Found]:
            statistics = microbatch_statistics(params, batch, index, model, forward)
            inputs = loss_inputs(statistics, batch, old, asked, is_old, index)
            value, reductions = loss_function(inputs, knobs)
            return value, (reductions, statistics)

        value, gradients, reductions, found = _accumulate(loss, state.params, batch)
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
        metrics = whole(reductions) | {
            "update/loss": Mean(value, one),
            "update/grad_norm": Mean(grad_norm, one),
            "update/grad_norm_max": Maximum(grad_norm),
            "update/learning_rate": Mean(rate, one),
            "update/skipped": Total.count(~finite),
        }
        return new_state, metrics, found

    state_layout, batch_layout = state_shardings(mesh, model, optimizer), batch_shardings(mesh)
    replicated = named_sharding(mesh)
    return jax.jit(
        update,
        donate_argnums=0,
        in_shardings=(state_layout, batch_layout, batch_layout.tokens, replicated, replicated),
        out_shardings=(state_layout, replicated, batch_layout.tokens),
    )


Asked = tuple[jax.Array | None, dict[str, jax.Array]]


def loss_inputs(
    statistics: TokenStatistics,
    batch: PackedBatch,
    old: OldStatistics,
    asked: Asked,
    is_old: jax.Array,
    index: jax.Array,
) -> LossInputs:
    """Returns micro-batch `index` as a loss sees it. Arguments as in make_update; `asked` as
    asked_for returns it.
    """
    micro, given, uniform, selected = at_microbatch((batch, old, *asked), index)
    own = dataclasses.replace(given, logprobs=statistics.logprobs, entropy=statistics.entropy)
    pi_old = jax.tree.map(partial(jnp.where, is_old), jax.lax.stop_gradient(own), given)
    return LossInputs(statistics, micro, pi_old, uniform, selected)


def asked_for(
    params: Params,
    update: Leaf,
    batch: PackedBatch,
    old: OldStatistics,
    knobs: Knobs,
    is_old: jax.Array,
    model: ModelConfig,
    forward: ForwardSettings,
    needs: BatchNeeds,
) -> Asked:
    """Returns the uniform draws [U, R, C] and the selections' masks that the loss needs in an
    update, which is numbered [] int32. A selection costs a forward pass over the batch.
    """
    if not (needs.draws or needs.selections):
        return None, {}
    key = jax.random.fold_in(jax.random.key(needs.seed), update)
    uniform = token_uniforms(key, batch.draw_ids, batch.positions)
    if not needs.selections:
        return uniform, {}
    logprobs, entropy = batch_statistics(params, batch, model, forward)
    view = BatchView(
        logprobs,
        entropy,
        jnp.where(is_old, 0.0, logprobs - old.logprobs),
        batch.advantages,
        batch.trained_mask,
        uniform,
    )
    return uniform, {name: SELECTIONS[name](view, knobs) for name in needs.selections}


_Found = tuple[Reductions, TokenStatistics]  # beside a micro-batch's loss


def _accumulate(
    loss: Callable[[Params, jax.Array], tuple[jax.Array, _Found]],
    params: Params,
    batch: PackedBatch,
) -> tuple[jax.Array, Params, Reductions, PolicyStatistics]:
    """Sums a loss, its gradient and its reductions over the micro-batches in use, and keeps their
    statistics.
    """
    value_and_gradient = jax.value_and_grad(loss, has_aux=True)
    Carry = tuple[jax.Array, Params, Reductions, PolicyStatistics]

    def body(index: jax.Array, carry: Carry) -> Carry:
        value, summed, reductions, found = carry
        (new_value, (new, statistics)), gradients = value_and_gradient(params, index)
        return (
            value + new_value,
            jax.tree.map(jnp.add, summed, gradients),
            merge(reductions, new),
            put_microbatch(found, statistics, index),
        )

    (_, (shapes, _)), _ = jax.eval_shape(lambda: value_and_gradient(params, jnp.int32(0)))
    zeros = jax.tree.map(jnp.zeros_like, params)
    start = jnp.zeros(()), zeros, neutral(shapes), no_statistics(batch)
    return jax.lax.fori_loop(0, batch.num_microbatches, body, start)
