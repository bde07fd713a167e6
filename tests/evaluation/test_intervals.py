"""Intervals on few problems: degenerate sets, closed forms, coverage; the paired test's size."""

import itertools
import math

import numpy as np
import pytest

from cegppo_jax.evaluation.intervals import (
    Estimate,
    mean_of_shares,
    mean_over_runs,
    mean_within,
    paired_p_value,
)


@pytest.mark.parametrize("problems", [1, 10, 30, 500])
def test_nothing_right_says_how_much_could_be(problems):
    """Clopper and Pearson: the chance of no success in n is 2.5 % at the upper limit."""
    none, all_right = mean_of_shares(np.zeros(problems)), mean_of_shares(np.ones(problems))
    limit = 1 - 0.025 ** (1 / problems)
    assert (none.mean, none.low) == (0.0, 0.0)
    assert none.high == pytest.approx(limit, rel=0.03)
    assert str(none).startswith("0.0% [0.0%, ")
    assert (all_right.mean, all_right.high) == (1.0, 1.0)
    assert all_right.low == pytest.approx(1 - none.high)


@pytest.mark.parametrize(
    ("right", "problems", "low", "high"),
    [(1, 30, 0.0008, 0.1722), (3, 10, 0.0667, 0.6525), (9, 30, 0.1473, 0.4940)],
)
def test_values_of_0_and_1_have_the_limits_of_clopper_and_pearson(right, problems, low, high):
    found = mean_of_shares(np.arange(problems) < right)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.006)


def test_equal_values_between_the_bounds_are_no_certainty():
    estimate = mean_of_shares(np.full(30, 0.5))
    assert estimate.low < 0.45
    assert estimate.high > 0.55
    same = mean_within(np.zeros(10), -1, 1)
    assert same.low == pytest.approx(-same.high)
    assert same.high == pytest.approx(0.308, abs=0.01)


def test_an_interval_is_the_same_every_time_and_holds_its_mean():
    random = np.random.default_rng(0)
    for size in (1, 2, 3, 30):
        values = random.random(size) ** 4
        for interval in (mean_of_shares(values), mean_within(values, 0, 1)):
            assert 0 <= interval.low <= interval.mean <= interval.high <= 1
        assert mean_of_shares(values) == mean_of_shares(values.copy())
    assert str(Estimate(0.0, 0.0, 0.116)) == "0.0% [0.0%, 11.6%]"


def test_of_many_values_the_interval_is_the_normal_one():
    values = np.random.default_rng(0).normal(300, 40, size=400)
    found = mean_within(values, 0, 512)
    half = 1.96 * values.std() / 20
    expected = (values.mean() - half, values.mean() + half)
    assert (found.low, found.high) == pytest.approx(expected, abs=0.1 * half)


def test_a_skewed_set_of_30_is_covered():
    """Shares of 4 samples on problems most of which are never solved, as a hard set has them."""
    random, covered = np.random.default_rng(0), 0
    for _ in range(200):
        chances = random.beta(0.1, 0.9, size=30)
        found = mean_of_shares(random.binomial(4, chances) / 4)
        covered += found.low <= 0.1 <= found.high
    assert covered / 200 >= 0.94


@pytest.mark.parametrize("values", [[], [np.nan], [1.5], [-0.1, 0.5]])
def test_what_is_no_share_is_refused(values):
    with pytest.raises(ValueError, match=r"no problem|not a finite value from 0"):
        mean_of_shares(np.asarray(values))


# The paired test


def test_the_p_value_is_the_share_of_sign_patterns():
    values = np.asarray([0.5, 0.25, 0.25, -0.5, 0.75, 0.0, 0.1])
    patterns = np.asarray(list(itertools.product([-1, 1], repeat=7)))
    expected = np.mean(np.abs(patterns @ values) >= abs(values.sum()) - 1e-12)
    assert paired_p_value(values) == pytest.approx(expected)
    assert paired_p_value(np.ones(5)) == 1 / 16
    assert paired_p_value(np.zeros(5)) == 1.0
    assert paired_p_value(-values) == paired_p_value(values)


def test_many_differences_are_tested_by_draws():
    values = np.random.default_rng(0).normal(0.2, 1, size=100)
    z = abs(values.sum()) / np.sqrt((values**2).sum())
    normal = math.erfc(z / math.sqrt(2))  # the sum of random signs is nearly normal
    assert 0.001 < normal < 0.5
    assert paired_p_value(values) == pytest.approx(normal, abs=0.02)


@pytest.mark.parametrize("problems", [10, 30])
def test_the_same_policy_is_rejected_no_more_often_than_nominal(problems):
    random, rejected = np.random.default_rng(0), 0
    for _ in range(400):
        chances = random.beta(0.2, 0.8, size=problems)
        first, second = (random.binomial(4, chances) / 4 for _ in range(2))
        rejected += paired_p_value(second - first) <= 0.05
    assert rejected / 400 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)


def test_runs_have_students_limits():
    # From a table of Student's t: 12.706 with 1 degree of freedom, 2.776 with 4.
    two = mean_over_runs(np.asarray([0.2, 0.4]), -np.inf, np.inf)
    np.testing.assert_allclose(
        [two.mean, two.low, two.high], [0.3, 0.3 - 1.2706, 0.3 + 1.2706], atol=1e-4
    )
    five = mean_over_runs(np.asarray([1.0, 2.0, 3.0, 4.0, 5.0]), -np.inf, np.inf)
    reach = 2.7764 * np.sqrt(2.5 / 5)
    np.testing.assert_allclose([five.low, five.high], [3 - reach, 3 + reach], atol=1e-3)


def test_runs_keep_to_their_bounds():
    share = mean_over_runs(np.asarray([0.90, 0.94]), 0.0, 1.0)
    np.testing.assert_allclose([share.low, share.high], [0.6659, 1.0], atol=1e-4)


def test_equal_runs_show_no_spread():
    assert mean_over_runs(np.ones(2), -np.inf, np.inf) == Estimate(1.0, -np.inf, np.inf)
    # Two successes of two: Clopper and Pearson's lower limit is 0.025^(1/2).
    found = mean_over_runs(np.ones(2), 0.0, 1.0)
    assert found.high == 1.0
    assert found.low == pytest.approx(0.025**0.5, abs=0.01)


def test_one_run_has_no_interval():
    with pytest.raises(ValueError, match="at least two seeds"):
        mean_over_runs(np.asarray([0.5]), 0.0, 1.0)


def test_students_limits_hold_for_normal_values():
    random = np.random.default_rng(3)
    for number in (2, 3, 5):
        values = random.normal(size=(4000, number))
        inside = 0
        for row in values:
            estimate = mean_over_runs(row, -np.inf, np.inf)
            inside += estimate.low <= 0 <= estimate.high
        assert inside / len(values) == pytest.approx(0.95, abs=0.012)
