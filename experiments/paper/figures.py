"""Draws the figures of the paper's experiments from the CSV files in results/.

    python -m experiments.paper.figures

They are written beside these files:

    e1_methods.png ... e10_decay.png
                     entropy and training accuracy of the arms of that file over the steps (the
                     paper's Figs. 2 to 6)
    e2_order.png     entropy, pass@1 and pass@8 against beta_low, a line a seed
    e5_best.png      pass@1 and pass@8 against the entropy that a run ends with
    e7_tokens.png    held-out accuracy against the tokens sampled for training
    e8_budget.png    the entropy budget, a network's first-order change, and what happens
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from scipy import stats

from cegppo_jax.sweeps.experiment import read_experiment
from experiments.paper.at_equal_tokens import Evaluations, read_evaluations
from experiments.paper.budget_rows import read_rows
from experiments.paper.tables import COLUMNS, ORDERS, Runs, read_runs

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
COLOURS = ("#555555", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a5a2b")
COLOURS += ("#000000",)

Curves = dict[str, dict[int, np.ndarray]]  # arm -> seed -> [n, 3]: step, entropy, training accuracy


def read_curves(path: Path) -> Curves:
    """Reads curves.csv."""
    found: dict[str, dict[int, list[list[float]]]] = {}
    with path.open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            points = found.setdefault(line["arm"], {}).setdefault(int(line["seed"]), [])
            points.append([float(line[name]) for name in ("step", "entropy", "correct")])
    return {
        arm: {seed: np.array(points) for seed, points in seeds.items()}
        for arm, seeds in found.items()
    }


def label(arm: str) -> str:
    """Returns an arm's name as a legend has it: CE-GPPO (0.5, 1)."""
    words = arm.removeprefix("sums_").replace("ce_g", "ce-g").split("_")
    if arm.startswith("sums_") and words[0] != "grpo":
        words.insert(0, "ce-gppo")
    if words[0].startswith("ce-"):
        words[1:3] = [f"({words[1]}, {words[2]})"]
    if words[0] in ACRONYMS:
        words[0] = words[0].upper()
    return " ".join(words)


ACRONYMS = ("ce-gppo", "ce-gspo", "grpo", "dapo", "cispo", "gspo", "dgpo", "erc", "reinforce")


def draw_curves(curves: Curves, arms: Sequence[str], path: Path) -> None:
    """Draws the mean over seeds of entropy and of training accuracy, a colour an arm."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for colour, arm in zip(COLOURS, arms, strict=False):
        if arm not in curves:
            continue
        runs = np.stack(list(curves[arm].values()))  # [seeds, n, 3]
        for place, axis in enumerate(axes, start=1):
            steps, values = runs[0, :, 0], runs[:, :, place]
            axis.plot(steps, values.mean(0), color=colour, linewidth=1.6, label=label(arm))
    seeds = max(len(curves[arm]) for arm in arms if arm in curves)
    axes[0].set(xlabel="step", ylabel="policy entropy (nats)", ylim=(0, None))
    axes[1].set(xlabel="step", ylabel="training accuracy")
    axes[0].set_title(f"mean of {seeds} seeds", fontsize=10)
    axes[1].legend(frameon=False, fontsize=8, ncols=2)
    _save(figure, path)


def draw_order(runs: Runs, path: Path) -> None:
    """Draws columns against beta_low with beta_high = 1: a thin line a seed, and their mean."""
    arms = [arm for arm in next(iter(ORDERS.values())) if arm in runs]
    betas = [float(arm.split("_")[2]) for arm in arms]
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
    for axis, column in zip(axes, ("entropy_area", "accuracy", "pass_8"), strict=True):
        scale = 100 if COLUMNS[column].share else 1
        seeds = sorted(set.intersection(*(set(runs[arm]) for arm in arms)))
        table = scale * np.array([[runs[arm][seed][column] for arm in arms] for seed in seeds])
        for line in table:
            axis.plot(betas, line, color="#999999", linewidth=0.8)
        axis.plot(betas, table.mean(0), color="#0072b2", linewidth=2, marker="o", label="CE-GPPO")
        if "grpo" in runs:
            of_grpo = scale * np.mean([one[column] for one in runs["grpo"].values()])
            axis.axhline(of_grpo, color="#d55e00", linestyle="--", linewidth=1.2, label="GRPO")
        unit = " (%)" if COLUMNS[column].share else " (nats)"
        axis.set(xlabel="beta_low (beta_high = 1)", ylabel=COLUMNS[column].title + unit)
    axes[0].set_title(f"mean, and each of {len(seeds)} seeds", fontsize=10)
    axes[0].legend(frameon=False, fontsize=8)
    _save(figure, path)


def draw_bands(runs: Runs, arms: Sequence[str], path: Path) -> None:
    """Draws pass@1 and pass@8 against entropy at the end, a point a run and a cross an arm."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for axis, column in zip(axes, ("accuracy", "pass_8"), strict=True):
        for colour, arm in zip(COLOURS, arms, strict=False):
            x, y = np.array([(one["entropy"], 100 * one[column]) for one in runs[arm].values()]).T
            axis.scatter(x, y, s=14, color=colour, alpha=0.5, linewidths=0)
            axis.scatter(x.mean(), y.mean(), s=70, marker="x", color=colour, label=label(arm))
        axis.set(xlabel="entropy at the end (nats)", ylabel=f"{COLUMNS[column].title} (%)")
    axes[0].set_title("a point a run, a cross the mean of an arm", fontsize=10)
    axes[1].legend(frameon=False, fontsize=8)
    _save(figure, path)


