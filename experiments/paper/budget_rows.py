"""Prints the table of E8 from the rows that budget_gap.py has written.

    python -m experiments.paper.budget_rows experiments/paper/results/budget_*.csv

Correlations over all updates, and within the updates of one step of one seed.
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import stats

PAIRS = (
    ("budget", "sgd"),
    ("sgd", "adamw"),
    ("adamw", "moved_x0.1"),
    ("adamw", "moved_x1"),
    ("adamw", "moved_x10"),
    ("budget", "moved_x1"),
)


def read_rows(path: Path) -> list[dict[str, float]]:
    """Reads the rows of a seed, one an update."""
    with path.open(encoding="utf-8") as file:
        return [{name: float(text) for name, text in line.items()} for line in csv.DictReader(file)]


def table(paths: Sequence[Path]) -> str:
    """Returns the correlations of each pair as Markdown: Pearson's and Spearman's over all rows,
    and Pearson's within a step of a seed (its mean), where training's trend is no part of it.
    """
    rows = [((path, row["step"]), row) for path in paths for row in read_rows(path)]
    lines = ["| from | to | tokens | updates | Pearson | Spearman | same sign | within a step |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for one, other in PAIRS:
        for tokens in ("own", "all"):
            first = one if one == "budget" else f"{one}_{tokens}"
            pairs = np.array([[r[first], r[f"{other}_{tokens}"]] for _, r in rows])
            groups = {g: pairs[[i for i, (k, _) in enumerate(rows) if k == g]] for g, _ in rows}
            within = [stats.pearsonr(*part.T).statistic for part in groups.values()]
            cells = (one, other, tokens, str(len(pairs)))
            cells += (f"{stats.pearsonr(*pairs.T).statistic:+.2f}",)
            cells += (f"{stats.spearmanr(*pairs.T).statistic:+.2f}",)
            cells += (f"{np.mean(np.sign(pairs[:, 0]) == np.sign(pairs[:, 1])):.0%}",)
            cells += (f"{np.mean(within):+.2f}",)
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path, nargs="+")
    print(table(parser.parse_args().rows))


if __name__ == "__main__":
    main()
