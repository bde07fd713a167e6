"""A disk that takes no more: one line that names the file and the space, whoever was writing.

`writing(path)` stands around what writes a file or folder. Libraries tell a full disk in ways of
their own (an errno, TensorStore's or Rust's text, a page of settings); here it is one error.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CLOSED = "Event loop is closed"
REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)


class CannotWriteError(OSError):
    """The disk took no more. The message is the line to print."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around what writes to `path`.

    Raises:
      CannotWriteError: the disk is full, read-only or broken, with the file and the space.
    """
    try:
        yield
    except CannotWriteError:
        raise
    except Exception as error:
        if (reason := refusal(error)) is None:
            raise
        raise CannotWriteError(
            f"{path} cannot be written ({reason}; {space(path)}). What was finished before stays: "
            "make room, and the same command goes on from there"
        ) from error


def refusal(error: BaseException) -> str | None:
    """Returns the words of the system for why a disk refused a write, if that is what an error,
    or one that led to it, says; else None.
    """
    seen: BaseException | None = error
    while seen is not None:
        text = str(seen)
        for number in REFUSED:
            if getattr(seen, "errno", None) == number or os.strerror(number) in text:
                return os.strerror(number)
        seen = seen.__cause__ or seen.__context__
    return None


def leave_out_echoes() -> None:
    """Keeps off the screen what asyncio and TensorStore print, beside the error itself, of a
    refused write that Orbax had begun in the background: a traceback for each array, and one for
    each reply that comes after Orbax has closed its event loop. A second call does nothing.
    """
    for name in ("asyncio", "absl"):
        logging.getLogger(name).addFilter(is_new)
    if sys.unraisablehook is not _without_late_replies:
        _hooks.append(sys.unraisablehook)
        sys.unraisablehook = _without_late_replies


_hooks: list[Callable[[Any], Any]] = []  # the one that was there before


def _without_late_replies(found: Any) -> None:
    if not (isinstance(found.exc_value, RuntimeError) and str(found.exc_value) == CLOSED):
        _hooks[-1](found)


def is_new(record: logging.LogRecord) -> bool:
    """Whether a log record is not of a refused write, which `writing` tells: a filter. Orbax writes
    in tasks of asyncio, which logs a traceback for each that was refused.
    """
    error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    return refusal(error or Exception(record.getMessage())) is None


def space(path: Path) -> str:
    """Returns how much of the disk of a path is free, in words."""
    place = existing(path)
    try:
        usage = shutil.disk_usage(place)
    except OSError as error:
        return f"{place}: {error.strerror}"
    return f"{usage.free / 1e9:.3g} GB of {usage.total / 1e9:.3g} GB are free in {place}"


def existing(path: Path) -> Path:
    """Returns the path's folder, or the nearest one above it that exists."""
    return next(one for one in path.absolute().parents if one.is_dir())
