"""KL estimators: worked values, expectations and gradients by enumeration of a categorical."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cegppo_jax.losses.kl import KL_ESTIMATORS, k1, k2, k3, kl_of_sequence

RANDOM = np.random.default_rng(0)
LOGITS = jnp.asarray(RANDOM.normal(0, 1.5, 12), jnp.float32)
REFERENCE = jax.nn.log_softmax(jnp.asarray(RANDOM.normal(0, 1.5, 12), jnp.float32))


def kl(logits):
    """KL(policy || reference)."""
    logprobs = jax.nn.log_softmax(logits)
    return jnp.sum(jnp.exp(logprobs) * (logprobs - REFERENCE))


def reverse_kl(logits):
    """KL(reference || policy)."""
    return jnp.sum(jnp.exp(REFERENCE) * (REFERENCE - jax.nn.log_softmax(logits)))


def expectation_in_a_loss(estimator, logits):
    """Mean of the estimator over tokens drawn from the policy; draws carry no gradient."""
    logprobs = jax.nn.log_softmax(logits)
    return jnp.sum(jax.lax.stop_gradient(jnp.exp(logprobs)) * estimator(logprobs - REFERENCE))


@pytest.mark.parametrize(
    ("estimator", "log_ratio", "expected"),
    [
        (k1, 0.5, 0.5),
        (k1, -2.0, -2.0),
        (k2, 0.5, 0.125),
        (k2, -2.0, 2.0),
        (k3, 0.5, 0.1065307),  # e^-0.5 - 0.5
        (k3, -2.0, 4.389056),  # e^2 - 3
        (k3, 0.0, 0.0),
    ],
)
def test_by_hand(estimator, log_ratio, expected):
    assert estimator(jnp.float32(log_ratio)) == pytest.approx(expected, rel=1e-6)


def test_names():
    assert {"k1": k1, "k2": k2, "k3": k3} == KL_ESTIMATORS


@pytest.mark.parametrize("estimator", [k1, k3])
def test_unbiased(estimator):
    assert expectation_in_a_loss(estimator, LOGITS) == pytest.approx(float(kl(LOGITS)), rel=1e-5)


def test_k2_is_biased():
    """Close to the KL for close policies only."""
    assert expectation_in_a_loss(k2, LOGITS) != pytest.approx(float(kl(LOGITS)), rel=0.1)
    near = jnp.asarray(REFERENCE) + 0.01 * LOGITS
    assert expectation_in_a_loss(k2, near) == pytest.approx(float(kl(near)), rel=0.02)


@pytest.mark.parametrize(
    ("estimator", "gradient_of"),
    [(k1, lambda logits: 0.0 * logits.sum()), (k2, kl), (k3, reverse_kl)],
    ids=["k1-nothing", "k2-the-kl", "k3-the-reverse-kl"],
)
def test_gradient_of_the_mean(estimator, gradient_of):
    """k1's has mean 0, k2's is the KL's own; k3's is the gradient of KL(reference || policy)."""
    actual = jax.grad(lambda logits: expectation_in_a_loss(estimator, logits))(LOGITS)
    np.testing.assert_allclose(actual, jax.grad(gradient_of)(LOGITS), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("estimator", [k2, k3])
def test_never_negative_but_for_rounding_and_zero_at_equality(estimator):
    values = estimator(jnp.linspace(-30, 30, 600, dtype=jnp.float32))
    assert (values > 0).all()
    assert (estimator(jnp.linspace(-0.01, 0.01, 600, dtype=jnp.float32)) >= -1e-7).all()
    assert estimator(jnp.float32(0)) == 0


@pytest.mark.parametrize("estimator", [k2, k3])
def test_accurate_close_to_the_reference(estimator):
    """Log ratios of 1e-3, as after one small step, where e^-x - 1 + x is 5e-7: to 1 %."""
    close = np.array([-3e-3, -1e-3, -3e-4, 3e-4, 1e-3, 3e-3], np.float32)
    exact = {k2: lambda x: x**2 / 2, k3: lambda x: np.expm1(-x) + x}[estimator]
    values = estimator(jnp.asarray(close))
    np.testing.assert_allclose(values, exact(close.astype(np.float64)), rtol=0.01)


@pytest.mark.parametrize("name", KL_ESTIMATORS)
def test_finite_far_out(name):
    far = jnp.array([-120.0, -89.0, -41.0, 41.0, 89.0, 120.0])
    value, pullback = jax.vjp(KL_ESTIMATORS[name], far)
    assert jnp.isfinite(value).all()
    assert jnp.isfinite(pullback(jnp.ones(6))[0]).all()


@pytest.mark.parametrize("estimator", [k2, k3])
def test_gradient_points_back_to_the_reference_however_far_out(estimator):
    """Of the sign of x also where exp() stops growing: else a lost token is pushed further away."""
    far = jnp.array([-120.0, -41.0, -39.0, -1.0, 1.0, 39.0, 41.0, 120.0])
    gradient = jax.grad(lambda x: estimator(x).sum())(far)
    np.testing.assert_array_equal(jnp.sign(gradient), jnp.sign(far))


@pytest.mark.parametrize("name", KL_ESTIMATORS)
def test_of_a_sequence_is_the_sum_over_its_tokens(name):
    logprobs, reference = np.log([0.5, 0.25, 0.9]), np.log([0.25, 0.5, 0.9])
    half = np.log(2)
    expected = {
        "k1": half - half,
        "k2": half**2,
        "k3": (0.5 - 1 + half) + (2 - 1 - half),
    }
    actual = kl_of_sequence(name, logprobs, reference)
    assert isinstance(actual, float)
    assert actual == pytest.approx(expected[name], rel=1e-5, abs=1e-7)