def draw_tokens(evaluations: Evaluations, arms: list[str], path: Path) -> None:
    """Draws held-out accuracy, mean over seeds, against the tokens sampled for training."""
    figure, axis = plt.subplots(figsize=(6, 3.8), layout="constrained")
    for colour, arm in zip(COLOURS, arms, strict=False):
        runs = np.stack(list(evaluations[arm].values()))  # [seeds, n, 4]
        tokens, _, accuracy, _ = runs.mean(0).T
        axis.plot(tokens, 100 * accuracy, color=colour, linewidth=1.6, label=label(arm))
    axis.set(xlabel="sampled tokens (millions)", ylabel="held-out pass@1 (%)")
    axis.set_title(f"mean of {len(runs)} seeds", fontsize=10)
    axis.legend(frameon=False, fontsize=8)
    _save(figure, path)


def draw_budget(paths: Sequence[Path], path: Path) -> None:
    """Draws each step from the budget to the network's entropy, a point an update; the axes are
    linear near 0 and logarithmic beyond.
    """
    rows = [row for one in paths for row in read_rows(one)]
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
    pairs = (("budget", "sgd_own"), ("sgd_own", "adamw_own"), ("adamw_own", "moved_x1_own"))
    for axis, (first, second) in zip(axes, pairs, strict=True):
        x, y = (np.array([row[name] for row in rows]) for name in (first, second))
        axis.scatter(x, y, s=8, color="#0072b2", alpha=0.6, linewidths=0)
        for values, scale in ((x, axis.set_xscale), (y, axis.set_yscale)):
            scale("symlog", linthresh=float(np.quantile(abs(values), 0.25)))
        axis.axhline(0, color="#999999", linewidth=0.6)
        axis.axvline(0, color="#999999", linewidth=0.6)
        axis.tick_params(labelsize=6)
        axis.set(xlabel=MEANINGS[first], ylabel=MEANINGS[second])
        axis.set_title(f"r = {stats.pearsonr(x, y).statistic:+.2f}", fontsize=10)
    _save(figure, path)


MEANINGS = {
    "budget": "budget: a table's change",
    "sgd_own": "network, along the gradient",
    "adamw_own": "network, along AdamW's step",
    "moved_x1_own": "what happened",
}


def _save(figure: plt.Figure, path: Path) -> None:
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=90)
    plt.close(figure)
    print(f"drawn: {path}")


def main() -> None:
    """Draws every figure whose arms all have runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=HERE / "results")
    results = parser.parse_args().results
    runs, curves = read_runs(results / "runs.csv"), read_curves(results / "curves.csv")
    arms = {path.stem: list(read_experiment(path).arms) for path in HERE.glob("e[0-9]*.py")}
    for name in (complete := [name for name in arms if all(arm in runs for arm in arms[name])]):
        draw_curves(curves, arms[name], results / f"{name}.png")
    if "e5_bands" in complete:
        draw_bands(runs, arms["e5_bands"], results / "e5_best.png")
    if "e7_sampling" in complete:
        evaluations = read_evaluations(results / "evaluations.csv")
        draw_tokens(evaluations, arms["e7_sampling"], results / "e7_tokens.png")
    if sum(arm in runs for arm in next(iter(ORDERS.values()))) > 1:
        draw_order(runs, results / "e2_order.png")
    if budgets := sorted(results.glob("budget_*.csv")):
        draw_budget(budgets, results / "e8_budget.png")


if __name__ == "__main__":
    main()
