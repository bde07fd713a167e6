"""The table of a sweep: each arm's mean over seeds, and its difference to the first arm.

Only finished runs count. The difference is taken seed by seed, over the seeds that both arms have
finished: runs of one seed have the same initial weights and prompts in the same order, so much of
what differs between seeds drops out. Intervals: evaluation/intervals.py, mean over runs.
"""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cegppo_jax.evaluation.intervals import Estimate, mean_over_runs
from cegppo_jax.reporting.run_log import open_run_log
from cegppo_jax.saved_config import CONFIG_FILE_NAME
from cegppo_jax.storage.writing import writing
from cegppo_jax.sweeps.arms import ArmRun, option_text
from cegppo_jax.sweeps.experiment import Experiment, Measure
from cegppo_jax.sweeps.numbers import estimate_text
from cegppo_jax.sweeps.state import check_is_run, is_finished, measured_value

MARKDOWN_FILE_NAME = "table.md"
ARMS_FILE_NAME = "table.csv"
RUNS_FILE_NAME = "runs.csv"


@dataclasses.dataclass(frozen=True)
class RunResult:
    """What a run of the sweep shows so far."""

    run: ArmRun
    step: int
    steps: int | None  # None: not begun
    finished: bool
    values: Mapping[str, float | None]  # by measure; None: not measured, or not finished


@dataclasses.dataclass(frozen=True)
class ArmResult:
    """What an arm's runs show together."""

    arm: str
    runs: tuple[RunResult, ...]
    # By measure; None: no finished run. Limits are NaN where one seed leaves them unknown
    means: Mapping[str, Estimate | None]
    differences: Mapping[str, Estimate | None]  # to the first arm; None for it
    pairs: Mapping[str, int]  # seeds that both have finished

    @property
    def finished(self) -> list[RunResult]:
        """The runs that count."""
        return [one for one in self.runs if one.finished]

    @property
    def seeds(self) -> str:
        """ "3", or "1 of 3; seed 1: step 12 of 50; seed 2: not begun"."""
        texts = [f"{len(self.finished)}"]
        if len(self.finished) < len(self.runs):
            texts = [f"{len(self.finished)} of {len(self.runs)}"]
        for one in self.runs:
            if not one.finished:
                begun = "not begun" if one.steps is None else f"step {one.step} of {one.steps}"
                texts.append(f"seed {one.run.seed}: {begun}")
        return "; ".join(texts)


def arm_results(experiment: Experiment, folder: Path) -> list[ArmResult]:
    """Reads the runs of a sweep.

    Raises:
      ValueError: none has been begun, one is damaged or is a run of another experiment, or a
        finished one lacks a metric.
    """
    results = [_run_result(experiment, run, folder / str(run)) for run in experiment.runs]
    if all(one.steps is None for one in results):
        raise ValueError(f"no run of {experiment.path} has been begun in {folder}: --run begins")
    arms = {name: [one for one in results if one.run.arm == name] for name in experiment.arms}
    first = next(iter(arms.values()))
    return [_arm_result(experiment.measures, runs, first) for runs in arms.values()]


def _run_result(experiment: Experiment, run: ArmRun, workdir: Path) -> RunResult:
    nothing: dict[str, float | None] = {one.name: None for one in experiment.measures}
    if not (workdir / CONFIG_FILE_NAME).exists():
        return RunResult(run, 0, None, False, nothing)
    log = open_run_log(workdir)
    check_is_run(log, run)
    if not is_finished(workdir):
        return RunResult(run, log.step, log.planned_steps, False, nothing)
    values = {one.name: measured_value(log, one) for one in experiment.measures}
    if missing := [name for name, value in values.items() if value is None]:
        raise ValueError(f"{workdir} has no metric {missing[0]!r}; it has {sorted(log.rl)}")
    return RunResult(run, log.step, log.planned_steps, True, values)


def _arm_result(
    measures: Sequence[Measure], runs: Sequence[RunResult], first: Sequence[RunResult]
) -> ArmResult:
    means: dict[str, Estimate | None] = {}
    differences: dict[str, Estimate | None] = {}
    pairs = {}
    for measure in measures:
        own, others = _by_seed(runs, measure.name), _by_seed(first, measure.name)
        low, high = (0.0, 1.0) if measure.is_share else (-math.inf, math.inf)
        means[measure.name] = _estimate(list(own.values()), low, high)
        seeds = [seed for seed in own if seed in others] if runs is not first else []
        changes = [own[seed] - others[seed] for seed in seeds]
        differences[measure.name] = _estimate(changes, low - high, high - low)
        pairs[measure.name] = len(seeds)
    return ArmResult(runs[0].run.arm, tuple(runs), means, differences, pairs)


