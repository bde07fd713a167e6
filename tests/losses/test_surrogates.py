"""Every surrogate: gradient oracle, NaN grid, closed form; and the equalities between methods."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from oracles import ORACLES

from cegppo_jax.logprobs import statistics_of_logits
from cegppo_jax.losses.contract import SurrogateInputs, SurrogateKnobs, policy_surrogate
from cegppo_jax.losses.surrogates import SURROGATES

KNOBS = (
    dict(clip_low=0.2, clip_high=0.2, beta_low=0.5, beta_high=1.0),
    dict(clip_low=0.2, clip_high=0.28, beta_low=0.75, beta_high=0.25),
    dict(clip_low=0.1, clip_high=0.4, beta_low=0.0, beta_high=2.0),
)
# Every cell: left of, inside, right of each interval, just beside its edges, the far ends; A < 0, =
# 0, > 0.
EDGES = [np.log(0.8), np.log(0.9), np.log(1.2), np.log(1.28), np.log(1.4)]
LOG_RATIOS = np.array(
    [-120, -104, -89, -20, -2, -0.5, -0.05, 0, 0.05, 0.5, 2, 20, 89, 104, 120]
    + [edge + offset for edge in EDGES for offset in (-1e-3, 1e-3)],
    np.float32,
)
ADVANTAGES = np.array([-2.475, -0.5, 0.0, 0.354, 1.62], np.float32)
SUBNORMAL = np.finfo(np.float32).tiny  # XLA on CPU flushes smaller numbers to 0
GRID = tuple(
    np.array(column) for column in zip(*itertools.product(LOG_RATIOS, ADVANTAGES), strict=True)
)


def as_knobs(values):
    return SurrogateKnobs(**{name: jnp.float32(value) for name, value in values.items()})


def value_and_gradient(name, log_ratio, advantages, knobs, dtype=jnp.float32):
    """-> objective and its gradient by the package; old log-probs 0, so that the log ratio is exact
    in bfloat16.
    """
    logprobs = jnp.asarray(log_ratio, dtype)

    def total(logprobs):
        objective = policy_surrogate(
            SURROGATES[name], logprobs, jnp.zeros_like(logprobs), advantages, as_knobs(knobs)
        )
        return objective.sum(), objective

    (_, value), gradient = jax.value_and_grad(total, has_aux=True)(logprobs)
    return np.asarray(value), np.asarray(gradient, np.float32)


def test_every_surrogate_has_an_oracle():
    assert ORACLES.keys() == SURROGATES.keys()


@pytest.mark.parametrize("knobs", KNOBS)
@pytest.mark.parametrize("name", SURROGATES)
def test_value_and_gradient_equal_the_stop_gradient_form(name, knobs):
    log_ratio, advantages = GRID

    def oracle(log_ratio):
        value = ORACLES[name](log_ratio, jnp.asarray(advantages), **knobs)
        return value.sum(), value

    (_, value), gradient = jax.value_and_grad(oracle, has_aux=True)(jnp.asarray(log_ratio))
    ours = value_and_gradient(name, log_ratio, advantages, knobs)
    np.testing.assert_allclose(ours[0], value, rtol=2e-7)
    np.testing.assert_allclose(ours[1], gradient, rtol=2e-7)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", SURROGATES)
def test_finite_everywhere(name, dtype):
    log_ratio, advantages = GRID
    value, gradient = value_and_gradient(name, log_ratio, advantages, KNOBS[0], dtype)
    assert np.isfinite(value).all()
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", SURROGATES)
def test_bfloat16_inputs_are_computed_in_float32(name):
    log_ratio = np.asarray(jnp.asarray(GRID[0], jnp.bfloat16), np.float32)
    value, gradient = value_and_gradient(name, log_ratio, GRID[1], KNOBS[0], jnp.bfloat16)
    exact_value, exact = value_and_gradient(name, log_ratio, GRID[1], KNOBS[0], jnp.float32)
    np.testing.assert_array_equal(value, exact_value)
    # The gradient has its input's dtype: one rounding to bfloat16, 8 bits.
    np.testing.assert_allclose(gradient, exact, rtol=2**-8)


def test_closed_form_on_logits():
    """grad J = F A (onehot - p), with F of the paper's eq. 9-10 written out, in all (edge x sign)
    cells.
    """
    knobs = KNOBS[0]
    random = np.random.default_rng(0)
    log_ratio, advantages = GRID
    near = np.abs(log_ratio) < 25  # further out, the old log-prob would be a positive number
    log_ratio, advantages = log_ratio[near], advantages[near]
    logits = jnp.asarray(random.normal(0, 2, (len(log_ratio), 11)), jnp.float32)
    tokens = jnp.asarray(random.integers(11, size=len(log_ratio)), jnp.int32)
    old = statistics_of_logits(logits, tokens).logprobs - log_ratio

    def objective(logits):
        logprobs = statistics_of_logits(logits, tokens).logprobs
        return policy_surrogate(
            SURROGATES["ce_gppo"], logprobs, old, advantages, as_knobs(knobs)
        ).sum()

    delta = np.exp(log_ratio)
    left = (delta < 0.8) & (advantages < 0)
    right = (delta > 1.2) & (advantages > 0)
    weight = np.where(left, 0.5 * 0.8, np.where(right, 1.0 * 1.2, delta))
    direction = jax.nn.one_hot(tokens, 11) - jax.nn.softmax(logits)
    expected = (weight * advantages)[:, None] * direction
    cells = set(zip(np.sign(advantages), left, right, strict=True))
    assert len(cells) == 5  # A = 0; A < 0 and A > 0, clipped and not
    np.testing.assert_allclose(jax.grad(objective)(logits), expected, rtol=3e-5, atol=1e-6)


def test_left_and_right_are_the_papers():
    """Eq. 8 and not section 3.2's prose: beta_low scales A < 0 left of the interval, beta_high A >
    0 right of it.
    """
    inputs = SurrogateInputs(
        jnp.log(jnp.array([0.5, 0.5, 2.0, 2.0])), jnp.array([-1.0, 1.0, -1.0, 1.0])
    )
    knobs = as_knobs(dict(clip_low=0.2, clip_high=0.3, beta_low=0.1, beta_high=10.0))
    weight = SURROGATES["ce_gppo"](inputs, knobs).gradient_weight
    np.testing.assert_allclose(weight, [0.1 * 0.8, 0.5, 2.0, 10 * 1.3], rtol=1e-6)


def test_betas_of_zero_are_ppo_exactly():
    log_ratio, advantages = GRID
    zero = KNOBS[0] | dict(beta_low=0.0, beta_high=0.0)
    _, ce_gppo = value_and_gradient("ce_gppo", log_ratio, advantages, zero)
    _, ppo = value_and_gradient("ppo_clip", log_ratio, advantages, zero)
    np.testing.assert_array_equal(ce_gppo, ppo)
    assert (ppo == 0).sum() > (advantages == 0).sum()  # the grid does hold clipped tokens


def test_betas_of_one_are_gppo():
    """GPPO (arXiv 2508.07629): value = PPO's clipped value, gradient weight = the edge itself,
    continuous.
    """
    log_ratio, advantages = GRID
    one = KNOBS[0] | dict(beta_low=1.0, beta_high=1.0)
    value, gradient = value_and_gradient("ce_gppo", log_ratio, advantages, one)
    ppo_value, _ = value_and_gradient("ppo_clip", log_ratio, advantages, one)
    np.testing.assert_allclose(value, ppo_value, rtol=1e-6)
    ratio = np.exp(np.minimum(log_ratio, 40.0))
    edge = np.where(advantages > 0, np.minimum(ratio, 1.2), np.maximum(ratio, 0.8))
    np.testing.assert_allclose(gradient, edge * advantages, rtol=1e-5, atol=SUBNORMAL)


def test_unbounded_interval_is_importance_sampling():
    log_ratio, advantages = GRID
    free = dict(clip_low=1.0, clip_high=np.inf, beta_low=0.5, beta_high=1.0)
    for name in SURROGATES:
        value, gradient = value_and_gradient(name, log_ratio, advantages, free)
        expected = np.exp(np.minimum(log_ratio, np.float32(40))) * advantages
        np.testing.assert_allclose(value, expected, rtol=3e-6, atol=SUBNORMAL)
        np.testing.assert_allclose(gradient, expected, rtol=3e-6, atol=SUBNORMAL)


def test_on_policy_all_methods_agree_bitwise():
    """With one update a rollout delta = 1 everywhere: nothing is clipped, CE-GPPO is GRPO."""
    _, advantages = GRID
    zeros = np.zeros_like(advantages)
    results = [value_and_gradient(name, zeros, advantages, KNOBS[0]) for name in SURROGATES]
    for value, gradient in results:
        np.testing.assert_array_equal(value, advantages)
        np.testing.assert_array_equal(gradient, advantages)


@pytest.mark.parametrize("name", SURROGATES)
def test_numerical_gradient_agrees_inside_the_interval(name):
    log_ratio = jnp.array([-0.15, -0.02, 0.03, 0.16])
    advantages = jnp.array([-1.0, 1.0, -2.0, 0.5])

    def objective(logprobs):
        return policy_surrogate(
            SURROGATES[name], logprobs, jnp.zeros(4), advantages, as_knobs(KNOBS[0])
        ).sum()

    check_grads(objective, (log_ratio,), order=1, modes=["rev"], rtol=2e-2)


@pytest.mark.parametrize(("log_ratio", "advantage"), [(-0.5, -1.0), (0.5, 1.0)])
def test_numerical_gradient_disagrees_outside_by_design(log_ratio, advantage):
    """A clipped token's value is a constant of log pi: a finite difference sees slope 0 where CE-
    GPPO declares F A.

    That is what gradient preservation means, so a numerical check cannot hold outside the interval.
    Were this test to fail, the preserved gradient would be gone.
    """

    def objective(logprobs):
        return policy_surrogate(
            SURROGATES["ce_gppo"],
            logprobs,
            jnp.zeros(1),
            jnp.array([advantage]),
            as_knobs(KNOBS[0]),
        ).sum()

    with pytest.raises(AssertionError):
        check_grads(objective, (jnp.array([log_ratio]),), order=1, modes=["rev"], rtol=2e-2)
