"""TrainState: what training changes, and its layout on the mesh."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cegppo_jax.learner.optimizer import OptimizerSettings, make_optimizer
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.decoder import Params, abstract_params, init_params
from cegppo_jax.sharding import Leaf, named_sharding, tree_shardings


@flax.struct.dataclass
class TrainState:
    """Everything that training changes, and that a checkpoint holds."""

    params: Params  # float32, stacked layers
    optimizer_state: Any
    step: Leaf  # [] int32, rollout steps finished
    updates: Leaf  # [] int32, optimizer updates made, skipped ones included


def state_shardings(mesh: Mesh, model: ModelConfig, optimizer: OptimizerSettings) -> TrainState:
    """Returns the sharding of every leaf of a TrainState; Adam's moments are laid out like their
    parameters.
    """
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
    """Returns an initial TrainState, made directly in its final layout: no device ever holds it
    whole.
    """

    def make(key: jax.Array) -> TrainState:
        params = init_params(model, key)
        zero = jnp.zeros((), jnp.int32)
        return TrainState(params, make_optimizer(optimizer).init(params), step=zero, updates=zero)

    return jax.jit(make, out_shardings=state_shardings(mesh, model, optimizer))(key)


def fresh_state(
    mesh: Mesh, model: ModelConfig, optimizer: OptimizerSettings, params: Params
) -> TrainState:
    """Returns a TrainState without updates that holds the given parameters, which are in their
    layout.
    """
    layout = state_shardings(mesh, model, optimizer)
    init = make_optimizer(optimizer).init
    optimizer_state = jax.jit(
        init, in_shardings=(layout.params,), out_shardings=layout.optimizer_state
    )(params)
    zero = jax.device_put(np.zeros((), np.int32), layout.step)
    return TrainState(params, optimizer_state, step=zero, updates=jnp.copy(zero))
