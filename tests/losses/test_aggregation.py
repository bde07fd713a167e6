"""Aggregations: worked weights, what they sum to, and when they agree."""

import dataclasses

import numpy as np
import pytest

from cegppo_jax.losses.aggregation import (
    AGGREGATIONS,
    POSITIVE_LM,
    AggregationSettings,
    loss_weights,
    positive_lm_weights,
)

SETTINGS = AggregationSettings(
    "token_mean", max_completion_tokens=8, emulated_microbatch_sequences=2
)
LENGTHS = np.array([1, 3, 4])
MEANS = sorted(set(AGGREGATIONS) - {"constant_length"})


def settings(name, microbatch=2):
    return dataclasses.replace(SETTINGS, name=name, emulated_microbatch_sequences=microbatch)


def random_lengths(seed=0, sequences=7):
    return np.random.default_rng(seed).integers(1, 9, size=sequences)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("token_mean", [1 / 8, 1 / 8, 1 / 8]),
        ("sequence_mean", [1 / 3, 1 / 9, 1 / 12]),
        ("constant_length", [1 / 24, 1 / 24, 1 / 24]),
        # Micro-batches (1, 3) and (4): shares 2/3 and 1/3 of the sequences, 4 tokens each.
        ("microbatch_token_mean", [1 / 6, 1 / 6, 1 / 12]),
    ],
)
def test_by_hand(name, expected):
    weights = loss_weights(LENGTHS, settings(name))
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


@pytest.mark.parametrize("name", sorted(AGGREGATIONS))
def test_weighted_losses_are_the_definition(name):
    """Against the sentence that defines each aggregation, on losses that differ per token."""
    lengths = random_lengths()
    generator = np.random.default_rng(1)
    losses = [generator.normal(size=n) for n in lengths]
    chunks = [losses[start : start + 2] for start in range(0, 7, 2)]
    definition = {
        "token_mean": np.concatenate(losses).mean(),
        "sequence_mean": np.mean([one.mean() for one in losses]),
        "constant_length": np.mean([one.sum() / 8 for one in losses]),
        "microbatch_token_mean": sum(
            len(chunk) / 7 * np.concatenate(chunk).mean() for chunk in chunks
        ),
    }
    weights = loss_weights(lengths, settings(name))
    total = sum(w * one.sum() for w, one in zip(weights, losses, strict=True))
    assert total == pytest.approx(definition[name], rel=1e-5)


@pytest.mark.parametrize("name", MEANS)
@pytest.mark.parametrize("microbatch", [1, 2, 3, 7, 100])
def test_a_mean_gives_all_tokens_together_weight_one(name, microbatch):
    lengths = random_lengths()
    weights = loss_weights(lengths, settings(name, microbatch))
    assert (weights * lengths).sum() == pytest.approx(1, rel=1e-6)


def test_constant_length_gives_all_tokens_together_the_share_of_the_limit_in_use():
    lengths = random_lengths()
    weights = loss_weights(lengths, settings("constant_length"))
    assert (weights * lengths).sum() == pytest.approx(lengths.mean() / 8, rel=1e-6)


def test_constant_length_ignores_what_the_lengths_are():
    weights = [loss_weights(random_lengths(s), settings("constant_length")) for s in (0, 1)]
    np.testing.assert_array_equal(*weights)


@pytest.mark.parametrize("name", MEANS)
def test_equal_lengths_make_all_means_equal(name):
    np.testing.assert_allclose(loss_weights(np.full(6, 5), settings(name)), 1 / 30, rtol=1e-6)


@pytest.mark.parametrize(
    ("microbatch", "same"), [(7, "token_mean"), (100, "token_mean"), (1, "sequence_mean")]
)
def test_extremes_of_the_micro_batch(microbatch, same):
    lengths = random_lengths()
    emulated = loss_weights(lengths, settings("microbatch_token_mean", microbatch))
    np.testing.assert_allclose(emulated, loss_weights(lengths, settings(same)), rtol=1e-6)


def test_micro_batches_lie_between():
    lengths = random_lengths()
    emulated = loss_weights(lengths, settings("microbatch_token_mean", 2))
    for name in ("token_mean", "sequence_mean"):
        assert not np.allclose(emulated, loss_weights(lengths, settings(name)), rtol=0.05)


@pytest.mark.parametrize("name", sorted(AGGREGATIONS))
def test_order_of_sequences(name):
    """It matters to micro-batches, and to nothing else."""
    lengths = np.array([1, 1, 8, 8])
    order = np.array([0, 2, 1, 3])
    moved = loss_weights(lengths[order], settings(name))
    stays = np.allclose(moved, loss_weights(lengths, settings(name))[order])
    assert stays == (name != "microbatch_token_mean")


