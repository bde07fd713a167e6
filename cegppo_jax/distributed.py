"""How many hosts take part, and what they exchange: the one place that asks.

With one process, this host is the main one, gathering returns what was given, and nothing waits. No
other module asks for jax.process_index or jax.process_count.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import pickle
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from cegppo_jax.watchdog import BEAT_SECONDS, WatchSettings, start_watchdog

SECONDS_FOR_OTHERS = 3.0

Made = TypeVar("Made")


@contextlib.contextmanager
def joined(
    address: str | None,
    processes: int | None,
    process: int | None,
    *,
    start_seconds: int,
    heartbeat_seconds: int,
    stall_seconds: int,
) -> Iterator[None]:
    """Within this context, this process is one of several; all enter and leave it together. No
    device may have been touched before.

    Args:
      address: HOST:PORT of process 0; None: from the environment, as the two below.
      start_seconds: within which all have to enter it; soon after, the runtime aborts.
    """
    jax.distributed.initialize(
        address,
        processes,
        process,
        cluster_detection_method=None if address is None else "deactivate",
        # What has words comes first: run/hosts.py, and the watchdog
        initialization_timeout=start_seconds + 30,
        heartbeat_timeout_seconds=heartbeat_seconds + 30,
    )
    main_name = socket.gethostname() if address is None else address.rpartition(":")[0]
    watched = Watched(main_name, heartbeat_seconds, stall_seconds)
    try:
        yield
    except BaseException as error:
        watched.end_with(error)
        raise
    jax.distributed.shutdown()
    watched.tell({"ended": True})


class Watched:
    """This host's side of its watchdog (watchdog.py)."""

    def __init__(self, main_name: str, heartbeat_seconds: int, stall_seconds: int) -> None:
        """Starts the watchdog. Args: main_name: of host 0's machine."""
        self._heartbeat_seconds = heartbeat_seconds
        watch = WatchSettings(this_host(), hosts(), None, heartbeat_seconds, stall_seconds)
        address = None
        if is_main():
            self._process = start_watchdog(watch)
            assert self._process.stdout is not None
            address = main_name, json.loads(self._process.stdout.readline())["port"]
        address = exchange(address)[0]
        if not is_main():
            self._process = start_watchdog(dataclasses.replace(watch, address=address))
        for work in (self._beat, self._listen):
            threading.Thread(target=work, name="watchdog", daemon=True).start()

    def tell(self, message: Mapping[str, Any]) -> None:
        """Tells the watchdog something. If it is gone, this host goes on without."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def end_with(self, error: BaseException) -> None:
        """Ends this host with an error that the others will be told, and without waiting for them,
        as jax does; an end without an error is only let through.
        """
        code = error.code if isinstance(error, SystemExit) else 1
        if isinstance(error, SystemExit) and not isinstance(code, str):
            jax.distributed.shutdown()  # all hosts end with this code: they were asked to stop
            self.tell({"ended": True})
            return
        if isinstance(error, jax.errors.JaxRuntimeError):
            # Probably of a collective, because another host has gone: the watchdog says which
            time.sleep(self._heartbeat_seconds + 5)
        words = code if isinstance(code, str) else f"{type(error).__name__}: {error}"
        self.tell({"failed": words.removeprefix("error: ")})
        if isinstance(error, SystemExit):
            print(code if isinstance(code, str) else "", file=sys.stderr, flush=True)
        else:
            traceback.print_exception(error)
        sys.stdout.flush()
        if is_main():
            time.sleep(SECONDS_FOR_OTHERS)  # the runtime aborts them when this process has gone
        os._exit(code if isinstance(code, int) else 1)

    def _beat(self) -> None:
        while True:
            changes, words = _PROGRESS.where()
            where = ", ".join(filter(None, (words, _PROGRESS.place))) or "its start"
            self.tell({"progress": changes + _PROGRESS.exchanges, "where": where})
            time.sleep(BEAT_SECONDS)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.readline():  # all that it says now is that this host has to stop
            os._exit(1)


@dataclasses.dataclass
class _Progress:
    """Where this host is, as its watchdog is told."""

    where: Callable[[], tuple[int, str]] = lambda: (0, "")
    place: str = ""  # where hosts last agreed
    exchanges: int = 0


_PROGRESS = _Progress()


def report_progress(where: Callable[[], tuple[int, str]]) -> None:
    """Has the watchdog, if there is one, ask `where`: it returns a number that changes while this
    host gets on, and what it does, in words.
    """
    _PROGRESS.where = where


def is_main() -> bool:
    """Whether this host writes files and prints: process 0."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def hosts() -> int:
    """Returns the number of processes that run this program together."""
    return jax.process_count()


