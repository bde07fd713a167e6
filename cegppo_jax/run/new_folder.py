"""A folder that appears when it is whole: until then it has another name."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from cegppo_jax import distributed
from cegppo_jax.run.one_writer import LOCK_FILE_NAME, DirectoryLock
from cegppo_jax.storage.writing import writing


@contextlib.contextmanager
def appears(out: Path) -> Iterator[Path]:
    """Yields a folder next to `out`, made by the main host, that gets its name at the end. What a
    killed process has left there is deleted; after an error nothing is left.

    Raises:
      ValueError: something else is there, or (InUseError) another process is writing it.
    """
    partial = out.with_name(f"{out.name}.partial")
    if not distributed.is_main():
        distributed.barrier("the folder is made")
        yield partial
        return
    if partial.is_dir() and any(partial.iterdir()) and not (partial / LOCK_FILE_NAME).is_file():
        raise ValueError(f"{partial} exists, and no command of this version left it: remove it")
    made = [folder for folder in partial.parents if not folder.exists()]
    with DirectoryLock(partial) as lock:
        lock.hold()
        for left in partial.iterdir():
            if left.is_dir():
                shutil.rmtree(left)
            elif left.name != LOCK_FILE_NAME:
                left.unlink()
        distributed.barrier("the folder is made")
        try:
            with writing(partial):
                yield partial
                partial.rename(out)
            (out / LOCK_FILE_NAME).unlink()
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            with contextlib.suppress(OSError):  # another has put something there
                for folder in made:
                    folder.rmdir()
            raise
