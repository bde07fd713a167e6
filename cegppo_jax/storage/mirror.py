"""A folder on this machine that stands for one in a bucket: what --workdir=gs://... works in.

Logs grow line by line, which no bucket offers. So a run works in a temporary folder, whose files
are copied to the bucket every PUSH_SECONDS, before each checkpoint and at the end; checkpoints are
written straight to the bucket, by all hosts. The bucket alone says how far a run is: its files are
copied here at the start, and the temporary folder is deleted at the end.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
from etils import epath

from cegppo_jax.storage.bucket import Bucket, BucketError, in_bucket
from cegppo_jax.storage.lease import LEASE_NAME, RENEW_SECONDS, InUseError, Lease
from cegppo_jax.storage.paths import local_path, refuse_url

PUSH_SECONDS = 60.0

# Folders of a run that hold arrays, and that Orbax writes and reads where they are
CHECKPOINTS = "checkpoints"
GOOD_CHECKPOINTS = "good_checkpoints"  # that a rollback returns to
WARM_START = "warm_start"  # checkpoints of the warm start, while it goes on
REFERENCE = "reference"
DAMAGED = "damaged_"  # begins the name of the folder that damaged checkpoints are moved to
BEFORE_BAD_UPDATE = "params"  # parameters, in the folder of an update that was not finite
OF_ARRAYS = (CHECKPOINTS, GOOD_CHECKPOINTS, WARM_START, REFERENCE, BEFORE_BAD_UPDATE)

_open: dict[Path, Mirror] = {}  # the folders of this process that stand for others


class Mirror:
    """A temporary folder and the part of a bucket that it stands for."""

    def __init__(self, bucket: Bucket, folder: Path) -> None:
        self.bucket, self.folder = bucket, folder
        self._pulled: dict[str, str] = {}  # versions of the bucket's files when they were copied
        self._sent: dict[str, tuple[int, int]] = {}  # size and time of what the bucket has
        self._one_at_a_time = threading.Lock()

    def pull(self, below: str) -> None:
        """Copies the bucket's files below a name ("": all) here, except arrays of runs, and those
        that were copied before and have not changed there.
        """
        names = self.bucket.files()
        wanted = [
            name
            for name in _small(names)
            if name.startswith(below)
            and name.rpartition("/")[2] not in ("", LEASE_NAME)
            and self._pulled.get(name) != names[name]
        ]
        self.bucket.download(wanted, self.folder)
        self._pulled |= {name: names[name] for name in wanted}
        self._sent |= {name: _stamp(self.folder / name) for name in wanted}

    def push(self, below: str) -> None:
        """Copies the files below a name that have changed here to the bucket, and removes there
        what was removed here.
        """
        with self._one_at_a_time:
            found = {
                str(path.relative_to(self.folder)): path
                for path in (self.folder / below).rglob("*")
                if path.suffix != ".partial" and path.name != LEASE_NAME and path.is_file()
            }
            for name, path in sorted(found.items()):
                with contextlib.suppress(FileNotFoundError):  # removed since it was listed
                    stamp = _stamp(path)
                    if self._sent.get(name) != stamp:
                        self.bucket.upload(path, name)
                        self._sent[name] = stamp
            for name in [one for one in self._sent if one.startswith(below) and one not in found]:
                self.bucket.remove(name)
                del self._sent[name]


class MirrorLock:
    """The right to write to a mirrored folder, as DirectoryLock to another. While it is held, a
    thread renews the lease and copies files to the bucket.
    """

    def __init__(self, mirror: Mirror, folder: Path, say: Callable[[str], None]) -> None:
        self._mirror, self._folder = mirror, folder
        relative = folder.relative_to(mirror.folder)
        self._below = "" if relative == Path() else f"{relative}/"
        self._lease = Lease(mirror.bucket.below(str(relative) if self._below else ""), say)
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._failure: InUseError | None = None

    def hold(self) -> None:
        """Takes the lease, unless this one has it, and then what another process has written.

        Raises:
          InUseError: another process has it.
        """
        if self._thread is None:
            self._lease.hold()
            self._folder.mkdir(parents=True, exist_ok=True)
            self._mirror.pull(self._below)
            self._thread = threading.Thread(target=self._keep, name="mirror", daemon=True)
            self._thread.start()
            _held.append(self)

    def hold_if_begun(self) -> None:
        """Takes the lease if anything is in the bucket: an early word. Raises as `hold`."""
        if self._mirror.bucket.below(self._below.rstrip("/")).files():
            self.hold()

    def push(self) -> None:
        """Copies to the bucket what has changed. Raises InUseError if another has taken over, and
        BucketError if the bucket cannot be written.
        """
        if self._failure is not None:
            raise self._failure
        self._lease.check()
        self._mirror.push(self._below)

    def close(self) -> None:
        """Copies the last changes and gives the lease back; a second call does nothing."""
        if self._thread is not None:
            self._ending.set()
            self._thread.join()
            self._thread = None
            _held.remove(self)
            self.push()
            self._lease.release()

    def __enter__(self) -> MirrorLock:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _keep(self) -> None:
        pushed = time.monotonic()
        while not self._ending.wait(RENEW_SECONDS):
            try:
                self._lease.renew()
                if time.monotonic() - pushed >= PUSH_SECONDS:
                    self._mirror.push(self._below)
                    pushed = time.monotonic()
            except InUseError as lost:  # push says it, in the thread that works
                self._failure = lost
                return
            except (
                BucketError
            ):  # of the network: tried again, and told by what cannot go on without
                continue


_held: list[MirrorLock] = []  # those of this process


@contextlib.contextmanager
def opened_folder(place: str, text: str) -> Iterator[Path]:
    """As mirrored_folder, for a command: a bucket that cannot be used any more ends the process
    with a line.
    """
    try:
        with mirrored_folder(place, text) as folder:
            yield folder
    except (InUseError, BucketError) as error:
        raise SystemExit(f"error: {error}") from error


@contextlib.contextmanager
def mirrored_folder(place: str, text: str) -> Iterator[Path]:
    """Yields the folder that a text names: on this machine, or a mirror of one in a bucket, with
    its files. Messages of errors name the one in the bucket.

    Args:
      place: where the text was given, for messages: "--workdir".

    Raises:
      ValueError: it names no folder, or a bucket that checkpoints cannot be in.
      BucketError: the bucket cannot be used.
    """
    if not in_bucket(text):
        yield local_path(place, text)
        return
    if not text.startswith("gs://"):
        refuse_url(place, text)
    bucket = Bucket(place, text)
    with tempfile.TemporaryDirectory(prefix="cegppo-") as above:
        folder = Path(above) / bucket.url.rpartition("/")[2]
        folder.mkdir()
        mirror = _open[folder] = Mirror(bucket, folder)
        try:
            mirror.pull("")
            yield folder
        except (ValueError, OSError) as error:
            error.args = tuple(
                named_by_url(one) if isinstance(one, str) else one for one in error.args
            )
            raise
        except SystemExit as ended:
            if isinstance(ended.code, str):
                ended.code = named_by_url(ended.code)
                ended.args = (ended.code,)
            raise
        finally:
            del _open[folder]


def mirror_of(folder: Path) -> Mirror | None:
    """Returns the mirror that a folder is in; None: it stands for itself."""
    return next((_open[one] for one in (folder, *folder.parents) if one in _open), None)


def real_place(folder: Path) -> epath.Path:
    """Returns the path in the bucket that a mirrored folder stands for; another, made absolute."""
    mirror = mirror_of(folder)
    if mirror is None:
        return epath.Path(folder.absolute())
    return epath.Path(mirror.bucket.url) / folder.relative_to(mirror.folder)


def shown_place(folder: Path) -> str:
    """Returns how a folder is to be named: by its URL, if it stands for one."""
    return str(folder) if mirror_of(folder) is None else str(real_place(folder))


def named_by_url(text: str) -> str:
    """Returns a text in which folders that stand for others are named by their URLs."""
    for folder, mirror in _open.items():
        text = text.replace(str(folder), mirror.bucket.url)
    return text


def move_folder(source: epath.Path, target: epath.Path) -> None:
    """Gives a folder, as of real_place, another name: in a bucket, its objects one by one."""
    if in_bucket(str(source)):
        fsspec.filesystem("gs").mv(str(source), str(target), recursive=True)
    else:
        target.parent.mkdir(exist_ok=True)
        source.rename(target)


def push_changes() -> None:
    """Copies to their buckets what has changed in mirrored folders that this process writes to:
    before a checkpoint counts on it. Raises as MirrorLock.push.
    """
    for lock in _held:
        lock.push()


def pull_changes(folder: Path) -> None:
    """Copies what has changed in its bucket to a mirrored folder that this process only reads."""
    if (mirror := mirror_of(folder)) is not None:
        mirror.pull("")


def keep_results(folder: Path) -> None:
    """Copies to its bucket what this process has written into a mirrored folder without being its
    writer: tables and pages. With a folder of this machine nothing happens.
    """
    if (mirror := mirror_of(folder)) is not None:
        mirror.push("")


def _small(names: dict[str, str]) -> Iterator[str]:
    """Yields the names that are not below a run's folders of arrays."""
    runs = {name.removesuffix("config.json") for name in names if _is_config(name)}
    for name in names:
        parts = name.split("/")
        places = range(len(parts) - 1)
        if not any(
            "/".join([*parts[:place], ""]) in runs
            and parts[place].removeprefix(DAMAGED) in OF_ARRAYS
            for place in places
        ):
            yield name


def _is_config(name: str) -> bool:
    return name.rpartition("/")[2] == "config.json"


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
