"""Corrections of sampler/trainer mismatch: worked weights, expectations, extremes, metrics."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

from cegppo_jax.learner.mismatch import (
    CORRECTIONS,
    MAX_LOG_WEIGHT,
    MismatchSettings,
    correction_weights,
    mismatch_metrics,
)

SETTINGS = MismatchSettings("none", cap=2.0, low=0.5, high=3.0)
UNBOUNDED = MismatchSettings("none", cap=math.inf, low=0.0, high=math.inf)
REWEIGHTING = sorted(set(CORRECTIONS) - {"none", "geometric_rejection"})

# Two completions: ratios 1, 4, 0.25 (product 1, geometric mean 1) and 2, 2 (product 4, mean 2).
RHO = [np.array([1.0, 4.0, 0.25]), np.array([2.0, 2.0])]
LOG_RHO = [np.log(one) for one in RHO]


def weights_of(correction, log_rho, settings=SETTINGS):
    return correction_weights(log_rho, dataclasses.replace(settings, correction=correction))


@pytest.mark.parametrize(
    ("correction", "expected"),
    [
        ("none", [[1, 1, 1], [1, 1]]),
        ("token_truncate", [[1, 2, 0.25], [2, 2]]),
        ("token_mask", [[1, 0, 0], [2, 2]]),
        ("sequence_truncate", [[1, 1, 1], [2, 2]]),
        ("sequence_mask", [[1, 1, 1], [0, 0]]),
        ("geometric_rejection", [[1, 1, 1], [1, 1]]),
    ],
)
def test_by_hand(correction, expected):
    weights = weights_of(correction, LOG_RHO)
    assert [one.dtype for one in weights] == [np.float32] * 2
    for one, values in zip(weights, expected, strict=True):
        np.testing.assert_allclose(one, values, rtol=1e-6)


@pytest.mark.parametrize(
    ("low", "high", "accepted"),
    [(0.5, 3.0, 1), (0.5, 1.9, 0), (0.5, 2.1, 1), (0.0, math.inf, 1), (1.0, 1.0, 0)],
)
def test_geometric_bounds(low, high, accepted):
    """Ratios 2, 8, 0.5 have the geometric mean 2, and their arithmetic mean is 3.5."""
    settings = dataclasses.replace(SETTINGS, low=low, high=high)
    (weights,) = weights_of("geometric_rejection", [np.log([2.0, 8.0, 0.5])], settings)
    assert weights.tolist() == [accepted] * 3


@pytest.mark.parametrize("correction", ["token_mask", "geometric_rejection"])
def test_bounds_reject_below_as_well(correction):
    (low,) = weights_of(correction, [np.log([0.4])])
    (inside,) = weights_of(correction, [np.log([0.6])])
    assert low == 0
    assert inside > 0


def test_bounds_themselves_are_inside():
    (weights,) = weights_of("token_mask", [np.log([0.5, 3.0])])
    np.testing.assert_allclose(weights, [0.5, 3.0], rtol=1e-6)
    (weights,) = weights_of("sequence_mask", [np.log([2.0])])
    np.testing.assert_allclose(weights, [2.0], rtol=1e-6)


def test_sequence_mask_keeps_improbable_completions():
    """The lower bound is 0, as in TRL's sequence_mask and verl's seq_mis."""
    (weights,) = weights_of("sequence_mask", [np.log([0.01, 0.5])])
    np.testing.assert_allclose(weights, 0.005, rtol=1e-6)


@pytest.mark.parametrize("correction", sorted(CORRECTIONS))
@pytest.mark.parametrize("settings", [SETTINGS, UNBOUNDED, MismatchSettings("none", 1.0, 1.0, 1.0)])
def test_a_sampler_that_agrees_changes_nothing(correction, settings):
    weights = weights_of(correction, [np.zeros(5), np.zeros(1)], settings)
    assert [one.tolist() for one in weights] == [[1.0] * 5, [1.0]]


@pytest.mark.parametrize("correction", REWEIGHTING)
def test_without_bounds_it_is_importance_sampling(correction):
    weights = weights_of(correction, LOG_RHO, UNBOUNDED)
    exact = RHO if correction.startswith("token") else [np.full(3, 1.0), np.full(2, 4.0)]
    for one, values in zip(weights, exact, strict=True):
        np.testing.assert_allclose(one, values, rtol=1e-6)


# Expectations over every completion of two tokens, three words each


def categoricals(seed):
    """-> probabilities of the first word [3], and of the second given the first [3, 3]."""
    logits = np.random.default_rng(seed).normal(size=(4, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities[0], probabilities[1:]


def expectations(correction, settings):
    """-> E_sampler[f], E_sampler[weight f] and E_old[f] for f of the whole completion, and the same
    for f of its first word, by enumeration.
    """
    (q0, q1), (p0, p1) = categoricals(0), categoricals(1)
    completions = list(itertools.product(range(3), range(3)))
    sampled = np.array([q0[a] * q1[a, b] for a, b in completions])
    old = np.array([p0[a] * p1[a, b] for a, b in completions])
    log_rho = [np.log([p0[a] / q0[a], p1[a, b] / q1[a, b]]) for a, b in completions]
    weights = np.array(weights_of(correction, log_rho, settings))
    of_both = np.array([1 + a * a + 5 * a * b for a, b in completions])
    of_first = np.array([3.0 - a for a, _ in completions])
    return {
        "completion": [sampled @ of_both, sampled @ (weights[:, 1] * of_both), old @ of_both],
        "first word": [sampled @ of_first, sampled @ (weights[:, 0] * of_first), old @ of_first],
    }


@pytest.mark.parametrize("correction", ["sequence_truncate", "sequence_mask"])
def test_sequence_weights_are_unbiased(correction):
    for uncorrected, corrected, exact in expectations(correction, UNBOUNDED).values():
        assert abs(uncorrected - exact) > 0.1
        assert corrected == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("correction", ["token_truncate", "token_mask"])
def test_token_weights_are_unbiased_for_a_token_and_not_for_what_came_before(correction):
    values = expectations(correction, UNBOUNDED)
    _, corrected, exact = values["first word"]
    assert corrected == pytest.approx(exact, rel=1e-6)
    _, corrected, exact = values["completion"]
    assert abs(corrected - exact) > 0.1


@pytest.mark.parametrize("correction", REWEIGHTING)
def test_bounds_cost_expectation(correction):
    """A truncated or masked weight is never above the ratio: f > 0 is underestimated."""
    tight = MismatchSettings("none", cap=1.0, low=0.9, high=1.1)
    for which in ("completion", "first word")[correction.startswith("token") :]:
        _, corrected, exact = expectations(correction, tight)[which]
        assert corrected < exact - 0.05


# Extremes


@pytest.mark.parametrize("correction", sorted(CORRECTIONS))
@pytest.mark.parametrize("settings", [SETTINGS, UNBOUNDED])
@pytest.mark.parametrize("extreme", [-120.0, -90.0, 90.0, 120.0])
def test_extremes_are_finite(correction, settings, extreme):
    log_rho = [np.full(1000, extreme), np.array([0.0, extreme]), np.array([extreme, -extreme])]
    weights = np.concatenate(weights_of(correction, log_rho, settings))
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()
    assert weights.max() <= np.exp(np.float32(MAX_LOG_WEIGHT))


@pytest.mark.parametrize("correction", REWEIGHTING)
def test_weights_saturate_and_do_not_vanish(correction):
    (most,) = weights_of(correction, [np.array([120.0])], UNBOUNDED)
    (least,) = weights_of(correction, [np.array([-120.0])], UNBOUNDED)
    assert most == pytest.approx(math.exp(20))
    assert least == pytest.approx(math.exp(-20))


def test_bounds_are_compared_before_saturation():
    far = dataclasses.replace(UNBOUNDED, cap=math.exp(30), low=math.exp(-30), high=math.exp(30))
    for correction in ("token_mask", "sequence_mask", "geometric_rejection"):
        inside, outside = weights_of(correction, [np.array([29.0]), np.array([31.0])], far)
        assert inside > 0, correction
        assert outside == 0, correction


def test_a_bfloat16_sized_drift_of_a_long_completion():
    """16,384 tokens, each 0.1 % too likely: 1.001^16384 = e^16.4, and a mean of 1.001 exactly."""
    log_rho = [np.full(16384, math.log(1.001))]
    assert weights_of("sequence_truncate", log_rho)[0][0] == 2
    assert weights_of("sequence_mask", log_rho)[0][0] == 0
    tight = dataclasses.replace(SETTINGS, low=0.999, high=1.0011)
    assert weights_of("geometric_rejection", log_rho, tight)[0][0] == 1


@pytest.mark.parametrize("correction", sorted(CORRECTIONS))
def test_completions_do_not_see_each_other(correction):
    together = weights_of(correction, LOG_RHO)
    alone = [weights_of(correction, [one])[0] for one in LOG_RHO]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one, other)


def test_float32_logprobs_are_welcome():
    (weights,) = weights_of("token_truncate", [np.log([1.0, 4.0]).astype(np.float32)])
    np.testing.assert_allclose(weights, [1, 2], rtol=1e-6)


# Metrics


def test_metrics_by_hand():
    weights = weights_of("token_mask", LOG_RHO)
    metrics = mismatch_metrics(LOG_RHO, weights)
    log2, log4 = math.log(2), math.log(4)
    ratios = np.array([1, 4, 0.25, 2, 2])
    assert metrics == pytest.approx(
        {
            "policy/sampler_gap_mean": (log4 + log4 + log2 + log2) / 5,
            "policy/sampler_gap_max": log4,
            # rho - 1 - log rho: 0, 3 - log 4, -3/4 + log 4, and twice 1 - log 2.
            "policy/sampler_kl": (3 - 0.75 + 2 - 2 * log2) / 5,
            "policy/sampler_ratio_q001": np.quantile(ratios, 0.001),
            "policy/sampler_ratio_q50": 2.0,
            "policy/sampler_ratio_q999": np.quantile(ratios, 0.999),
            "policy/correction_mean": (1 + 0 + 0 + 2 + 2) / 5,
            "policy/correction_zero_fraction": 2 / 5,
        }
    )
    assert all(type(value) is float for value in metrics.values())


def test_quantiles_find_one_token_in_a_thousand():
    """Of 4,001 tokens 10 disagree, 0.25 %: the mean shrugs and the quantiles do not."""
    log_rho = [np.zeros(3991), np.array([-3.0] * 5 + [3.0] * 5)]
    metrics = mismatch_metrics(log_rho, weights_of("none", log_rho))
    assert metrics["policy/sampler_gap_mean"] < 0.01
    assert metrics["policy/sampler_ratio_q001"] == pytest.approx(math.exp(-3))
    assert metrics["policy/sampler_ratio_q50"] == 1
    assert metrics["policy/sampler_ratio_q999"] == pytest.approx(math.exp(3))


def test_kl_is_an_unbiased_estimate():
    """Tokens in the proportions of the sampler (1/2, 1/4, 1/4), old policy (1/4, 1/4, 1/2)."""
    log_rho = [np.log([0.5, 0.5, 1.0, 2.0])]
    exact = 0.5 * math.log(2) + 0.25 * math.log(0.5)  # KL(sampler || old)
    metrics = mismatch_metrics(log_rho, weights_of("none", log_rho))
    assert metrics["policy/sampler_kl"] == pytest.approx(exact)


def test_kl_of_tiny_gaps_keeps_its_digits():
    """log rho = x: rho - 1 - x = x^2 / 2, of which rho - 1 alone would keep no digit at 1e-8."""
    log_rho = [np.full(3, 1e-8)]
    metrics = mismatch_metrics(log_rho, weights_of("none", log_rho))
    assert metrics["policy/sampler_kl"] == pytest.approx(0.5e-16, rel=1e-3, abs=0)


def test_metrics_of_extremes_are_finite():
    log_rho = [np.array([120.0, -120.0, 0.0])]
    metrics = mismatch_metrics(log_rho, weights_of("token_mask", log_rho))
    assert all(math.isfinite(value) for value in metrics.values())
    assert metrics["policy/sampler_gap_max"] == 120
    assert metrics["policy/correction_zero_fraction"] == pytest.approx(2 / 3)


def test_metrics_do_not_depend_on_how_tokens_are_split():
    together = [np.concatenate(LOG_RHO)]
    assert mismatch_metrics(together, weights_of("token_mask", together)) == pytest.approx(
        mismatch_metrics(LOG_RHO, weights_of("token_mask", LOG_RHO))
    )


# Errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"correction": "token_trunc"}, "does not exist: did you mean 'token_truncate'"),
        ({"correction": "xyz"}, "'xyz' does not exist: There are .'geometric_rejection', "),
        ({"cap": 0.9}, "cap = 0.9: at least 1"),
        ({"cap": math.nan}, "cap = nan"),
        ({"low": -0.1}, "low = -0.1"),
        ({"low": 1.1}, "low = 1.1, mismatch.high = 3.0: 0 <= low <= 1 <= high"),
        ({"high": 0.9}, "high = 0.9"),
        ({"high": math.nan}, "high = nan"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SETTINGS, **change)


@pytest.mark.parametrize(
    ("log_rho", "message"),
    [
        ([], "0 completions"),
        ([np.zeros(2), np.zeros(0)], r"completion 1 has shape \(0,\)"),
        ([np.zeros((2, 2))], r"completion 0 has shape \(2, 2\)"),
        ([np.zeros(2), np.array([0, np.nan, np.inf])], "completion 1 has 2 of 3 values"),
    ],
)
def test_bad_ratios_are_refused(log_rho, message):
    with pytest.raises(ValueError, match=message):
        correction_weights(log_rho, SETTINGS)
    with pytest.raises(ValueError, match=message):
        mismatch_metrics(log_rho, [np.ones(2)])


def test_weights_of_other_completions_are_refused():
    with pytest.raises(ValueError, match=r"1 arrays .* 2 completions"):
        mismatch_metrics(LOG_RHO, weights_of("none", LOG_RHO)[:1])
    with pytest.raises(ValueError, match="token by token"):
        mismatch_metrics(LOG_RHO, weights_of("none", LOG_RHO[::-1]))
