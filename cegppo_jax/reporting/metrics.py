"""Named numbers of one step -> metrics.jsonl and TensorBoard events.

`metrics.jsonl` is the truth, TensorBoard a copy for looking. One line is one step, its evaluation
included; null stands for NaN or an infinity, which JSON cannot say:

    {"phase": "rl", "step": 12, "reward/mean": 0.41, "policy/entropy": 0.83, "update/loss": null}

`updates.jsonl` has a line for each update of a step: the first finds no clipped token, the last
most of them.

A position is (phase, step): steps count from 0 within a phase; the supervised phase comes first.
"""

from __future__ import annotations

import difflib
import enum
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorboardX

from cegppo_jax.reporting.metric_names import METRICS

FILE_NAME = "metrics.jsonl"
UPDATES_FILE_NAME = "updates.jsonl"


class Phase(enum.StrEnum):
    """The parts of a run in the order in which they happen."""

    SUPERVISED = "supervised"
    RL = "rl"


Position = tuple[Phase, int]  # (phase, step)


def check_names(names: Mapping[str, Any]) -> None:
    """Refuse names that the table does not have.

    Raises:
        ValueError: with the unknown name and the nearest one of the table.
    """
    for name in names:
        if name not in METRICS:
            # By spelling first, then by the last part alone: a wrong prefix is a common slip.
            near = difflib.get_close_matches(name, METRICS, n=1) or [
                known for known in METRICS if known.split("/")[-1] == name.split("/")[-1]
            ]
            hint = f"did you mean {near[0]!r}?" if near else "no declared name is near it."
            raise ValueError(
                f"unknown metric {name!r}: {hint} Every name is declared in METRICS "
                "(metric_names.py)."
            )


def without_clock(line: Mapping[str, Any]) -> dict[str, Any]:
    """Line -> the same line less its clock readings: what two equal runs have in common."""
    return {k: v for k, v in line.items() if not (k in METRICS and METRICS[k].clock)}


