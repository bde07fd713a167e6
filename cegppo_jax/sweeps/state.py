"""How far a run of a sweep is, read from its directory."""

from __future__ import annotations

import dataclasses
import enum
import os
from pathlib import Path
from typing import Any

import numpy as np

from cegppo_jax.reporting.metrics import METRICS_FILE_NAME
from cegppo_jax.reporting.run_log import RunLog, open_run_log
from cegppo_jax.saved_config import CONFIG_FILE_NAME
from cegppo_jax.storage.mirror import CHECKPOINTS, real_place
from cegppo_jax.storage.strict_json import encodable, numbers
from cegppo_jax.sweeps.arms import SEED_SETTING, ArmRun
from cegppo_jax.sweeps.experiment import Measure


class RunStatus(enum.StrEnum):
    """What a run is doing."""

    ABSENT = "to go"
    CUT = "cut"  # begun, not finished, and nobody is at it
    RUNNING = "running"
    ELSEWHERE = "running elsewhere"  # another process has its log
    FINISHED = "finished"
    FAILED = "failed"


def is_finished(workdir: Path, steps: int | None = None) -> bool:
    """Whether the run in a directory has its checkpoint of the last step, which is saved after the
    step's metrics.

    Args:
      steps: of the run; None: those of its config.
    """
    if not (workdir / CONFIG_FILE_NAME).exists():
        return False
    steps = open_run_log(workdir).planned_steps if steps is None else steps
    return real_place(workdir / CHECKPOINTS / str(steps)).is_dir()


@dataclasses.dataclass(frozen=True)
class RunProgress:
    """How far a run is, and the latest value of a measure."""

    warm_start: int  # supervised steps taken
    step: int  # of RL
    value: float | None


class ProgressReader:
    """Reads how far runs are, again and again; a file that has not changed is not read twice."""

    def __init__(self, measure: Measure) -> None:
        self._measure = measure
        self._read: dict[Path, tuple[os.stat_result, RunProgress]] = {}

    def __call__(self, workdir: Path) -> RunProgress:
        """Returns the progress of the run in a directory; step 0 where there is none yet."""
        try:
            present = (workdir / METRICS_FILE_NAME).stat()
        except OSError:
            return RunProgress(0, 0, None)
        known = self._read.get(workdir)
        if known is None or known[0] != present:
            log = RunLog(workdir)
            try:
                warm_start = len(log.warm_start.steps)
                progress = RunProgress(warm_start, log.step, measured_value(log, self._measure))
            except ValueError:  # its command says what is wrong with it
                progress = RunProgress(0, 0, None)
            known = self._read[workdir] = (present, progress)
        return known[1]


def measured_value(log: RunLog, measure: Measure) -> float | None:
    """Returns the mean of a metric's last values, NaN where one was not finite; None when the run
    has no value yet.
    """
    _, values = log.rl.curve(measure.name)
    return float(np.mean(values[-measure.last :])) if len(values) else None


def check_is_run(log: RunLog, run: ArmRun) -> None:
    """Raises ValueError when a directory holds a run with other values of an arm's overrides."""
    for name, value in {**run.overrides, SEED_SETTING: run.seed}.items():
        saved: Any = log.settings.get(name)
        if numbers(encodable(value)) != saved:
            raise ValueError(
                f"{log.workdir} holds a run with {name} = {saved!r}, and the experiment has "
                f"{value!r}: give the folder of this sweep, --dir"
            )
