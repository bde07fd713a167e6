"""Token statistics against plain NumPy: the shift, the chunks, entropy and its slope."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import compiled_well

from cegppo_jax.losses import head_product
from cegppo_jax.losses.logprobs import statistics_of_logits, token_statistics

measured = partial(token_statistics, differentiate_entropy=False)


@pytest.fixture(scope="module")
def inputs():
    random = np.random.default_rng(0)
    hidden = random.normal(size=(2, 12, 8)).astype(np.float32)
    head = random.normal(size=(8, 19)).astype(np.float32)
    tokens = random.integers(19, size=(2, 12)).astype(np.int32)
    return jnp.asarray(hidden), jnp.asarray(head), jnp.asarray(tokens)


def log_softmax(logits):
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("chunk_tokens", [12, 4, 1])
def test_index_speaks_of_the_token_itself(inputs, temperature, chunk_tokens):
    """statistics[r, c] is about tokens[r, c], predicted by hidden[r, c - 1]."""
    hidden, head, tokens = inputs
    ours = measured(hidden, head, tokens, temperature=temperature, chunk_tokens=chunk_tokens)
    logprobs = log_softmax(np.asarray(hidden, np.float64) @ np.asarray(head) / temperature)
    for row, column in np.ndindex(2, 11):
        predicted = logprobs[row, column]
        token = tokens[row, column + 1]
        np.testing.assert_allclose(
            ours.logprobs[row, column + 1], predicted[token], rtol=1e-5, atol=1e-6
        )
        entropy = -(np.exp(predicted) * predicted).sum()
        slope = (np.exp(2 * predicted) * (predicted + entropy)).sum()
        np.testing.assert_allclose(ours.entropy[row, column + 1], entropy, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(ours.entropy_slope[row, column + 1], slope, rtol=1e-4, atol=1e-5)
    assert np.isfinite(ours.logprobs[:, 0]).all()


def test_chunks_change_neither_value_nor_gradient(inputs):
    hidden, head, tokens = inputs
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(2, 12)), jnp.float32)

    def total(hidden, head, chunk_tokens):
        statistics = measured(hidden, head, tokens, temperature=1.0, chunk_tokens=chunk_tokens)
        return (statistics.logprobs * weights).sum()

    whole = jax.grad(total, argnums=(0, 1))(hidden, head, 12)
    chunked = jax.grad(total, argnums=(0, 1))(hidden, head, 3)
    for one, other in zip(whole, chunked, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
        assert np.abs(one).max() > 0.1


@pytest.mark.parametrize("cached", [19, 80, 200])  # 1, 2 and 4 tokens of two rows at a time
def test_products_in_the_cache_give_the_same_statistics(inputs, cached, monkeypatch):
    """To rounding: a short loop may compile to other instructions."""
    hidden, head, tokens = inputs
    ask = partial(measured, hidden, head, tokens, temperature=1.0, chunk_tokens=12)
    before = jax.jit(ask).lower()
    whole = before.compile()()
    monkeypatch.setattr(head_product, "CACHED_PRODUCTS", cached)
    lowered = jax.jit(lambda: ask()).lower()  # another function, which jit has not seen
    loops = lowered.as_text().count("stablehlo.while")
    assert loops > before.as_text().count("stablehlo.while")
    few = lowered.compile()()
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(few), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-6, atol=1e-7)


def test_only_wanted_tokens_are_computed_and_nothing_else_changes(inputs):
    """Tokens are predicted by any column, and chunks without a wanted token are skipped."""
    hidden, head, tokens = inputs
    random = np.random.default_rng(2)
    wanted = jnp.asarray(random.random((2, 12)) < 0.4)
    predictors = jnp.asarray(random.integers(12, size=(2, 12)), jnp.int32)
    weights = jnp.asarray(random.normal(size=(2, 12)), jnp.float32)

    def total(hidden, head, chunk_tokens, chosen):
        statistics = measured(
            hidden, head, tokens, temperature=0.7, chunk_tokens=chunk_tokens,
            predictors=predictors, wanted=chosen,
        )  # fmt: skip
        return (statistics.logprobs * weights * wanted).sum(), statistics

    everything = jnp.ones_like(wanted)
    gradient = jax.grad(total, argnums=(0, 1), has_aux=True)
    expected, all_values = gradient(hidden, head, 12, everything)
    for chunk_tokens in (12, 3, 1):
        actual, values = gradient(hidden, head, chunk_tokens, wanted)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), actual, expected
        )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, jnp.where(wanted, b, 0), rtol=1e-5), values,
            all_values,
        )  # fmt: skip
    states = np.take_along_axis(np.asarray(hidden), np.asarray(predictors)[..., None], axis=1)
    logprobs = log_softmax(states.astype(np.float64) @ np.asarray(head) / 0.7)
    own = np.take_along_axis(logprobs, np.asarray(tokens)[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(all_values.logprobs, own, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk_tokens", [320, 8, 1])
def test_the_heads_gradient_in_bfloat16_is_summed_over_chunks_in_float32(chunk_tokens):
    """As exact in 320 chunks as in one, whose product is rounded once: 2^-9 = 0.2 % at most."""
    random = np.random.default_rng(0)
    hidden = jnp.asarray(random.normal(size=(2, 320, 16)), jnp.bfloat16)
    head = jnp.asarray(random.normal(size=(16, 50)), jnp.float32)
    tokens = jnp.asarray(random.integers(50, size=(2, 320)), jnp.int32)
    weights = jnp.asarray(random.normal(size=(2, 320)), jnp.float32)

    def total(head, hidden, chunk_tokens):
        statistics = measured(hidden, head, tokens, temperature=1.0, chunk_tokens=chunk_tokens)
        return (statistics.logprobs * weights).sum()

    gradient = jax.jit(jax.grad(total), static_argnums=2)
    rounded = head.astype(jnp.bfloat16).astype(jnp.float32)
    exact = np.asarray(gradient(rounded, hidden.astype(jnp.float32), 320))
    ours = gradient(head, hidden, chunk_tokens)
    assert ours.dtype == jnp.float32
    assert np.linalg.norm(ours - exact) / np.linalg.norm(exact) < 2e-3


def test_no_array_of_all_tokens_and_the_vocabulary_is_kept():
    """Between forward and backward, memory is of one chunk: compile, and look at the buffers."""
    rows, length, width, vocab = 4, 256, 8, 4096

    def total(hidden, head, chunk_tokens):
        tokens = jnp.zeros((rows, length), jnp.int32)
        statistics = measured(hidden, head, tokens, temperature=1.0, chunk_tokens=chunk_tokens)
        return statistics.logprobs.sum()

    def temporary_bytes(chunk_tokens):
        shapes = [
            jax.ShapeDtypeStruct(s, jnp.float32) for s in ((rows, length, width), (width, vocab))
        ]
        gradient = jax.jit(jax.grad(total, argnums=(0, 1)), static_argnums=2)
        compiled = compiled_well(gradient.lower(*shapes, chunk_tokens))
        return compiled.memory_analysis().temp_size_in_bytes

    all_logits = rows * length * vocab * 4
    assert temporary_bytes(16) < all_logits / 2 < temporary_bytes(256)


def test_extremes():
    logits = jnp.array([[0.0, -jnp.inf], [1e4, -1e4], [0.0, 0.0]])
    ours = statistics_of_logits(logits, jnp.array([0, 0, 1]))
    np.testing.assert_allclose(ours.logprobs, [0, 0, -np.log(2)], atol=1e-6)
    np.testing.assert_allclose(ours.entropy, [0, 0, np.log(2)], atol=1e-6)
    # S of the uniform pair: sum p^2 (ln p + H) = 0; of a point mass: 1 (0 + 0) = 0
    np.testing.assert_allclose(ours.entropy_slope, [0, 0, 0], atol=1e-6)


def test_slope_predicts_the_change_of_entropy():
    """Its purpose: a step eta F A on the logits' log pi(a) changes H by
    -eta F A [p_a (ln p_a + H) - S], against a finite difference."""
    logits = jnp.asarray(np.random.default_rng(3).normal(size=7), jnp.float32)
    step, action = 1e-3, 4

    def entropy(logits):
        return float(statistics_of_logits(logits, jnp.int32(0)).entropy)

    gradient = jax.grad(lambda z: statistics_of_logits(z, jnp.int32(action)).logprobs)(logits)
    measured = (entropy(logits + step * gradient) - entropy(logits - step * gradient)) / 2
    here = statistics_of_logits(logits, jnp.int32(action))
    p = float(jnp.exp(here.logprobs))
    predicted = -step * (p * (np.log(p) + float(here.entropy)) - float(here.entropy_slope))
    np.testing.assert_allclose(predicted, measured, rtol=2e-3)


def test_gradient_flows_through_logprobs_alone(inputs):
    hidden, head, tokens = inputs

    def entropy(hidden):
        statistics = measured(hidden, head, tokens, temperature=1.0, chunk_tokens=12)
        return statistics.entropy.sum() + statistics.entropy_slope.sum()

    assert np.abs(jax.grad(entropy)(hidden)).max() == 0


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_an_entropy_that_is_asked_for_has_its_own_gradient(inputs, temperature):
    """dH / dz = -p (ln p + H) / temperature at the predicting state, H in closed form; and nothing
    else changes: values, the gradient of the log-probs, and the slope, which stays a measurement.
    """
    hidden, head, tokens = inputs
    weights = np.random.default_rng(1).normal(size=(2, 12)).astype(np.float32)
    ask = partial(token_statistics, temperature=temperature, chunk_tokens=4)
    plain = ask(hidden, head, tokens, differentiate_entropy=False)
    asked = ask(hidden, head, tokens, differentiate_entropy=True)
    jax.tree.map(np.testing.assert_array_equal, asked, plain)

    def total(hidden, head, name, differentiate):
        statistics = ask(hidden, head, tokens, differentiate_entropy=differentiate)
        return (getattr(statistics, name) * weights).sum()

    gradient = jax.jit(jax.grad(total, argnums=(0, 1)), static_argnums=(2, 3))
    states = np.asarray(hidden, np.float64)
    logprobs = log_softmax(states @ np.asarray(head) / temperature)
    p = np.exp(logprobs)
    entropy = -(p * logprobs).sum(axis=-1, keepdims=True)
    # The state at c - 1 is asked about the token at c, which carries the weight.
    by_logit = np.zeros_like(p)
    by_logit[:, :-1] = -(p * (logprobs + entropy))[:, :-1] * weights[:, 1:, None] / temperature
    ours = gradient(hidden, head, "entropy", True)
    np.testing.assert_allclose(ours[0], by_logit @ np.asarray(head).T, rtol=1e-4, atol=1e-5)
    expected_head = np.einsum("rcd,rcv->dv", states, by_logit)
    np.testing.assert_allclose(ours[1], expected_head, rtol=1e-4, atol=1e-5)
    assert np.abs(expected_head).max() > 0.1

    assert all(np.abs(g).max() == 0 for g in gradient(hidden, head, "entropy_slope", True))
    for one, other in zip(
        gradient(hidden, head, "logprobs", True),
        gradient(hidden, head, "logprobs", False),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_a_differentiated_entropy_is_finite_where_a_token_is_impossible():
    """p ln p -> 0 has an infinite slope in p, and none in a logit of -inf."""
    logits = jnp.array([0.0, 1.0, -jnp.inf])

    def entropy(logits):
        return statistics_of_logits(logits, jnp.int32(0), differentiate_entropy=True).entropy

    gradient = jax.grad(entropy)(logits)
    two = jax.grad(entropy)(logits[:2])
    np.testing.assert_allclose(gradient, [*two, 0.0], atol=1e-7)


def test_chunk_must_divide_the_row(inputs):
    hidden, head, tokens = inputs
    with pytest.raises(ValueError, match=r"chunk of 5 tokens .* rows of 12"):
        measured(hidden, head, tokens, temperature=1.0, chunk_tokens=5)
