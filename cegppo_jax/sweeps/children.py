"""Runs commands as child processes, several at a time: each with its share of the cores, a log, and
a lock that outlives this process.

The lock is on the log (flock) and belongs to every process that has the file open, so it is held
for as long as a run goes on, also when the sweep that started it was killed. Two sweeps of one
folder on one machine therefore never run the same directory, and share the work.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

GRACE_SECONDS = 30.0  # for a child to end after SIGINT, and then again after SIGTERM
POLL_SECONDS = 0.1


def available_cores() -> list[int]:
    """Returns the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux; a container may be given fewer than there are
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def shares_of(cores: Sequence[int], number: int) -> list[list[int]]:
    """Deals cores out to a number of processes: neighbours together, sizes that differ by one at
    most. With more processes than cores, several have the same single core.

    Worked example: cores 0 1 2 3 4 for 2 are [0 1 2], [3 4]; for 7: [0] [1] [2] [3] [4] [0] [1].
    """
    if number >= len(cores):
        return [[cores[i % len(cores)]] for i in range(number)]
    small, larger = divmod(len(cores), number)
    ends = [small * i + min(i, larger) for i in range(number + 1)]
    return [list(cores[ends[i] : ends[i + 1]]) for i in range(number)]


class Child:
    """A command that runs on some cores and writes to a log."""

    def __init__(
        self,
        command: Sequence[str],
        log: IO[bytes],
        cores: Sequence[int],
        environment: Mapping[str, str],
    ) -> None:
        """Starts the command in a session of its own, so that Ctrl-C in a terminal reaches it only
        by way of `stop_all`.

        Args:
          log: of open_locked; the child alone has it from now on.
          cores: where the system cannot bind processes to cores (macOS), XLA is told how many.
          environment: variables in addition to this process's.
        """
        self.cores, self.began = list(cores), time.monotonic()
        variables = {**os.environ, **environment}
        if not hasattr(os, "sched_setaffinity"):
            variables["NPROC"] = str(len(cores))
        with log:
            log.write(f"\n{time.strftime('%F %T')} $ {shlex.join(command)}\n".encode())
            log.flush()
            with _bound_to(cores):
                self.process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=variables,
                    start_new_session=True,
                )

    def exit_code(self) -> int | None:
        """Returns the exit code, negative for a signal; None while it runs."""
        return self.process.poll()


@contextlib.contextmanager
def _bound_to(cores: Sequence[int]) -> Iterator[None]:
    """Processes started meanwhile by this thread run on these cores. XLA sizes its thread pools by
    them, and the verifiers' pool its number of processes.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)  # of this thread
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def open_locked(path: Path) -> IO[bytes] | None:
    """Opens a log for appending and locks it; None when another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    log = path.open("ab")
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.close()
        return None
    return log


def stop_all(children: Sequence[Child]) -> None:
    """Ends children as Ctrl-C does, and those that do not end in GRACE_SECONDS by force, as a
    second Ctrl-C does at once.
    """
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            alive = [child for child in children if child.exit_code() is None]
            for child in alive:
                child.process.send_signal(number)
            if _ended(alive, GRACE_SECONDS):
                return
    finally:  # also after a second Ctrl-C
        for child in children:
            if child.exit_code() is None:
                child.process.kill()
                child.process.wait()


def _ended(children: Sequence[Child], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while any(child.exit_code() is None for child in children):
        if time.monotonic() > end:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _ignored(signum: int, frame: object) -> None:
    """Unlike SIG_IGN, a handler is not inherited by the programs that a process starts."""


@contextlib.contextmanager
def signals_interrupt() -> Iterator[None]:
    """Makes SIGTERM and the loss of the terminal (SIGHUP) end the block as Ctrl-C does: by
    KeyboardInterrupt. What this process ignores (SIGHUP under nohup, SIGINT in the background of a
    script) it goes on ignoring, but its children do not: they have to end when stop_all says so.
    """
    before: dict[signal.Signals, Any] = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        heeded = signal.getsignal(number) is not signal.SIG_IGN
        before[number] = signal.signal(number, signal.default_int_handler if heeded else _ignored)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
