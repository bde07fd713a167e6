"""Packing: the worked example of the docstring, and properties over random mixes of lengths."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cegppo_jax.packing import (
    PackedShape,
    TrainingSequence,
    completion_places,
    pack,
    packing_efficiency,
    unpack,
    with_targets,
)
from cegppo_jax.row_filling import first_fit


def sequence(prompt, completion, draw_id=0):
    return TrainingSequence(prompt, np.asarray(completion, np.int32), draw_id)


def random_sequences(seed, count, longest_prompt=5, longest_completion=11):
    random = np.random.default_rng(seed)
    return [
        sequence(
            random.integers(2, 30, size=random.integers(1, longest_prompt + 1)).tolist(),
            random.integers(2, 30, size=random.integers(1, longest_completion + 1)),
            draw_id=1000 + 7 * index,
        )
        for index in range(count)
    ]


def assert_row(batch, **expected):
    for name, row in expected.items():
        np.testing.assert_array_equal(getattr(batch, name)[0, 0], row, err_msg=name)


TWO = [sequence([10, 11], [12, 13], draw_id=40), sequence([14], [15], draw_id=6)]


def test_worked_example():
    batch = pack(TWO, PackedShape(1, 1, 8))
    tokens = dict(
        tokens=[10, 11, 12, 13, 14, 15, 0, 0],
        segment_ids=[1, 1, 1, 1, 2, 2, 0, 0],
        positions=[0, 1, 2, 3, 0, 1, 0, 0],
        completion_mask=[0, 0, 1, 1, 0, 1, 0, 0],
        sequence_ids=[0, 0, 0, 0, 1, 1, 2, 2],
        prompt_segments=[1, 1, 1, 1, 2, 2, 0, 0],
        predictors=[0, 0, 1, 2, 0, 4, 0, 0],
        draw_ids=[40, 40, 40, 40, 6, 6, 0, 0],
    )
    assert_row(
        batch,
        **tokens,
        advantages=[0] * 8,
        loss_weights=[0] * 8,
        lm_weights=[0] * 8,
        corrections=[0, 0, 1, 1, 0, 1, 0, 0],
    )
    filled = with_targets(
        batch,
        advantages=np.array([1.5, -0.5]),
        loss_weights=np.array([0.25, 0.5]),
        lm_weights=np.array([0.0, 3.0]),
        corrections=[np.array([0.9, 1.1]), np.array([2.0])],
    )
    assert_row(
        filled,
        **tokens,
        advantages=[0, 0, 1.5, 1.5, 0, -0.5, 0, 0],
        loss_weights=[0, 0, 0.25, 0.25, 0, 0.5, 0, 0],
        lm_weights=[0, 0, 0, 0, 0, 3, 0, 0],
        corrections=np.float32([0, 0, 0.9, 1.1, 0, 2, 0, 0]),
    )
    for made in (batch, filled):
        assert made.num_microbatches == 1
        assert packing_efficiency(made) == 6 / 8
        for name in ("advantages", "loss_weights", "lm_weights", "corrections"):
            assert getattr(made, name).dtype == np.float32


def test_targets_that_are_not_given_stay_as_they_were():
    """No LM term: weights 0. No correction: 1 on each completion token."""
    batch = pack(TWO, PackedShape(1, 1, 8))
    numbers = np.array([1.0, 2.0])
    filled = with_targets(batch, advantages=numbers, loss_weights=numbers)
    assert_row(filled, lm_weights=[0] * 8, corrections=[0, 0, 1, 1, 0, 1, 0, 0])
    assert_row(batch, advantages=[0] * 8, loss_weights=[0] * 8)  # the batch itself is as before


@pytest.mark.parametrize("seed", range(5))
def test_every_sequence_is_there_once_and_whole(seed):
    sequences = random_sequences(seed, 23)
    random = np.random.default_rng(100 + seed)
    advantages, loss_weights, lm_weights = random.normal(size=(3, 23)).astype(np.float32)
    corrections = [
        random.normal(size=len(one.completion_tokens)).astype(np.float32) for one in sequences
    ]
    shape = PackedShape.holding(23, max_sequence_tokens=16, rows=3, row_tokens=20)
    batch = with_targets(
        pack(sequences, shape),
        advantages=advantages,
        loss_weights=loss_weights,
        lm_weights=lm_weights,
        corrections=corrections,
    )
    tokens = unpack(batch.tokens, batch, 23)
    found_corrections = unpack(batch.corrections, batch, 23)
    by_sequence = {
        "advantages": advantages,
        "loss_weights": loss_weights,
        "lm_weights": lm_weights,
        "draw_ids": np.array([one.draw_id for one in sequences]),
    }
    for index, one in enumerate(sequences):
        np.testing.assert_array_equal(tokens[index], one.completion_tokens)
        np.testing.assert_array_equal(found_corrections[index], corrections[index])
        for name, values in by_sequence.items():
            on_tokens = unpack(getattr(batch, name), batch, 23)[index]
            assert len(on_tokens) == len(one.completion_tokens)
            np.testing.assert_array_equal(on_tokens, values[index], err_msg=name)
        place = batch.sequence_ids == index
        whole = [*one.prompt_tokens, *one.completion_tokens]
        np.testing.assert_array_equal(batch.tokens[place], whole)
        np.testing.assert_array_equal(batch.positions[place], np.arange(len(whole)))
        np.testing.assert_array_equal(batch.draw_ids[place], one.draw_id)
        assert len(set(batch.segment_ids[place])) == 1
    assert (batch.segment_ids > 0).sum() == sum(len(one) for one in sequences)
    outside = ~batch.completion_mask
    assert not batch.completion_mask[batch.segment_ids == 0].any()
    for name in ("advantages", "loss_weights", "lm_weights", "corrections"):
        assert not getattr(batch, name)[outside].any(), name
    in_use = batch.segment_ids.reshape(shape.microbatches, -1).any(axis=1)
    assert in_use.tolist() == [i < batch.num_microbatches for i in range(shape.microbatches)]


def test_places_are_in_the_sequences_order_whatever_row_they_are_in():
    """First-fit puts the longest first: sequence 2 fills row 0, the others share row 1."""
    sequences = [sequence([2], [3, 4]), sequence([2, 2], [5]), sequence([2], [6, 7, 8, 9, 9, 9, 9])]
    batch = pack(sequences, PackedShape(2, 1, 8))
    places = completion_places(batch, 3)
    assert [one.tolist() for one in places] == [[9, 10], [13], [1, 2, 3, 4, 5, 6, 7]]


def test_worked_example_of_a_shared_prompt():
    two = [sequence([10, 11], [12, 13], draw_id=40), sequence([10, 11], [14], draw_id=41)]
    assert_row(
        pack(two, PackedShape(1, 1, 8), share_prompts=True),
        tokens=[10, 11, 12, 13, 14, 0, 0, 0],
        segment_ids=[1, 1, 2, 2, 3, 0, 0, 0],
        prompt_segments=[1, 1, 1, 1, 1, 0, 0, 0],
        positions=[0, 1, 2, 3, 2, 0, 0, 0],
        completion_mask=[0, 0, 1, 1, 1, 0, 0, 0],
        sequence_ids=[2, 2, 0, 0, 1, 2, 2, 2],
        predictors=[0, 0, 1, 2, 1, 0, 0, 0],
        draw_ids=[0, 0, 40, 40, 41, 0, 0, 0],
        corrections=[0, 0, 1, 1, 1, 0, 0, 0],
    )


# Groups: a prompt's length and its completions' lengths; prompts differ by their first token.
GROUPS = st.lists(
    st.tuples(st.integers(1, 3), st.lists(st.integers(1, 4), min_size=1, max_size=4)),
    min_size=1,
    max_size=8,
)


def grouped(groups):
    return [
        sequence([index] * prompt, [30 + index] * completion, draw_id=index)
        for index, (prompt, completions) in enumerate(groups)
        for completion in completions
    ]


@given(GROUPS, st.integers(1, 3), st.integers(7, 40), st.booleans())
def test_every_completion_continues_its_prompt(groups, rows, row_tokens, share_prompts):
    sequences = grouped(groups)
    shape = PackedShape.holding(
        len(sequences), max_sequence_tokens=7, rows=rows, row_tokens=row_tokens
    )
    batch = pack(sequences, shape, share_prompts=share_prompts)
    flat = {name: getattr(batch, name).reshape(-1, row_tokens) for name in (
        "tokens", "segment_ids", "prompt_segments", "positions", "predictors", "completion_mask"
    )}  # fmt: skip
    for index, places in enumerate(completion_places(batch, len(sequences))):
        one, length = sequences[index], len(sequences[index].prompt_tokens)
        [row], columns = set(places // row_tokens), places % row_tokens
        assert flat["tokens"][row, columns].tolist() == list(one.completion_tokens)
        assert flat["positions"][row, columns].tolist() == [*range(length, len(one))]
        [prompt_segment] = set(flat["prompt_segments"][row, columns])
        before = np.flatnonzero(
            (flat["segment_ids"][row] == prompt_segment) & ~flat["completion_mask"][row]
        )
        assert flat["tokens"][row, before].tolist() == list(one.prompt_tokens)
        assert flat["positions"][row, before].tolist() == [*range(length)]
        assert before[-1] < columns[0]
        chain = [before[-1], *columns[:-1]]
        assert flat["predictors"][row, columns].tolist() == chain
        assert flat["predictors"][row, before[1:]].tolist() == before[:-1].tolist()
    whole = sum(len(one) for one in sequences)
    packed = (batch.segment_ids > 0).sum()
    if share_prompts:
        prompts = sum(prompt for prompt, _ in groups)
        assert packed >= prompts + batch.completion_mask.sum()
        assert packed <= whole
    else:
        assert packed == whole


def test_a_group_that_fits_a_row_has_its_prompt_once():
    sequences = grouped([(3, [2, 2, 2, 2]), (3, [1, 4, 3])])
    batch = pack(sequences, PackedShape(1, 2, 11), share_prompts=True)
    assert (batch.segment_ids > 0).sum(axis=-1).tolist() == [[11, 11]]
    assert packing_efficiency(batch) == 1


@pytest.mark.parametrize("share_prompts", [False, True])
def test_a_completion_without_tokens_takes_no_place(share_prompts):
    """Not even at the end of a row that is full."""
    two = [sequence([10, 11], [12]), sequence([10, 11, 13], [])]
    batch = pack(two, PackedShape(1, 2, 3), share_prompts=share_prompts)
    assert [places.tolist() for places in completion_places(batch, 2)] == [[2], []]
    assert batch.tokens[0].tolist() == [[10, 11, 12], [10, 11, 13]]


def test_shape_holds_the_worst_mix():
    """All sequences one token over half a row: one a row."""
    worst = [sequence([2] * 6, [3] * 5) for _ in range(7)]
    shape = PackedShape.holding(7, max_sequence_tokens=11, rows=2, row_tokens=20)
    assert shape == PackedShape(microbatches=4, rows=2, row_tokens=20)
    pack(worst, shape)


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), min_size=1, max_size=24),
    st.integers(1, 3),
    st.integers(7, 40),
    st.booleans(),
)
def test_shape_holds_whatever_first_fit_meets(lengths, rows, row_tokens, share_prompts):
    sequences = [sequence([2] * prompt, [3] * completion) for prompt, completion in lengths]
    shape = PackedShape.holding(
        len(lengths), max_sequence_tokens=7, rows=rows, row_tokens=row_tokens
    )
    batch = pack(sequences, shape, share_prompts=share_prompts)
    assert 1 <= batch.num_microbatches <= shape.microbatches
    assert batch.completion_mask.sum() == sum(completion for _, completion in lengths)


def test_first_fit_fills_rows_longest_first():
    assert first_fit([3, 7, 5, 2, 1], row_tokens=10) == [[1, 0], [2, 3, 4]]


def test_a_row_shorter_than_a_sequence_is_refused():
    with pytest.raises(ValueError, match=r"rows of 10 tokens .* sequence of 11"):
        PackedShape.holding(4, max_sequence_tokens=11, rows=2, row_tokens=10)


def test_too_many_rows_are_refused():
    sequences = [sequence([2] * 6, [3] * 5) for _ in range(3)]
    with pytest.raises(ValueError, match=r"need 3 rows of 12 tokens.*1 micro-batches x 2 rows = 2"):
        pack(sequences, PackedShape(1, 2, 12))


def test_a_sequence_without_a_prompt_is_refused():
    with pytest.raises(ValueError, match="nothing predicts it"):
        pack([sequence([], [3])], PackedShape(1, 1, 8))
