"""What a method and its entropy budget add to an update, by XLA's own count of operations, which no
clock disturbs. Times: experiments/benchmark_update.py.
"""

import dataclasses
from unittest import mock

import jax
import numpy as np
import pytest
from compiling import compiled_well
from update_cases import FORWARD, GIVEN, KNOBS, LINEAR, TINY_MODEL, batch_of, state_on

from cegppo_jax.learner.update import BatchNeeds, make_update
from cegppo_jax.losses import policy_loss
from cegppo_jax.losses.policy_loss import OldStatistics, make_policy_loss
from cegppo_jax.losses.surrogates import SURROGATES
from cegppo_jax.models.decoder import init_params
from cegppo_jax.sharding import MeshShape, make_mesh

pytestmark = pytest.mark.slow

# 0.1 M parameters: less than anyone trains, so that a loss weighs more than it ever will.
MODEL = dataclasses.replace(TINY_MODEL, width=64, layers=2, head_size=16, mlp_width=176)


def cost_of(name):
    """Name of a method -> operations and bytes of its compiled update."""
    mesh = make_mesh(MeshShape(1, 1, 1), jax.devices()[:1])
    with jax.set_mesh(mesh):
        shapes = jax.eval_shape(lambda: init_params(MODEL, jax.random.key(0)))
        params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
        batch = batch_of()
        nothing = np.zeros(batch.tokens.shape, np.float32)
        loss = make_policy_loss(SURROGATES[name], None, "half")
        needs = BatchNeeds(selections=(), draws=False, seed=0)
        update = make_update(mesh, MODEL, FORWARD, LINEAR, loss, needs)
        state, old = state_on(mesh, MODEL, params), OldStatistics(nothing, nothing, None)
        return compiled_well(update.lower(state, batch, old, KNOBS, GIVEN)).cost_analysis()


@pytest.fixture(scope="module")
def ce_gppo():
    return cost_of("ce_gppo")


def test_ce_gppo_costs_what_ppo_clip_costs(ce_gppo):
    ppo_clip = cost_of("ppo_clip")
    for unit in ("flops", "bytes accessed"):
        assert ce_gppo[unit] == pytest.approx(ppo_clip[unit], rel=1e-3)


def test_the_entropy_budget_costs_three_percent_at_most(ce_gppo):
    with mock.patch.object(policy_loss, "entropy_budget", return_value={}):
        without = cost_of("ce_gppo")
    for unit in ("flops", "bytes accessed"):
        assert without[unit] < ce_gppo[unit] < 1.03 * without[unit]
