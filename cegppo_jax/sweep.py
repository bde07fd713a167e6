"""Runs an experiment of several arms and seeds, and says what it shows.

    cegppo sweep experiments/beta_ablation.py --list
        what it asks, its runs, how far they are; every config is checked
    cegppo sweep experiments/beta_ablation.py --run --jobs=4
        runs what is missing, four at once; the same command again goes on
    cegppo sweep experiments/beta_ablation.py --table
        means over seeds with intervals, paired differences to the first arm
    cegppo sweep experiments/beta_ablation.py --report
        one page of curves
    cegppo sweep experiments/beta_ablation.py --arm=beta_low=0.5/seed0
        one run, as the ordinary train command
    cegppo sweep experiments/beta_ablation.py --emit=skypilot --bucket=NAME
        job files for other machines

How to write one: experiments/sweeps.md.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from cegppo_jax.console.start import stopped
from cegppo_jax.storage.bucket import in_bucket
from cegppo_jax.storage.mirror import keep_results, named_by_url, opened_folder, shown_place
from cegppo_jax.storage.paths import local_path
from cegppo_jax.sweeps.emit import EMITTERS, JobSettings, emit
from cegppo_jax.sweeps.experiment import Experiment, read_experiment
from cegppo_jax.sweeps.run_all import RunState, initial_state, run_all
from cegppo_jax.sweeps.screen import SweepScreen
from cegppo_jax.sweeps.state import RunStatus
from cegppo_jax.sweeps.table import arm_results, markdown, write_tables

ACTIONS = ("list", "run", "table", "report", "emit", "arm")
IN_BUCKETS = ("table", "report")  # what reads runs wherever they are
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
        print(f"{one.run!s:{width}}  {status:17}  {shlex.join(one.run.options())}")
    arms = len(experiment.arms)
    print(f"\n{arms} arms, {len(experiment.runs)} runs; every config is valid")


def run_missing(experiment: Experiment, folder: Path, arm: str | None, jobs: int) -> None:
    """Runs what is not finished, of one arm or of all."""
    from cegppo_jax.sweeps.plan import plan

    runs = experiment.runs_named(arm) if arm else experiment.runs
    states = [initial_state(one) for one in plan(experiment, folder, runs)]
    jobs = min(jobs, max(1, sum(one.status is not RunStatus.FINISHED for one in states)))
    # All arms of a sweep compile the same programs: betas and other numbers are their inputs.
    cache = {"JAX_COMPILATION_CACHE_DIR": str(folder.absolute() / ".compiled")}
    environment = {k: v for k, v in cache.items() if k not in os.environ}
    print(f"{len(states)} runs, {jobs} at once; logs: {folder}/ARM/seedN.log", flush=True)
    try:
        with SweepScreen(states, experiment.measures[0]) as screen:
            run_all(states, jobs, screen, environment)
    except KeyboardInterrupt:
        line = f"stopped; {_finished(states)}; the same command goes on from the newest checkpoints"
        raise stopped(line) from None
    failed = [one for one in states if one.status is RunStatus.FAILED]
    for one in failed:
        print(f"{one.planned.run} failed: {one.reason}\n  log: {one.log}", file=sys.stderr)
    if failed:
        raise SystemExit(f"error: {len(failed)} runs failed; {_finished(states)}")
    print(f"{_finished(states)}; next: --table, --report")


def _finished(states: Sequence[RunState]) -> str:
    return f"{sum(one.status is RunStatus.FINISHED for one in states)} of {len(states)} finished"


def run_here(experiment: Experiment, folder: Path, arm: str) -> None:
    """Turns this process into the ordinary train command of one run."""
    from cegppo_jax.sweeps.plan import plan

    runs = experiment.runs_named(arm)
    if len(runs) > 1:
        raise ValueError(
            f"--arm={arm} has {len(runs)} seeds: --arm={runs[0]} for one here, or "
            f"--run --arm={arm} for all of them"
        )
    [planned] = plan(experiment, folder, runs)
    print(shlex.join(planned.command), flush=True)
    os.execv(planned.command[0], planned.command)


def write_table(experiment: Experiment, folder: Path) -> None:
    """Prints the table and writes it as Markdown and CSV."""
    arms = arm_results(experiment, folder)
    paths = write_tables(experiment, arms, folder)
    keep_results(folder)
    print(markdown(experiment, arms))
    print(f"written: {', '.join(map(shown_place, paths))}")


def write_jobs(experiment: Experiment, kind: str, settings: JobSettings, out: Path) -> None:
    """Checks every config and writes the job files of an engine."""
    from cegppo_jax.sweeps.plan import plan

    plan(experiment, Path(settings.folder), ())
    paths = emit(kind, experiment, settings, out)
    print(f"written: {len(experiment.runs)} jobs in {out}; how to start them: {paths[-1]}")


def write_report(experiment: Experiment, folder: Path, cdn: bool) -> None:
    """Writes the page of all runs that have begun, arm by arm."""
    from cegppo_jax.page.page import write_page  # needs plotly

    arms = {}
    for name, runs in experiment.arms.items():
        workdirs = [folder / str(run) for run in runs]
        if begun := [one for one in workdirs if (one / "config.json").exists()]:
            arms[name] = begun
    if not arms:
        raise ValueError(f"no run of {experiment.path} has been begun in {folder}: --run begins")
    diagnoses = write_page(arms, folder / PAGE_FILE_NAME, title=experiment.question, cdn=cdn)
    keep_results(folder)
    print(*map(named_by_url, map(str, diagnoses)), sep="\n")
    print(f"written: {shown_place(folder / PAGE_FILE_NAME)}")


class OneLineParser(argparse.ArgumentParser):
    """Ends on bad input with one line, as the other commands do."""

    def error(self, message: str) -> NoReturn:
        """Raises SystemExit with the line."""
        raise SystemExit(f"error: {message} (cegppo sweep --help)")


def arguments() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = OneLineParser(
        prog="cegppo sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("experiment", help="an experiment file")
    for name, text in (
        ("list", "show the runs and how far they are, and check the config of each"),
        ("run", "run what is not finished; the same command again goes on"),
        ("table", "print means and differences; write table.md, table.csv and runs.csv"),
        ("report", "write report.html, a page of curves of all runs"),
    ):
        parser.add_argument(f"--{name}", action="store_true", help=text)
    parser.add_argument("--arm", metavar="NAME", help="run ARM/seedN here; with --run: only ARM")
    parser.add_argument("--emit", metavar="KIND", help=f"write job files: {', '.join(EMITTERS)}")
    jobs = "runs at once; each gets its share of this machine's cores (1)"
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help=jobs)
    parser.add_argument("--dir", metavar="FOLDER", help="of the runs (runs/EXPERIMENT)")
    cdn = "with --report: plotly.js from its server, for a small file that needs a network"
    parser.add_argument("--cdn", action="store_true", help=cdn)
    parser.add_argument("--out", metavar="FOLDER", help="of the job files (jobs/EXPERIMENT)")
    parser.add_argument("--bucket", default="", help="of Google Cloud Storage, for the jobs' runs")
    parser.add_argument("--accelerator", default="v6e-4", help="of a job, one host (%(default)s)")
    return parser


def act(options: argparse.Namespace) -> None:
    """Does what the command line asks for. Raises ValueError or OSError for bad input."""
    asked = [name for name in ACTIONS if getattr(options, name)]
    if asked == ["run", "arm"]:
        asked = ["run"]
    if len(asked) != 1:
        every = ", ".join(f"--{name}" for name in ACTIONS)
        found = " ".join(f"--{name}" for name in asked) or "none"
        raise ValueError(f"ask for one of {every}; --run may have --arm: found {found}")
    if options.jobs < 1:
        raise ValueError(f"--jobs = {options.jobs}: at least 1")
    experiment = read_experiment(local_path("the experiment", options.experiment))
    named = options.dir or f"runs/{experiment.name}"
    if not in_bucket(named):
        act_in(experiment, local_path("--dir", named), options)
        return
    if asked[0] not in IN_BUCKETS:
        raise ValueError(
            f"--{asked[0]} --dir={named}: runs are started and watched from a folder on this "
            "machine. --emit=skypilot --bucket=NAME (or xpk, gcloud) writes jobs whose runs are in "
            "a bucket; --table and --report read them there"
        )
    with opened_folder("--dir", named) as folder:
        act_in(experiment, folder, options)


def act_in(experiment: Experiment, folder: Path, options: argparse.Namespace) -> None:
    """Does what the command line asks for with the runs in a folder."""
    if options.list:
        list_runs(experiment, folder)
    elif options.run:
        run_missing(experiment, folder, options.arm, options.jobs)
    elif options.table:
        write_table(experiment, folder)
    elif options.report:
        write_report(experiment, folder, options.cdn)
    elif options.arm:
        run_here(experiment, folder, options.arm)
    else:
        settings = JobSettings(options.accelerator, options.bucket, str(folder))
        out = local_path("--out", options.out or f"jobs/{experiment.name}")
        write_jobs(experiment, options.emit, settings, out)


def main() -> None:
    """Runs the command. Bad input ends with one line that says what to change."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # see cegppo_jax/__init__.py
    try:
        act(arguments().parse_args())
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt:
        raise stopped("stopped") from None


if __name__ == "__main__":
    main()
