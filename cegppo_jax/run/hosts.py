"""How the processes of a command find one another, and what each does that is not the main one.

    cegppo train ... --distributed                      a TPU pod, Slurm, Open MPI or Kubernetes,
                                                        whose own variables say who is who
    cegppo train ... --coordinator_address=HOST:PORT --num_processes=4 --process_id=0    elsewhere

The same command runs on every host; only --process_id differs.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from cegppo_jax import distributed
from cegppo_jax.console.start import ends_on_bad_input
from cegppo_jax.learner.minibatches import Minibatch
from cegppo_jax.rollout.selection import StepGroups
from cegppo_jax.run.directory import versions
from cegppo_jax.steering.steer import Steering
from cegppo_jax.storage.mirror import real_place

NAMED = ("coordinator_address", "num_processes", "process_id")
SEEN = ".seen_by_all_"  # begins the name of a file that all hosts must see


@contextlib.contextmanager
def joined_hosts() -> Iterator[None]:
    """Around a command, before anything of it touches a device: joins the other hosts, if its flags
    say that there are any. What hosts other than the main one print goes nowhere; errors stay.

    Raises:
      SystemExit: flags that do not go together, with the line to print.
    """
    with ends_on_bad_input():
        if not asks_for_hosts():
            membership: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
            starting: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        else:
            values = flags.FLAGS
            seconds, address = values.start_timeout_seconds, values.coordinator_address
            starting = ends_unless_all_start(seconds, address)
            membership = distributed.joined(
                *(values[name].value for name in NAMED),
                start_seconds=seconds,
                heartbeat_seconds=values.heartbeat_timeout_seconds,
                stall_seconds=values.stall_timeout_seconds,
            )
    with contextlib.ExitStack() as stack:
        with starting:
            stack.enter_context(membership)
        if not distributed.is_main():
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        yield


@contextlib.contextmanager
def ends_unless_all_start(seconds: int, address: str | None) -> Iterator[None]:
    """Ends this process with a line if its block, which waits for the other hosts, takes longer.
    `address` is that of host 0, if it was given.
    """

    def end() -> None:
        where = "" if address is None else f", with host 0 at {address}"
        print(
            f"error: not all hosts have started within {seconds} s{where} "
            "(--start_timeout_seconds): look at the logs of the others, and start the same command "
            "on every host",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def asks_for_hosts() -> bool:
    """Whether the flags ask for several hosts.

    Raises:
      ValueError: some of the flags that name them are missing, or too many are given.
    """
    values = flags.FLAGS
    if getattr(values, "distributed", None) is None:  # a command for one host
        return False
    given = [name for name in NAMED if values[name].value is not None]
    missing = [f"--{name}" for name in NAMED if name not in given]
    if values.distributed and given:
        raise ValueError(
            "--distributed finds the hosts by itself: leave out --distributed, or "
            f"--{' --'.join(given)}"
        )
    if given and missing:
        raise ValueError(f"--{given[0]} needs {' and '.join(missing)} as well: see --help")
    if given and not 0 <= values.process_id < values.num_processes:
        raise ValueError(
            f"--process_id={values.process_id} --num_processes={values.num_processes}: processes "
            f"are numbered from 0 to {values.num_processes - 1}"
        )
    return bool(given) or values.distributed


def check_same_run(workdir: Path, settings: Mapping[str, Any]) -> None:
    """Waits for all hosts, and checks that they are about to run the same in one directory.

    Raises:
      ValueError: some do not see what the main host writes in `workdir`.
      HostsDifferError: they have other settings or versions.
    """
    if distributed.hosts() == 1:
        return
    mark = distributed.of_main(lambda: f"{SEEN}{secrets.token_hex(4)}")
    place = real_place(workdir) / mark
    if distributed.is_main():
        for left in place.parent.glob(f"{SEEN}*"):  # by a start that was killed here
            left.unlink()
        place.write_text("")
    distributed.barrier("a mark is written")
    seen = distributed.exchange(place.exists())
    if distributed.is_main():
        place.unlink()
    if not all(seen):
        blind = [host for host, sees in enumerate(seen) if not sees]
        raise ValueError(
            f"hosts {blind} of {len(seen)} do not see what host 0 has written in {place.parent}: "
            "--workdir must be on a file system that all hosts share, under the same path"
        )
    distributed.agree("at the start", {"the settings": settings, "versions": versions()})


def check_hosts_agree(
    step: int,
    groups: StepGroups,
    minibatches: Sequence[Minibatch],
    next_prompt: int,
    steering: Steering,
) -> None:
    """Raises HostsDifferError unless every host is about to take the same updates."""
    if distributed.hosts() == 1:
        return
    parts = {
        "prompts": (next_prompt, [group.prompt.index for group in groups.drawn]),
        "completions": [one.tokens for group in groups.drawn for one in group.completions],
        "scores": [group.scores for group in groups.drawn],
        "which groups train": [group.prompt.index for group in groups.trained],
        "mini-batches": [minibatch.batch for minibatch in minibatches],
        "steering": steering,
    }
    distributed.agree(f"step {step}", parts)


def draw_report(workdir: Path, formats: Sequence[str]) -> None:
    """Draws the curves of a finished run, on the main host."""
    if distributed.is_main():
        # Here, since matplotlib would add to the start of every run.
        from cegppo_jax.reporting.picture import draw_run

        draw_run(workdir, formats)
