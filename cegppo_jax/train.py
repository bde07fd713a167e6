"""The story of a run: read the config, build the parts, loop over the arrows.

    prompts -> rollouts -> rewards -> advantages -> packed mini-batches -> old log-probs -> updates
    -> metrics

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
from ml_collections import ConfigDict

from cegppo_jax import command_line, run_directory
from cegppo_jax.checkpoint import RunPosition, save_params
from cegppo_jax.evaluate import evaluate_policy
from cegppo_jax.export import save_model_description
from cegppo_jax.losses.reduce import Reductions
from cegppo_jax.metrics import MetricsWriter, Phase, UpdatesWriter, read_metrics
from cegppo_jax.minibatches import make_minibatches, mean_entropy_change
from cegppo_jax.models.decoder import Params
from cegppo_jax.parts import KeyPurpose, Parts, build_parts
from cegppo_jax.progress import Progress
from cegppo_jax.report import draw_run
from cegppo_jax.rollout import collect_rollouts, rollout_metrics
from cegppo_jax.run_state import Checkpoints, open_checkpoints, open_reference, restore_state
from cegppo_jax.samples import SamplesWriter
from cegppo_jax.settings import read_settings
from cegppo_jax.steering import (
    ROLLBACKS,
    GuardAction,
    steer,
)
from cegppo_jax.steering import START as STEERING_START
from cegppo_jax.step_metrics import steering_metrics, update_metrics, values_of
from cegppo_jax.supervised import warm_start
from cegppo_jax.train_state import TrainState
from cegppo_jax.types import Rollout


def prepare(config: ConfigDict, workdir: Path) -> Parts:
    """Config -> parts of the run, and `workdir` claimed for it.

    Raises:
      ValueError, OSError: a setting, a file or the directory is wrong; nothing has been compiled or
        overwritten.
    """
    settings = read_settings(config)
    print(settings.arithmetic(), flush=True)
    run_directory.check_claimable(workdir, config.to_dict())
    parts = build_parts(settings)
    run_directory.claim(workdir, config.to_dict())
    parts.problems.tokenizer.save_pretrained(workdir / "tokenizer")
    save_model_description(workdir, parts.model, parts.eos_ids)
    return parts


def train(parts: Parts, workdir: Path) -> None:
    """Parts -> a finished run in `workdir`: starts it, resumes it, or finds it complete."""
    settings = parts.settings
    with jax.set_mesh(parts.mesh), open_checkpoints(settings, workdir) as checkpoints:
        state, position = start_or_resume(parts, checkpoints, workdir)
        reference = open_reference(parts, workdir)
        resume_after = (Phase.RL, position.step)
        with (
            MetricsWriter(workdir, resume_after) as metrics,
            UpdatesWriter(workdir, resume_after) as updates,
            SamplesWriter(workdir, resume_after) as samples,
            Progress(settings.steps, settings.loss.surrogate) as progress,
        ):
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
                    values |= evaluate_policy(parts, state.params)[1]
                values["time/step_seconds"] = time.perf_counter() - began
                metrics.write(step, values)
                updates.write(step, taken.updates)
                every = settings.logging.samples_every_steps
                if every and is_due(step, every, settings.steps):
                    samples.write(step, taken.rollouts[: settings.logging.samples_groups])
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
    rollouts: list[Rollout]
    values: dict[str, Any]  # metrics
    updates: list[dict[str, Any]]  # those of each update
    action: GuardAction


def train_step(
    parts: Parts, state: TrainState, position: RunPosition, reference: Params | None
) -> StepTaken:
    """One rollout step: every arrow once, then an update for each mini-batch."""
    settings, batch = parts.settings, parts.settings.batch
    step = position.step + 1
    prompts, next_prompt, skipped = parts.stream.take(position.next_prompt, batch.prompts)
    rollouts, seconds = collect_rollouts(
        parts.sampler,
        state.params,
        prompts,
        batch.samples_per_prompt,
        tokenizer=parts.problems.tokenizer,
        scorer=parts.scorer,
        sampling=settings.sampling,
        key=jax.random.fold_in(parts.key(KeyPurpose.ROLLOUT), step),
        policy_version=position.step,
    )
    began = time.perf_counter()
    minibatches, values = make_minibatches(
        rollouts, state.params, reference, parts.logprobs, parts.minibatches
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
        minibatches = []  # drawn by the policy that is left behind
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
    values |= update_metrics(updates, change) | rollout_metrics(rollouts, seconds)
    values |= steering_metrics(steering, steering_state)
    values |= {
        "rollout/prompts_skipped": skipped,
        "update/num_updates": len(minibatches),
        "update/microbatches": sum(int(m.batch.num_microbatches) for m in minibatches),
        "time/old_logprobs_seconds": minibatches_done - began,
        "time/update_seconds": time.perf_counter() - minibatches_done,
    }
    position = RunPosition(step, next_prompt, steering_state)
    each = [values_of(update) for update in updates]
    return StepTaken(state, position, rollouts, values, each, steering.action)


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


def start_or_resume(
    parts: Parts, checkpoints: Checkpoints, workdir: Path
) -> tuple[TrainState, RunPosition]:
    """-> the newest checkpoint's state; without one, initial weights, warm start, first evaluation,
    checkpoint 0.
    """
    restored = restore_state(parts, checkpoints.newest)
    if restored is not None:
        return restored
    position = RunPosition(step=0, next_prompt=0, steering=STEERING_START)
    with MetricsWriter(workdir, None) as metrics, SamplesWriter(workdir, None):
        state = parts.initial_state()
        if parts.settings.warm_start.steps:
            state = run_warm_start(parts, state, metrics)
        evaluation, values = evaluate_policy(parts, state.params)
        metrics.write(0, values)
        print(f"held-out accuracy before CE-GPPO: {evaluation.accuracy}", flush=True)
    if parts.settings.loss.kl_place != "none":
        save_params(workdir / "reference", state.params)
    return state, checkpoints.save(state, position)


def run_warm_start(parts: Parts, state: TrainState, metrics: MetricsWriter) -> TrainState:
    """Initial state -> state with warm-started parameters and everything else as at the start."""
    settings = parts.settings.warm_start
    with Progress(settings.steps, "supervised warm start", Phase.SUPERVISED) as progress:

        def on_step(step: int, values: dict[str, float]) -> None:
            metrics.write(step, values, Phase.SUPERVISED)
            progress.update(step + 1, values)

        warm = warm_start(
            state,
            parts.supervised_stream,
            steps=settings.steps,
            sequences=settings.sequences,
            shape=parts.supervised_shape,
            max_completion_tokens=parts.settings.sampler.max_completion_tokens,
            mesh=parts.mesh,
            model=parts.model,
            forward=dataclasses.replace(parts.forward, temperature=1.0),
            optimizer=settings.optimizer,
            on_step=on_step,
        )
    return parts.fresh_state(warm.params)


def is_due(step: int, every: int, last: int) -> bool:
    """Whether something happens at this step: at the last one, and every so often (every = 0: then
    only).
    """
    return step == last or (every > 0 and step % every == 0)


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
    return "\n".join(
        [
            *words,
            f"curves             {workdir}/report.png      tensorboard --logdir "
            f"{workdir}/tensorboard",
            f"completions        {workdir}/samples.jsonl   with their scores",
        ]
    )


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
    print(f"evaluate it        python -m cegppo_jax.evaluate {shlex.join(sys.argv[1:])}")


if __name__ == "__main__":
    command_line.run(main)
