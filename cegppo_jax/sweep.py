"""Runs an experiment of several arms and seeds, and says what it shows.

    python -m cegppo_jax.sweep experiments/beta_ablation.py --list       what it asks, its runs, how far they are
    python -m cegppo_jax.sweep experiments/beta_ablation.py --run        runs what is missing; again: goes on
    python -m cegppo_jax.sweep experiments/beta_ablation.py --table      means, intervals, paired differences
    python -m cegppo_jax.sweep experiments/beta_ablation.py --report     a page of curves
    python -m cegppo_jax.sweep experiments/beta_ablation.py --arm=beta_low=0.5/seed0      one run, here
    python -m cegppo_jax.sweep experiments/beta_ablation.py --emit=skypilot --out=jobs    for other machines

How to write one: experiments/sweeps.md.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from cegppo_jax.paths import local_path
from cegppo_jax.sweeps.emit import EMITTERS, JobSettings, emit
from cegppo_jax.sweeps.experiment import Experiment, read_experiment
from cegppo_jax.sweeps.run_all import RunState, initial_state, run_all
from cegppo_jax.sweeps.screen import SweepScreen
from cegppo_jax.sweeps.state import Status, is_finished
from cegppo_jax.sweeps.table import arm_results, markdown, write_tables

ACTIONS = ("list", "run", "table", "report", "emit", "arm")
PAGE_FILE_NAME = "report.html"


def list_runs(experiment: Experiment, folder: Path) -> None:
    """Prints the question, the runs, their overrides and how far they are. Checks every config."""
    from cegppo_jax.sweeps.plan import plan  # needs jax

    planned = plan(experiment, folder, experiment.runs)
    print(f"question    {experiment.question}\nprediction  {experiment.prediction}")
    print(f"decides     {experiment.measures[0].title}\nfolder      {folder}\n")
    width = max(len(str(run)) for run in experiment.runs)
    for one in planned:
        status = initial_state(one).status
        print(f"{one.run!s:{width}}  {status:9}  {shlex.join(one.run.options())}")
    arms = len(experiment.arms)
    print(f"\n{arms} arms, {len(experiment.runs)} runs; every config is valid")


def run_missing(experiment: Experiment, folder: Path, arm: str, jobs: int) -> None:
    """Runs what is not finished, of one arm or of all."""
    from cegppo_jax.sweeps.plan import plan

    runs = experiment.runs_named(arm) if arm else experiment.runs
    states = [initial_state(one) for one in plan(experiment, folder, runs)]
    jobs = min(jobs, max(1, sum(one.status is not Status.FINISHED for one in states)))
    # All arms of a sweep compile the same programs: betas and other numbers are their inputs.
    cache = {"JAX_COMPILATION_CACHE_DIR": str(folder.absolute() / ".compiled")}
    environment = {k: v for k, v in cache.items() if k not in os.environ}
    print(f"{len(states)} runs, {jobs} at once; logs: {folder}/ARM/seedN.log", flush=True)
    try:
        with SweepScreen(states, experiment.measures[0]) as screen:
            run_all(states, jobs, screen, environment)
    except KeyboardInterrupt:
        raise SystemExit(
            f"stopped; {_finished(states)}; the same command goes on from the newest checkpoints"
        ) from None
    failed = [one for one in states if one.status is Status.FAILED]
    for one in failed:
        print(f"{one.planned.run} failed: {one.reason}\n  log: {one.log}", file=sys.stderr)
    if failed:
        raise SystemExit(f"error: {len(failed)} runs failed; {_finished(states)}")
    print(f"{_finished(states)}; next: --table, --report")


def _finished(states: Sequence[RunState]) -> str:
    return f"{sum(one.status is Status.FINISHED for one in states)} of {len(states)} finished"


def run_here(experiment: Experiment, folder: Path, arm: str) -> None:
    """Turns this process into the ordinary train command of one run."""
    from cegppo_jax.sweeps.plan import plan

    runs = experiment.runs_named(arm)
    if len(runs) > 1:
        raise ValueError(
            f"--arm={arm} has {len(runs)} seeds: --arm={runs[0]} for one here, or --run --arm={arm} "
            "for all of them"
        )
    [planned] = plan(experiment, folder, runs)
    print(shlex.join(planned.command), flush=True)
    os.execv(planned.command[0], planned.command)


def write_table(experiment: Experiment, folder: Path) -> None:
    """Prints the table and writes it as Markdown and CSV."""
    arms = arm_results(experiment, folder)
    paths = write_tables(experiment, arms, folder)
    print(markdown(experiment, arms))
    print(f"written: {', '.join(map(str, paths))}")


def write_report(experiment: Experiment, folder: Path) -> None:
    """Writes the page of all runs that have begun, arm by arm."""
    from cegppo_jax.page.page import write_page

    arms = {}
    for name, runs in experiment.arms.items():
        workdirs = [folder / str(run) for run in runs]
        if begun := [one for one in workdirs if (one / "config.json").exists()]:
            arms[name] = begun
    if not arms:
        raise ValueError(f"no run of {experiment.path} has been begun in {folder}: --run begins")
    write_page(arms, folder / PAGE_FILE_NAME)
    print(f"written: {folder / PAGE_FILE_NAME}")


def main(argv: Sequence[str]) -> None:
    """Does what the command line asks for. Bad input ends with one line that says what to change."""


if __name__ == "__main__":
    app.run(main)
