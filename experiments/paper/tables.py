"""Prints the tables of the paper's experiments from results/runs.csv.

    python -m experiments.paper.tables

Means over seeds with 95 % intervals (Student's t), differences to each experiment's first arm
paired by seed: cegppo_jax/evaluation/intervals.py. Order of entropy by beta: Kendall's tau within
each seed, and Page's test for ordered alternatives over seeds (scipy.stats).
"""

import argparse
import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from cegppo_jax.evaluation.intervals import (
    Estimate,
    mean_of_shares,
    mean_over_runs,
    paired_p_value,
)
from cegppo_jax.sweeps.experiment import read_experiment

HERE = Path(__file__).parent


class Column(NamedTuple):
    """A column of runs.csv as tables show it."""

    title: str
    share: bool  # from 0 to 1, shown in percent; differences in points
    digits: int


COLUMNS = {
    "accuracy": Column("pass@1", True, 1),
    "pass_8": Column("pass@8", True, 1),
    "entropy": Column("entropy at the end", False, 3),
    "entropy_area": Column("entropy, mean over steps", False, 3),
    "entropy_early": Column("entropy, first 15 steps", False, 4),
    "clip_low": Column("clipped left", True, 2),
    "clip_high": Column("clipped right", True, 2),
}
SHOWN = ("accuracy", "pass_8", "entropy")
COMPARED = ("accuracy", "pass_8", "entropy_area")  # columns whose differences are shown

Runs = dict[str, dict[int, dict[str, float]]]  # arm -> seed -> column -> value


def read_runs(path: Path) -> Runs:
    """Reads runs.csv."""
    found: Runs = {}
    with path.open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            arm, seed = line.pop("arm"), int(line.pop("seed"))
            found.setdefault(arm, {})[seed] = {name: float(text) for name, text in line.items()}
    return found


def mean(runs: Runs, arm: str, column: str) -> Estimate | None:
    """Returns an arm's mean over its seeds; None without a run, no limits for one."""
    values = [one[column] for one in runs.get(arm, {}).values()]
    bounds = (0.0, 1.0) if COLUMNS[column].share else (-math.inf, math.inf)
    return _estimate(values, *bounds)


def difference(runs: Runs, arm: str, other: str, column: str) -> Estimate | None:
    """Returns an arm's mean difference to another over the seeds that both have."""
    changes = changes_of(runs, arm, other, column)
    reach = 1.0 if COLUMNS[column].share else math.inf
    return _estimate(changes, -reach, reach)


def changes_of(runs: Runs, arm: str, other: str, column: str) -> list[float]:
    """Returns the differences, one a seed that both arms have."""
    own, others = runs.get(arm, {}), runs.get(other, {})
    return [own[seed][column] - others[seed][column] for seed in own if seed in others]


def _estimate(values: Sequence[float], low: float, high: float) -> Estimate | None:
    if not values:
        return None
    if len(values) == 1:
        return Estimate(values[0], math.nan, math.nan)
    return mean_over_runs(np.asarray(values), low, high)


def text(column: str, estimate: Estimate | None, *, signed: bool = False) -> str:
    """Returns "61.2 [58.0, 64.4]", in percent or points for a share; "-" for None."""
    if estimate is None:
        return "-"
    shown = COLUMNS[column]
    scale, sign = 100 if shown.share else 1, "+" if signed else ""

    def one(value: float) -> str:
        return f"{scale * value:{sign}.{shown.digits}f}"

    if math.isnan(estimate.low):
        return one(estimate.mean)
    return f"{one(estimate.mean)} [{one(estimate.low)}, {one(estimate.high)}]"


def broken(runs: Runs, arm: str) -> list[int]:
    """Returns the seeds whose run ended below the held-out accuracy that it began with."""
    return [seed for seed, one in runs.get(arm, {}).items() if is_broken(one)]


def is_broken(run: Mapping[str, float]) -> bool:
    """Whether a run, a line of runs.csv, ended below the accuracy that it began with."""
    return run["accuracy"] < run["accuracy_start"]


def arm_table(runs: Runs, arms: Sequence[str], first: str) -> str:
    """Returns the table of an experiment as Markdown."""
    head = ["arm", "broken", *(COLUMNS[name].title for name in SHOWN), "clipped left, right (%)"]
    head += [f"{COLUMNS[name].title}, difference" for name in COMPARED]
    lines = [head, ["---"] * len(head)]
    for arm in arms:
        if arm not in runs:
            continue
        cells = [f"`{arm}`", f"{len(broken(runs, arm))} of {len(runs[arm])}"]
        cells += [text(name, mean(runs, arm, name)) for name in SHOWN]
        clipped = [mean(runs, arm, name) for name in ("clip_low", "clip_high")]
        cells.append(", ".join(f"{100 * one.mean:.2f}" for one in clipped if one))
        for name in COMPARED:
            found = None if arm == first else difference(runs, arm, first, name)
            cells.append(text(name, found, signed=True))
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


class Order(NamedTuple):
    """How well a column follows an order of arms."""

    seeds: int
    taus: tuple[float, ...]  # Kendall's, one a seed: 1 if the column rises along the arms
    tau: Estimate | None  # their mean
    page: float  # p of Page's test that it rises, one-sided; NaN with one seed or two arms


