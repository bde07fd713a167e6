"""The optimizer against optax's own AdamW, the schedule by hand, the decay mask by name."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cegppo_jax.learner.optimizer import (
    OptimizerSettings,
    decay_mask,
    learning_rate,
    make_optimizer,
)
from cegppo_jax.models.decoder import init_params

SETTINGS = OptimizerSettings(
    learning_rate=1e-2,
    warmup_steps=4,
    schedule="constant",
    decay_steps=0,
    beta1=0.9,
    beta2=0.999,
    epsilon=1e-8,
    weight_decay=0.1,
    decay_norms_and_embeddings=True,
    max_grad_norm=1.0,
)


def rates(settings, steps):
    return [float(learning_rate(settings, jnp.int32(step))) for step in range(steps)]


def test_warm_up_moves_from_the_first_step():
    np.testing.assert_allclose(
        rates(SETTINGS, 6), [0.0025, 0.005, 0.0075, 0.01, 0.01, 0.01], rtol=1e-6
    )


def test_decays_end_at_zero():
    linear = dataclasses.replace(SETTINGS, schedule="linear", decay_steps=8)
    np.testing.assert_allclose(
        rates(linear, 10)[4:], [0.01, 0.0075, 0.005, 0.0025, 0, 0], rtol=1e-6, atol=1e-12
    )
    cosine = dataclasses.replace(SETTINGS, schedule="cosine", decay_steps=8)
    expected = [0.01 * 0.5 * (1 + np.cos(np.pi * k / 4)) for k in (0, 1, 2, 3, 4)]
    np.testing.assert_allclose(rates(cosine, 9)[4:], expected, rtol=1e-5, atol=1e-9)


def test_trajectory_equals_optax_adamw():
    random = np.random.default_rng(0)
    params = {"a": {"kernel": jnp.asarray(random.normal(size=(3, 4)), jnp.float32)}}
    theirs = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(1e-2, 0.9, 0.999, 1e-8, weight_decay=0.1)
    )
    ours = make_optimizer(SETTINGS)
    our_params, their_params = params, params
    our_state, their_state = ours.init(params), theirs.init(params)
    for _ in range(5):
        gradients = jax.tree.map(
            lambda leaf: jnp.asarray(random.normal(size=leaf.shape), jnp.float32), params
        )
        deltas, our_state = ours.update(gradients, our_state, our_params)
        our_params = jax.tree.map(lambda p, d: p - 1e-2 * d, our_params, deltas)
        deltas, their_state = theirs.update(gradients, their_state, their_params)
        their_params = optax.apply_updates(their_params, deltas)
    np.testing.assert_allclose(
        our_params["a"]["kernel"], their_params["a"]["kernel"], rtol=1e-5, atol=1e-7
    )


def test_decay_leaves_norms_and_embeddings_alone(model):
    params = init_params(model, jax.random.key(0))
    mask = decay_mask(params)
    decays = {jax.tree_util.keystr(path): value for path, value in jax.tree.leaves_with_path(mask)}
    assert sum(decays.values()) == 7  # query, key, value, out, gate, up, down
    assert all(("kernel" in name) == value for name, value in decays.items())

    settings = dataclasses.replace(SETTINGS, decay_norms_and_embeddings=False)
    optimizer = make_optimizer(settings)
    nothing = jax.tree.map(jnp.zeros_like, params)
    deltas, _ = optimizer.update(nothing, optimizer.init(params), params)
    moved = jax.tree.map(lambda delta: bool(jnp.any(delta != 0)), deltas)
    assert moved == mask


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "exponential"}, "'exponential' does not exist"),
        ({"schedule": "linear", "decay_steps": 4}, r"decay_steps = 4.*warmup_steps = 4"),
        ({"learning_rate": -1.0}, "learning_rate = -1.0: at least 0"),
        ({"warmup_steps": -3}, "warmup_steps = -3: at least 0"),
        ({"beta2": 1.5}, r"beta2 = 1.5: it lies in \[0, 1\)"),
        ({"epsilon": 0.0}, "epsilon = 0.0: it is positive"),
        ({"max_grad_norm": -1.0}, "max_grad_norm = -1.0: it is positive"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SETTINGS, **changes)
