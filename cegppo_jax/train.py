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

import dataclasses
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
from absl import flags, logging

from cegppo_jax.console.start import ends_on_bad_input
from cegppo_jax.data.tokenizer import token_texts
from cegppo_jax.evaluation.run import evaluate_policy
from cegppo_jax.finite import NonFiniteError, at_step
from cegppo_jax.learner.minibatches import make_minibatches, mean_entropy_change
from cegppo_jax.learner.train_state import TrainState
from cegppo_jax.losses.reduce import Reductions
from cegppo_jax.models.decoder import Params
from cegppo_jax.paths import local_path
from cegppo_jax.reporting.closing import closing_words, complete_words
from cegppo_jax.reporting.equal_rewards import EqualRewards
from cegppo_jax.reporting.metrics import (
    UPDATES_FILE_NAME,
    MetricsWriter,
    Phase,
    open_log,
    update_lines,
)
from cegppo_jax.reporting.picture import draw_run
from cegppo_jax.reporting.progress import Progress, Status
from cegppo_jax.reporting.samples import SAMPLES_FILE_NAME, sample_lines
from cegppo_jax.reporting.step_metrics import steering_metrics, update_metrics, values_of
from cegppo_jax.rollout.carried import CarriedGroups
from cegppo_jax.rollout.rounds import draw_groups
from cegppo_jax.rollout.selection import group_metrics
from cegppo_jax.run import command_line
from cegppo_jax.run.build import TrainingRun
from cegppo_jax.run.checkpoint import UnreadableCheckpointError, save_params
from cegppo_jax.run.lifecycle import (
    Checkpoints,
    is_complete,
    is_due,
    open_checkpoints,
    open_reference,
    prepare_run,
    restore_state,
)
from cegppo_jax.run.position import RunPosition
from cegppo_jax.steering.guard import ROLLBACKS, GuardAction
from cegppo_jax.steering.steer import START as STEERING_START
from cegppo_jax.steering.steer import steer
from cegppo_jax.types import Rollout, TokenReadings


def train(run: TrainingRun, workdir: Path) -> None:
    """Trains a built run in `workdir`: starts it, resumes it, or finds that it is complete."""
    settings = run.settings
    with (
        run.actor.scorer,
        jax.set_mesh(run.mesh),
        open_checkpoints(settings, workdir) as checkpoints,
    ):
        restored = restore_state(run.learner, checkpoints.newest)
        resume_after = None if restored is None else (Phase.RL, restored[1].step)
        with (
            MetricsWriter(workdir, resume_after, settings.logging.writers) as metrics,
            open_log(workdir / UPDATES_FILE_NAME, resume_after) as updates,
            open_log(workdir / SAMPLES_FILE_NAME, resume_after) as samples,
        ):
            state, position = restored or start(run, checkpoints, workdir, metrics)
            reference = open_reference(run, workdir)
            equal_rewards = EqualRewards(settings.sampler.max_completion_tokens)
            texts = partial(token_texts, run.problems.tokenizer)
            with (
                Progress(settings.steps, settings.loss.surrogate) as progress,
                run.actor.sampler.telling.to(progress.status),
            ):
                announce(progress, run, position)
                for step in range(position.step + 1, settings.steps + 1):
                    began = time.perf_counter()
                    with at_step(step):
                        taken = train_step(run, state, position, reference)
                    state, position, values = taken.state, taken.position, taken.values
                    if taken.action != GuardAction.NONE:
                        progress.message(guard_words(step, taken))
                    if (words := equal_rewards.message(step, values)) is not None:
                        progress.message(words)
                    if taken.action in ROLLBACKS:
                        state = checkpoints.roll_back(run.learner, state, position)
                    if is_due(step, settings.evaluation.every_steps, settings.steps):
                        with at_step(step):
                            values |= evaluate_policy(run.evaluator, state.params)[1]
                    values["time/step_seconds"] = time.perf_counter() - began
                    metrics.write(Phase.RL, step, values)
                    updates.append(update_lines(step, taken.updates))
                    every = settings.logging.samples_every_steps
                    if every and is_due(step, every, settings.steps):
                        groups = taken.rollouts[: settings.logging.samples_groups]
                        limit = settings.logging.samples_tokens
                        samples.append(sample_lines(step, groups, taken.readings, texts, limit))
                    if is_due(step, settings.checkpoint.every_steps, settings.steps):
                        position = checkpoints.save(state, position)
                    progress.update(step, values)
                    run.check_compiled_once()
    draw_run(workdir)
    print(closing_words(workdir), flush=True)


def announce(progress: Progress, run: TrainingRun, position: RunPosition) -> None:
    """Prints where the run goes on, and what its first step compiles."""
    if position.step:
        progress.message(f"resumed from the checkpoint of step {position.step}")
    if position.step < run.settings.steps:
        shape = run.minibatches.shape
        progress.status(f"the first step compiles log-probabilities and update: {shape}", True)


