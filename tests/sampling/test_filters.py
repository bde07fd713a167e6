"""Filters against NumPy, and the inverse CDF against the distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cegppo_jax.sampling.filters import SamplingFilter, draw_token, filter_logits

PLAIN = SamplingFilter(temperature=1.0, top_k=0, top_p=1.0)


def kept(logits, sampling):
    return np.isfinite(filter_logits(jnp.log(jnp.asarray(logits)), sampling)).tolist()


def test_top_k_keeps_the_k_largest():
    assert kept([0.1, 0.4, 0.2, 0.3], SamplingFilter(1.0, 2, 1.0)) == [False, True, False, True]


def test_top_k_beyond_the_vocabulary_keeps_all():
    assert all(kept([0.1, 0.9], SamplingFilter(1.0, 50, 1.0)))


def test_top_p_keeps_the_smallest_set_that_reaches_p():
    # cumulative: .4, .7, .9, 1: .5 needs two tokens, .69 too, .71 three
    probabilities = [0.1, 0.4, 0.2, 0.3]
    assert kept(probabilities, SamplingFilter(1.0, 0, 0.5)) == [False, True, False, True]
    assert kept(probabilities, SamplingFilter(1.0, 0, 0.69)) == [False, True, False, True]
    assert kept(probabilities, SamplingFilter(1.0, 0, 0.71)) == [False, True, True, True]
    assert kept(probabilities, SamplingFilter(1.0, 0, 0.01)) == [False, True, False, False]


def test_temperature_comes_before_top_p():
    # p^2 normalised: 1, 16, 4, 9 of 30: the largest two reach .8
    assert kept([0.1, 0.4, 0.2, 0.3], SamplingFilter(0.5, 0, 0.8)) == [False, True, False, True]


def test_greedy_takes_the_first_of_the_best():
    logits = filter_logits(jnp.array([[0.0, 2.0, 2.0]]), SamplingFilter(0.0, 0, 1.0))
    for uniform in (0.0, 0.5, 0.999):
        token, logprob = draw_token(logits, jnp.array([uniform]))
        assert (int(token[0]), float(logprob[0])) == (1, 0.0)


@pytest.mark.parametrize("vocab", [1, 7, 512, 513, 1300])
def test_draw_follows_the_inverse_cdf(vocab):
    random = np.random.default_rng(vocab)
    logits = random.normal(0, 3, size=(64, vocab)).astype(np.float32)
    uniform = random.random(64).astype(np.float32)
    tokens, logprobs = jax.jit(draw_token)(logits, uniform)
    exact = np.exp(logits.astype(np.float64))
    exact /= exact.sum(axis=1, keepdims=True)
    cdf = exact.cumsum(axis=1)
    rows = np.arange(64)
    upper = cdf[rows, tokens]
    lower = upper - exact[rows, tokens]
    assert (lower - 1e-5 <= uniform).all()
    assert (uniform <= upper + 1e-5).all()
    np.testing.assert_allclose(logprobs, np.log(exact[rows, tokens]), rtol=1e-4, atol=1e-5)


def test_draw_never_takes_a_token_that_was_cut():
    logits = np.full((1000, 1025), -np.inf, np.float32)
    logits[:, [3, 700]] = 0.0
    uniform = np.append(np.linspace(0, 1, 999, endpoint=False), 1 - 2**-24).astype(np.float32)
    tokens, logprobs = draw_token(jnp.asarray(logits), jnp.asarray(uniform))
    assert set(np.asarray(tokens).tolist()) == {3, 700}
    np.testing.assert_allclose(logprobs, np.log(0.5), rtol=1e-6)


def test_frequencies_match_probabilities():
    """Chi-square over 20,000 draws with their keys made as the sampler makes them."""
    logits = jnp.log(jnp.array([0.05, 0.5, 0.2, 0.25]))
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(0), i))(jnp.arange(20_000))
    uniform = jax.vmap(jax.random.uniform)(keys)
    tokens, _ = draw_token(jnp.broadcast_to(logits, (20_000, 4)), uniform)
    counts = np.bincount(tokens, minlength=4)
    expected = 20_000 * np.exp(logits)
    assert (
        (counts - expected) ** 2 / expected
    ).sum() < 16.3  # 99.9 % quantile, 3 degrees of freedom


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1.0, 0, 1.0), "temperature = -1"),
        ((1.0, -2, 1.0), "top_k = -2"),
        ((1.0, 0, 0.0), r"top_p = 0.0.*\(0, 1\]"),
        ((1.0, 0, 1.5), "top_p = 1.5"),
    ],
)
def test_impossible_filters_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SamplingFilter(*arguments)


def test_full_support():
    assert PLAIN.keeps_full_support
    for arguments in ((0.0, 0, 1.0), (1.0, 5, 1.0), (1.0, 0, 0.9)):
        assert not SamplingFilter(*arguments).keeps_full_support
