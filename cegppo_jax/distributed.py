"""How many hosts take part, and what they exchange: the one place that asks.

With one process, this host is the main one, gathering returns what was given, and nothing waits. No
other module asks for jax.process_index or jax.process_count.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

Made = TypeVar("Made")


@contextlib.contextmanager
def joined(
    address: str | None,
    processes: int | None,
    process: int | None,
    *,
    heartbeat_seconds: int,
    stall_seconds: int,
) -> Iterator[None]:
    """Within this context, this process is one of several; all enter and leave it together. No
    device may have been touched before.

    Args:
      address: HOST:PORT of process 0; None: from the environment, as the two below.
    """
    jax.distributed.initialize(
        address,
        processes,
        process,
        cluster_detection_method=None if address is None else "deactivate",
        heartbeat_timeout_seconds=heartbeat_seconds,
    )
    yield
    jax.distributed.shutdown()


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
    """Returns 16 hexadecimal digits of a value that can be pickled."""
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, protocol=5)
    pickler.fast = True  # without references between equal objects, whose identity is an accident
    pickler.dump(value)
    return hashlib.blake2b(buffer.getvalue(), digest_size=8).hexdigest()


def barrier(name: str) -> None:
    """Waits until every host has reached the barrier of this name."""
    if hosts() > 1:
        multihost_utils.sync_global_devices(name)
