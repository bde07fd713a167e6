"""One process writes to a directory: a lock that the system gives back however its holder ends.

The lock is on a file in the directory (flock), which says who holds it. The file stays; without a
process that has it locked it means nothing. Where a file system has no locks (some mounted
buckets), a line says that nothing keeps a second process out.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from cegppo_jax.storage import strict_json
from cegppo_jax.storage.lease import LEASE_NAME, InUseError
from cegppo_jax.storage.mirror import MirrorLock, mirror_of
from cegppo_jax.storage.writing import writing

LOCK_FILE_NAME = LEASE_NAME


class DirectoryLock:
    """The right to write to a directory, from `hold` until the end of the `with` block."""

    def __init__(self, folder: Path, say: Callable[[str], None] = print) -> None:
        self._folder, self._say = folder, say
        self._file: IO[str] | None = None

    def hold(self) -> None:
        """Takes the lock, unless this one has it; makes the directory if there is none.

        Raises:
          InUseError: another process has it.
          CannotWriteError: the disk is full or read-only.
        """
        if self._file is not None:
            return
        path = self._folder / LOCK_FILE_NAME
        with writing(path):
            self._folder.mkdir(parents=True, exist_ok=True)
            file = path.open("a+")  # never a new file: those who wait have this one open
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(file)
            file.close()
            raise InUseError(
                f"{self._folder} is being written to by {holder}: wait until it ends, stop it, or "
                "choose another directory"
            ) from None
        except OSError as error:  # no locks here
            self._say(
                f"{path} cannot be locked ({error.strerror}): nothing keeps a second process from "
                "writing to this directory as well"
            )
        began = time.strftime("%Y-%m-%d %H:%M:%S")
        described = {"host": socket.gethostname(), "process": os.getpid(), "since": began}
        with writing(path):
            file.truncate(0)
            file.write(strict_json.dumps(described))
            file.flush()
        self._file = file

    def hold_if_begun(self) -> None:
        """Takes the lock if the directory has had a writer before: an early word, before
        anything is computed. Raises as `hold`.
        """
        if (self._folder / LOCK_FILE_NAME).exists():
            self.hold()

    def close(self) -> None:
        """Gives the lock back; a second call does nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> DirectoryLock:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


WriterLock = DirectoryLock | MirrorLock


def writer_lock(folder: Path, say: Callable[[str], None] = print) -> WriterLock:
    """Returns the lock of a folder: on this machine, or in the bucket that it stands for."""
    mirror = mirror_of(folder)
    return DirectoryLock(folder, say) if mirror is None else MirrorLock(mirror, folder, say)


def _holder(file: IO[str]) -> str:
    """Returns who has a lock, from its file."""
    file.seek(0)
    try:
        found: dict[str, Any] = strict_json.loads(file.read())
        return f"process {found['process']} on {found['host']}, since {found['since']}"
    except (ValueError, KeyError, TypeError):  # it is being written
        return "another process"
