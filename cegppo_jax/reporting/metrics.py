"""Writes a run's metrics, step by step, to metrics.jsonl and the other writers.

`metrics.jsonl` is the record; other writers hold copies for viewing. One line is one step,
including its evaluation. null stands for NaN or an infinity, which JSON cannot express:

    {"phase": "rl", "step": 12, "reward/mean": 0.41, "policy/entropy": 0.83, "update/loss": null}

`updates.jsonl` has a line for each update of a step: the first finds no clipped token, the last one
the most.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cegppo_jax.reporting.metric_names import METRICS, check_names
from cegppo_jax.reporting.writers import Phase, Position, resolve_writer
from cegppo_jax.storage.jsonl import JsonlLog, read_jsonl

METRICS_FILE_NAME = "metrics.jsonl"
UPDATES_FILE_NAME = "updates.jsonl"
LINE = f"an object with a phase of {[str(phase) for phase in Phase]} and a whole step"


def without_clock(line: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a line without its clock readings: what two equal runs have in common."""
    return {k: v for k, v in line.items() if not (k in METRICS and METRICS[k].clock)}


def read_metrics(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Reads the lines of a run's metrics.jsonl, in order, without a half-written last one.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: for a malformed line, with its number.
    """
    path = Path(workdir) / METRICS_FILE_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: has a run been started in {workdir}?")
    return read_jsonl(path, checked_line, LINE)


def checked_line(line: dict[str, Any]) -> dict[str, Any]:
    """Returns a line of metrics.jsonl or updates.jsonl whose values are numbers or null.

    Raises:
        ValueError, KeyError, TypeError: they are not, or it has no position.
    """
    _position(line)
    for name, value in line.items():
        if name != "phase" and value is not None and type(value) not in (int, float):
            raise TypeError(f"{name} = {value!r:.60} is no number")
    return line


def check_lines(workdir: Path, checkpoint: Position, counts: Mapping[str, int]) -> None:
    """Checks the logs of a run that is to resume from a checkpoint.

    Args:
        checkpoint: position of the checkpoint; the lines up to it were written before it was saved.
        counts: how many these were, by the file's name; {}: an older version saved it.

    Raises:
        ValueError: for a malformed line; for a file with fewer lines or more; for a metrics.jsonl
            that lacks a step of the checkpoint's phase up to the checkpoint.
    """
    there = {name: _positions(workdir / name) for name in {METRICS_FILE_NAME, *counts}}
    path, written = workdir / METRICS_FILE_NAME, there[METRICS_FILE_NAME]
    advice = "Restore the file, or start again in another --workdir"
    if not written or _order(written[-1]) < _order(checkpoint):
        end = f"ends with {written[-1][0]} step {written[-1][1]}" if written else "has no lines"
        raise ValueError(
            f"{path} {end}, and the newest checkpoint is of {checkpoint[0]} step {checkpoint[1]}: "
            f"lines were lost. {advice}"
        )
    phase, last = checkpoint
    steps = {step for one, step in written if one == phase}
    if missing := [step for step in range(last) if step not in steps]:
        raise ValueError(
            f"{path} has no line of {phase} step {missing[0]} ({len(missing)} steps are missing "
            f"before the newest checkpoint, of step {last}): lines were lost. {advice}"
        )
    for name, count in counts.items():
        found = sum(_order(one) <= _order(checkpoint) for one in there[name])
        if found != count:
            raise ValueError(
                f"{workdir / name} has {found} lines up to {phase} step {last}, and had {count} "
                f"when the checkpoint of that step was saved. {advice}"
            )


def _positions(path: Path) -> list[Position]:
    """Returns the positions of a log's lines; [] without the file. Raises as read_jsonl."""
    numbers_only = path.name in (METRICS_FILE_NAME, UPDATES_FILE_NAME)

    def read(line: dict[str, Any]) -> Position:
        return _position(checked_line(line) if numbers_only else line)

    return read_jsonl(path, read, LINE) if path.exists() else []


def _position(line: Mapping[str, Any]) -> Position:
    if type(line["step"]) is not int or line["step"] < 0:
        raise TypeError(f"step {line['step']!r}")
    return Phase(line["phase"]), line["step"]


def _order(position: tuple[str, int]) -> tuple[int, int]:
    phase, step = position
    return list(Phase).index(Phase(phase)), step


def open_log(path: Path, resume_after: tuple[str, int] | None) -> JsonlLog:
    """Opens a log whose lines have a phase and a step.

    Args:
        resume_after: (phase, step) of the restored checkpoint: lines up to and including it are
            kept. None starts afresh and keeps none.

    Raises:
        ValueError: for a malformed line, with its number.
    """
    if resume_after is None:
        return JsonlLog(path, None, LINE)
    last = _order(resume_after)
    return JsonlLog(path, lambda line: _order(_position(line)) <= last, LINE)


def _number(name: str, value: Any) -> int | float:
    """Returns a Python, NumPy or device scalar as a Python number; counts stay whole numbers."""
    array = np.asarray(value)
    if array.ndim:
        raise ValueError(f"metric {name!r} must be one number, not an array of shape {array.shape}")
    return int(array) if array.dtype.kind in "biu" else float(array)


class MetricsWriter:
    """Writes steps to metrics.jsonl and then to the other writers. If the process is killed, at
    most the line being written is lost.

    A resumed run cuts the file back to the checkpoint that it starts from, so that it ends up equal
    to that of an uninterrupted run. For this, a step's line must be written before its checkpoint
    is saved.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        resume_after: tuple[str, int] | None,
        writers: Sequence[str],
    ) -> None:
        """Opens the files for writing what comes after a position.

        Args:
            workdir: directory of the run; made if it does not exist.
            resume_after: as in open_log.
            writers: names of the other writers, for resolve_writer.
        """
        start = None if resume_after is None else (Phase(resume_after[0]), resume_after[1])
        self._last = start
        opened = [resolve_writer(name) for name in writers]
        with contextlib.ExitStack() as stack:
            self._log = stack.enter_context(open_log(Path(workdir) / METRICS_FILE_NAME, start))
            self._writers = [
                stack.enter_context(contextlib.closing(writer(Path(workdir), start)))
                for writer in opened
            ]
            self._stack = stack.pop_all()

    def write(self, phase: str, step: int, values: Mapping[str, Any]) -> None:
        """Appends the one line of a step.

        Args:
            phase: the part of the run that the step belongs to.
            step: at least 0; later than the last one of its phase.
            values: metric name -> number. NaN and infinities become null.

        Raises:
            ValueError: for an undeclared name, an array, or a position not after the last one.
        """
        position = (Phase(phase), int(step))
        if step < 0 or (self._last is not None and _order(position) <= _order(self._last)):
            after = "step 0" if self._last is None else f"{self._last[0]} step {self._last[1]}"
            raise ValueError(
                f"cannot write {phase} step {step} after {after}: steps start at 0, rise within a "
                "phase and have one line each; gather all values of a step in one dict."
            )
        numbers = _numbers(values)
        self._log.append([{"phase": position[0], "step": position[1], **numbers}])
        self._last = position
        finite = {name: number for name, number in numbers.items() if math.isfinite(number)}
        for writer in self._writers:
            writer.write(*position, finite)

    def sync(self) -> dict[str, int]:
        """Waits until every line of metrics.jsonl is on the disk. Returns as JsonlLog.sync."""
        return self._log.sync()

    def close(self) -> None:
        """Closes the files and the writers; a second call does nothing."""
        self._stack.close()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def update_lines(step: int, updates: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yields the lines of updates.jsonl for the updates of an RL step.

    Raises:
        ValueError: for an undeclared name or an array.
    """
    for update, values in enumerate(updates):
        yield {"phase": Phase.RL, "step": step, "update": update, **_numbers(values)}


def _numbers(values: Mapping[str, Any]) -> dict[str, int | float]:
    check_names(values)
    return {name: _number(name, value) for name, value in values.items()}
