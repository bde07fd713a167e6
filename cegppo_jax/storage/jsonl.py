"""Files with one JSON object a line: the format of every log of a run or an evaluation.

If the process is killed, at most the line being written is lost: half a last line is not read, and
is dropped when the log is opened again. The file is open only while lines are written, since
mounted buckets (gcsfuse) and network disks keep what was written only once it is closed: on a spot
machine that is taken away, a checkpoint must not outlive the lines before it. null stands for NaN
or an infinity, which JSON cannot express.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from cegppo_jax.storage.writing import writing

Read = TypeVar("Read")


def read_jsonl(path: Path, read: Callable[[Any], Read], kind: str) -> list[Read]:
    """Reads the lines of a file, in order, without a half-written last one.

    Args:
        read: converts a line's value; ValueError, KeyError or TypeError refuse it.
        kind: what a line is, for the message.

    Raises:
        ValueError: for a malformed line, with its number.
    """
    return [value for _, value in _read_lines(path, read, kind)]


def _read_lines(path: Path, read: Callable[[Any], Read], kind: str) -> list[tuple[bytes, Read]]:
    """Returns the bytes of each line, including its newline, and what `read` made of it."""
    lines = []
    for number, raw in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        try:
            value = read(json.loads(raw))
        except (ValueError, KeyError, TypeError) as error:
            if not raw.endswith(b"\n"):
                break  # killed in the middle of a write; only the last line can lack its end
            raise ValueError(
                f"{path}, line {number}: not {kind} ({error}). Repair or remove that line."
            ) from error
        lines.append((raw.rstrip(b"\n") + b"\n", value))
    return lines


class JsonlLog:
    """A file that grows by lines. Opening an existing one cuts it back to the lines to keep,
    byte for byte, by writing a new file and renaming it.
    """

    def __init__(self, path: Path, keeps: Callable[[Any], bool] | None, kind: str) -> None:
        """Opens the file for appending.

        Args:
            path: made, with its directory, if it does not exist.
            keeps: whether a line stays, as `read` of read_jsonl; None keeps none.
            kind: what a line is, for messages.

        Raises:
            ValueError: for a malformed line, with its number; the file stays as it was.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            lines = [] if keeps is None else _read_lines(path, keeps, kind)
            with writing(path):
                _replace(path, b"".join(raw for raw, stays in lines if stays))
        with writing(path):
            path.open("ab").close()
        self._path: Path | None = path

    def append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Writes objects of plain values, one a line: all of them or none.

        Raises:
            ValueError: the log is closed.
            CannotWriteError: the disk is full or read-only.
        """
        if self._path is None:
            raise ValueError("the log is closed")
        content = b"".join(map(_encoded, lines))
        with writing(self._path):
            _append(self._path, content)

    def sync(self) -> None:
        """Waits until every line is on the disk. Raises ValueError if the log is closed."""
        if self._path is None:
            raise ValueError("the log is closed")
        with writing(self._path), self._path.open("ab") as file:
            os.fsync(file.fileno())

    def close(self) -> None:
        """Nothing can be appended any more; a second call does nothing."""
        self._path = None

    def __enter__(self) -> JsonlLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _encoded(line: Mapping[str, Any]) -> bytes:
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in line.items()
    }
    return json.dumps(finite, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _append(path: Path, content: bytes) -> None:
    """Appends all of it or none."""
    with path.open("ab", buffering=0) as file:
        before, left = file.tell(), memoryview(content)
        try:
            while left:
                left = left[file.write(left) :]
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(before)
            raise


def _replace(path: Path, content: bytes) -> None:
    if content == path.read_bytes():
        return
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
