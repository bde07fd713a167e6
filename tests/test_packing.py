"""Packing: the worked example of the docstring, and properties over random mixes of lengths."""

import numpy as np
import pytest

from cegppo_jax.packing import (
    PackedShape,
    TrainingSequence,
    first_fit,
    pack,
    packing_efficiency,
    unpack,
)


def sequence(prompt, completion, advantage=0.0):
    logprobs = -np.arange(1, len(completion) + 1, dtype=np.float32)
    return TrainingSequence(prompt, np.asarray(completion, np.int32), logprobs, advantage)


def random_sequences(seed, count, longest_prompt=5, longest_completion=11):
    random = np.random.default_rng(seed)
    return [
        sequence(
            random.integers(2, 30, size=random.integers(1, longest_prompt + 1)).tolist(),
            random.integers(2, 30, size=random.integers(1, longest_completion + 1)),
            advantage=float(random.normal()),
        )
        for _ in range(count)
    ]


def test_worked_example():
    batch = pack(
        [sequence([10, 11], [12, 13], 1.5), sequence([14], [15], -0.5)], PackedShape(1, 1, 8)
    )
    expected = dict(
        tokens=[10, 11, 12, 13, 14, 15, 0, 0],
        segment_ids=[1, 1, 1, 1, 2, 2, 0, 0],
        positions=[0, 1, 2, 3, 0, 1, 0, 0],
        completion_mask=[0, 0, 1, 1, 0, 1, 0, 0],
        sequence_ids=[0, 0, 0, 0, 1, 1, 2, 2],
        advantages=[0, 0, 1.5, 1.5, 0, -0.5, 0, 0],
        sampler_logprobs=[0, 0, -1, -2, 0, -1, 0, 0],
    )
    for name, row in expected.items():
        np.testing.assert_array_equal(getattr(batch, name)[0, 0], row, err_msg=name)
    assert batch.num_microbatches == 1
    assert packing_efficiency(batch) == 6 / 8


@pytest.mark.parametrize("seed", range(5))
def test_every_sequence_is_there_once_and_whole(seed):
    sequences = random_sequences(seed, 23)
    shape = PackedShape.holding(23, max_sequence_tokens=16, rows=3, row_tokens=20)
    batch = pack(sequences, shape)
    tokens = unpack(batch.tokens, batch, 23)
    logprobs = unpack(batch.sampler_logprobs, batch, 23)
    advantages = unpack(batch.advantages, batch, 23)
    for index, one in enumerate(sequences):
        np.testing.assert_array_equal(tokens[index], one.completion_tokens)
        np.testing.assert_array_equal(logprobs[index], one.sampler_logprobs)
        np.testing.assert_array_equal(advantages[index], np.float32(one.advantage))
        place = batch.sequence_ids == index
        whole = [*one.prompt_tokens, *one.completion_tokens]
        np.testing.assert_array_equal(batch.tokens[place], whole)
        np.testing.assert_array_equal(batch.positions[place], np.arange(len(whole)))
        assert len(set(batch.segment_ids[place])) == 1
    assert (batch.segment_ids > 0).sum() == sum(len(one) for one in sequences)
    assert not batch.completion_mask[batch.segment_ids == 0].any()
    in_use = batch.segment_ids.reshape(shape.microbatches, -1).any(axis=1)
    assert in_use.tolist() == [i < batch.num_microbatches for i in range(shape.microbatches)]


def test_shape_holds_the_worst_mix():
    """All sequences one token over half a row: one a row. And whatever first-fit meets, it fits."""
    worst = [sequence([2] * 6, [3] * 5) for _ in range(7)]
    shape = PackedShape.holding(7, max_sequence_tokens=11, rows=2, row_tokens=20)
    assert shape == PackedShape(microbatches=4, rows=2, row_tokens=20)
    pack(worst, shape)
    for seed in range(200):
        sequences = random_sequences(seed, 17, longest_prompt=3, longest_completion=4)
        shape = PackedShape.holding(17, max_sequence_tokens=7, rows=1, row_tokens=15)
        assert shape.microbatches == 9
        assert pack(sequences, shape).num_microbatches <= 9


def test_first_fit_fills_rows_longest_first():
    assert first_fit([3, 7, 5, 2, 1], row_tokens=10) == [[1, 0], [2, 3, 4]]


def test_a_row_shorter_than_a_sequence_is_refused():
    with pytest.raises(ValueError, match=r"rows of 10 tokens cannot hold a sequence of 11"):
        PackedShape.holding(4, max_sequence_tokens=11, rows=2, row_tokens=10)


def test_too_many_rows_are_refused():
    sequences = [sequence([2] * 6, [3] * 5) for _ in range(3)]
    with pytest.raises(ValueError, match=r"need 3 rows of 12 tokens.*1 micro-batches x 2 rows = 2"):
        pack(sequences, PackedShape(1, 2, 12))


def test_a_sequence_without_a_prompt_is_refused():
    with pytest.raises(ValueError, match="nothing predicts it"):
        pack([sequence([], [3])], PackedShape(1, 1, 8))