def order(runs: Runs, arms: Sequence[str], column: str) -> Order:
    """Tests whether a column rises along arms, within the seeds that all of them have.

    Raises:
      ValueError: no seed has all arms.
    """
    seeds = sorted(set.intersection(*(set(runs.get(arm, {})) for arm in arms)))
    if not seeds:
        raise ValueError(f"no seed has all of {list(arms)}")
    table = np.array([[runs[arm][seed][column] for arm in arms] for seed in seeds])
    taus = tuple(float(stats.kendalltau(np.arange(len(arms)), row).statistic) for row in table)
    tested = len(seeds) > 1 and len(arms) > 2
    page = float(stats.page_trend_test(table).pvalue) if tested else math.nan
    return Order(len(seeds), taus, _estimate(taus, -1, 1), page)


# Orders that the paper claims of entropy: it rises along the arms
ORDERS: Mapping[str, Sequence[str]] = {
    "beta_low falls from 1 to 0, beta_high = 1": (
        *("ce_gppo_1_1", "ce_gppo_0.75_1", "ce_gppo_0.5_1", "ce_gppo_0.25_1", "ce_gppo_0_1"),
    ),
    "sums: beta_low falls from 1 to 0": ("sums_1_1", "sums_0.5_1", "sums_0_1"),
    "(1, 0.5) -> (1, 1): beta_high rises": ("ce_gppo_1_0.5", "ce_gppo_1_1"),
    "sums: (1, 0.5) -> (1, 1)": ("sums_1_0.5", "sums_1_1"),
}


def order_table(runs: Runs) -> str:
    """Returns the table of the orders as Markdown."""
    lines = ["| order | measure | seeds | Kendall's tau, mean | each seed | Page's p |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for name, arms in ORDERS.items():
        for column in ("entropy_area", "entropy_early", "accuracy"):
            try:
                found = order(runs, arms, column)
            except ValueError as error:
                lines.append(f"| {name} | {COLUMNS[column].title} | 0: {error} | | | |")
                continue
            limits = ""
            if found.tau is not None:
                limits = f"{found.tau.mean:+.2f} [{found.tau.low:+.2f}, {found.tau.high:+.2f}]"
            each = ", ".join(f"{tau:+.1f}" for tau in found.taus)
            page = f"{found.page:.2g}" if len(arms) > 2 else "-"
            cells = (name, COLUMNS[column].title, str(found.seeds), limits, each, page)
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def break_table(runs: Runs) -> str:
    """Returns, as Markdown, how many runs of each arm broke (Clopper and Pearson's limits), and how
    far updates took a token and the policy from the policy that drew them.
    """
    lines = ["| arm | broken | share | least ratio, median | largest KL of a step, median |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for arm, seeds in runs.items():
        share = mean_of_shares(np.array([is_broken(one) for one in seeds.values()], float))
        ratio, kl = (
            np.median([one[name] for one in seeds.values()])
            for name in ("ratio_least", "kl_old_most")
        )
        count = f"{len(broken(runs, arm))} of {len(seeds)}"
        lines.append(f"| `{arm}` | {count} | {share} | {ratio:.1e} | {kl:.2g} |")
    return "\n".join(lines)


# Which arms keep much, and little or nothing, of the gradient left of the interval
GROUPS = {
    "chains": (
        ("ce_gppo_1_0.5", "ce_gppo_1_1", "ce_gppo_0.75_1"),
        ("ce_gppo_0.25_1", "ce_gppo_0_1", "grpo"),
    ),
    "chains, 1.5 times the rate": (("ce_gppo_1_1_fast",), ("ce_gppo_0_1_fast", "grpo_fast")),
}


def break_test(runs: Runs, much: Sequence[str], little: Sequence[str]) -> str:
    """Returns how many runs of two groups of arms broke, with limits and Fisher's exact p."""
    counts = []
    for arms in (much, little):
        found = [is_broken(one) for arm in arms for one in runs.get(arm, {}).values()]
        if not found:
            return "-"
        counts.append((sum(found), len(found) - sum(found), mean_of_shares(np.array(found, float))))
    p = stats.fisher_exact([one[:2] for one in counts]).pvalue
    texts = [f"{broke} of {broke + held} ({share})" for broke, held, share in counts]
    return f"beta_low >= 0.75: {texts[0]}; <= 0.25: {texts[1]}; Fisher's p = {p:.2g}"


# What the controller and the adaptive bonus are asked to hold, in nats
TARGETS = {"bonus_adaptive": 0.15, "band_0.1": 0.1, "band_0.15": 0.15, "band_0.2": 0.2}
TARGETS["band_0.3"] = 0.3
NEAR = 0.2  # relative


def near(runs: Runs, arm: str, target: float) -> str:
    """Returns how many runs ended near their target entropy."""
    ends = [one["entropy"] for one in runs[arm].values()]
    held = sum(abs(end / target - 1) <= NEAR for end in ends)
    return f"{held} of {len(ends)} end within {NEAR:.0%} of {target:g} nats"


def main() -> None:
    """Prints a table for each experiment file, then those of the orders and of broken runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=HERE / "results" / "runs.csv")
    runs = read_runs(parser.parse_args().runs)
    for path in sorted(HERE.glob("e[0-9]*.py")):
        arms = list(read_experiment(path).arms)
        if sum(arm in runs for arm in arms) > 1:
            print(f"## {path.stem}\n\n{arm_table(runs, arms, arms[0])}\n")
    print(f"## order\n\n{order_table(runs)}\n\n## broken\n\n{break_table(runs)}\n")
    for arm, target in TARGETS.items():
        if arm in runs:
            print(f"{arm}: {near(runs, arm, target)}")
    print()
    for arm in runs:
        changes = changes_of(runs, arm, "grpo", "accuracy") if arm != "grpo" else []
        if len(changes) > 1:
            p = paired_p_value(np.asarray(changes))
            print(f"{arm}: pass@1 against grpo, sign-flip p = {p:.3f} of {len(changes)} seeds")


if __name__ == "__main__":
    main()