def this_host() -> int:
    """Returns this process's number among them, from 0."""
    return jax.process_index()


def hosts_of(devices: Iterable[jax.Device]) -> int:
    """Returns the number of hosts that the devices belong to, which may be those of a topology."""
    return len({one.process_index for one in devices})


def local_devices(mesh: Mesh) -> list[jax.Device]:
    """Returns the mesh's devices that this host drives, in the mesh's order."""
    return [one for one in mesh.devices.flat if one.process_index == jax.process_index()]


def gather(tree: Any) -> Any:
    """Returns the tree of arrays of every host, each leaf [hosts, ...], on the host (NumPy)."""
    if hosts() == 1:
        return jax.tree.map(lambda leaf: np.asarray(leaf)[None], tree)
    return multihost_utils.process_allgather(tree)


def broadcast(tree: Any) -> Any:
    """Returns the main host's tree of arrays on every host (NumPy)."""
    if hosts() == 1:
        return jax.tree.map(np.asarray, tree)
    return multihost_utils.broadcast_one_to_all(tree)


def read(array: Any) -> np.ndarray:
    """Returns an array on the host (NumPy), those parts of it included that only other hosts hold.
    All hosts call it together.
    """
    if isinstance(array, jax.Array) and not (
        array.is_fully_addressable or array.is_fully_replicated
    ):
        return np.asarray(multihost_utils.process_allgather(array, tiled=True))
    return np.asarray(array)


def exchange(value: Any) -> list[Any]:
    """Returns the value of every host, in their order. It is pickled on the way, and may differ in
    size. All hosts call it together.
    """
    if hosts() == 1:
        return [value]
    _PROGRESS.exchanges += 1
    sent = np.frombuffer(pickle.dumps(value), np.uint8)
    sizes = multihost_utils.process_allgather(np.asarray(sent.size, np.int32))
    room = 1 << max(int(sizes.max()) - 1, 255).bit_length()  # few sizes, so few programs
    padded = multihost_utils.process_allgather(np.pad(sent, (0, room - sent.size)))
    return [pickle.loads(row[:size].tobytes()) for row, size in zip(padded, sizes, strict=True)]


def of_main(make: Callable[[], Made]) -> Made:
    """Returns, on every host, what `make` returns on the main one; it is called nowhere else. For
    what is read from files that the main host also writes: the others could find them changed.
    """
    return cast(Made, exchange(make() if is_main() else None)[0])


class HostsDifferError(RuntimeError):
    """Hosts that must take the same decisions have not."""


def agree(place: str, parts: Mapping[str, Any]) -> None:
    """Checks that all hosts have the same values. All call it together; one host alone has nothing
    to check.

    Args:
      place: where this is, for the message: "step 3".
      parts: values that can be pickled, by what they are, for the message. Equal ones must have
        been made in the same way: what is compared is a digest of how they are pickled.

    Raises:
      HostsDifferError: some hosts differ; it names the hosts, and what they differ in.
    """
    if hosts() == 1:
        return
    _PROGRESS.place = f"after {place}"
    own = {name: digest(value) for name, value in parts.items()}
    found = exchange(own)
    differing = {
        name: [host for host, other in enumerate(found) if other.get(name) != found[0].get(name)]
        for name in found[0]
    }
    words = [
        f"{name} (hosts {differ} against host 0)" for name, differ in differing.items() if differ
    ]
    if words:
        raise HostsDifferError(
            f"{place}: the hosts do not agree on {', '.join(words)}. They would train different "
            "policies, so the run stops; checkpoints are from before. Look for different "
            "versions, files or environment variables, or for something random or timed in code "
            "of your own"
        )


def digest(value: Any) -> str:
    """Returns 16 hexadecimal digits of a value that can be pickled. Arrays are not copied."""
    file, arrays = io.BytesIO(), list[pickle.PickleBuffer]()
    pickler = pickle.Pickler(file, protocol=5, buffer_callback=arrays.append)
    pickler.fast = True  # without references between equal objects, whose identity is an accident
    pickler.dump(value)
    found = hashlib.blake2b(file.getvalue(), digest_size=8)
    for array in arrays:
        found.update(array.raw())
    return found.hexdigest()


def barrier(name: str) -> None:
    """Waits until every host has reached the barrier of this name."""
    if hosts() > 1:
        multihost_utils.sync_global_devices(name)


def is_preempted(step: int) -> bool:
    """Whether all hosts have agreed to stop after this step, since one of them is to be taken away.
    Always False where jax.distributed was not initialised. Every host asks after every step.
    """
    return jax.distributed.is_initialized() and bool(
        multihost_utils.reached_preemption_sync_point(step)
    )
