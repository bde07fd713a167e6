"""The compiled half of training: mini-batches in, a new TrainState out.

A learner is a model on a mesh with an optimizer and a loss. RL and supervised training are learners
with different losses. A learner knows no tokenizer, no verifier and no sampler.
"""

from __future__ import annotations

import dataclasses

import jax
from jax.sharding import Mesh

from cegppo_jax.compilation import compiled_versions
from cegppo_jax.learner.forward import ForwardSettings
from cegppo_jax.learner.optimizer import OptimizerSettings
from cegppo_jax.learner.train_state import TrainState, fresh_state, init_state, state_shardings
from cegppo_jax.learner.update import (
    BatchNeeds,
    Logprobs,
    Update,
    batch_shardings,
    make_logprobs,
    make_update,
)
from cegppo_jax.losses.policy_loss import LossFunction
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.decoder import Params
from cegppo_jax.sharding import Placing, named_sharding


@dataclasses.dataclass(frozen=True)
class Learner:
    """Computes log-probabilities and updates."""

    mesh: Mesh
    model: ModelConfig
    optimizer: OptimizerSettings
    logprobs: Logprobs  # (params, batch) -> log-probabilities and entropies [U, R, C]
    update: Update  # (state, batch, old statistics, knobs) -> (state, metrics)

    def new_state(self, key: jax.Array) -> TrainState:
        """Returns a TrainState with initialised weights, in its layout on the mesh."""
        return init_state(self.mesh, self.model, self.optimizer, key)

    def fresh_state(self, params: Params) -> TrainState:
        """Returns a TrainState that starts from parameters that are already in their layout."""
        return fresh_state(self.mesh, self.model, self.optimizer, params)

    def state_layout(self) -> TrainState:
        """Returns shapes, dtypes and shardings of a TrainState as ShapeDtypeStructs, for a restore
        to fill. Computes and reads nothing.
        """
        shapes = jax.eval_shape(self.new_state, jax.random.key(0))
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            shapes,
            state_shardings(self.mesh, self.model, self.optimizer),
        )

    def compile_counts(self) -> dict[str, int]:
        """Returns the number of compiled versions of each jitted function."""
        return {
            "logprobs": compiled_versions(self.logprobs),
            "update": compiled_versions(self.update),
        }


def make_learner(
    mesh: Mesh,
    model: ModelConfig,
    forward: ForwardSettings,
    optimizer: OptimizerSettings,
    loss: LossFunction,
    needs: BatchNeeds,
) -> Learner:
    """Returns a Learner. Nothing is compiled until it is first used."""
    rows = batch_shardings(mesh)
    on_device = named_sharding(mesh)  # unused: the parameters are on the mesh
    logprobs = make_logprobs(mesh, model, forward)
    update = make_update(mesh, model, forward, optimizer, loss, needs)
    return Learner(
        mesh,
        model,
        optimizer,
        Placing(logprobs, on_device, rows),
        Placing(update, on_device, rows, rows.tokens),
    )
