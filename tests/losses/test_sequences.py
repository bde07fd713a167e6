"""Sums and means over sequences: the docstring's example, packing, and what must not leak."""

import jax.numpy as jnp
import numpy as np
import pytest

from cegppo_jax.losses.sequences import Sequences
from cegppo_jax.packing import PackedShape, TrainingSequence, pack, unpack

SHAPE = 2, 8  # of the examples: XLA compiles each operation once


def row(*values):
    """Values of the first tokens -> [2, 8] of them, zeros behind and in the second row."""
    return np.pad(np.array([values]), [(0, 1), (0, 8 - len(values))])


def sequences_of(segment_ids, completion_mask):
    return Sequences(jnp.asarray(segment_ids, jnp.int32), jnp.asarray(completion_mask, bool))


EXAMPLE = sequences_of(row(1, 1, 1, 1, 2, 2, 0, 0), row(0, 0, 1, 1, 0, 1, 0, 0))
MEANS = row(2, 2, 2, 2, 5, 5, 0, 0)


def test_the_docstrings_example():
    values = jnp.asarray(row(9, 9, 1, 3, 9, 5, 9, 9), jnp.float32)
    np.testing.assert_array_equal(EXAMPLE.sum(values), row(4, 4, 4, 4, 5, 5, 0, 0))
    np.testing.assert_array_equal(EXAMPLE.mean(values), MEANS)


def test_sums_are_float32():
    """Whatever the values' type; 256 + 1 is no bfloat16."""
    for dtype, values in ((jnp.bfloat16, (256, 1)), (jnp.int32, (2, 1)), (jnp.bool_, (1, 1))):
        sums = sequences_of(row(1, 1), row(1, 1)).sum(jnp.asarray(row(*values), dtype))
        assert sums.dtype == jnp.float32
        np.testing.assert_array_equal(sums, row(sum(values), sum(values)))


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf])
def test_prompts_and_padding_do_not_leak(garbage):
    values = row(garbage, garbage, 1, 3, garbage, 5, garbage, garbage)
    np.testing.assert_array_equal(EXAMPLE.mean(jnp.asarray(values, jnp.float32)), MEANS)


def test_a_sequence_without_completion_tokens_has_mean_0():
    sequences = sequences_of(row(1, 1, 2, 2), row(0, 0, 0, 1))
    np.testing.assert_array_equal(sequences.mean(jnp.full(SHAPE, 7.0)), row(0, 0, 7, 7))


def test_rows_of_one_token_sequences():
    """As many sequences as a row has tokens, the largest id is C; and rows do not mix."""
    values = np.arange(16, dtype=np.float32).reshape(SHAPE)
    sequences = sequences_of(np.tile(np.arange(1, 9), (2, 1)), np.ones(SHAPE))
    np.testing.assert_array_equal(sequences.sum(jnp.asarray(values)), values)


def test_packed_rows_are_one_sequence_at_a_time():
    shape = PackedShape(microbatches=4, rows=2, row_tokens=12)
    random = np.random.default_rng(0)
    lengths = [1, 9, 3, 3, 6, 2, 5]
    batch = pack(
        [
            TrainingSequence([0] * int(random.integers(1, 4)), np.arange(n), draw_id=i)
            for i, n in enumerate(lengths)
        ],
        shape,
    )
    values = random.normal(size=batch.tokens.shape).astype(np.float32)
    sums, means = (np.zeros_like(values) for _ in range(2))
    for micro in range(shape.microbatches):
        sequences = sequences_of(batch.segment_ids[micro], batch.completion_mask[micro])
        sums[micro] = sequences.sum(jnp.asarray(values[micro]))
        means[micro] = sequences.mean(jnp.asarray(values[micro]))
    own, sums, means = (unpack(array, batch, len(lengths)) for array in (values, sums, means))
    for i, n in enumerate(lengths):
        np.testing.assert_allclose(sums[i], np.full(n, own[i].sum(dtype=np.float64)), rtol=1e-5)
        np.testing.assert_allclose(means[i], np.full(n, own[i].mean(dtype=np.float64)), rtol=1e-5)
