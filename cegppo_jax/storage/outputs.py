"""Files and folders that a command writes once, as a whole: on this machine, or in a bucket."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cegppo_jax.storage.bucket import Bucket, in_bucket
from cegppo_jax.storage.paths import local_path


@contextlib.contextmanager
def written_place(place: str, text: str, *, may_exist: bool) -> Iterator[Path]:
    """Yields the path of a file or folder to write, which is on this machine, or is copied to the
    bucket that the text names once it has been written. config.json comes last: a model whose
    files are not all there is none.

    Raises:
      ValueError: the URL is of no bucket, or something is there, and `may_exist` is not set.
    """
    if not in_bucket(text):
        yield local_path(place, text)
        return
    bucket = Bucket(place, text)
    if not may_exist and bucket.files():
        raise ValueError(f"{bucket.url} already exists: choose another {place}, or remove it")
    with tempfile.TemporaryDirectory(prefix="cegppo-") as above:
        path = Path(above) / bucket.url.rpartition("/")[2]
        yield path
        files = [one for one in path.rglob("*") if one.is_file()] if path.is_dir() else [path]
        for one in sorted(files, key=lambda file: (file.name == "config.json", file)):
            bucket.upload(one, "" if one == path else str(one.relative_to(path)))
