"""The story of a run: read the config, build the parts, loop over the arrows.

    prompts -> rollouts -> rewards -> groups that train -> advantages -> packed mini-batches
    -> old log-probs -> updates -> metrics

python -m cegppo_jax.train --config=configs/quickstart.py --workdir=runs/quickstart
The same command again resumes a run that was interrupted, from its newest checkpoint.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags, logging

from cegppo_jax.evaluation.run import evaluate_policy
from cegppo_jax.learner.minibatches import make_minibatches, mean_entropy_change
from cegppo_jax.learner.train_state import TrainState, fresh_state
from cegppo_jax.losses.reduce import Reductions
from cegppo_jax.models.decoder import Params
from cegppo_jax.reporting.metrics import (
    UPDATES_FILE_NAME,
    MetricsWriter,
    Phase,
    open_log,
    read_metrics,
    update_lines,
)
from cegppo_jax.reporting.picture import draw_run
from cegppo_jax.reporting.progress import Progress
from cegppo_jax.reporting.samples import FILE_NAME as SAMPLES_FILE_NAME
from cegppo_jax.reporting.samples import sample_lines
from cegppo_jax.reporting.step_metrics import steering_metrics, update_metrics, values_of
from cegppo_jax.rollout.carried import CarriedGroups
from cegppo_jax.rollout.rounds import draw_groups
from cegppo_jax.rollout.selection import group_metrics
from cegppo_jax.run import command_line
from cegppo_jax.run.build import Parts
from cegppo_jax.run.checkpoint import RunPosition, UnreadableCheckpointError, save_params
from cegppo_jax.run.lifecycle import (
    Checkpoints,
    is_due,
    open_checkpoints,
    open_reference,
    prepare,
    restore_state,
)
from cegppo_jax.steering.steer import (
    ROLLBACKS,
    GuardAction,
    steer,
)
from cegppo_jax.steering.steer import START as STEERING_START
from cegppo_jax.types import Rollout


def train(parts: Parts, workdir: Path) -> None:
    """Parts -> a finished run in `workdir`: starts it, resumes it, or finds it complete."""
    settings = parts.settings
    with (
        parts.scorer,
        jax.set_mesh(parts.mesh),
        open_checkpoints(settings, workdir) as checkpoints,
    ):
        restored = restore_state(parts, checkpoints.newest)
        resume_after = None if restored is None else (Phase.RL, restored[1].step)
        with (
            MetricsWriter(workdir, resume_after, settings.logging.writers) as metrics,
            open_log(workdir / UPDATES_FILE_NAME, resume_after) as updates,
            open_log(workdir / SAMPLES_FILE_NAME, resume_after) as samples,
        ):
            state, position = restored or start(parts, checkpoints, workdir, metrics)
            reference = open_reference(parts, workdir)
            with Progress(settings.steps, settings.loss.surrogate) as progress:
                if position.step:
                    progress.message(f"resumed from the checkpoint of step {position.step}")
                for step in range(position.step + 1, settings.steps + 1):
                    began = time.perf_counter()
                    taken = train_step(parts, state, position, reference)
                    state, position, values = taken.state, taken.position, taken.values
                    if taken.action != GuardAction.NONE:
                        progress.message(guard_words(step, taken))
                    if taken.action in ROLLBACKS:
                        state = checkpoints.roll_back(parts, state, position)
                    if is_due(step, settings.evaluation.every_steps, settings.steps):
                        values |= evaluate_policy(parts.evaluator, state.params)[1]
                    values["time/step_seconds"] = time.perf_counter() - began
                    metrics.write(Phase.RL, step, values)
                    updates.append(update_lines(step, taken.updates))
                    every = settings.logging.samples_every_steps
                    if every and is_due(step, every, settings.steps):
                        groups = taken.rollouts[: settings.logging.samples_groups]
                        samples.append(sample_lines(step, groups))
                    if is_due(step, settings.checkpoint.every_steps, settings.steps):
                        position = checkpoints.save(state, position)
                    progress.update(step, values)
                    parts.check_compiled_once()
    draw_run(workdir)
    print(closing_words(workdir), flush=True)


@dataclasses.dataclass(frozen=True)
class StepTaken:
    """What one rollout step leaves."""

    state: TrainState
    position: RunPosition
    rollouts: tuple[Rollout, ...]  # drawn in it, whether they trained or not
    values: dict[str, Any]  # metrics
    updates: list[dict[str, Any]]  # those of each update
    action: GuardAction


def train_step(
    parts: Parts, state: TrainState, position: RunPosition, reference: Params | None
) -> StepTaken:
    """One rollout step: every arrow once, then an update for each mini-batch."""
    settings, step = parts.settings, position.step + 1
    drawn = draw_groups(parts, state.params, position)
    groups = drawn.groups
    began = time.perf_counter()
    minibatches, values = make_minibatches(
        groups, state.params, reference, parts.logprobs, parts.minibatches
    )
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
        state, reductions = parts.update(
            state, minibatch.batch, minibatch.old, parts.knobs(steering)
        )
        updates.append(reductions)
    every, change = settings.logging.entropy_change_every_steps, None
    if every and updates and step % every == 0:
        change = mean_entropy_change(minibatches, state.params, parts.logprobs)
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
    return StepTaken(state, position, groups.drawn, values, each, steering.action)


def guard_words(step: int, taken: StepTaken) -> str:
    """A step whose guard acted -> what it says to the user."""
    entropy = taken.values["policy/rollout_entropy"]
    words = f"step {step}: entropy {entropy:.4f} has been outside the guard's limits"
    if taken.action in ROLLBACKS:
        state = taken.position.steering.guard
        words += (
            f"; parameters go back to step {state.last_good_step}, betas move apart by "
            f"{state.beta_shift:+.2f} in all (rollback {state.rollbacks})"
        )
    return words


def start(
    parts: Parts, checkpoints: Checkpoints, workdir: Path, metrics: MetricsWriter
) -> tuple[TrainState, RunPosition]:
    """Begin a run: initial weights, warm start, first evaluation, checkpoint 0."""
    position = RunPosition(step=0, next_prompt=0, steering=STEERING_START)
    state = parts.initial_state()
    if parts.settings.warm_start.steps:
        state = run_warm_start(parts, state, metrics)
    evaluation, values = evaluate_policy(parts.evaluator, state.params)
    metrics.write(Phase.RL, 0, values)
    print(f"held-out accuracy before CE-GPPO: {evaluation.accuracy}", flush=True)
    if parts.settings.loss.kl_place != "none":
        save_params(workdir / "reference", state.params)
    return state, checkpoints.save(state, position)


def run_warm_start(parts: Parts, state: TrainState, metrics: MetricsWriter) -> TrainState:
    """Initial state -> state with warm-started parameters and everything else as at the start."""
    settings = parts.settings.warm_start
    params = state.params
    warm = fresh_state(parts.mesh, parts.model, settings.optimizer, params)
    with Progress(settings.steps, "supervised warm start", Phase.SUPERVISED) as progress:
        for taken in parts.imitation(warm):
            metrics.write(Phase.SUPERVISED, taken.finished - 1, taken.metrics)
            progress.update(taken.finished, taken.metrics)
            params = taken.state.params
    return parts.fresh_state(params)


def closing_words(workdir: Path) -> str:
    """Directory of a finished run -> what was learned, where to look, what to run next."""
    lines = [line for line in read_metrics(workdir) if line["phase"] == Phase.RL]
    evaluated = [line for line in lines if "evaluation/accuracy" in line]
    first, last = evaluated[0], evaluated[-1]

    def accuracy(line: dict[str, Any]) -> str:
        low, high = line["evaluation/accuracy_low"], line["evaluation/accuracy_high"]
        return f"{line['evaluation/accuracy']:.1%} [{low:.1%}, {high:.1%}]"

    gain = 100 * (last["evaluation/accuracy"] - first["evaluation/accuracy"])
    words = [
        "",
        f"held-out accuracy  {accuracy(first)} -> {accuracy(last)}, {gain:+.1f} points in "
        f"{last['step']} steps "
        "(95 % intervals over problems)",
    ]
    trained = [line for line in lines if line.get("policy/entropy") is not None]
    if trained:
        names = ("policy/clip_count_low", "policy/clip_count_high")
        clipped = [sum(line[name] for line in trained) for name in names]
        words.append(
            f"policy entropy     {trained[0]['policy/entropy']:.3f} -> "
            f"{trained[-1]['policy/entropy']:.3f} nats; clipped tokens: {clipped[0]:,.0f} left, "
            f"{clipped[1]:,.0f} right of the interval"
        )
    curves = f"curves             {workdir}/report.png"
    if (workdir / "tensorboard").is_dir():
        curves += f"      tensorboard --logdir {workdir}/tensorboard"
    completions = f"completions        {workdir}/samples.jsonl   with their scores"
    return "\n".join([*words, curves, completions])


def main(argv: Sequence[str]) -> None:
    """Command line -> run. Bad input ends with one line that says what to change."""
    del argv
    logging.set_verbosity(logging.WARNING)  # Orbax tells of every file at INFO
    workdir = Path(flags.FLAGS.workdir)
    with command_line.ends_on_bad_input():
        parts = prepare(flags.FLAGS.config, workdir)
    try:
        train(parts, workdir)
    except KeyboardInterrupt:
        raise SystemExit("stopped; the same command resumes from the newest checkpoint") from None
    except UnreadableCheckpointError as error:
        raise SystemExit(f"error: {error}") from error
    print(f"evaluate it        python -m cegppo_jax.evaluate {shlex.join(sys.argv[1:])}")


if __name__ == "__main__":
    command_line.run(main)
