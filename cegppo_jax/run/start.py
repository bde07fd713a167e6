"""How a new run begins: initial weights, supervised warm start, first evaluation, checkpoint 0."""

from __future__ import annotations

from pathlib import Path

from cegppo_jax.evaluation.run import evaluate_policy
from cegppo_jax.learner.train_state import TrainState
from cegppo_jax.models.decoder import Params
from cegppo_jax.reporting.metrics import Phase
from cegppo_jax.reporting.progress import Progress
from cegppo_jax.reporting.record import Metrics
from cegppo_jax.reporting.screen import Display
from cegppo_jax.run.build import TrainingRun
from cegppo_jax.run.checkpoint import save_params
from cegppo_jax.run.lifecycle import Checkpoints
from cegppo_jax.run.position import RunPosition
from cegppo_jax.steering.steer import START as STEERING_START


def start(
    run: TrainingRun,
    checkpoints: Checkpoints,
    workdir: Path,
    metrics: Metrics,
    screen: Display,
) -> tuple[TrainState, RunPosition]:
    """Begins a run: initial weights, warm start, first evaluation, checkpoint 0."""
    if run.imitator.steps:
        state = run.learner.fresh_state(run_warm_start(run, metrics, screen))
    else:
        state = run.initial_state(run.learner)
    screen.line("evaluating on the held-out problems")
    evaluation, values = evaluate_policy(run.evaluator, state.params)
    metrics.write(Phase.RL, 0, values)
    screen.line(f"held-out accuracy before CE-GPPO: {evaluation.accuracy}")
    if advice := evaluation.advice:
        screen.line(advice)
    if run.settings.loss.kl_place != "none":
        with run.activity.during("saving the reference"):
            save_params(workdir / "reference", state.params)
    position = RunPosition(step=0, next_prompt=0, steering=STEERING_START)
    return state, checkpoints.save(state, position)


def run_warm_start(run: TrainingRun, metrics: Metrics, screen: Display) -> Params:
    """Trains on worked solutions from the initial weights. Returns the warm-started parameters."""
    imitator = run.imitator
    state = run.initial_state(imitator.learner)
    with Progress(imitator.steps, "supervised warm start", screen, Phase.SUPERVISED) as progress:
        for taken in imitator.train(state):
            metrics.write(Phase.SUPERVISED, taken.finished - 1, taken.metrics)
            progress.update(taken.finished, taken.metrics)
            state = taken.state
    return state.params
