"""Every surrogate: value and gradient are its paper's, finite everywhere, in float32; where the
value's own slope is the gradient, and where by design it is not.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import (
    FLUSHED,
    GRIDS,
    KNOBS,
    PAPERS,
    clipped,
    inputs_of,
    knobs_of,
    rounded,
    tokens_of,
    value_and_gradient,
)
from jax.test_util import check_grads
from oracles import ORACLE_WRAPPERS, ORACLES, of_sequences, oracle

from cegppo_jax.losses.contract import policy_surrogate
from cegppo_jax.losses.logprobs import statistics_of_logits
from cegppo_jax.losses.surrogates import SURROGATES
from cegppo_jax.losses.wrappers import WRAPPERS

# Those with one advantage a sequence.
OF_SEQUENCE_ADVANTAGES = {"gspo", "ce_gspo", "gmpo"}
CASES = [
    (name, grid)
    for name in SURROGATES
    for grid in GRIDS
    if not (grid == "own_advantages" and name in OF_SEQUENCE_ADVANTAGES)
]


def test_every_surrogate_and_every_wrapper_has_an_oracle():
    assert ORACLES.keys() == SURROGATES.keys()
    assert ORACLE_WRAPPERS.keys() == WRAPPERS.keys()


@pytest.mark.parametrize("knobs", KNOBS)
@pytest.mark.parametrize(("name", "grid"), CASES)
def test_value_and_gradient_equal_the_stop_gradient_form(name, grid, knobs):
    tokens = GRIDS[grid]
    value, gradient = value_and_gradient(SURROGATES[name], tokens, KNOBS[knobs])
    expected_value, expected = oracle(name, (), tokens, rounded(KNOBS[knobs]))
    # A float32 mean of log ratios around 100 is known to 1e-5.
    rtol = 3e-6 if grid == "one_token" else 2e-5
    np.testing.assert_allclose(value, expected_value, rtol=rtol, atol=FLUSHED)
    np.testing.assert_allclose(gradient, expected, rtol=rtol, atol=FLUSHED)


def test_the_grids_hold_every_cell():
    """Left, inside, right, each with A < 0, = 0, > 0; of tokens and of sequences."""
    tokens = GRIDS["one_token"]
    log_ratio = tokens.policy_logprobs - tokens.old_logprobs
    packed = GRIDS["packed"]
    means = of_sequences(packed, packed.policy_logprobs - packed.old_logprobs)
    of_means = of_sequences(packed, packed.advantages)
    for knobs in (PAPERS, KNOBS["others"]):
        edges = np.log1p([-knobs["clip_low"], knobs["clip_high"]])
        for ratios, advantages in ((log_ratio, tokens.advantages), (means, of_means)):
            regions, signs = np.digitize(ratios, edges).ravel(), np.sign(advantages).ravel()
            assert len(set(zip(regions, signs, strict=True))) == 9
    assert means.max() > 41  # saturated


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("knobs", KNOBS)
@pytest.mark.parametrize("name", SURROGATES)
def test_finite_everywhere(name, knobs, dtype):
    """Also with every input of that type, and at tokens that count for nothing."""
    for grid in ("one_token", "own_advantages"):
        tokens = GRIDS[grid]
        inputs = jax.tree.map(lambda x: _cast(x, dtype), inputs_of(tokens))
        objective = functools.partial(
            policy_surrogate, SURROGATES[name], inputs=inputs, knobs=knobs_of(KNOBS[knobs])
        )
        value, gradient_of, _ = jax.vjp(objective, inputs.policy_logprobs, has_aux=True)
        (gradient,) = gradient_of(jnp.ones_like(value))
        assert np.isfinite(np.asarray(value, np.float32)).all()
        assert np.isfinite(np.asarray(gradient, np.float32)).all()


def _cast(array, dtype):
    return array.astype(dtype) if jnp.issubdtype(array.dtype, jnp.floating) else array


@pytest.mark.parametrize("name", SURROGATES)
def test_bfloat16_log_probs_are_computed_in_float32(name):
    tokens = GRIDS["packed"]
    value, gradient = value_and_gradient(SURROGATES[name], tokens, PAPERS, jnp.bfloat16)
    exact_value, exact = value_and_gradient(SURROGATES[name], tokens, PAPERS)
    assert value.dtype == np.float32
    assert gradient.dtype == jnp.bfloat16
    np.testing.assert_array_equal(value, exact_value)
    # The gradient has its input's dtype: one rounding to bfloat16, 8 bits.
    np.testing.assert_allclose(gradient.astype(np.float32), exact, rtol=2**-8, atol=FLUSHED)


def test_only_the_log_probs_are_differentiated():
    """Inputs and knobs get no gradient, whatever the method computes from them."""
    tokens = GRIDS["packed"]
    inputs, knobs = inputs_of(tokens), jax.tree.map(jnp.asarray, knobs_of(PAPERS))

    def total(log_ratio, advantages, knobs):
        changed = dataclasses.replace(inputs, log_ratio=log_ratio, advantages=advantages)
        logprobs = inputs.policy_logprobs
        objective, _ = policy_surrogate(SURROGATES["ce_gppo"], logprobs, changed, knobs)
        return objective.sum()

    gradients = jax.grad(total, (0, 1, 2))(inputs.log_ratio, inputs.advantages, knobs)
    for gradient in jax.tree.leaves(gradients):
        np.testing.assert_array_equal(gradient, 0)


def test_closed_form_on_logits():
    """grad J = F A (onehot - p), with F of the paper's eq. 9-10 written out, in all (edge x sign)
    cells.
    """
    tokens = GRIDS["one_token"]
    random = np.random.default_rng(0)
    log_ratio = tokens.policy_logprobs - tokens.old_logprobs
    logits = jnp.asarray(random.normal(0, 2, (*log_ratio.shape, 11)), jnp.float32)
    targets = jnp.asarray(random.integers(11, size=log_ratio.shape), jnp.int32)

    def objective(logits):
        logprobs = statistics_of_logits(logits, targets).logprobs
        inputs = dataclasses.replace(inputs_of(tokens), policy_logprobs=logprobs)
        return policy_surrogate(SURROGATES["ce_gppo"], logprobs, inputs, knobs_of(PAPERS))[0].sum()

    delta = np.exp(np.minimum(log_ratio, 40))
    left, right = clipped(tokens, PAPERS)
    weight = np.where(left, 0.5 * 0.8, np.where(right, 1.0 * 1.2, delta))
    direction = jax.nn.one_hot(targets, 11) - jax.nn.softmax(logits)
    expected = (weight * tokens.advantages)[..., None] * direction
    cells = zip(
        *(x.ravel() for x in (np.sign(tokens.advantages), delta < 0.8, delta > 1.2)), strict=True
    )
    assert len(set(cells)) == 9
    # onehot - p loses digits where p is close to 1: to 1e-6 of the weight.
    error = np.abs(jax.grad(objective)(logits) - expected)
    assert (error <= 3e-5 * np.abs(expected) + 1e-6 * weight[..., None]).all()


def test_left_and_right_are_the_papers():
    """Eq. 8 and not section 3.2's prose: beta_low scales A < 0 left of the interval, beta_high A >
    0 right of it.
    """
    tokens = tokens_of(np.log([[0.5, 0.5, 2.0, 2.0]]), [[-1.0, 1.0, -1.0, 1.0]])
    knobs = PAPERS | dict(clip_low=0.2, clip_high=0.3, beta_low=0.1, beta_high=10.0)
    _, gradient = value_and_gradient(SURROGATES["ce_gppo"], tokens, knobs)
    np.testing.assert_allclose(gradient[0, :4], [-0.1 * 0.8, 0.5, -2.0, 10 * 1.3], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "ratio", "advantage", "knobs", "weight"),
    [
        ("sapo", 2.0, 1.0, {}, 1.5729),
        ("sapo", 0.5, -1.0, {}, 0.4671),
        ("dgpo", 0.4, -1.0, {}, 0.2),
        ("dgpo", 4.8, 1.0, {}, 2.4),
        ("dgpo", 4.8, 1.0, {"decay_high": 1.0}, 1.2),
        ("aspo", 0.25, 1.0, {}, 3.0),
        ("aspo", 0.25, 1.0, {"aspo_cap": np.inf}, 4.0),
        ("aspo", 1.3, 1.0, {}, 0.0),
        ("aspo", 0.7, -1.0, {}, 0.0),
        ("aspo", 1.3, -1.0, {}, 1.3),
        ("aspo", 5.0, -1.0, {}, 3.0),
        ("cispo", 0.5, 1.0, {}, 0.8),
        ("cispo", 3.0, -1.0, {}, 1.2),
        ("cispo_cap", 0.5, 1.0, {}, 0.5),
        ("cispo_cap", 7.0, -1.0, {}, 5.0),
        ("dppo_tv", 0.1, -1.0, {}, 0.0),  # p falls from 0.74 to 0.074
        ("dppo_tv", 0.1, 1.0, {}, 0.1),
        ("dppo_tv", 0.9, -1.0, {}, 0.9),
        ("dppo_kl", 0.1, -1.0, {"divergence_low": 0.05}, 0.0),
    ],
)
def test_worked_weights(name, ratio, advantage, knobs, weight):
    """F by hand, with epsilon = 0.2 on both sides."""
    tokens = tokens_of([[np.log(ratio)]], [[advantage]])
    _, gradient = value_and_gradient(SURROGATES[name], tokens, PAPERS | knobs)
    assert gradient[0, 0] == pytest.approx(weight * advantage, rel=1e-4)


# Where a finite difference of the value sees the declared gradient.
SLOPES_EVERYWHERE = (
    "ppo_clip",
    "gspo",
    "gspo_token",
    "gmpo",
    "sapo",
    "clip_cov",
    "kl_cov",
    "reinforce",
)
SLOPES_INSIDE = ("gppo", "ce_gppo", "ce_gspo", "dgpo")  # preserved gradients have no slope
SLOPES_NOWHERE = ("cispo", "cispo_cap", "aspo", "dppo_tv", "dppo_kl")  # detached weights


def objective_of_logprobs(name, tokens, knobs):
    """-> (log-probs -> sum of the objective over completion tokens), the log ratio following."""
    inputs, mask = inputs_of(tokens), tokens.completion_mask
    old = jnp.asarray(tokens.old_logprobs, jnp.float32)

    def objective(logprobs):
        moved = dataclasses.replace(inputs, policy_logprobs=logprobs, log_ratio=logprobs - old)
        value, _ = policy_surrogate(SURROGATES[name], logprobs, moved, knobs_of(knobs))
        return jnp.where(mask, value, 0.0).sum()

    return objective


def check_slope(name, tokens):
    logprobs = jnp.asarray(tokens.policy_logprobs, jnp.float32)
    objective = objective_of_logprobs(name, tokens, PAPERS)
    check_grads(objective, (logprobs,), order=1, modes=["rev"], rtol=2e-2, atol=2e-3)


INSIDE = tokens_of(
    [[-0.15, -0.02, 0.03], [0.16, -0.1, -0.07]],
    [[-1.0, -1.0, 0.5], [2.0, 2.0, 2.0]],
    segment_ids=[[1, 1, 2], [1, 1, 1]],
)
BOTH = tokens_of(
    [[-0.5, -0.02, 0.5], [0.4, 0.3, -0.07]],
    [[-1.0, -1.0, 0.5], [2.0, 2.0, 2.0]],
    segment_ids=[[1, 1, 2], [1, 1, 1]],
)


def test_every_surrogate_says_where_its_value_slopes():
    names = SLOPES_EVERYWHERE + SLOPES_INSIDE + SLOPES_NOWHERE
    assert sorted(names) == sorted(SURROGATES)


@pytest.mark.parametrize("name", SLOPES_EVERYWHERE)
def test_numerical_gradient_agrees_everywhere(name):
    check_slope(name, INSIDE)
    check_slope(name, BOTH)


@pytest.mark.parametrize("name", SLOPES_INSIDE)
def test_numerical_gradient_agrees_inside_the_interval(name):
    check_slope(name, INSIDE)


@pytest.mark.parametrize("name", SLOPES_INSIDE + SLOPES_NOWHERE)
def test_numerical_gradient_disagrees_outside_by_design(name):
    """CE-GPPO's clipped token: its value is a constant of log pi, a finite difference sees slope 0
    where F A is declared.

    That is what gradient preservation means, so a numerical check cannot hold outside the interval.
    Were this test to fail, the preserved gradient would be gone. A detached weight is the same: its
    slope is in the value and not in the gradient.
    """
    with pytest.raises(AssertionError):
        check_slope(name, BOTH)
