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
from cegppo_jax.run.settings import read_settings
from configs import base, presets

SETTINGS = OptimizerSettings(
    learning_rate=1e-2,
    warmup_steps=4,
    warmup_starts_at_zero=False,
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


# Steps 0 to 12 of a warm-up of 10, as multiples of a tenth of the peak.
WARM_UPS = {False: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 10, 10], True: [*range(11), 10, 10]}


@pytest.mark.parametrize("starts_at_zero", WARM_UPS)
@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_warm_up_of_ten_steps(schedule, starts_at_zero):
    """A decay begins at step 10, with the peak, wherever the warm-up starts."""
    settings = dataclasses.replace(
        SETTINGS,
        warmup_steps=10,
        warmup_starts_at_zero=starts_at_zero,
        schedule=schedule,
        decay_steps=20 if schedule == "linear" else 0,
    )
    expected = 1e-3 * np.array(WARM_UPS[starts_at_zero])
    if schedule == "linear":
        expected[11:] = [9e-3, 8e-3]
    np.testing.assert_allclose(rates(settings, 13), expected, rtol=1e-6)


def test_the_authors_warm_up_is_transformers_own():
    """The official code's schedule is get_constant_schedule_with_warmup, stepped once a rollout
    step after its updates.
    """
    torch = pytest.importorskip("torch")
    from transformers import get_constant_schedule_with_warmup

    weight = torch.nn.Parameter(torch.zeros(1))
    theirs = torch.optim.AdamW([weight], lr=1e-6)
    schedule = get_constant_schedule_with_warmup(theirs, num_warmup_steps=10)
    expected = []
    for _ in range(13):
        expected.append(theirs.param_groups[0]["lr"])
        theirs.step()
        schedule.step()
    official = presets.put(base.get_config(), "ce_gppo_1p5b", "official")
    settings = read_settings(official).optimizer
    np.testing.assert_allclose(rates(settings, 13), expected, rtol=1e-6)
    paper = presets.put(base.get_config(), "ce_gppo_1p5b", "paper")
    settings = read_settings(paper).optimizer
    np.testing.assert_allclose(rates(settings, 12), expected[1:], rtol=1e-6)


@pytest.mark.parametrize("starts_at_zero", [False, True])
def test_without_a_warm_up_the_first_step_has_the_peak(starts_at_zero):
    settings = dataclasses.replace(SETTINGS, warmup_steps=0, warmup_starts_at_zero=starts_at_zero)
    np.testing.assert_allclose(rates(settings, 3), [0.01] * 3, rtol=1e-6)


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
    params = jax.jit(init_params, static_argnums=0)(model, jax.random.key(0))
    mask = decay_mask(params)
    decays = {jax.tree_util.keystr(path): value for path, value in jax.tree.leaves_with_path(mask)}
    assert sum(decays.values()) == 7  # query, key, value, out, gate, up, down
    assert all(("kernel" in name) == value for name, value in decays.items())

    settings = dataclasses.replace(SETTINGS, decay_norms_and_embeddings=False)
    optimizer = make_optimizer(settings)
    nothing = jax.tree.map(jnp.zeros_like, params)
    deltas, _ = jax.jit(optimizer.update)(nothing, optimizer.init(params), params)
    moved = jax.tree.map(lambda delta: bool(jnp.any(delta != 0)), deltas)
    assert moved == mask


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "exponential"}, "'exponential' does not exist"),
        ({"schedule": "linear", "decay_steps": 4}, r"decay_steps = 4.*warmup_steps = 4"),
        ({"learning_rate": -1.0}, "learning_rate = -1.0: at least 0"),
        ({"warmup_steps": -3}, "warmup_steps = -3: at least 0"),
        ({"beta2": 1.5}, r"beta2 = 1.5: .*\[0, 1\)"),
        ({"epsilon": 0.0}, "epsilon = 0.0: .*positive"),
        ({"max_grad_norm": -1.0}, "max_grad_norm = -1.0: .*positive"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SETTINGS, **changes)