def test_order_within_a_micro_batch_and_of_micro_batches_does_not_matter():
    lengths, order = np.array([1, 2, 7, 8]), np.array([3, 2, 0, 1])
    emulated = settings("microbatch_token_mean")
    np.testing.assert_array_equal(
        loss_weights(lengths[order], emulated), loss_weights(lengths, emulated)[order]
    )


def test_many_tokens_do_not_overflow_whole_numbers():
    """2,048 x 2**21 tokens = 2**32, which int32 cannot count."""
    lengths = np.full(2048, 2**21, np.int32)
    np.testing.assert_allclose(loss_weights(lengths, settings("token_mean")), 2.0**-32, rtol=1e-6)
    np.testing.assert_allclose(
        loss_weights(lengths, settings("sequence_mean")), 2.0**-32, rtol=1e-6
    )


# Positives


def test_every_aggregation_has_a_mean_over_positives():
    assert POSITIVE_LM.keys() == AGGREGATIONS.keys()


@pytest.mark.parametrize("name", sorted(set(AGGREGATIONS) - {"microbatch_token_mean"}))
def test_positives_are_a_global_token_mean(name):
    weights = positive_lm_weights(LENGTHS, np.array([True, False, True]), settings(name))
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, [1 / 5, 0, 1 / 5], rtol=1e-6)


def test_positives_of_micro_batches_by_hand():
    """Lengths (2, 3) (4, 5) (6), right: 1st, 3rd and 4th of 5. The first micro-batch has 2 right
    tokens and 2/5 of the sequences, the second 9 and 2/5, the third is lost.
    """
    lengths, right = np.array([2, 3, 4, 5, 6]), np.array([True, False, True, True, False])
    weights = positive_lm_weights(lengths, right, settings("microbatch_token_mean"))
    np.testing.assert_allclose(weights, [1 / 5, 0, 2 / 45, 2 / 45, 0], rtol=1e-6)
    assert (weights * lengths).sum() == pytest.approx(4 / 5)


@pytest.mark.parametrize("name", sorted(AGGREGATIONS))
def test_no_positive_is_no_weight(name):
    weights = positive_lm_weights(LENGTHS, np.zeros(3, bool), settings(name))
    assert weights.tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", sorted(AGGREGATIONS))
def test_all_positive_is_the_token_mean_of_the_batch_or_of_micro_batches(name):
    lengths = random_lengths()
    weights = positive_lm_weights(lengths, np.ones(7, bool), settings(name))
    same = name if name == "microbatch_token_mean" else "token_mean"
    np.testing.assert_array_equal(weights, loss_weights(lengths, settings(same)))


@pytest.mark.parametrize("name", sorted(AGGREGATIONS))
def test_positives_do_not_depend_on_the_lengths_of_the_others(name):
    right = np.array([True, False, True])
    longer = np.array([1, 8, 4])
    np.testing.assert_array_equal(
        positive_lm_weights(longer, right, settings(name)),
        positive_lm_weights(LENGTHS, right, settings(name)),
    )


# Errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "token_men"}, "'token_men' does not exist: did you mean 'token_mean'"),
        ({"name": "xyz"}, "'xyz' does not exist: There are .'constant_length', "),
        ({"max_completion_tokens": 0}, "max_completion_tokens = 0: at least 1"),
        ({"emulated_microbatch_sequences": 0}, "emulated_microbatch_sequences = 0: at least 1"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SETTINGS, **change)


def test_a_completion_beyond_the_limit_is_refused_where_the_limit_counts():
    lengths = np.array([8, 9])
    with pytest.raises(ValueError, match=r"9 tokens .*max_completion_tokens = 8"):
        loss_weights(lengths, settings("constant_length"))
    assert loss_weights(lengths, settings("token_mean")).sum() > 0


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([3, 0, 2], "sequence 1 of 3 has 0 completion tokens"),
        ([3, -1], "sequence 1 of 2 has -1 completion tokens"),
        ([], r"shape \(0,\)"),
        ([[1, 2]], r"shape \(1, 2\)"),
        ([1.5], "whole numbers of tokens, found float64"),
    ],
)
@pytest.mark.parametrize("name", sorted(AGGREGATIONS))
def test_bad_lengths_are_refused(name, lengths, message):
    with pytest.raises(ValueError, match=message):
        loss_weights(np.array(lengths), settings(name))
    with pytest.raises(ValueError, match=message):
        positive_lm_weights(np.array(lengths), np.ones(np.shape(lengths), bool), settings(name))


def test_positives_of_another_batch_are_refused():
    with pytest.raises(ValueError, match=r"shape \(2,\) .* 3 sequences"):
        positive_lm_weights(LENGTHS, np.ones(2, bool), SETTINGS)
