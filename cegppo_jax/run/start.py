"""How a new run begins: initial weights, supervised warm start, first evaluation, checkpoint 0."""

from __future__ import annotations

from pathlib import Path

from cegppo_jax.activity import CHECKPOINT
from cegppo_jax.evaluation.run import evaluate_policy
from cegppo_jax.learner.train_state import TrainState
from cegppo_jax.models.decoder import Params
from cegppo_jax.reporting.metrics import Phase
from cegppo_jax.reporting.progress import Progress
from cegppo_jax.reporting.record import RunRecord
from cegppo_jax.reporting.screen import Display
from cegppo_jax.run.build import TrainingRun
from cegppo_jax.run.lifecycle import Checkpoints, is_due
from cegppo_jax.run.nothing_lost import save_and_mark
from cegppo_jax.run.position import RunPosition
from cegppo_jax.run.restoring import Restored
from cegppo_jax.run.saved_params import save_params
from cegppo_jax.run.stopping import StoppedError, StopRequests, saved_words
from cegppo_jax.steering.steer import START as STEERING_START
from cegppo_jax.storage.mirror import REFERENCE


def start(
    run: TrainingRun,
    checkpoints: Checkpoints,
    workdir: Path,
    warm_started: Restored | None,
    record: RunRecord,
    screen: Display,
    stop: StopRequests,
) -> tuple[TrainState, RunPosition]:
    """Begins a run: initial weights, warm start, first evaluation, checkpoint 0.

    Args:
      warm_started: where an earlier process left the warm start; None: nowhere.

    Raises:
      StoppedError: the run was asked to stop in its warm start, which is saved.
    """
    if run.imitator.steps:
        params = run_warm_start(run, checkpoints, workdir, warm_started, record, screen, stop)
        state = run.learner.fresh_state(params)
    else:
        state = run.initial_state(run.learner)
    screen.line("evaluating on the held-out problems")
    evaluation, values = evaluate_policy(run.evaluator, state.params)
    record.metrics.write(Phase.RL, 0, values)
    screen.line(f"held-out accuracy before CE-GPPO: {evaluation.accuracy}")
    if advice := evaluation.advice:
        screen.line(advice)
    if run.settings.loss.kl_place != "none":
        with run.activity.during("saving the reference"):
            save_params(workdir / REFERENCE, state.params)
    position = RunPosition(step=0, next_prompt=0, steering=STEERING_START)
    return state, checkpoints.save(state, position, record.sync(), values)


def run_warm_start(
    run: TrainingRun,
    checkpoints: Checkpoints,
    workdir: Path,
    warm_started: Restored | None,
    record: RunRecord,
    screen: Display,
    stop: StopRequests,
) -> Params:
    """Trains on worked solutions, with checkpoints of its own. Returns the warm-started parameters.
    Arguments and errors as of `start`.
    """
    imitator, kept, every = (
        run.imitator,
        checkpoints.warm_start,
        run.settings.checkpoint.every_steps,
    )
    assert kept is not None
    state, position = warm_started or (
        run.initial_state(imitator.learner),
        RunPosition(0, 0, STEERING_START),
    )
    with Progress(imitator.steps, "supervised warm start", screen, Phase.SUPERVISED) as progress:
        if position.step:
            screen.line(f"resumed from the checkpoint of step {position.step} of the warm start")
        for taken in imitator.train(state, position.step, position.next_prompt):
            state, step = taken.state, taken.finished
            record.metrics.write(Phase.SUPERVISED, step - 1, taken.metrics)
            position = RunPosition(step, taken.next_prompt, STEERING_START)
            asked = stop.asked(step)
            if asked or is_due(step, every, imitator.steps):
                lines = record.sync()
                with run.activity.during(CHECKPOINT):
                    save_and_mark(kept, workdir, state, position, lines)
            progress.update(step, taken.metrics)
            if asked:
                kept.wait()
                raise StoppedError(saved_words(asked, "warm-start step", step, imitator.steps))
    return state.params
