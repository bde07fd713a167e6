"""(text, problem) on a socket -> (kind, content) on it: a process that verifies and may be killed.

    python -m cegppo_jax.rewards.workers.worker 5          5: the socket's file descriptor

pool.py starts it. It is two processes, for a verifier can stop its own from doing anything:

    guard   The process that was started. It waits, and when its judge has ended, the pool wants an
            end (SIGTERM) or the pool's process is gone (standard input closes), it kills all that
            descends from it. On Linux orphans become children of the guard (PR_SET_CHILD_SUBREAPER)
            and none escapes; elsewhere the judge's process group is killed.
    judge   Its child, in a session of its own, without a terminal and with standard streams that
            lead nowhere. It dies with the guard (PR_SET_PDEATHSIG), whatever ends that.

The first message is (make, megabytes): `make()` gives the function that is asked, and its imports
are not counted to the megabytes. Its reply, and those to each (text, problem) after it:

    ready   None       the function is made
    scored  Score
    memory  reason     out of memory: nothing that this process says from now on is to be trusted
    raised  reason     the function raised an error, or could not be made
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import resource
import select
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ON_LINUX = sys.platform == "linux"
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


def main() -> None:
    """Becomes the guard of a judge."""
    channel = Connection(int(sys.argv[1]))
    guard = os.getpid()
    control_process(PR_SET_CHILD_SUBREAPER, 1)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)  # a signal's number arrives as a byte
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the pool's process's to answer
    judge = os.fork()
    if judge == 0:
        try:
            leave_the_guard(guard)
            serve(channel)
        finally:
            os._exit(0)
    channel.close()  # so that the pool finds the end of file when the judge is gone
    wait_for_the_end(judge, woken)
    end_descendants(judge)


def wait_for_the_end(judge: int, woken: int) -> None:
    """Returns when the judge has ended, or is to be ended."""
    while judge not in reap():
        ready, _, _ = select.select([sys.stdin.fileno(), woken], [], [])
        if woken not in ready or signal.SIGTERM in os.read(woken, 4096):
            return


def reap() -> set[int]:
    """-> children that have ended."""
    ended = set()
    with contextlib.suppress(ChildProcessError):
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            ended.add(pid)
    return ended


def end_descendants(judge: int) -> None:
    """SIGKILL to all that descends from this process, which waits for their end.

    A child that is waited for has left its own children to this process, so that they are found the
    next time round.
    """
    with contextlib.suppress(OSError):
        os.killpg(judge, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            for pid in children():
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            os.waitpid(-1, 0)


def children() -> list[int]:
    """-> this process's children, on Linux."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            # "7 (a name) S 3 ...": number, name, state, parent; a name may hold blanks and brackets
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(stat.parent.name))
    return found


def leave_the_guard(guard: int) -> None:
    """What a judge does not share with the process that it was forked from."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    control_process(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guard:  # it ended before that line
        os._exit(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)


def serve(channel: Connection) -> None:
    """Messages -> replies, until the pool closes its end."""
    process = os.getpid()
    judges: list[Callable[..., Any]] = []

    def prepare() -> None:
        make, megabytes = channel.recv()  # imports the module of `make`
        judges.append(make())
        limit_memory(megabytes)

    channel.send_bytes(reply("ready", prepare))
    with contextlib.suppress(EOFError):
        while True:
            message = channel.recv()
            answer = reply("scored", judges[0], *message)
            if os.getpid() != process:  # a process that the verifier forked has come back with it
                os._exit(0)
            channel.send_bytes(answer)


def reply(kind: str, function: Callable[..., Any], *arguments: Any) -> bytes:
    """A function and its arguments -> its result under `kind`, or what went wrong; pickled."""
    try:
        return pickle.dumps((kind, function(*arguments)))
    except MemoryError as error:
        return pickle.dumps(("memory", words_for(error)))
    except BaseException as error:  # SystemExit as well
        return pickle.dumps(("raised", words_for(error)))


def words_for(error: BaseException) -> str:
    """Error -> what and where."""
    from cegppo_jax.rewards.workers.scorer import reason_of  # the guard needs none of its imports

    return reason_of(error)


def limit_memory(megabytes: int) -> None:
    """Lets this process's address space grow by so much and no more; 0: no limit.

    Never a core dump: one of a verifier that is killed often would fill the disk.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if megabytes:
        pages = int(Path("/proc/self/statm").read_text().split()[0]) if ON_LINUX else 0
        limit = pages * resource.getpagesize() + megabytes * 2**20
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        limit = limit if most == resource.RLIM_INFINITY else min(limit, most)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def control_process(option: int, value: int) -> None:
    """prctl(2), where there is one."""
    if ON_LINUX and ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value})")


if __name__ == "__main__":
    main()