def read_metrics(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Work directory -> the lines of its metrics.jsonl, in order, less a half-written last one.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: for a malformed line, with its number.
    """
    path = pathlib.Path(workdir) / FILE_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: has a run been started in {workdir}?")
    return [line for _, line in _read_lines(path)]


def _read_lines(path: pathlib.Path) -> list[tuple[bytes, dict[str, Any]]]:
    """File -> (bytes of a line, the line): the bytes are there for a rewrite that changes none."""
    lines = []
    for number, raw in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        try:
            line = json.loads(raw)
            _position(line)
        except (ValueError, KeyError, TypeError) as error:
            if not raw.endswith(b"\n"):
                break  # killed in the middle of a write; only the last line can lack its end
            raise ValueError(
                f"{path}, line {number}: not an object with a phase of {[*Phase]} and a whole step "
                f"({error}). Repair or remove that line."
            ) from error
        lines.append((raw.rstrip(b"\n") + b"\n", line))
    return lines


def check_lines(workdir: pathlib.Path, others: Sequence[str], checkpoint: Position) -> None:
    """Checks the files of lines of a run that is to go on from a checkpoint.

    Args:
        others: names of files besides metrics.jsonl, which may have no line for a step, or not
            exist.
        checkpoint: position of the checkpoint; its line was written before it was saved.

    Raises:
        ValueError: for a malformed line, or a metrics.jsonl that ends before the checkpoint.
    """
    for path in (workdir / name for name in others):
        if path.exists():
            _read_lines(path)
    path = workdir / FILE_NAME
    written = [_position(line) for _, line in _read_lines(path)] if path.exists() else []
    if not written or _order(written[-1]) < _order(checkpoint):
        end = f"ends with {written[-1][0]} step {written[-1][1]}" if written else "has no lines"
        raise ValueError(
            f"{path} {end}, and the newest checkpoint is of {checkpoint[0]} step {checkpoint[1]}: "
            "lines were lost. Restore the file, or start anew in another --workdir"
        )


def _position(line: Mapping[str, Any]) -> Position:
    if not isinstance(line["step"], int):
        raise TypeError(f"step {line['step']!r}")
    return Phase(line["phase"]), line["step"]


def _order(position: Position) -> tuple[int, int]:
    phase, step = position
    return list(Phase).index(Phase(phase)), step


def _number(name: str, value: Any) -> int | float | None:
    """Python, NumPy or device scalar -> what JSON can hold; counts stay whole numbers."""
    array = np.asarray(value)
    if array.ndim:
        raise ValueError(f"metric {name!r} must be one number, not an array of shape {array.shape}")
    if array.dtype.kind in "biu":
        return int(array)
    number = float(array)
    return number if math.isfinite(number) else None


class MetricsWriter:
    """Append steps to metrics.jsonl and TensorBoard; a kill costs at most the line being written.

    A resumed run cuts both back to the checkpoint that it starts from, so that they end equal to
    an uninterrupted run's. For that, a step's line must be written before its checkpoint is saved.
    """

    def __init__(
        self, workdir: str | os.PathLike[str], resume_after: tuple[str, int] | None
    ) -> None:
        """Open for writing what comes after a position.

        Args:
            workdir: directory of the run; made if it does not exist.
            resume_after: (phase, step) of the restored checkpoint: lines up to and including it are
                kept. None starts afresh and keeps none.
        """
        self._workdir = pathlib.Path(workdir)
        self._workdir.mkdir(parents=True, exist_ok=True)
        self._start = None if resume_after is None else (Phase(resume_after[0]), resume_after[1])
        self._last = self._start
        path = self._workdir / FILE_NAME
        if path.exists():
            truncate_lines(path, self._start)
        self._file = path.open("ab")
        self._boards: dict[Phase, tensorboardX.SummaryWriter] = {}

    def write(self, step: int, values: Mapping[str, Any], phase: str = Phase.RL) -> None:
        """Append the one line of a step.

        Args:
            step: at least 0; later than the last one of its phase.
            values: metric name -> number. NaN and infinities become null.
            phase: the part of the run that the step belongs to.

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
        check_names(values)
        numbers = {name: _number(name, value) for name, value in values.items()}
        line = {"phase": str(position[0]), "step": position[1], **numbers}
        self._file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
        self._file.flush()
        self._last = position
        board = self._board(position[0])
        for name, number in numbers.items():
            if number is not None:  # a gap in the curve, where TensorBoard would print warnings
                board.add_scalar(name, number, position[1])
        board.flush()

    def _board(self, phase: Phase) -> tensorboardX.SummaryWriter:
        """Phase -> its event writer: one directory each, as both count their steps from 0."""
        if phase not in self._boards:
            last_phase, last_step = self._start or (None, -1)
            self._boards[phase] = tensorboardX.SummaryWriter(
                str(self._workdir / "tensorboard" / phase),
                purge_step=last_step + 1 if last_phase == phase else 0,
            )
        return self._boards[phase]

    def close(self) -> None:
        """Close the files; a second call does nothing."""
        self._file.close()
        for board in self._boards.values():
            board.close()
        self._boards.clear()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class UpdatesWriter:
    """Appends to updates.jsonl; a resumed run first drops what lies beyond its checkpoint."""

    def __init__(
        self, workdir: str | os.PathLike[str], resume_after: tuple[str, int] | None
    ) -> None:
        path = pathlib.Path(workdir) / UPDATES_FILE_NAME
        if path.exists():
            truncate_lines(path, resume_after)
        self._file = path.open("a")

    def write(self, step: int, updates: Sequence[Mapping[str, Any]]) -> None:
        """Appends a line for each of an RL step's updates: metric name -> number of that one.

        Raises:
            ValueError: for an undeclared name or an array.
        """
        for update, values in enumerate(updates):
            check_names(values)
            numbers = {name: _number(name, value) for name, value in values.items()}
            line = {"phase": Phase.RL, "step": step, "update": update, **numbers}
            self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()

    def __enter__(self) -> UpdatesWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()


def truncate_lines(path: pathlib.Path, last: tuple[str, int] | None) -> None:
    """Keep the lines up to `last`, byte for byte, by writing a new file and renaming it."""
    kept = b""
    if last is not None:
        kept = b"".join(
            raw
            for raw, line in _read_lines(path)
            if _order(_position(line)) <= _order((Phase(last[0]), last[1]))
        )
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(kept)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