def _by_seed(runs: Sequence[RunResult], name: str) -> dict[int, float]:
    found = {}
    for one in runs:
        value = one.values[name]
        if value is not None:
            found[one.run.seed] = value
    return found


def _estimate(values: Sequence[float], low: float, high: float) -> Estimate | None:
    if not values:
        return None
    mean = float(np.mean(values))
    if len(values) == 1 or not math.isfinite(mean):
        return Estimate(mean, math.nan, math.nan)
    return mean_over_runs(np.asarray(values), low, high)


def markdown(experiment: Experiment, arms: Sequence[ArmResult]) -> str:
    """Returns the table as Markdown, with what one must know to read it."""
    measures = experiment.measures
    head = ["arm", "seeds"]
    for one in measures:
        head += [one.title, "difference"]
    rows = []
    for arm in arms:
        row = [f"`{arm.arm}`", arm.seeds]
        for one in measures:
            difference = estimate_text(one, arm.differences[one.name], signed=True)
            row += [estimate_text(one, arm.means[one.name]), difference]
        rows.append(row)
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(
        [
            f"# {experiment.name}\n",
            f"**Question.** {experiment.question}\n",
            f"**Prediction.** {experiment.prediction}\n",
            f"**Decides.** `{measures[0].title}`\n",
            *lines,
            "",
            _notes(arms),
            "",
        ]
    )


def _notes(arms: Sequence[ArmResult]) -> str:
    first = arms[0].arm
    notes = [
        "Means over finished runs, the last value of each metric unless its title says otherwise, "
        "with 95 % intervals over seeds (Student's t). "
        f"Differences to `{first}` are paired by seed."
    ]
    if unpaired := [arm.arm for arm in arms[1:] if not any(arm.pairs.values())]:
        notes.append(f"No seed is finished in both `{first}` and {_list(unpaired)}.")
    if single := [arm.arm for arm in arms if len(arm.finished) == 1]:
        notes.append(
            f"One finished seed has no interval ({_list(single)}): how far another seed would "
            "be from it is not known."
        )
    steps = {arm.arm: {one.steps for one in arm.finished} for arm in arms if arm.finished}
    if len(set().union(*steps.values())) > 1:
        each = ", ".join(f"`{arm}` {_either(found)}" for arm, found in steps.items())
        notes.append(f"The runs have different numbers of steps: {each}.")
    return " ".join(notes)


def _list(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _either(steps: set[int | None]) -> str:
    return " or ".join(str(one) for one in sorted(one for one in steps if one is not None))


def write_tables(experiment: Experiment, arms: Sequence[ArmResult], folder: Path) -> list[Path]:
    """Writes the Markdown table, and two CSV files with all digits: a line an arm and measure, and
    a line a run. Returns their paths.
    """
    paths = [folder / name for name in (MARKDOWN_FILE_NAME, ARMS_FILE_NAME, RUNS_FILE_NAME)]
    with writing(folder):
        paths[0].write_text(markdown(experiment, arms), encoding="utf-8")
        _write_csv(paths[1], [row for arm in arms for row in _arm_rows(experiment, arm)])
        _write_csv(paths[2], [_run_row(experiment, one) for arm in arms for one in arm.runs])
    return paths


def _arm_rows(experiment: Experiment, arm: ArmResult) -> list[dict[str, Any]]:
    rows = []
    for measure in experiment.measures:
        mean, difference = arm.means[measure.name], arm.differences[measure.name]
        rows.append(
            {
                "arm": arm.arm,
                "metric": measure.name,
                "mean_of_last": measure.last,
                "seeds_planned": len(arm.runs),
                "seeds_finished": len(arm.finished),
                **_numbers("", mean),
                "pairs": arm.pairs[measure.name],
                **_numbers("difference_", difference),
            }
        )
    return rows


def _numbers(prefix: str, estimate: Estimate | None) -> dict[str, float | str]:
    values = {} if estimate is None else dataclasses.asdict(estimate)
    return {
        f"{prefix}{name}": values[name] if math.isfinite(values.get(name, math.nan)) else ""
        for name in ("mean", "low", "high")
    }


def _run_row(experiment: Experiment, result: RunResult) -> dict[str, Any]:
    names = {name for run in experiment.runs for name in run.overrides}
    overrides = {
        name: option_text(result.run.overrides[name]) if name in result.run.overrides else ""
        for name in sorted(names)
    }
    values = {one.name: result.values[one.name] for one in experiment.measures}
    return {
        "arm": result.run.arm,
        "seed": result.run.seed,
        **overrides,
        "step": result.step,
        "steps": result.steps,
        "finished": result.finished,
        **values,
    }


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
