"""Where a run's metrics go, apart from metrics.jsonl: TensorBoard, Weights & Biases, a class of
yours.

metrics.jsonl is the record and is always written (metrics.py). These are copies for viewing, named
by `logging.writers`. A writer of yours is a class with the methods of Writer, named by its import
path, "package.module:Class", and created as Class(workdir, resume_after).
"""

from __future__ import annotations

import enum
import os
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import scalar

from cegppo_jax.import_path import check_takes, named
from cegppo_jax.storage import strict_json
from cegppo_jax.storage.writing import writing


class Phase(enum.StrEnum):
    """The parts of a run in the order in which they happen. Each counts its steps from 0."""

    SUPERVISED = "supervised"
    RL = "rl"


Position = tuple[Phase, int]  # (phase, step)


class Writer(Protocol):
    """Receives a run's metrics, step by step."""

    def write(self, phase: Phase, step: int, values: Mapping[str, int | float]) -> None:
        """Receives the metrics of one step, by name; values that were not finite are left out.

        Steps rise within a phase. A resumed run begins after `resume_after`, so steps after its
        checkpoint may come a second time, with the same values except for readings of a clock.
        """
        ...

    def close(self) -> None:
        """Finishes writing."""
        ...


OpenWriter = Callable[[Path, Position | None], Writer]


class TensorBoardWriter:
    """Writes event files to workdir/tensorboard, one directory a phase, as both count their steps
    from 0.
    """

    def __init__(self, workdir: Path, resume_after: Position | None) -> None:
        self._folder = workdir / "tensorboard"
        self._start = resume_after
        self._boards: dict[Phase, EventsWriter] = {}

    def write(self, phase: Phase, step: int, values: Mapping[str, int | float]) -> None:
        """Adds a point to each curve."""
        summary = Summary()
        for name, value in values.items():
            summary.value.extend(scalar(name, value).value)
        with writing(self._folder):
            self._board(phase).write_event(Event(wall_time=time.time(), step=step, summary=summary))
            self._board(phase).flush()

    def _board(self, phase: Phase) -> EventsWriter:
        """Returns the open event file of a phase, which begins by taking back the points after the
        start. It is written here, not by a thread (SummaryWriter), which dies of a full disk and
        leaves the run waiting for it.
        """
        if phase not in self._boards:
            last_phase, last_step = self._start or (None, -1)
            first = last_step + 1 if last_phase == phase else 0
            folder = self._folder / phase
            folder.mkdir(parents=True, exist_ok=True)
            board = self._boards[phase] = EventsWriter(str(folder / "events"))
            start = SessionLog(status=SessionLog.START)
            board.write_event(Event(wall_time=time.time(), step=first, session_log=start))
        return self._boards[phase]

    def close(self) -> None:
        """Closes the event files."""
        with writing(self._folder):
            for board in self._boards.values():
                board.close()
        self._boards.clear()


class WandbWriter:
    """Writes to one Weights & Biases run for each work directory. A resumed run continues it: its
    id is in workdir/wandb/run_id. Project, entity and mode come from W&B's variables
    (WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE=offline).

    Both phases count their steps from 0: curves are drawn over "rl_step" or "supervised_step", and
    names of the supervised phase begin with "supervised/". Steps that a resumed run repeats lie on
    the points that are already there.
    """

    def __init__(self, workdir: Path, resume_after: Position | None) -> None:
        del resume_after  # W&B cannot take points back
        import wandb

        config = workdir / "config.json"
        self._run = wandb.init(
            dir=workdir,
            id=_wandb_id(workdir / "wandb" / "run_id"),
            name=workdir.absolute().name,
            resume="allow",
            reinit="create_new",
            config=strict_json.read_json_file(config) if config.exists() else None,
        )
        self._defined: set[str] = set()

    def write(self, phase: Phase, step: int, values: Mapping[str, int | float]) -> None:
        """Adds a point to each curve."""
        axis, start = f"{phase}_step", f"{Phase.SUPERVISED}/"
        if phase == Phase.SUPERVISED:
            values = {start + name.removeprefix(start): value for name, value in values.items()}
        for name in values.keys() - self._defined:
            self._run.define_metric(name, step_metric=axis)
            self._defined.add(name)
        self._run.log({**values, axis: step})

    def close(self) -> None:
        """Waits until W&B has everything that was written."""
        self._run.finish()


def _wandb_id(path: Path) -> str:
    """Reads the id from the file, or creates one."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(secrets.token_hex(8))
        os.replace(partial, path)
    return path.read_text()


WRITERS: dict[str, OpenWriter] = {"tensorboard": TensorBoardWriter, "wandb": WandbWriter}


def resolve_writer(name: str, place: str = "logging.writers") -> OpenWriter:
    """Returns what opens a writer, named in WRITERS or as "package.module:Class".

    Raises:
        ValueError: there is no such writer, it lacks a method or takes other arguments, or it could
            not write: W&B is not installed or has no login.
    """
    if name == "wandb":
        _check_wandb(place)
    own: Any = named(place, name, WRITERS)
    lacking = [method for method in ("write", "close") if not hasattr(own, method)]
    if not callable(own) or lacking:
        raise ValueError(
            f"{place} = {name!r} is not a class with the methods write(phase, step, values) and "
            f"close() (it lacks {lacking}): see Writer in cegppo_jax/reporting/writers.py"
        )
    if ":" in name:
        check_takes(place, name, own, "workdir, resume_after")
    return own


def _check_wandb(place: str) -> None:
    try:
        from wandb import Error, login, setup
    except ImportError as error:
        raise ValueError(
            f"{place}: 'wandb' needs Weights & Biases ({error}): pip install 'cegppo_jax[wandb]'"
        ) from error
    reason = "no API key"
    try:
        if setup().settings.mode != "online" or login(prompt=False):
            return
    except Error as error:
        reason = str(error)
    raise ValueError(
        f"{place}: 'wandb' cannot log in ({reason}): run `wandb login`, set WANDB_API_KEY, or set "
        "WANDB_MODE=offline to write files that `wandb sync` uploads later"
    )
