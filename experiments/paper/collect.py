"""Reads the finished runs of the paper's experiments into small CSV files.

    python -m experiments.paper.collect --runs=runs/paper --out=experiments/paper/results

runs.csv has a line a run, curves.csv entropy and training accuracy over the steps, means of EVERY
steps, evaluations.csv the held-out accuracy of each evaluation and the tokens sampled until then.
Every table and figure is made from these (tables.py, at_equal_tokens.py, figures.py). A run that is
not in the folder keeps the lines that it has.
"""

import argparse
import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cegppo_jax.reporting.run_log import RunLog, open_run_log
from cegppo_jax.sweeps.arms import ArmRun
from cegppo_jax.sweeps.experiment import read_experiment
from cegppo_jax.sweeps.state import check_is_run, is_finished

HERE = Path(__file__).parent
LAST = 10  # steps that "at the end" is a mean over
EARLY = 15  # steps of the beginning, when most tokens are clipped and few runs have broken
EVERY = 5  # steps of a line of curves.csv

ENTROPY, CORRECT = "policy/old_entropy", "reward/correct_fraction"


def asked_runs() -> dict[str, ArmRun]:
    """Returns the runs of all experiment files here, each once, by ARM/seedN.

    Raises:
      ValueError: two files mean different runs by one name.
    """
    found: dict[str, ArmRun] = {}
    for path in sorted(HERE.glob("e[0-9]*.py")):
        for run in read_experiment(path).runs:
            known = found.setdefault(str(run), run)
            if known != run:
                raise ValueError(f"{path}: {run} is another run in another file: rename its arm")
    return found


def row(run: ArmRun, log: RunLog) -> dict[str, Any]:
    """Returns the line of runs.csv of a finished run."""
    rl = log.rl

    def curve(name: str) -> np.ndarray:
        return rl.curve(name)[1]

    entropy, accuracy = curve(ENTROPY), curve("evaluation/accuracy")
    solved, correct = curve("evaluation/pass_at_n"), curve(CORRECT)
    return {
        "arm": run.arm,
        "seed": run.seed,
        "steps": log.step,
        "accuracy_start": accuracy[0],
        "accuracy": accuracy[-1],
        "pass_8_start": solved[0],
        "pass_8": solved[-1],
        "entropy_start": entropy[0],
        "entropy": entropy[-LAST:].mean(),
        "entropy_area": entropy.mean(),
        "entropy_early": entropy[:EARLY].mean(),
        "entropy_least": entropy.min(),
        "correct": correct[-LAST:].mean(),
        "clip_low": curve("policy/clip_fraction_low").mean(),
        "clip_high": curve("policy/clip_fraction_high").mean(),
        "grad_norm": curve("update/grad_norm").mean(),
        "kl_old": curve("policy/kl_old").mean(),
        "kl_old_most": curve("policy/kl_old").max(),
        "ratio_least": curve("policy/ratio_min").min(),
        "tokens": curve("rollout/completion_tokens_mean")[-LAST:].mean(),
        "seconds": curve("time/step_seconds").sum(),
    }


def curve_rows(run: ArmRun, log: RunLog) -> Iterator[dict[str, Any]]:
    """Yields the lines of curves.csv of a run: means of EVERY steps, at their last step."""
    names = {"entropy": ENTROPY, "correct": CORRECT}
    curves = {short: log.rl.curve(name) for short, name in names.items()}
    steps = curves["entropy"][0]
    for start in range(0, len(steps), EVERY):
        part = slice(start, start + EVERY)
        means = {short: values[part].mean() for short, (_, values) in curves.items()}
        yield {"arm": run.arm, "seed": run.seed, "step": steps[part][-1], **means}


def evaluation_rows(run: ArmRun, log: RunLog) -> Iterator[dict[str, Any]]:
    """Yields the lines of evaluations.csv of a run: completion tokens sampled for training, in
    millions, before each evaluation.
    """
    completions, lengths = (
        dict(zip(*log.rl.curve(f"rollout/{name}"), strict=True))
        for name in ("completions", "completion_tokens_mean")
    )
    steps, accuracy = log.rl.curve("evaluation/accuracy")
    _, solved = log.rl.curve("evaluation/pass_at_n")
    for place, step in enumerate(steps):
        tokens = sum(count * lengths[at] for at, count in completions.items() if at <= step)
        yield {
            "arm": run.arm,
            "seed": run.seed,
            "step": step,
            "tokens": float(tokens) / 1e6,
            "accuracy": accuracy[place],
            "pass_8": solved[place],
        }


def write(path: Path, rows: Iterable[Mapping[str, Any]], asked: Iterable[str]) -> None:
    """Writes rows of one layout with five significant digits. Lines of other runs among `asked`
    stay, before them.
    """
    rows = [
        {name: f"{x:.5g}" if isinstance(x, float) else x for name, x in one.items()} for one in rows
    ]
    new = {name_of(one) for one in rows}
    rows = [one for one in read(path) if name_of(one) in set(asked) - new] + rows
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"written: {path}, {len(rows)} lines")


def name_of(line: Mapping[str, Any]) -> str:
    """Returns the name of a line's run, ARM/seedN."""
    return f"{line['arm']}/seed{line['seed']}"


def read(path: Path) -> list[dict[str, str]]:
    """Returns the lines of a file; none if it is not there."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def main() -> None:
    """Reads the runs and writes the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    finished, asked = [], asked_runs()
    for name, run in asked.items():
        if not is_finished(options.runs / name):
            print(f"not finished: {name}")
            continue
        log = open_run_log(options.runs / name)
        check_is_run(log, run)
        finished.append((run, log))
    if not finished:
        raise SystemExit(f"no run is finished in {options.runs}")
    write(options.out / "runs.csv", [row(*one) for one in finished], asked)
    for name, rows_of in (("curves", curve_rows), ("evaluations", evaluation_rows)):
        write(options.out / f"{name}.csv", [x for one in finished for x in rows_of(*one)], asked)


if __name__ == "__main__":
    main()