@dataclasses.dataclass(frozen=True)
class StepTaken:
    """The result of one rollout step."""

    state: TrainState
    position: RunPosition
    rollouts: tuple[Rollout, ...]  # drawn in it, whether they trained or not
    values: dict[str, Any]  # metrics
    updates: list[dict[str, Any]]  # those of each update
    action: GuardAction
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
    settings, step, learner = run.settings, position.step + 1, run.learner
    drawn = draw_groups(
        run.source,
        state.params,
        steps_done=position.step,
        next_prompt=position.next_prompt,
        carried=position.carried,
        difficulty=position.difficulty,
    )
    groups = drawn.groups
    began = time.perf_counter()
    prepared = make_minibatches(groups, state.params, reference, learner.logprobs, run.minibatches)
    minibatches, values, readings = prepared.minibatches, prepared.metrics, prepared.readings
    minibatches_done = time.perf_counter()
    steering_state, steering = steer(
        settings.steering,
        position.steering,
        settings.base_betas,
        position.step,
        values.get("policy/rollout_entropy"),
    )
    if steering.action in ROLLBACKS:
        minibatches, groups = [], groups.left_behind()
    updates: list[Reductions] = []
    for minibatch in minibatches:
        state, reductions = learner.update(
            state, minibatch.batch, minibatch.old, run.knobs(steering)
        )
        updates.append(reductions)
    every, change = settings.logging.entropy_change_every_steps, None
    if every and updates and step % every == 0:
        change = mean_entropy_change(minibatches, state.params, learner.logprobs)
    state = dataclasses.replace(state, step=state.step + 1)
    updates = jax.device_get(updates)
    values |= update_metrics(updates, change) | drawn.metrics
    values |= group_metrics(groups, position.step) | steering_metrics(steering, steering_state)
    values |= {
        "update/num_updates": len(minibatches),
        "update/microbatches": sum(int(m.batch.num_microbatches) for m in minibatches),
        "time/old_logprobs_seconds": minibatches_done - began,
        "time/update_seconds": time.perf_counter() - minibatches_done,
    }
    position = RunPosition(
        step, drawn.next_prompt, steering_state, CarriedGroups(groups.carried), drawn.difficulty
    )
    each = [values_of(update) for update in updates]
    return StepTaken(state, position, groups.drawn, values, each, steering.action, readings)


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


def start(
    run: TrainingRun, checkpoints: Checkpoints, workdir: Path, metrics: MetricsWriter
) -> tuple[TrainState, RunPosition]:
    """Begins a run: initial weights, warm start, first evaluation, checkpoint 0."""
    status = Status(partial(print, flush=True))
    if run.imitator.steps:
        state = run.learner.fresh_state(run_warm_start(run, metrics, status))
    else:
        state = run.initial_state(run.learner, status)
    status("evaluating on the held-out problems", True)
    with run.actor.sampler.telling.to(status):
        evaluation, values = evaluate_policy(run.evaluator, state.params)
    metrics.write(Phase.RL, 0, values)
    print(f"held-out accuracy before CE-GPPO: {evaluation.accuracy}", flush=True)
    if advice := evaluation.advice:
        print(advice, flush=True)
    if run.settings.loss.kl_place != "none":
        save_params(workdir / "reference", state.params)
    position = RunPosition(step=0, next_prompt=0, steering=STEERING_START)
    return state, checkpoints.save(state, position)


def run_warm_start(run: TrainingRun, metrics: MetricsWriter, status: Status) -> Params:
    """Trains on worked solutions from the initial weights. Returns the warm-started parameters."""
    imitator = run.imitator
    state = run.initial_state(imitator.learner, status)
    with Progress(imitator.steps, "supervised warm start", Phase.SUPERVISED) as progress:
        progress.status(f"compiling the update: {imitator.shape}", True)
        for taken in imitator.train(state):
            metrics.write(Phase.SUPERVISED, taken.finished - 1, taken.metrics)
            progress.update(taken.finished, taken.metrics)
            state = taken.state
    return state.params


def main(argv: Sequence[str]) -> None:
    """Trains the run of the command line. Bad input ends with one line that says what to change."""
    del argv
    logging.set_verbosity(logging.WARNING)  # Orbax logs every file at INFO
    with ends_on_bad_input():
        workdir, config = local_path("--workdir", flags.FLAGS.workdir), flags.FLAGS.config
        if is_complete(config, workdir):
            print(complete_words(workdir, "train", config.steps, sys.argv[1:]))
            return
        run = prepare_run(config, workdir)
    try:
        train(run, workdir)
    except KeyboardInterrupt:
        raise SystemExit("stopped; the same command resumes from the newest checkpoint") from None
    except (UnreadableCheckpointError, NonFiniteError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    command_line.run("train", main)
