"""Where a run goes on: its newest whole checkpoint, that of its warm start, or the beginning."""

from __future__ import annotations

from collections.abc import Callable

from cegppo_jax.learner.learner import Learner
from cegppo_jax.learner.train_state import TrainState
from cegppo_jax.models.finite import check_finite
from cegppo_jax.reporting.writers import Phase, Position
from cegppo_jax.run.build import TrainingRun
from cegppo_jax.run.checkpoint import Checkpointer
from cegppo_jax.run.lifecycle import Checkpoints
from cegppo_jax.run.position import RunPosition
from cegppo_jax.run.read_back import DamagedCheckpointError, UnreadableCheckpointError

Restored = tuple[TrainState, RunPosition]


def restore_state(
    learner: Learner, checkpointer: Checkpointer, say: Callable[[str], None]
) -> Restored | None:
    """Restores the newest checkpoint that is whole in the learner's layout; None without one. Those
    that are damaged are named and moved aside.

    Raises:
      ValueError: as Checkpointer.restore, of the newest, if none is whole; nothing is moved.
      NonFiniteError: some of its parameters are NaN or infinite.
    """
    damaged: list[tuple[int, ValueError]] = []
    for step in reversed(checkpointer.steps()):
        try:
            restored = checkpointer.restore(learner.state_layout(), step)
        except ValueError as error:
            of_another_version = isinstance(error, UnreadableCheckpointError)
            if of_another_version and not isinstance(error, DamagedCheckpointError):
                raise
            damaged.append((step, error))
            continue
        assert restored is not None
        check_finite(restored[0].params, f"the run's checkpoint of step {step}")
        for bad, reason in damaged:
            say(f"{reason}. It is now in {checkpointer.set_aside(bad)}, and step {step} is used")
        return restored
    if damaged:
        raise damaged[0][1]
    return None


def read_newest(
    run: TrainingRun, checkpoints: Checkpoints, say: Callable[[str], None]
) -> tuple[Restored | None, Restored | None, Position | None]:
    """Returns where a run goes on: its newest state, or that of its warm start (None: neither is
    there), and the position of the last line that belongs to it. Raises as restore_state.
    """
    with run.activity.during("reading the newest checkpoint"):
        restored = restore_state(run.learner, checkpoints.newest, say)
        if restored is not None:
            checkpoints.go_on_from(restored[1].step)
            return restored, None, (Phase.RL, restored[1].step)
        kept = checkpoints.warm_start
        warm_started = kept and restore_state(run.imitator.learner, kept, say)
    if warm_started:
        return None, warm_started, (Phase.SUPERVISED, warm_started[1].step - 1)
    return None, None, None
