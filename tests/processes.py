"""Several processes that run a command together, as hosts do; those of one machine, over gloo.

Sums over devices are added in the order of the collectives' implementation, gloo between processes.
One process that they are compared with joins a group of its own (`begin(1, ...)`), and so uses gloo
as well.
"""

import socket
import subprocess
import sys

import child_runs

# Every part of a step that hosts could do differently; leaves that two processes hold in part
FLAGS = (
    "--config.steps=4",
    "--config.mesh.fsdp=2",
    "--config.batch.dynamic_sampling=carry_over",
    "--config.loss.kl_place=loss",
    "--config.loss.kl_coef=0.01",
    "--config.warm_start.steps=10",
)


def free_address():
    """-> HOST:PORT of a port that was free a moment ago."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


def begin(count, *arguments, cache=None, own=None, folders=None, devices=8):
    """Begins `python -m cegppo_jax.ARGUMENTS` in processes that share so many devices; own: further
    variables by process; folders: where each runs.
    """
    address = free_address()
    group = [f"--coordinator_address={address}", f"--num_processes={count}"]
    name, *flags = arguments
    return [
        subprocess.Popen(
            [sys.executable, "-m", f"cegppo_jax.{name}", *flags, *group, f"--process_id={process}"],
            cwd=folders[process] if folders else child_runs.ROOT,
            env=child_runs.environment(cache, devices=devices // count)
            | (own or {}).get(process, {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(count)
    ]


def train(workdir, *flags):
    """The arguments of `train` on the tiny recipe."""
    options = [f"--workdir={workdir}", "--heartbeat_timeout_seconds=10", *flags]
    return ("train", f"--config={child_runs.RECIPE}", *options)


def finish(children):
    """-> what each printed. Gloo's threads write of their connections in between."""
    printed = [child.communicate() for child in children]
    assert [child.returncode for child in children] == [0] * len(children), printed
    return [out for out, _ in printed]
