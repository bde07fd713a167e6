"""Do intervals of evaluations cover on few problems, and does the paired test keep its size?

    PYTHONPATH=. python experiments/interval_coverage.py

Draws problems from a distribution of their chances of being solved, and samples from those. Prints
the share of intervals (nominally 95 %) that contain the distribution's mean, for the percentile
bootstrap, which the package had before, and for intervals.py. Then it prints the same for the
difference of two evaluations, with the share of paired tests that reject at a nominal 5 % when both
are of the same policy.
"""

import argparse
from collections.abc import Callable

import numpy as np

from cegppo_jax.evaluation import intervals
from cegppo_jax.evaluation.intervals import mean_of_shares, mean_within, paired_p_value

PROBLEMS = (10, 30, 100, 500)
SAMPLES = (1, 4, 64)
RESAMPLES = 1000  # of the percentile bootstrap

Draw = Callable[[np.random.Generator, int], np.ndarray]

# Name -> its mean, and how chances are drawn.
CHANCES: dict[str, tuple[float, Draw]] = {
    "never solved": (0.0, lambda _, n: np.zeros(n)),
    "5 % always, others never": (0.05, lambda r, n: (r.random(n) < 0.05) * 1.0),
    "beta(0.05, 1)": (0.05 / 1.05, lambda r, n: r.beta(0.05, 1, n)),
    "beta(0.2, 0.8)": (0.2, lambda r, n: r.beta(0.2, 0.8, n)),
    "uniform": (0.5, lambda r, n: r.random(n)),
    "all 0.9": (0.9, lambda _, n: np.full(n, 0.9)),
    "beta(4, 0.4)": (4 / 4.4, lambda r, n: r.beta(4, 0.4, n)),
}
# Name -> the mean difference, and how the second policy's chances follow from the first's.
CHANGES: dict[str, tuple[float, Callable[[np.random.Generator, np.ndarray], np.ndarray]]] = {
    "same policy": (0.0, lambda _, p: p),
    "30 % of what was missing": (0.24, lambda _, p: p + 0.3 * (1 - p)),
    "10 % of problems now always": (0.08, lambda r, p: np.where(r.random(len(p)) < 0.1, 1.0, p)),
}


def percentile_bootstrap(random: np.random.Generator, values: np.ndarray) -> tuple[float, float]:
    """Returns the limits that the package gave before, from values [n]."""
    distinct, counts = np.unique(values, return_counts=True)
    shares = random.multinomial(len(values), counts / len(values), size=RESAMPLES) / len(values)
    low, high = np.percentile(shares @ distinct, [2.5, 97.5])
    return float(low), float(high)


def holds(limits: tuple[float, float], mean: float) -> bool:
    """Whether the limits contain the mean; rounding does not count against them."""
    return limits[0] - 1e-12 <= mean <= limits[1] + 1e-12


def alone(name: str, problems: int, samples: int, turns: int) -> str:
    """Returns a row: coverage before and now, mean width now."""
    mean, draw = CHANCES[name]
    random = np.random.default_rng([problems, samples])
    before, now, width = 0, 0, 0.0
    for _ in range(turns):
        shares = random.binomial(samples, draw(random, problems)) / samples
        found = mean_of_shares(shares)
        before += holds(percentile_bootstrap(random, shares), mean)
        now += holds((found.low, found.high), mean)
        width += (found.high - found.low) / turns
    return (
        f"| {name} | {problems} | {samples} | {before / turns:.3f} | {now / turns:.3f} | "
        f"{width:.3f} |"
    )


def paired(name: str, problems: int, samples: tuple[int, int], turns: int) -> str:
    """Returns a row: coverage before and now, mean width now, share of p-values up to 0.05."""
    mean, change = CHANGES[name]
    random = np.random.default_rng([problems, *samples])
    before, now, width, rejected = 0, 0, 0.0, 0
    for _ in range(turns):
        chances = random.beta(0.2, 0.8, problems)
        first = random.binomial(samples[0], chances) / samples[0]
        second = random.binomial(samples[1], change(random, chances)) / samples[1]
        found = mean_within(second - first, -1, 1)
        before += holds(percentile_bootstrap(random, second - first), mean)
        now += holds((found.low, found.high), mean)
        width += (found.high - found.low) / turns
        rejected += paired_p_value(second - first) <= 0.05
    counts = " and ".join(map(str, dict.fromkeys(samples)))
    return (
        f"| {name} | {problems} | {counts} | {before / turns:.3f} | {now / turns:.3f} | "
        f"{width:.3f} | {rejected / turns:.3f} |"
    )


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=2000, help="simulated evaluations a row")
    parser.add_argument("--draws", type=int, default=2000, help="of each interval (package: more)")
    options = parser.parse_args()
    intervals.DRAWS = options.draws
    print("| chances | problems | samples | percentile bootstrap | now | width |")
    print("|---|---|---|---|---|---|")
    for name in CHANCES:
        for problems in PROBLEMS:
            for samples in SAMPLES:
                print(alone(name, problems, samples, options.turns), flush=True)
    print(
        "\n| second policy | problems | samples | percentile bootstrap | now | width | rejected |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in CHANGES:
        for problems in PROBLEMS:
            for samples in ((1, 1), (4, 4), (64, 64), (4, 64)):
                print(paired(name, problems, samples, options.turns), flush=True)


if __name__ == "__main__":
    main()
