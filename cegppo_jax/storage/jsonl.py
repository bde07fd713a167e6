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
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from cegppo_jax.storage import strict_json
from cegppo_jax.storage.writing import writing

Read = TypeVar("Read")

# What a kill leaves of the last line: no end, and nothing that no line of ours has
HALF = re.compile(rb"\{[^\x00-\x1f]*")
PIECE_BYTES = 2**20  # of a copy


def read_jsonl(path: Path, read: Callable[[Any], Read], kind: str) -> list[Read]:
    """Reads the lines of a file, in order, without a half-written last one.

    Args:
        read: converts a line's value; ValueError, KeyError or TypeError refuse it.
        kind: what a line is, for the message.

    Raises:
        ValueError: for a malformed line, with its number.
    """
    return [value for _, value in _lines(path, read, kind)]


def _lines(
    path: Path, read: Callable[[Any], Read], kind: str
) -> Iterator[tuple[tuple[int, int], Read]]:
    """Yields the place of each line, (first byte, byte after its last), and what `read` made of it;
    one line is held at a time.
    """
    end = 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            start, end = end, end + len(raw)
            half = HALF.fullmatch(raw)
            try:
                line = strict_json.parse(raw)
                half = None
                value = read(line)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                if half:
                    return  # killed in the middle of a write
                raise ValueError(
                    f"{path}, line {number}: not {kind} ({error}). Repair or remove that line."
                ) from error
            yield (start, end), value


def _kept(path: Path, keeps: Callable[[Any], bool], kind: str) -> tuple[list[tuple[int, int]], int]:
    """Returns the places of the lines to keep, where neighbours are one, and how many lines they
    are. Raises as read_jsonl.
    """
    places: list[tuple[int, int]] = []
    count = 0
    for (start, end), stays in _lines(path, keeps, kind):
        if stays and places and places[-1][1] == start:
            places[-1] = places[-1][0], end
        elif stays:
            places.append((start, end))
        count += bool(stays)
    return places, count


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
        self._lines = 0  # in the file
        if path.exists():
            places, self._lines = ([], 0) if keeps is None else _kept(path, keeps, kind)
            with writing(path):
                _keep_only(path, places)
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
        encoded = list(map(_encoded, lines))
        with writing(self._path):
            _append(self._path, b"".join(encoded))
        self._lines += len(encoded)

    def sync(self) -> dict[str, int]:
        """Waits until every line is on the disk. Returns the file's name and how many lines it has.
        Raises ValueError if the log is closed.
        """
        if self._path is None:
            raise ValueError("the log is closed")
        with writing(self._path), self._path.open("ab") as file:
            os.fsync(file.fileno())
        return {self._path.name: self._lines}

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


def _keep_only(path: Path, places: Sequence[tuple[int, int]]) -> None:
    """Cuts a file to its bytes in these places, and ends its last line if it has no end."""
    size, end = path.stat().st_size, places[-1][1] if places else 0
    with path.open("rb") as file:
        file.seek(max(end - 1, 0))
        ended = not end or file.read(1) == b"\n"
        if ended and list(places) == ([(0, size)] if size else []):
            return
        partial = path.with_suffix(".partial")
        with partial.open("wb") as kept:
            for start, stop in places:
                file.seek(start)
                for first in range(start, stop, PIECE_BYTES):
                    kept.write(file.read(min(PIECE_BYTES, stop - first)))
            kept.write(b"" if ended else b"\n")
            kept.flush()
            os.fsync(kept.fileno())
    os.replace(partial, path)
