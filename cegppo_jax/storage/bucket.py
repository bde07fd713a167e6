"""Files in buckets, by the URL of a file or of what lies below it: gs://bucket/folder.

fsspec reads and writes them, with a package for each kind of bucket. An object appears whole or not
at all; it cannot be appended to, and there are no locks and no renames.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import importlib.util
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import fsspec

from cegppo_jax.storage.paths import users_cache

# The package that each kind of bucket needs
KINDS = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs"}
# What tells one version of an object from another, whichever of them a kind of bucket gives
VERSION = ("size", "generation", "etag", "ETag", "mtime", "created")

# A listing that is kept would not have what TensorStore and other processes have written since.
# Orbax's own file systems (etils) follow this as well.
for _kind in KINDS:
    fsspec.config.conf.setdefault(_kind, {}).setdefault("use_listings_cache", False)


class BucketError(OSError):
    """A bucket that cannot be read or written, as its package says in one line."""


def in_bucket(text: str) -> bool:
    """Whether a text is the URL of something in a bucket."""
    return text.partition("://")[0] in KINDS and "://" in text


class Bucket:
    """The objects below a URL, by their names from there: "metrics.jsonl"."""

    def __init__(self, place: str, url: str) -> None:
        """Opens them; whether there are any is not asked.

        Args:
          place: where the URL was given, for messages: "--workdir".

        Raises:
          ValueError: it names no bucket, or the package for its kind is missing.
        """
        kind, _, inside = url.partition("://")
        inside = inside.rstrip("/")
        package = KINDS[kind]
        if importlib.util.find_spec(package) is None:
            raise ValueError(
                f"{place} = {url!r} needs the package {package}, which is not installed: pip "
                f"install {package}"
            )
        if not inside.partition("/")[0]:
            raise ValueError(f"{place} = {url!r} names no bucket: {kind}://BUCKET/FOLDER")
        self.url = f"{kind}://{inside}"
        self._fs: fsspec.AbstractFileSystem = fsspec.filesystem(kind)
        self._root = self._fs._strip_protocol(self.url)

    def below(self, name: str) -> Bucket:
        """Returns those below a name."""
        return Bucket("folder", f"{self.url}/{name}" if name else self.url)

    def exists(self, name: str) -> bool:
        """Whether there is an object of that name."""
        with self._failures_are_told():
            return bool(self._fs.isfile(self._path(name)))

    def files(self) -> dict[str, str]:
        """Returns the names of all objects, with what changes when one is written again. The name
        of the URL's own object, if it is one, is "".
        """
        with self._failures_are_told():
            found = self._fs.find(self._root, detail=True)
        # Some tools make an empty object for a folder
        real = {path: known for path, known in found.items() if not path.endswith("/")}
        return {
            path.removeprefix(self._root).lstrip("/"): str([known.get(one) for one in VERSION])
            for path, known in real.items()
        }

    def read(self, name: str) -> bytes | None:
        """Returns the content of an object; None: there is none."""
        with self._failures_are_told():
            try:
                return bytes(self._fs.cat_file(self._path(name)))
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        """Writes an object, in the place of one that is there."""
        with self._failures_are_told():
            self._fs.pipe_file(self._path(name), content)

    def create(self, name: str, content: bytes) -> bool:
        """Writes an object unless there is one; of several processes that try, one does. Returns
        whether it was this one.
        """
        with self._failures_are_told():
            try:
                self._fs.pipe_file(self._path(name), content, mode="create")
            except FileExistsError:
                return False
            return True

    def remove(self, name: str) -> None:
        """Removes an object, if it is there."""
        with self._failures_are_told(), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path(name))

    def download(self, names: Iterable[str], folder: Path) -> None:
        """Copies objects into a folder; files of the same names there are replaced."""
        with self._failures_are_told():
            for name in names:
                path = folder / name if name else folder
                path.parent.mkdir(parents=True, exist_ok=True)
                self._fs.get_file(self._path(name), str(path))

    def upload(self, path: Path, name: str) -> None:
        """Copies a file, as it is at this moment: another thread may be appending to it."""
        with tempfile.TemporaryDirectory() as folder:
            snapshot = Path(folder) / "file"
            snapshot.write_bytes(path.read_bytes())
            with self._failures_are_told():
                self._fs.put_file(str(snapshot), self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else str(self._root)

    @contextlib.contextmanager
    def _failures_are_told(self) -> Iterator[None]:
        """Raises what a bucket's package raises, of which there is no list, as a BucketError."""
        try:
            yield
        except FileNotFoundError as error:
            raise BucketError(f"{self.url} cannot be used: there is no such bucket") from error
        except Exception as error:
            line = " ".join(str(error).split())[:300]
            raise BucketError(
                f"{self.url} cannot be used ({type(error).__name__}: {line})"
            ) from error


def local_copy(place: str, url: str, patterns: Sequence[str]) -> Path:
    """Returns the path of a copy of a file or folder in a bucket, which is made once for each
    version of it, in the user's cache.

    Args:
      place: where the URL was given, for messages.
      patterns: of the names in a folder that are copied: ("*.json",).

    Raises:
      ValueError: there is nothing.
      BucketError: the bucket cannot be read.
    """
    bucket = Bucket(place, url)
    files = {
        name: version
        for name, version in bucket.files().items()
        if not name or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
    }
    if not files:
        raise ValueError(f"{place} = {url!r}: there is nothing of that name in the bucket")
    described: Any = [bucket.url, sorted(files.items())]
    digest = hashlib.blake2b(json.dumps(described).encode(), digest_size=8).hexdigest()
    copies = users_cache() / "copies"
    kept = copies / digest / bucket.url.rpartition("/")[2]
    if not kept.exists():
        copies.mkdir(parents=True, exist_ok=True)
        print(f"copying {bucket.url} to {kept}", flush=True)
        with tempfile.TemporaryDirectory(dir=copies) as partial:
            bucket.download(files, Path(partial) / "whole" / kept.name)
            try:
                os.rename(Path(partial) / "whole", kept.parent)
            except OSError:
                if not kept.exists():  # else another process was faster
                    raise
    return kept
