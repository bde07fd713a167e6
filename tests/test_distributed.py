"""What hosts exchange: with one process, and with two real ones on CPU."""

import ast
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from child_runs import ROOT, environment

import cegppo_jax
from cegppo_jax import distributed
from cegppo_jax.sharding import MeshShape, make_mesh

TREE = {"a": np.arange(3, dtype=np.int32), "b": {"c": np.float32(0.5)}}


def test_one_process_is_the_main_host_and_the_only_one():
    assert distributed.is_main()
    assert distributed.hosts() == 1


def test_gather_of_one_process_adds_the_axis_of_hosts():
    gathered = distributed.gather(jax.tree.map(jax.numpy.asarray, TREE))
    np.testing.assert_array_equal(gathered["a"], [[0, 1, 2]])
    np.testing.assert_array_equal(gathered["b"]["c"], [0.5])
    assert gathered["a"].dtype == np.int32
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(gathered))


def test_broadcast_of_one_process_returns_what_it_was_given():
    sent = distributed.broadcast(TREE)
    jax.tree.map(np.testing.assert_array_equal, sent, TREE)


def test_a_barrier_of_one_process_does_not_wait():
    distributed.barrier("alone")


def test_one_process_drives_all_devices_of_a_mesh_in_its_order():
    mesh = make_mesh(MeshShape(2, 2, 2))
    assert distributed.local_devices(mesh) == list(mesh.devices.flat)


def test_no_other_module_asks_how_many_processes_there_are():
    asking = {"process_index", "process_count", "multihost_utils"}
    package = Path(cegppo_jax.__file__).parent
    found = {
        path.name
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Attribute) and node.attr in asking)
        or (isinstance(node, ast.alias) and node.name in asking)
    }
    assert found == {"distributed.py"}


# Each of the processes has two devices. It prints what it saw.
TWO_PROCESSES = """
import sys
import jax, numpy as np
jax.distributed.initialize(sys.argv[1], num_processes=2, process_id=int(sys.argv[2]))
from cegppo_jax import distributed
from cegppo_jax.sharding import MeshShape, make_mesh

me = jax.process_index()
gathered = distributed.gather({"x": np.arange(2, dtype=np.int32) + 10 * me})
sent = distributed.broadcast({"x": np.arange(2, dtype=np.int32) + 10 * (me + 1)})
distributed.barrier("met")
local = distributed.local_devices(make_mesh(MeshShape(4, 1, 1)))
assert [device.process_index for device in local] == [me, me]
print(
    distributed.is_main(),
    distributed.hosts(),
    gathered["x"].tolist(),
    np.asarray(sent["x"]).tolist(),
)
"""


@pytest.mark.slow
def test_two_processes_gather_broadcast_and_meet():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    variables = environment(None, devices=2) | {"PYTHONPATH": str(ROOT)}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_PROCESSES, address, str(process)],
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in (0, 1)
    ]
    printed = []
    for child in children:
        out, errors = child.communicate(timeout=120)
        assert child.returncode == 0, errors
        printed.append(out.splitlines()[-1])
    assert printed == [
        "True 2 [[0, 1], [10, 11]] [10, 11]",
        "False 2 [[0, 1], [10, 11]] [10, 11]",
    ]
