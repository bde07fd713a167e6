"""Stochastic preservation: CE-GPPO in expectation, from draws that belong to tokens and not to
places.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import (
    GRIDS,
    PAPERS,
    clipped,
    inputs_of,
    knobs_of,
    tokens_of,
    value_and_gradient,
)
from oracles import Tokens

from cegppo_jax.losses.selection import token_uniforms
from cegppo_jax.losses.surrogates import SURROGATES
from cegppo_jax.losses.wrappers import STOCHASTIC_PRESERVATION, wrapped
from cegppo_jax.packing import PackedShape, TrainingSequence, pack, unpack

CE_GPPO = SURROGATES["ce_gppo"]
PRESERVING = wrapped(CE_GPPO, ("stochastic_preservation",))
Q = 0.25
KNOBS = PAPERS | dict(preserve_probability=Q, beta_low=0.5, beta_high=0.8)
DRAWS = 4000
# Clipped left, clipped right, in both pessimistic cases, inside.
LOG_RATIOS = np.array([-2.0, -0.3, 0.3, 3.0, 0.5, -0.5, 0.1, -0.1])
ADVANTAGES = np.array([-1.0, -2.5, 1.0, 0.354, -1.0, 1.0, 1.0, -1.0])
IS_CLIPPED = np.array([True] * 4 + [False] * 4)


def drawn(seed):
    """Seed -> draws, gradients and CE-GPPO's own gradients, all [DRAWS, 8]; a row is one try."""
    uniform = uniforms(*np.indices((DRAWS, 8)), seed).astype(np.float64)
    log_ratio, advantages, ones = (
        np.broadcast_to(row, (DRAWS, 8)) for row in (LOG_RATIOS, ADVANTAGES, np.ones(8))
    )
    tokens = Tokens(
        policy_logprobs=np.minimum(log_ratio, 0),
        old_logprobs=np.minimum(log_ratio, 0) - log_ratio,
        advantages=advantages,
        entropy=ones,
        old_entropy=ones,
        segment_ids=ones.astype(np.int32),
        completion_mask=ones.astype(bool),
        uniform=uniform,
        selected={},
    )
    gradients, exact = (value_and_gradient(m, tokens, KNOBS)[1] for m in (PRESERVING, CE_GPPO))
    return uniform, gradients, exact


def uniforms(draw_ids, positions, seed=0):
    """Integers of one shape -> their draws, asked for in a batch of one size: XLA compiles once."""
    size = DRAWS * 8
    flat = [jnp.asarray(np.resize(x, size), jnp.int32) for x in (draw_ids, positions)]
    draws = np.asarray(token_uniforms(jax.random.key(seed), *flat))
    return draws[: np.size(positions)].reshape(np.shape(positions))


def test_unbiased():
    """The mean of 4000 draws is CE-GPPO's gradient within 4 standard errors: of Bernoulli(q) / q it
    is F A sqrt((1 - q) / (q 4000)), here 2.7 % of F A. The spread is that of the same.
    """
    _, gradients, exact = drawn(0)
    error = np.abs(exact[0]) * np.sqrt((1 - Q) / (Q * DRAWS))
    assert (np.abs(gradients.mean(0) - exact[0]) <= 4 * error)[IS_CLIPPED].all()
    spread = gradients.std(0)[IS_CLIPPED] / np.abs(exact[0])[IS_CLIPPED]
    np.testing.assert_allclose(spread, np.sqrt((1 - Q) / Q), rtol=0.05)


def test_a_clipped_token_has_its_gradient_over_q_or_none():
    uniform, gradients, exact = drawn(1)
    expected = np.where(uniform < Q, exact * np.float32(1 / Q), 0)[:, IS_CLIPPED]
    np.testing.assert_array_equal(gradients[:, IS_CLIPPED], expected)
    assert (gradients == 0).any(0).tolist() == IS_CLIPPED.tolist()
    assert (expected != 0).any(0).all()


def test_tokens_that_are_not_clipped_are_untouched():
    _, gradients, exact = drawn(2)
    np.testing.assert_array_equal(gradients[:, ~IS_CLIPPED], exact[:, ~IS_CLIPPED])


def test_reproducible():
    first, second, other = drawn(3), drawn(3), drawn(4)
    for one, again in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, again)
    assert (first[0] != other[0]).all()


