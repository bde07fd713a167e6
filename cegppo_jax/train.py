"""The story of a run: read the config, build the run, then repeat the steps of the loop.

prompts -> rollouts -> rewards -> groups that train -> advantages -> packed mini-batches
-> old log-probs -> updates -> metrics

cegppo train --config=configs/quickstart.py --workdir=runs/quickstart
    starts a run, or resumes one that was interrupted from its newest checkpoint
cegppo train --config=configs/quickstart.py:grpo --workdir=runs/grpo --config.seed=1
    a variant of the recipe, and one setting of it changed
cegppo train --config=runs/grpo/config.json --workdir=runs/again
    the config of another run
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
from absl import flags, logging

from cegppo_jax import distributed
from cegppo_jax.console.start import ends_on_bad_input
from cegppo_jax.data.tokenizer import token_texts
from cegppo_jax.evaluation.run import evaluate_policy
from cegppo_jax.finite import at_step
from cegppo_jax.learner.ahead import lag_metrics
from cegppo_jax.learner.minibatches import Minibatch
from cegppo_jax.learner.train_state import TrainState
from cegppo_jax.losses.contract import Knobs
from cegppo_jax.models.decoder import Params
from cegppo_jax.reporting.closing import closing_words, complete_words
from cegppo_jax.reporting.equal_rewards import EqualRewards
from cegppo_jax.reporting.progress import Progress
from cegppo_jax.reporting.record import open_record
from cegppo_jax.reporting.samples import sample_lines
from cegppo_jax.reporting.screen import Display
from cegppo_jax.reporting.step_metrics import steering_metrics, update_metrics, values_of
from cegppo_jax.rollout.carried import CarriedGroups
from cegppo_jax.rollout.selection import group_metrics
from cegppo_jax.run import command_line
from cegppo_jax.run.bad_batch import LeftOut
from cegppo_jax.run.build import TrainingRun
from cegppo_jax.run.hosts import check_hosts_agree, draw_report
from cegppo_jax.run.lifecycle import (
    is_complete,
    is_due,
    open_checkpoints,
    open_reference,
    prepare_run,
    resume_words,
)
from cegppo_jax.run.one_writer import writer_lock
from cegppo_jax.run.position import RunPosition
from cegppo_jax.run.profile import Profiler, read_profiled_steps
from cegppo_jax.run.restoring import read_newest
from cegppo_jax.run.rollout_lag import ready_step
from cegppo_jax.run.start import start
from cegppo_jax.run.stopping import ends_with_a_line, saves_when_stopped, stop_requests
from cegppo_jax.run.updates import EntropyChange, take_updates
from cegppo_jax.steering.guard import ROLLBACKS, GuardAction
from cegppo_jax.steering.steer import steer
from cegppo_jax.storage.mirror import named_by_url, opened_folder
from cegppo_jax.storage.writing import writing
from cegppo_jax.types import Rollout, TokenReadings


def train(run: TrainingRun, workdir: Path, profiled: range = range(0)) -> None:
    """Trains a built run in `workdir`: starts it, resumes it, or finds that it is complete. The
    steps in `profiled` are traced.
    """
    settings, activity = run.settings, run.activity
    with (
        run.actor.scorer,
        jax.set_mesh(run.mesh),
        Display(activity) as screen,
        open_checkpoints(settings, workdir, activity) as checkpoints,
        Profiler(profiled, workdir, activity) as profiler,
        stop_requests(activity) as stop,
    ):
        restored, warm_started, resume_after = read_newest(run, checkpoints, screen.line)
        with open_record(workdir, resume_after, settings.logging.writers) as record:
            state, position = restored or start(
                run, checkpoints, workdir, warm_started, record, screen, stop
            )
            reference = open_reference(run, workdir)
            equal_rewards = EqualRewards(settings.sampler.max_completion_tokens)
            skipped = LeftOut(settings.checkpoint.stop_after_skipped, workdir)

            def save_here() -> int:
                good = not skipped.in_a_row
                return checkpoints.save_at_stop(state, position, record.sync(), good)

            with (
                Progress(settings.steps, settings.loss.surrogate, screen) as progress,
                saves_when_stopped(save_here, settings.steps),
            ):
                for line in resume_words(position, profiler):
                    screen.line(line)
                for step in range(position.step + 1, settings.steps + 1):
                    stop.check(position.step)
                    with profiler.step(step), at_step(step):
                        began = time.perf_counter()
                        taken = train_step(run, state, position, reference)
                        state, position, values = taken.state, taken.position, taken.values
                        if taken.action != GuardAction.NONE:
                            screen.line(guard_words(step, taken))
                        said = equal_rewards.message(step, values), skipped.message(step, taken)
                        for words in filter(None, said):
                            screen.line(words)
                        if taken.action in ROLLBACKS:
                            state = checkpoints.roll_back(run.learner, state, position)
                        if is_due(step, settings.evaluation.every_steps, settings.steps):
                            values |= evaluate_policy(run.evaluator, state.params)[1]
                        values["time/step_seconds"] = time.perf_counter() - began
                        record.write_step(step, values, taken.updates, kept_samples(run, taken))
                        is_last = step == settings.steps
                        skipped.check(is_last, checkpoints.saved_step, state.params)
                        whole = not skipped.in_a_row or is_last
                        if whole and is_due(step, settings.checkpoint.every_steps, settings.steps):
                            lines = record.sync()
                            position = checkpoints.save(state, position, lines, values)
                    progress.update(step, values)
                    run.check_compiled_once()
        with activity.during("drawing the report"):
            draw_report(workdir, settings.logging.report_formats)
    if distributed.is_main():
        best = checkpoints.newest.best_step()
        print(named_by_url(closing_words(workdir, profiler.closing_words(), best)), flush=True)


def kept_samples(run: TrainingRun, taken: StepTaken) -> Iterator[dict[str, Any]]:
    """Yields the lines of samples.jsonl for a step, if some of its completions are written down."""
    logging, step = run.settings.logging, taken.position.step
    every = logging.samples_every_steps
    if every and is_due(step, every, run.settings.steps):
        groups = taken.rollouts[: logging.samples_groups]
        texts = partial(token_texts, run.problems.tokenizer)
        yield from sample_lines(step, groups, taken.readings, texts, logging.samples_tokens)


@dataclasses.dataclass(frozen=True)
class StepTaken:
    """The result of one rollout step."""

    state: TrainState
    position: RunPosition
    rollouts: tuple[Rollout, ...]  # drawn in it, whether they trained or not
    values: dict[str, Any]  # metrics
    updates: list[dict[str, Any]]  # those of each update
    action: GuardAction
    minibatches: list[Minibatch]  # of its updates
    knobs: Knobs
    finds_old: bool  # whether the first update found its own old log-probs
    readings: dict[tuple[int, int], TokenReadings]  # of what trained, by prompt and sample index

    def __repr__(self) -> str:
        return (
            f"StepTaken(step {self.position.step}: {len(self.rollouts)} groups drawn, "
            f"{len(self.updates)} updates, {len(self.values)} values)"
        )


def train_step(
    run: TrainingRun, state: TrainState, position: RunPosition, reference: Params | None
) -> StepTaken:
    """Takes one rollout step: samples, scores, prepares mini-batches and updates once for each."""
    settings, step = run.settings, position.step + 1
    ready = ready_step(run, state.params, position, reference)
    drawn, prepared = ready.drawn, ready.prepared
    groups, minibatches, finds_old = drawn.groups, prepared.minibatches, prepared.update_finds_old
    began = time.perf_counter()
    measured = None if finds_old else prepared.measured()
    steering_state, steering = steer(
        settings.steering,
        position.steering,
        settings.base_betas,
        position.step,
        measured.metrics.get("policy/rollout_entropy") if measured else None,
    )
    check_hosts_agree(step, groups, minibatches, drawn.next_prompt, steering)
    if steering.action in ROLLBACKS:
        minibatches, groups = [], groups.left_behind()
    change = EntropyChange(run, minibatches, state.params, step, lagged=ready.lagged)
    read_ahead = partial(ready.ahead.old, run.activity) if ready.ahead else None
    state, updates, found = take_updates(
        run, state, minibatches, steering, finds_old, meanwhile=read_ahead
    )
    if measured is None:
        assert found is not None
        prepared = prepared.with_first(found)
        minibatches, measured = prepared.minibatches, prepared.measured()
    state = dataclasses.replace(state, step=state.step + 1)
    values = measured.metrics | drawn.metrics
    changed = change.mean(minibatches, state.params)
    values |= update_metrics(updates, changed, old_is_start=not ready.lagged)
    if ready.lagged and found:
        values |= lag_metrics(minibatches[0], found)
    values |= group_metrics(groups, position.step) | steering_metrics(steering, steering_state)
    values |= {
        "update/num_updates": len(minibatches),
        "update/microbatches": sum(int(m.batch.num_microbatches) for m in minibatches),
        "time/old_logprobs_seconds": ready.preparing_seconds,
        "time/update_seconds": time.perf_counter() - began,
    }
    carried = CarriedGroups(groups.carried)
    position = RunPosition(
        step, drawn.next_prompt, steering_state, carried, drawn.difficulty, ready.ahead
    )
    each = [values_of(update) for update in updates]
    done = steering.action, minibatches, run.knobs(steering), finds_old
    return StepTaken(state, position, groups.drawn, values, each, *done, measured.readings)


def guard_words(step: int, taken: StepTaken) -> str:
    """Returns the message for a step in which the guard acted."""
    entropy = taken.values["policy/rollout_entropy"]
    words = f"step {step}: entropy {entropy:.4f} has been outside the guard's limits"
    if taken.action in ROLLBACKS:
        state = taken.position.steering.guard
        words += (
            f"; parameters return to step {state.last_good_step}, betas move apart by "
            f"{state.beta_shift:+.2f} in all (rollback {state.rollbacks})"
        )
    return words


def main(argv: Sequence[str]) -> None:
    """Trains the run of the command line. Bad input ends with one line that says what to change."""
    del argv
    logging.set_verbosity(logging.WARNING)  # Orbax logs every file at INFO
    config = flags.FLAGS.config
    with contextlib.ExitStack() as stack:
        with ends_on_bad_input():
            workdir = stack.enter_context(opened_folder("--workdir", flags.FLAGS.workdir))
        stack.enter_context(lock := writer_lock(workdir))
        with ends_on_bad_input():
            profiled = read_profiled_steps(flags.FLAGS.profile_steps, config.steps)
            if distributed.of_main(lambda: is_complete(config, workdir)):
                print(named_by_url(complete_words(workdir, "train", config.steps, sys.argv[1:])))
                return
            run = prepare_run(config, workdir, lock=lock)
        with ends_with_a_line(), writing(workdir):
            train(run, workdir, profiled)


if __name__ == "__main__":
    command_line.run("train", main)
