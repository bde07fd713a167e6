"""Can CE-GPPO's betas, in closed loop, hold a policy's entropy where a researcher wants it?

    python experiments/entropy_bands.py --out=runs/bands

Runs configs/sums.py for each seed: GRPO, and the controller (`:band`) with each of three targets,
its band +-5 % around the target. It then prints the median entropy of the last third of the steps
and draws every curve. Existing runs are not repeated, so a killed command can be continued; more
--steps make its runs longer.
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
COLOURS = {"grpo": "#555555", 0.35: "#d55e00", 0.42: "#009e73", 0.5: "#0072b2"}


def command(arm: str | float, seed: int, workdir: Path, steps: int) -> list[str]:
    """Returns the training command of an arm (grpo or a target) and seed."""
    recipe = "grpo" if arm == "grpo" else "band"
    words = [sys.executable, "-m", "cegppo_jax.train", f"--config=configs/sums.py:{recipe}"]
    words += [f"--workdir={workdir}", f"--config.seed={seed}", f"--config.steps={steps}"]
    if arm != "grpo":
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
    off = "" if arm == "grpo" else f"{median / arm - 1:+.1%}"
    inside = "" if arm == "grpo" else f"{np.mean(np.abs(last / arm - 1) <= 0.1):.0%}"
    low, high = np.quantile(last, [0.1, 0.9])
    return (
        f"| {arm} | {seed} | {entropy[0]:.3f} | {median:.3f} | {off} | {low:.3f} to {high:.3f} | "
        f"{inside} | {accuracy[0]:.1%} -> {accuracy[-1]:.1%} |"
    )


def draw(runs: dict[tuple[str | float, int], Path], path: Path) -> None:
    """Draws entropy and betas over the steps of the runs."""
    figure, (above, low, high) = plt.subplots(
        3, 1, figsize=(8, 8), sharex=True, height_ratios=(2, 1, 1), layout="constrained"
    )
    for target in TARGETS:
        above.axhspan(0.9 * target, 1.1 * target, color=COLOURS[target], alpha=0.12, linewidth=0)
    panels = (
        (above, "policy/rollout_entropy"),
        (low, "steering/beta_low"),
        (high, "steering/beta_high"),
    )
    for (arm, seed), workdir in runs.items():
        for axes, name in panels:
            if arm == "grpo" and axes is not above:
                continue
            label = f"{arm}" if seed == SEEDS[0] and axes is above else None
            axes.plot(*curve(workdir, name), color=COLOURS[arm], linewidth=1, label=label)
    above.set(ylabel="policy entropy (nats)", ylim=(0, None))
    above.legend(title="GRPO, targets (+-10 %)", frameon=False, fontsize=8)
    low.set(ylabel="beta_low")
    high.set(ylabel="beta_high", xlabel="step")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Runs what is missing, then prints the table and draws the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--picture", type=Path, default=None)
    options = parser.parse_args()
    runs = {}
    for seed in SEEDS:
        for arm in ("grpo", *TARGETS):
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
