"""A run whose checkpoints are gone is not started over its own logs.

Once the first checkpoint of a run is on disk, a mark in its directory says so. With the mark and
without any checkpoint, the folder was moved, deleted, or its file system is not mounted: starting
again would cut the logs to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cegppo_jax import distributed
from cegppo_jax.learner.train_state import TrainState
from cegppo_jax.reporting.metrics import (
    METRICS_FILE_NAME,
    Phase,
    check_lines,
    read_metrics,
)
from cegppo_jax.run.checkpoint import NO_VALUES, Checkpointer, saved_lines, saved_steps
from cegppo_jax.run.position import RunPosition
from cegppo_jax.storage.mirror import CHECKPOINTS, WARM_START, push_changes, real_place

MARK = ".has_checkpoints"


def save_and_mark(
    checkpointer: Checkpointer,
    workdir: Path,
    state: TrainState,
    position: RunPosition,
    lines: Mapping[str, int],
    values: Mapping[str, Any] = NO_VALUES,
) -> None:
    """Saves a checkpoint that counts on these lines, which are on the disk; arguments as of
    Checkpointer.save. The first one of a run is waited for, and marked. What it counts on is in the
    bucket before, if the run is in one.
    """
    push_changes()
    checkpointer.save(state, position, values, lines)
    if not (workdir / MARK).exists():
        checkpointer.wait()
        if distributed.is_main():
            (workdir / MARK).touch()
            push_changes()


def check_nothing_lost(workdir: Path) -> None:
    """Checks the directory of a run that has no checkpoint.

    Raises:
      ValueError: it had one, and lines of metrics that a new start would erase.
    """
    if not (workdir / METRICS_FILE_NAME).exists():
        return
    lines = read_metrics(workdir)
    if not lines:
        return
    # Without the mark: a run of version 0.2, which made the folder before it wrote a line, and
    # saved step 0 while step 1 began
    saved = (workdir / MARK).exists() or not real_place(workdir / CHECKPOINTS).is_dir()
    if saved or (lines[-1]["phase"] == Phase.RL and lines[-1]["step"] > 1):
        raise ValueError(
            f"{workdir / METRICS_FILE_NAME} has {len(lines)} lines, the last of "
            f"{lines[-1]['phase']} step {lines[-1]['step']}, and there is no checkpoint in "
            f"{real_place(workdir / CHECKPOINTS)} (moved, deleted, or not mounted?): put it back. "
            f"To start over and lose these lines, delete {workdir}; to keep them, choose another "
            "--workdir"
        )


def check_resumable(workdir: Path, name: str, steps: int) -> int | None:
    """Returns how many steps a run has taken; None: it has no checkpoint.

    Raises:
      ValueError: they are more than the setting `name` now asks for, a file that its steps append
        to is damaged, or its checkpoints are gone.
    """
    taken, warm_start = newest_step(workdir / CHECKPOINTS), newest_step(workdir / WARM_START)
    if taken is None:
        if warm_start is None:
            check_nothing_lost(workdir)
        else:
            counts = saved_lines(workdir / WARM_START, warm_start)
            check_lines(workdir, (Phase.SUPERVISED, warm_start - 1), counts)
        return None
    if taken > steps:
        raise ValueError(
            f"{workdir} has taken {taken} steps, and {name} = {steps} asks for fewer: ask for "
            "more, or choose another --workdir"
        )
    supervised = name.startswith("warm_start")
    position = (Phase.SUPERVISED, taken - 1) if supervised else (Phase.RL, taken)
    check_lines(workdir, position, saved_lines(workdir / CHECKPOINTS, taken))
    return taken


def newest_step(folder: Path) -> int | None:
    """Returns the step of the newest complete checkpoint in a folder, which may not exist."""
    return max(saved_steps(folder), default=None)
