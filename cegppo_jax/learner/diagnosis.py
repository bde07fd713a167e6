"""Which micro-batch of an update, and which leaf of its gradient, is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cegppo_jax.learner.forward import ForwardSettings, microbatch_statistics
from cegppo_jax.learner.update import BatchNeeds, asked_for, batch_shardings, loss_inputs
from cegppo_jax.losses.contract import Knobs
from cegppo_jax.losses.policy_loss import LossFunction, OldStatistics
from cegppo_jax.models.attention.choose import chosen_for
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.decoder import Params, abstract_params
from cegppo_jax.models.finite import count_not_finite
from cegppo_jax.packing import PackedBatch
from cegppo_jax.sharding import Placing, named_sharding, tree_shardings

# (parameters, number of the update, batch, old statistics, knobs, is_old) -> what is not finite
# first
DiagnoseUpdate = Callable[[Params, int, PackedBatch, OldStatistics, Knobs, bool], str]


def make_diagnosis(
    mesh: Mesh,
    model: ModelConfig,
    forward: ForwardSettings,
    loss_function: LossFunction,
    needs: BatchNeeds,
) -> DiagnoseUpdate:
    """Returns a function that says in words where the numbers of an update, as make_update takes
    it, first become NaN or infinite. It is compiled when it is first used, and needs the memory of
    an update.
    """
    forward = chosen_for(mesh, forward)

    def microbatch(
        params: Params,
        update: jax.Array,
        batch: PackedBatch,
        old: OldStatistics,
        knobs: Knobs,
        is_old: jax.Array,
        index: jax.Array,
    ) -> tuple[dict[str, jax.Array], Params]:
        asked = asked_for(params, update, batch, old, knobs, is_old, model, forward, needs)

        def loss(params: Params) -> tuple[jax.Array, jax.Array]:
            statistics = microbatch_statistics(params, batch, index, model, forward)
            inputs = loss_inputs(statistics, batch, old, asked, is_old, index)
            value, _ = loss_function(inputs, knobs)
            return value, jnp.sum(~jnp.isfinite(statistics.logprobs))

        (value, logprobs), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        sizes = [jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(gradients)]
        found = {"loss": value, "logprobs": logprobs, "largest": jnp.max(jnp.stack(sizes))}
        return found, count_not_finite(gradients)

    _, specs = abstract_params(model, unrolled=False)
    rows, whole = batch_shardings(mesh), named_sharding(mesh)
    layout = tree_shardings(mesh, specs), whole, rows, rows.tokens, whole, whole, whole
    compiled = jax.jit(microbatch, in_shardings=layout, out_shardings=whole)
    placed = Placing(compiled, whole, whole, rows, rows.tokens)

    def diagnose(
        params: Params,
        update: int,
        batch: PackedBatch,
        old: OldStatistics,
        knobs: Knobs,
        is_old: bool,
    ) -> str:
        largest, count = 0.0, int(batch.num_microbatches)
        for index in range(count):
            which = np.bool_(is_old), np.int32(index)
            found, wrong = jax.device_get(
                placed(params, np.int32(update), batch, old, knobs, *which)
            )
            words = _words(found, wrong, params)
            if words:
                return f"micro-batch {index + 1} of {count}: {words}"
            largest = max(largest, float(found["largest"]))
        return (
            f"the gradients of all {count} micro-batches are finite, the largest number in them is "
            f"{largest:.3g}, and their sum or its norm is not"
        )

    return diagnose


def _words(found: dict[str, Any], wrong: Params, params: Params) -> str:
    """Returns what is not finite in a micro-batch; "": everything is."""
    if found["logprobs"]:
        return f"{int(found['logprobs']):,} log-probabilities of the policy are not finite"
    leaves = {
        "/".join(key.key for key in path): (int(bad), leaf.size)
        for (path, bad), leaf in zip(
            jax.tree_util.tree_leaves_with_path(wrong), jax.tree.leaves(params), strict=True
        )
        if bad
    }
    if not math.isfinite(found["loss"]):
        return f"its loss is {float(found['loss'])}, and its log-probabilities are finite"
    if not leaves:
        return ""
    name, (bad, size) = next(iter(leaves.items()))
    return (
        f"its loss is {float(found['loss']):g}, and the gradients of {len(leaves)} leaves are not "
        f"finite: {name} has {bad:,} of {size:,} numbers that are NaN or infinite"
    )
