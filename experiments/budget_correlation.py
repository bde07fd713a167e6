"""Does the entropy budget predict how a network's entropy moves?

    python -m cegppo_jax.train --config=configs/quickstart.py --workdir=runs/quickstart \
        --config.logging.entropy_change_every_steps=1
    python experiments/budget_correlation.py runs/quickstart [RUN...]

For each run, over its rollout steps: the correlation of the step's predicted change of entropy
(the sum of learning rate x budget/mean over its updates, each on its own tokens) with the change
measured on all of them: Pearson's, Spearman's, and the share of steps whose signs
agree. (Without the flag: all updates except the last, and the change that the last one finds.)
The budget is exact to first order for a tabular policy under plain gradient ascent; a network
shares its parameters between tokens and AdamW rescales them, so the sizes are not comparable.

Prediction: a positive rank correlation while entropy falls, and less once it has settled, where
the change is a small difference of large quadrants.
"""

import argparse
from pathlib import Path

import numpy as np

from cegppo_jax.reporting.metrics import Phase, read_metrics


def changes(workdir: Path) -> np.ndarray:
    """Returns the predicted and the measured change of entropy of each step, [steps, 2]."""
    names = ("budget/predicted_change", "budget/measured_change")
    return np.array(
        [
            [line[name] for name in names]
            for line in read_metrics(workdir)
            if line["phase"] == Phase.RL and names[0] in line
        ]
    )


def ranks(values: np.ndarray) -> np.ndarray:
    """Returns the places [n] of values [n] in ascending order."""
    return np.argsort(np.argsort(values))


def row(label: str, pairs: np.ndarray) -> str:
    """Returns a line of the table for some steps."""
    predicted, measured = pairs.T
    pearson = np.corrcoef(predicted, measured)[0, 1]
    spearman = np.corrcoef(ranks(predicted), ranks(measured))[0, 1]
    agree = np.mean(np.sign(predicted) == np.sign(measured))
    return f"| {label} | {len(pairs)} | {pearson:+.2f} | {spearman:+.2f} | {agree:.0%} |"


def main() -> None:
    """Prints a table: each run's steps, and their first and second half."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    options = parser.parse_args()
    print("| run | steps | Pearson | Spearman | same sign |\n|---|---|---|---|---|")
    for workdir in options.runs:
        pairs = changes(workdir)
        if len(pairs) < 6:
            raise SystemExit(f"{workdir}: {len(pairs)} steps with a budget; 6 or more are needed")
        half = len(pairs) // 2
        print(row(workdir.name, pairs))
        print(row(f"{workdir.name}, first half", pairs[:half]))
        print(row(f"{workdir.name}, second half", pairs[half:]))


if __name__ == "__main__":
    main()
