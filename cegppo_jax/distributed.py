"""How many hosts take part, and what they exchange: the one place that asks.

With one process, this host is the main one, gathering returns what was given, and nothing waits. No
other module asks for jax.process_index or jax.process_count.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh


def is_main() -> bool:
    """Whether this host writes files and prints: process 0."""
    return jax.process_index() == 0


def hosts() -> int:
    """Returns the number of processes that run this program together."""
    return jax.process_count()


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


def barrier(name: str) -> None:
    """Waits until every host has reached the barrier of this name."""
    multihost_utils.sync_global_devices(name)


def is_preempted(step: int) -> bool:
    """Whether all hosts have agreed to stop after this step, since one of them is to be taken away.
    Always False where jax.distributed was not initialised. Every host asks after every step.
    """
    return jax.distributed.is_initialized() and bool(
        multihost_utils.reached_preemption_sync_point(step)
    )