def test_what_was_dropped_is_counted():
    tokens = GRIDS["one_token"]
    terms = PRESERVING.surrogate(inputs_of(tokens), knobs_of(KNOBS))
    left, right = clipped(tokens, KNOBS)
    expected = (left | right) & (tokens.uniform >= Q)
    np.testing.assert_array_equal(terms.events["not_preserved"], expected)
    assert 0 < expected.sum() < (left | right).sum()


def test_asks_for_draws():
    assert PRESERVING.draws
    assert not CE_GPPO.draws


@pytest.mark.parametrize("inner", ["ce_gspo", "gspo_token"])
def test_of_a_sequence_each_token_is_drawn_for_itself(inner):
    """The interval is the sequence's, the draw the token's."""
    tokens = tokens_of(
        [[-1.0, -0.1, -0.4, 0.1]],
        [[-1.0] * 4],
        segment_ids=[[1, 1, 1, 2]],
        uniform=[[0.1, 0.9, 0.2, 0.9]],
    )
    method = wrapped(SURROGATES[inner], ("stochastic_preservation",))
    _, gradient = value_and_gradient(method, tokens, KNOBS)
    _, exact = value_and_gradient(SURROGATES[inner], tokens, KNOBS)
    np.testing.assert_array_equal(
        gradient, exact * np.resize(np.array([4, 0, 4, 1], np.float32), exact.shape)
    )


RANDOM = np.random.default_rng(0)
DRAW_IDS = RANDOM.integers(0, 2**31 - 1, size=(6, 9), dtype=np.int32)
POSITIONS = RANDOM.integers(0, 20_000, size=(6, 9), dtype=np.int32)


def test_a_draw_is_a_function_of_its_key_number_and_position():
    everything = uniforms(DRAW_IDS, POSITIONS)
    assert everything.dtype == np.float32
    order = RANDOM.permutation(DRAW_IDS.size)
    shuffled = uniforms(DRAW_IDS.ravel()[order], POSITIONS.ravel()[order])
    np.testing.assert_array_equal(shuffled, everything.ravel()[order])
    for changed in (
        uniforms(DRAW_IDS, POSITIONS, seed=1),
        uniforms(DRAW_IDS + 1, POSITIONS),
        uniforms(DRAW_IDS, POSITIONS + 1),
        uniforms(POSITIONS, DRAW_IDS),
    ):
        assert (changed != everything).all()


def test_packing_does_not_change_a_tokens_draw():
    """Three layouts of one capacity, the last one drawn inside jit."""
    lengths = [3, 5, 1, 4, 2, 6]
    sequences = [
        TrainingSequence([1] * (1 + i % 3), np.arange(n), draw_id=70 + 7 * i)
        for i, n in enumerate(lengths)
    ]
    layouts = []
    for shape, draw in (
        (PackedShape(3, 2, 12), token_uniforms),
        (PackedShape(1, 2, 36), token_uniforms),
        (PackedShape(8, 1, 9), jax.jit(token_uniforms)),
    ):
        batch = pack(sequences, shape)
        drawn = draw(jax.random.key(5), jnp.asarray(batch.draw_ids), jnp.asarray(batch.positions))
        assert drawn.shape == batch.positions.shape
        layouts.append(unpack(np.asarray(drawn), batch, len(sequences)))
    for other in layouts[1:]:
        for first, second in zip(layouts[0], other, strict=True):
            np.testing.assert_array_equal(first, second)
    assert len(np.unique(np.concatenate(layouts[0]))) == sum(lengths)


@pytest.mark.parametrize("by", ["sequence", "position"])
def test_roughly_uniform(by):
    """32 000 draws: mean within 4 standard errors, and the Kolmogorov-Smirnov distance below its
    1 in 1000 quantile; neighbours are uncorrelated.
    """
    count = DRAWS * 8
    running, fixed = np.arange(count), np.full(count, 3)
    draws = uniforms(running, fixed) if by == "sequence" else uniforms(fixed, running)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert abs(draws.mean() - 0.5) < 4 / np.sqrt(12 * count)
    steps = np.arange(count + 1) / count
    ordered = np.sort(draws)
    distance = max((ordered - steps[:-1]).max(), (steps[1:] - ordered).max())
    assert distance < 1.95 / np.sqrt(count)
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 4 / np.sqrt(count)


def test_preserving_changes_no_other_field_of_the_method():
    numbers = {**CE_GPPO.numbers, **STOCHASTIC_PRESERVATION}
    own = {"surrogate": PRESERVING.surrogate, "draws": True, "numbers": numbers}
    assert dataclasses.replace(CE_GPPO, **own) == PRESERVING
