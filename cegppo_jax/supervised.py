"""Trains a model to imitate worked solutions: the warm start as a separate run.

    cegppo supervised --config=configs/smollm2_135m.py --workdir=runs/imitated
    cegppo export --run=runs/imitated --out=models/imitated
    cegppo train --config=configs/smollm2_135m.py --workdir=runs/rl \\
        --config.model.pretrained=models/imitated --config.warm_start.steps=0

Next-token training on (prompt, solution) pairs, with the loss on the solution: `config.warm_start`,
with evaluations and checkpoints as in RL, counted in its own steps. Repeating the command resumes
an interrupted run.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import flags, logging

from cegppo_jax import distributed
from cegppo_jax.activity import CHECKPOINT
from cegppo_jax.console.start import ends_on_bad_input
from cegppo_jax.evaluation.run import evaluate_policy
from cegppo_jax.reporting.closing import complete_words, supervised_closing_words
from cegppo_jax.reporting.metrics import Phase
from cegppo_jax.reporting.progress import Progress
from cegppo_jax.reporting.record import open_metrics
from cegppo_jax.reporting.screen import Display
from cegppo_jax.run import command_line
from cegppo_jax.run.build import TrainingRun
from cegppo_jax.run.checkpoint import Checkpointer
from cegppo_jax.run.hosts import draw_report
from cegppo_jax.run.lifecycle import (
    is_complete,
    is_due,
    prepare_run,
    resume_words,
)
from cegppo_jax.run.nothing_lost import save_and_mark
from cegppo_jax.run.one_writer import writer_lock
from cegppo_jax.run.position import RunPosition
from cegppo_jax.run.profile import Profiler, read_profiled_steps
from cegppo_jax.run.restoring import restore_state
from cegppo_jax.run.stopping import StoppedError, ends_with_a_line, saved_words, stop_requests
from cegppo_jax.steering.steer import START
from cegppo_jax.storage.mirror import CHECKPOINTS, named_by_url, opened_folder
from cegppo_jax.storage.writing import writing


def supervise(run: TrainingRun, workdir: Path, profiled: range = range(0)) -> None:
    """Trains the run's imitator in `workdir`: starts it, resumes it, or finds it complete. The
    steps in `profiled` are traced.
    """
    settings, imitator, activity = run.settings, run.imitator, run.activity
    last, learner, kept = imitator.steps, imitator.learner, settings.checkpoint
    with (
        run.actor.scorer,
        jax.set_mesh(run.mesh),
        Display(activity) as screen,
        Checkpointer(workdir / CHECKPOINTS, kept.keep, kept.milestones) as checkpointer,
        Profiler(profiled, workdir, activity) as profiler,
        stop_requests(activity) as stop,
    ):
        with activity.during("reading the newest checkpoint"):
            restored = restore_state(learner, checkpointer, screen.line)
        state, position = restored or (run.initial_state(learner), RunPosition(0, 0, START))
        written = (Phase.SUPERVISED, position.step - 1) if restored else None
        with (
            open_metrics(workdir, written, settings.logging.writers) as metrics,
            Progress(last, "supervised training", screen, Phase.SUPERVISED) as progress,
        ):
            for words in resume_words(position, profiler):
                screen.line(words)
            taking = imitator.train(state, position.step, position.next_prompt)
            for step in range(position.step + 1, last + 1):
                with profiler.step(step):
                    began = time.perf_counter()
                    taken = next(taking)
                    values = dict(taken.metrics)
                    if is_due(step, settings.evaluation.every_steps, last):
                        values |= evaluate_policy(run.evaluator, taken.state.params)[1]
                        run.actor.sampler.release_copy()  # room for the next update
                    values["time/step_seconds"] = time.perf_counter() - began
                    metrics.write(Phase.SUPERVISED, step - 1, values)
                    asked = stop.asked(step)
                    if asked or is_due(step, kept.every_steps, last):
                        lines = metrics.sync()
                        with activity.during(CHECKPOINT):
                            position = RunPosition(step, taken.next_prompt, START)
                            scored = values if is_due(step, kept.every_steps, last) else {}
                            save_and_mark(
                                checkpointer, workdir, taken.state, position, lines, scored
                            )
                progress.update(step, values)
                if asked and step < last:
                    checkpointer.wait()
                    raise StoppedError(saved_words(asked, "step", step, last))
        with activity.during("drawing the report"):
            draw_report(workdir, settings.logging.report_formats)
        with activity.during(CHECKPOINT):
            checkpointer.wait()
    if distributed.is_main():
        best = checkpointer.best_step()
        words = supervised_closing_words(workdir, profiler.closing_words(), best)
        print(named_by_url(words), flush=True)


def main(argv: Sequence[str]) -> None:
    """Trains the run of the command line. Bad input ends with one line that says what to change."""
    del argv
    logging.set_verbosity(logging.WARNING)
    config = flags.FLAGS.config
    with contextlib.ExitStack() as stack:
        with ends_on_bad_input():
            steps = config.warm_start.steps
            if steps < 1:
                raise ValueError("warm_start.steps = 0: supervised training needs at least one")
            workdir = stack.enter_context(opened_folder("--workdir", flags.FLAGS.workdir))
        lock = writer_lock(workdir)
        stack.enter_context(lock)
        with ends_on_bad_input():
            profiled = read_profiled_steps(flags.FLAGS.profile_steps, steps, "warm_start.steps")
            if distributed.of_main(lambda: is_complete(config, workdir, command="supervised")):
                words = complete_words(workdir, "supervised", steps, sys.argv[1:])
                print(named_by_url(words))
                return
            run = prepare_run(config, workdir, command="supervised", lock=lock)
        with ends_with_a_line(), writing(workdir):
            supervise(run, workdir, profiled)


if __name__ == "__main__":
    command_line.run("supervised", main)
