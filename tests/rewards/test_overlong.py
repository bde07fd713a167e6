"""Over-long completions: every edge of the penalty, and who takes part in the loss."""

import dataclasses
import math

import numpy as np
import pytest

from cegppo_jax.rewards.overlong import OVERLONG, OverlongSettings, kept, overlong_penalty

SOFT = OverlongSettings("soft_penalty", max_completion_tokens=20, buffer_tokens=4, penalty=1.0)
TRUNCATED = np.array([[True, False], [False, True]])


@pytest.mark.parametrize(
    ("length", "expected"),
    [(1, 0), (15, 0), (16, 0), (17, -0.25), (18, -0.5), (19, -0.75), (20, -1), (21, -1), (99, -1)],
)
@pytest.mark.parametrize("penalty", [1.0, 0.5])
def test_soft_penalty_at_each_edge(length, expected, penalty):
    settings = dataclasses.replace(SOFT, penalty=penalty)
    assert overlong_penalty(np.array(length), settings) == penalty * expected


def test_dapos_own_numbers():
    """L_max = 20,480 with a buffer of 4,096 (arXiv 2503.14476): free up to 16,384 tokens."""
    settings = OverlongSettings("soft_penalty", 20480, 4096, 1.0)
    lengths = np.array([16384, 16385, 18432, 20479, 20480])
    expected = [0, -1 / 4096, -0.5, -4095 / 4096, -1]
    np.testing.assert_array_equal(overlong_penalty(lengths, settings), expected)


def test_the_smallest_and_the_largest_buffer():
    one = dataclasses.replace(SOFT, buffer_tokens=1)
    np.testing.assert_array_equal(overlong_penalty(np.array([18, 19, 20]), one), [0, 0, -1])
    whole = dataclasses.replace(SOFT, buffer_tokens=20)
    np.testing.assert_array_equal(overlong_penalty(np.array([1, 10, 20]), whole), [-0.05, -0.5, -1])


@pytest.mark.parametrize("policy", sorted(OVERLONG))
def test_penalties_never_reward_and_keep_the_shape(policy):
    lengths = np.arange(1, 25, dtype=np.int32).reshape(2, 3, 4)
    penalties = overlong_penalty(lengths, dataclasses.replace(SOFT, policy=policy))
    assert penalties.shape == lengths.shape
    assert penalties.dtype == np.float64
    assert (penalties <= 0).all()
    assert (penalties < 0).any() == (policy == "soft_penalty")
    assert (np.diff(penalties.ravel()) <= 0).all()


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("keep", [[1, 1], [1, 1]]), ("soft_penalty", [[1, 1], [1, 1]]), ("mask", [[0, 1], [1, 0]])],
)
def test_who_takes_part(policy, expected):
    takes_part = kept(TRUNCATED, dataclasses.replace(SOFT, policy=policy))
    assert takes_part.dtype == bool
    np.testing.assert_array_equal(takes_part, np.array(expected, bool))


def test_a_completion_that_ends_on_the_last_token_is_not_truncated():
    """The sampler says who was cut off; length alone cannot: penalised, and yet kept."""
    assert overlong_penalty(np.array([20]), SOFT) == -1
    assert kept(np.array([False]), dataclasses.replace(SOFT, policy="mask")).all()


def test_the_flags_are_not_changed_in_place():
    flags = TRUNCATED.copy()
    kept(flags, dataclasses.replace(SOFT, policy="mask"))[:] = True
    np.testing.assert_array_equal(flags, TRUNCATED)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": "softpenalty"}, "'softpenalty' does not exist: did you mean 'soft_penalty'"),
        ({"policy": "xyz"}, "'xyz' does not exist: There are .'keep', 'mask', 'soft_penalty'."),
        ({"max_completion_tokens": 0}, "max_completion_tokens = 0: at least 1"),
        ({"buffer_tokens": 0}, "overlong_buffer_tokens = 0: from 1 to .* = 20"),
        ({"buffer_tokens": 21}, "buffer_tokens = 21: from 1 to .* = 20"),
        ({"penalty": -1.0}, "overlong_penalty = -1.0"),
        ({"penalty": math.nan}, "penalty = nan"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SOFT, **change)


@pytest.mark.parametrize("policy", ["keep", "mask"])
def test_a_buffer_that_nobody_reads_may_be_anything(policy):
    assert dataclasses.replace(SOFT, policy=policy, buffer_tokens=0).buffer_tokens == 0
