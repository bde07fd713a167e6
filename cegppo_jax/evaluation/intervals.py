"""95 % intervals for means over few problems, and p-values of paired differences.

A percentile bootstrap does not hold on the 30 problems of AIME: 0 of 30 gives [0, 0], and rare
successes that no sample shows are missed. These are used instead:

    mean of shares        Gaffke's limits (arXiv 1905.06208), which hold for every distribution on
                          [0, 1]; for values of 0 and 1 they are Clopper and Pearson's
    difference, lengths   symmetric bootstrap-t (Hall 1988), within Gaffke's limits, which alone
                          count where the values are equal
    paired difference     a sign-flip permutation test
    mean over runs        Student's t: a run's figure is itself a mean over many completions, and
                          two to five seeds say nothing without an assumption

Except for runs, problems are the unit: more samples of a problem say more about that problem and
nothing about others. experiments/interval_coverage.py measures coverage and size. Results are
deterministic.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.special import stdtrit

TAIL = 0.025  # on either side of a 95 % interval
DRAWS = 10_000  # of weights and of resamples
BLOCK = 500  # draws that are in memory at once
EXACT_UP_TO = 20  # differences whose signs are all enumerated


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over problems, or over runs, and its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.1%} [{self.low:.1%}, {self.high:.1%}]"


def mean_of_shares(values: np.ndarray) -> Estimate:
    """Returns the mean of one value from 0 to 1 a problem, [n], with Gaffke's limits.

    Raises:
      ValueError: there is no value, or one is not from 0 to 1.
    """
    values = _checked(values, 0.0, 1.0)
    return Estimate(float(values.mean()), *gaffke_limits(values, 0.0, 1.0))


def mean_within(values: np.ndarray, low: float, high: float) -> Estimate:
    """Returns the mean of one value a problem, [n], each known to be from `low` to `high`, with the
    bootstrap-t limits, kept within Gaffke's.

    Raises:
      ValueError: there is no value, or one is not from `low` to `high`.
    """
    values = _checked(values, low, high)
    narrow, wide = bootstrap_t_limits(values), gaffke_limits(values, low, high)
    return Estimate(float(values.mean()), max(narrow[0], wide[0]), min(narrow[1], wide[1]))


def mean_over_runs(values: np.ndarray, low: float, high: float) -> Estimate:
    """Returns the mean of one value a run, [n], each from `low` to `high` (infinite: not known),
    with Student's limits, kept within these bounds. Runs whose values are all equal show no spread
    to go by: then Gaffke's limits, which need bounds, or infinite ones.

    Worked example: 0.90, 0.94 give 0.92 -+ 12.7 * 0.02: [0.666, 1] for a share.

    Raises:
      ValueError: there are fewer than two values, or one is not finite or within its bounds.
    """
    values = _checked(values, low, high)
    number, mean = len(values), float(values.mean())
    if number < 2:
        raise ValueError("one run has no interval: give at least two seeds")
    if (values == values[0]).all():
        known = np.isfinite([low, high]).all()
        return Estimate(mean, *(gaffke_limits(values, low, high) if known else (-np.inf, np.inf)))
    error = float(values.std(ddof=1)) / np.sqrt(number)
    reach = float(stdtrit(number - 1, 1 - TAIL)) * error
    return Estimate(mean, max(mean - reach, low), min(mean + reach, high))


def gaffke_limits(values: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """Returns 95 % limits of the mean of the distribution of values [n] from `low` to `high`.

    The upper limit is the 97.5 % quantile of the mean of the values and one more, `high`, under
    weights that are uniform on the simplex; the lower one is its mirror image.

    Worked example: no success in 30 gives 0 and 1 - 0.025^(1/30) = 0.116.
    """
    # 0 - x: a limit of -0 would be shown as -0.0 %.
    return 0.0 - _upper_limit(-values, -low), _upper_limit(values, high)


def _upper_limit(values: np.ndarray, bound: float) -> float:
    distinct, counts = np.unique(values, return_counts=True)
    points, shapes = np.append(distinct, bound), np.append(counts, 1)
    random = np.random.default_rng(0)
    means = []
    for _ in range(DRAWS // BLOCK):
        weights = random.standard_gamma(shapes, size=(BLOCK, len(shapes)))
        means.append(weights @ points / weights.sum(axis=1))
    limit = float(np.quantile(np.concatenate(means), 1 - TAIL))
    return min(max(limit, float(values.mean())), bound)


def bootstrap_t_limits(values: np.ndarray) -> tuple[float, float]:
    """Returns 95 % limits of the mean of the distribution of values [n]: mean +- q standard errors,
    where q is the 95 % quantile of |mean* - mean| / standard error* over resamples. Infinite when
    so many resamples consist of equal values, with standard error 0, that q is unknown.
    """
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) == 1:
        return -np.inf, np.inf
    number, mean = len(values), float(values.mean())
    centred = distinct - mean
    random = np.random.default_rng(0)
    found = []
    for _ in range(DRAWS // BLOCK):
        shares = random.multinomial(number, counts / number, size=BLOCK) / number
        means = shares @ centred
        variances = np.maximum(shares @ centred**2 - means**2, 0)
        variances[(shares > 0).sum(axis=1) == 1] = 0  # exactly, whatever the rounding
        errors = np.sqrt(variances / (number - 1))
        found.append(np.divide(abs(means), errors, np.full(BLOCK, np.inf), where=errors > 0))
    # No interpolation, which would make nan of two infinite neighbours.
    quantile = np.quantile(np.concatenate(found), 1 - 2 * TAIL, method="inverted_cdf")
    reach = float(quantile * np.sqrt(np.mean((values - mean) ** 2) / (number - 1)))
    return mean - reach, mean + reach


def paired_p_value(differences: np.ndarray) -> float:
    """Returns the two-sided p-value of the sign-flip permutation test that differences [n], one a
    problem, are symmetric about 0: the share of sign patterns whose sum is at least as far from 0.

    Exact for up to EXACT_UP_TO differences that are not 0; for more, DRAWS patterns are drawn and
    the observed one is counted with them, which keeps the size.

    Worked example: 1 1 1 1 1 has two patterns of 32 at that distance: p = 1/16.

    Raises:
      ValueError: there is no difference, or one is not finite.
    """
    values = _checked(differences, -np.inf, np.inf)
    moved = values[values != 0]
    reached = abs(moved.sum()) * (1 - 1e-9)  # rounding must not part equal sums
    if len(moved) <= EXACT_UP_TO:
        sums = np.zeros(1)
        for one in moved:
            sums = np.concatenate([sums + one, sums - one])
        return float(np.mean(np.abs(sums) >= reached))
    random, beyond = np.random.default_rng(0), 1
    for _ in range(DRAWS // BLOCK):
        signs = random.integers(0, 2, size=(BLOCK, len(moved)), dtype=np.int8) * 2 - 1
        beyond += int((np.abs(signs @ moved) >= reached).sum())
    return beyond / (DRAWS + 1)


def _checked(values: np.ndarray, low: float, high: float) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if not values.size:
        raise ValueError("there is no problem to take a mean over")
    wrong = values[~(np.isfinite(values) & (values >= low) & (values <= high))]
    if wrong.size:
        raise ValueError(f"{wrong[0]} is not a finite value from {low} to {high}")
    return values
