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


# Completions of two tokens over four words, all 16 of them: what a tabular policy gives each.
WORDS = 4


def policy_and_reference(spread, seed=0):
    """-> logits of a policy [1 + WORDS, WORDS], by what stands before, and the reference's
    log-probs: the policy's logits moved by `spread`.
    """
    random = np.random.default_rng(seed)
    reference = random.normal(0, 1, (1 + WORDS, WORDS))
    logits = reference + spread * random.normal(0, 1, reference.shape)
    return jnp.asarray(logits, jnp.float64), jax.nn.log_softmax(jnp.asarray(reference, jnp.float64))


FIRST, SECOND = map(np.ravel, np.meshgrid(range(WORDS), range(WORDS), indexing="ij"))


def by_token(table):
    """[1 + WORDS, WORDS] -> [16, 2]: what it says of each completion's tokens."""
    return jnp.stack([table[0, FIRST], table[1 + FIRST, SECOND]], axis=1)


def kl_of_completions(logits, reference):
    """KL(policy || reference) between the distributions of whole completions."""
    log_ratio = by_token(jax.nn.log_softmax(logits) - reference).sum(axis=1)
    probabilities = jnp.exp(by_token(jax.nn.log_softmax(logits)).sum(axis=1))
    return (probabilities * log_ratio).sum()


def gradient_by_reward(name, logits, reference):
    """Sum over all completions of p(completion) KL estimate grad ln p(completion): what training
    descends whose rewards a KL is taken off, its estimates as the package makes them.
    """
    logprobs = np.asarray(by_token(jax.nn.log_softmax(logits)))
    ref_logprobs = np.asarray(by_token(reference))
    penalties = [kl_of_sequence(name, *pair) for pair in zip(logprobs, ref_logprobs, strict=True)]
    weights = np.exp(logprobs.sum(axis=1)) * np.asarray(penalties)
    return jax.grad(lambda z: (weights * by_token(jax.nn.log_softmax(z)).sum(axis=1)).sum())(logits)


@pytest.mark.parametrize("spread", [0.01, 0.1, 1.0])
def test_k1_in_the_reward_descends_the_kl_of_whole_completions(spread):
    with jax.enable_x64(True):
        logits, reference = policy_and_reference(spread)
        expected = jax.grad(kl_of_completions)(logits, reference)
        actual = gradient_by_reward("k1", logits, reference)
    size = np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4 * size)


@pytest.mark.parametrize("name", ["k2", "k3"])
def test_k2_and_k3_in_the_reward_descend_no_kl(name):
    """What they hold of its gradient vanishes with the distance; k1 holds all of it."""
    with jax.enable_x64(True):
        for spread, most in ((0.01, 0.02), (0.1, 0.2)):
            logits, reference = policy_and_reference(spread)
            expected = np.ravel(jax.grad(kl_of_completions)(logits, reference))
            actual, by_k1 = (
                np.ravel(gradient_by_reward(one, logits, reference)) for one in (name, "k1")
            )
            assert abs(actual @ expected) < most * (expected @ expected)
            assert by_k1 @ expected == pytest.approx(expected @ expected, rel=1e-3)


@pytest.mark.parametrize("name", KL_ESTIMATORS)
@pytest.mark.parametrize("spread", [0.1, 1.0])
def test_in_the_loss_each_descends_the_kl_of_next_tokens(name, spread):
    """Expected over all completions: the mean over what was drawn before of 0 (k1), KL(policy ||
    reference) (k2) and KL(reference || policy) (k3) of the next token.
    """
    with jax.enable_x64(True):
        logits, reference = policy_and_reference(spread, seed=1)
        fixed = jax.nn.log_softmax(logits)
        drawn = jnp.exp(by_token(fixed).sum(axis=1))[:, None]
        reached = jnp.concatenate([jnp.ones(1), jnp.exp(fixed[0])])

        def in_the_loss(z):
            log_ratio = by_token(jax.nn.log_softmax(z) - reference)
            return (drawn * KL_ESTIMATORS[name](log_ratio)).sum()

        def of_next_tokens(z):
            policy = jax.nn.log_softmax(z)
            forward = (jnp.exp(policy) * (policy - reference)).sum(axis=1)
            backward = (jnp.exp(reference) * (reference - policy)).sum(axis=1)
            return (reached * {"k1": 0.0, "k2": forward, "k3": backward}[name]).sum()

        actual, expected = jax.grad(in_the_loss)(logits), jax.grad(of_next_tokens)(logits)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)
    assert (np.abs(expected).max() > 1e-3) == (name != "k1")
