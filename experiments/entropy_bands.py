"""Can CE-GPPO's betas, in closed loop, hold a policy's entropy where a researcher wants it?

    python experiments/entropy_bands.py --out=runs/bands

Runs configs/sums.py for each seed: GRPO, CE-GPPO with the paper's fixed betas, and the controller
(`:band`) with each of three targets, its band +-5 % around the target. It then prints the median
entropy of the last third of the steps and draws every curve. Existing runs are not repeated, so a
killed command can be continued; more --steps make its runs longer.
All arms of a seed start from the same warm-started policy, to the bit: same seed, same supervised
steps.

Prediction: GRPO's entropy falls all the way; every band is reached, and the median of the last
third lies within 10 % of its target, in every seed.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np

from cegppo_jax.reporting.metrics import Phase, read_metrics

matplotlib.use("Agg")
import matplotlib.pyplot as plt

TARGETS = (0.35, 0.42, 0.5)  # nats
HALF_WIDTH = 0.05  # of the controller's band, relative
SEEDS = (0, 1, 2)
FIXED = {"grpo": "configs/sums.py:grpo", "ce_gppo": "configs/sums.py"}  # arms without controller
ARMS = (*FIXED, *TARGETS)
COLOURS = {
    "grpo": "#555555",
    "ce_gppo": "#cc79a7",
    0.35: "#d55e00",
    0.42: "#009e73",
    0.5: "#0072b2",
}
LABELS = {"grpo": "GRPO", "ce_gppo": "CE-GPPO (0.5, 1)"}
SMOOTHED_STEPS = 15  # betas are drawn as a running median of so many


def command(arm: str | float, seed: int, workdir: Path, steps: int) -> list[str]:
    """Returns the training command of an arm (in FIXED, or a target) and seed."""
    recipe = FIXED.get(arm, "configs/sums.py:band")
    words = [sys.executable, "-m", "cegppo_jax.train", f"--config={recipe}"]
    words += [f"--workdir={workdir}", f"--config.seed={seed}", f"--config.steps={steps}"]
    if arm not in FIXED:
        controller = "--config.steering.controller"
        words += [
            f"{controller}.entropy_low={arm * (1 - HALF_WIDTH):.4f}",
            f"{controller}.entropy_high={arm * (1 + HALF_WIDTH):.4f}",
        ]
    return words


def curve(workdir: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns (steps [n], values [n]) of a metric of a run."""
    lines = [line for line in read_metrics(workdir) if line["phase"] == Phase.RL and name in line]
    return np.array([line["step"] for line in lines]), np.array([line[name] for line in lines])


def last_step(workdir: Path) -> int:
    """Returns the last step that a run, begun or not, has metrics of."""
    if not (workdir / "metrics.jsonl").exists():
        return 0
    steps, _ = curve(workdir, "policy/rollout_entropy")
    return int(steps[-1]) if len(steps) else 0


def row(arm: str | float, seed: int, workdir: Path) -> str:
    """Returns the line of the table for a finished run."""
    _, entropy = curve(workdir, "policy/rollout_entropy")
    _, accuracy = curve(workdir, "evaluation/accuracy")
    last = entropy[-(len(entropy) // 3) :]
    median = float(np.median(last))
    off = "" if arm in FIXED else f"{median / arm - 1:+.1%}"
    inside = "" if arm in FIXED else f"{np.mean(np.abs(last / arm - 1) <= 0.1):.0%}"
    low, high = np.quantile(last, [0.1, 0.9])
    return (
        f"| {arm} | {seed} | {entropy[0]:.3f} | {median:.3f} | {off} | {low:.3f} to {high:.3f} | "
        f"{inside} | {accuracy[0]:.1%} -> {accuracy[-1]:.1%} |"
    )


def draw(runs: dict[tuple[str | float, int], Path], path: Path) -> None:
    """Draws entropy over the steps, each arm's mean over seeds and the range of them, and the betas
    of the controlled arms.
    """
    figure, axes = plt.subplot_mosaic(
        [["entropy", "beta_low"], ["entropy", "beta_high"]],
        figsize=(10, 4),
        width_ratios=(2, 1),
        layout="constrained",
    )
    for arm in dict.fromkeys(arm for arm, _ in runs):
        colour = COLOURS[arm]
        folders = [workdir for (one, _), workdir in runs.items() if one == arm]
        steps, entropy = over_seeds(folders, "policy/rollout_entropy")
        if arm not in FIXED:
            axes["entropy"].axhline(arm, color=colour, linewidth=0.8, linestyle=":")
        label = LABELS.get(arm, f"controller, target {arm}")
        axes["entropy"].plot(steps, entropy.mean(0), color=colour, linewidth=1.8, label=label)
        axes["entropy"].fill_between(
            steps, entropy.min(0), entropy.max(0), color=colour, alpha=0.18, linewidth=0
        )
        for name in ("beta_low", "beta_high") if arm not in FIXED else ():
            steps, betas = over_seeds(folders, f"steering/{name}")
            axes[name].plot(steps, smoothed(betas.mean(0)), color=colour, linewidth=1.5)
    axes["entropy"].set(ylabel="policy entropy (nats)", xlabel="step", ylim=(0, None))
    axes["entropy"].legend(frameon=False, fontsize=9, loc="lower left")
    axes["entropy"].set_title(
        f"configs/sums.py: mean and range of {len({seed for _, seed in runs})} seeds", fontsize=10
    )
    axes["beta_low"].set(ylabel="beta_low", xticklabels=[])
    axes["beta_low"].set_title(f"controller (median of {SMOOTHED_STEPS} steps)", fontsize=10)
    axes["beta_high"].set(ylabel="beta_high", xlabel="step")
    for each in axes.values():
        each.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def over_seeds(folders: list[Path], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns (steps [n], values [seeds, n]) of a metric, as far as every run has it."""
    curves = [curve(workdir, name) for workdir in folders]
    least = min(len(steps) for steps, _ in curves)
    return curves[0][0][:least], np.stack([values[:least] for _, values in curves])


def smoothed(values: np.ndarray) -> np.ndarray:
    """Returns the running median over SMOOTHED_STEPS values, fewer at the ends."""
    half = SMOOTHED_STEPS // 2
    return np.array(
        [np.median(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]
    )


def main() -> None:
    """Runs what is missing, then prints the table and draws the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="the first so many")
    parser.add_argument("--picture", type=Path, default=None)
    options = parser.parse_args()
    runs = {}
    for seed in SEEDS[: options.seeds]:
        for arm in ARMS:
            workdir = options.out / f"{arm}-{seed}"
            if last_step(workdir) < options.steps:
                subprocess.run(command(arm, seed, workdir, options.steps), check=True)
            runs[arm, seed] = workdir
    print("| target | seed | start | median of the last third | off target | its 10 to 90 % | ")
    print("within 10 % | held-out accuracy |\n|---|---|---|---|---|---|---|---|")
    for (arm, seed), workdir in runs.items():
        print(row(arm, seed, workdir))
    picture = options.picture or options.out / "entropy_bands.png"
    draw(runs, picture)
    print(f"drawn: {picture}")


if __name__ == "__main__":
    main()
