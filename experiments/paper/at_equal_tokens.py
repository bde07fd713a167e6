"""Prints the table of E7: held-out accuracy at equal numbers of sampled tokens.

    python -m experiments.paper.at_equal_tokens

Arms of E7 sample different numbers of tokens a step. Within a seed, all are compared at the number
that the most sparing one has sampled at its end; between evaluations accuracy is interpolated.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

from cegppo_jax.sweeps.experiment import read_experiment
from experiments.paper.tables import HERE, Runs, difference, mean, text

Evaluations = dict[str, dict[int, np.ndarray]]  # arm -> seed -> [n, 4], columns as in NAMES
NAMES = ("tokens", "step", "accuracy", "pass_8")


def read_evaluations(path: Path) -> Evaluations:
    """Reads evaluations.csv."""
    found: dict[str, dict[int, list[list[float]]]] = {}
    with path.open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            rows = found.setdefault(line["arm"], {}).setdefault(int(line["seed"]), [])
            rows.append([float(line[name]) for name in NAMES])
    return {
        arm: {seed: np.array(rows) for seed, rows in seeds.items()} for arm, seeds in found.items()
    }


def at_equal_tokens(evaluations: Evaluations, arms: list[str]) -> Runs:
    """Returns the columns of NAMES for each arm and seed, at the tokens that the seed's most
    sparing arm ends with. Seeds that an arm lacks are left out.
    """
    seeds = set.intersection(*(set(evaluations.get(arm, {})) for arm in arms))
    found: Runs = {arm: {} for arm in arms}
    for seed in sorted(seeds):
        tokens = min(evaluations[arm][seed][-1, 0] for arm in arms)
        for arm in arms:
            rows = evaluations[arm][seed]
            values = [float(np.interp(tokens, rows[:, 0], column)) for column in rows.T]
            found[arm][seed] = dict(zip(NAMES, values, strict=True))
    return found


def table(evaluations: Evaluations, arms: list[str]) -> str:
    """Returns the table as Markdown, with differences to the first arm."""
    runs = at_equal_tokens(evaluations, arms)
    shown = ("accuracy", "pass_8")
    lines = ["| arm | seeds | tokens (M) | steps | tokens of all steps (M) | pass@1 | pass@8 | "]
    lines[0] += "pass@1, difference | pass@8, difference |"
    lines.append("| --- " * 9 + "|")
    for arm in arms:
        of_arm = runs[arm].values()
        tokens, steps = (np.mean([one[name] for one in of_arm]) for name in ("tokens", "step"))
        whole = np.mean([evaluations[arm][seed][-1, 0] for seed in runs[arm]])
        cells = [f"`{arm}`", str(len(runs[arm])), f"{tokens:.2f}", f"{steps:.0f}", f"{whole:.2f}"]
        cells += [text(name, mean(runs, arm, name)) for name in shown]
        for name in shown:
            found = None if arm == arms[0] else difference(runs, arm, arms[0], name)
            cells.append(text(name, found, signed=True))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Prints the table, and the differences of carry-over to refill."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=HERE / "results")
    evaluations = read_evaluations(parser.parse_args().results / "evaluations.csv")
    arms = list(read_experiment(HERE / "e7_sampling.py").arms)
    print(table(evaluations, arms))
    found = difference(at_equal_tokens(evaluations, arms), "carry_over", "refill", "accuracy")
    print(f"\ncarry_over against refill, pass@1: {text('accuracy', found, signed=True)}")


if __name__ == "__main__":
    main()
