"""A process that verifies and may be killed: (text, problem) on a socket -> (kind, content) on it.

    python -m cegppo_jax.rewards.workers.worker 5          5: the socket's file descriptor

pool.py starts it. It is two processes, because a verifier can stop its own from doing anything:

    guard   The process that was started. It waits until its judge has ended, the pool wants an end
            (SIGTERM) or the pool's process is gone (standard input closes). Then it kills all its
            descendants. On Linux, orphans become children of the guard (PR_SET_CHILD_SUBREAPER),
            so none escapes; elsewhere the judge's process group is killed.
    judge   Its child, in a separate session, without a terminal and with standard streams that lead
            nowhere. It dies with the guard (PR_SET_PDEATHSIG), whatever ends that.

The first message is (make, megabytes, network): `make()` returns the function to be asked, and its
imports do not count towards the megabytes. Unless it may use the network, the judge leaves it
first. The replies to it, and to each (text, problem) after it, are JSON (replies.py), since what a
verifier has taken over could send anything, and reading a pickle runs code:

    ready   offline    the function is made; whether the process has no network
    scored  [reward, outcome, answer, rule]
    memory  reason     out of memory: nothing that this process says from now on can be trusted
    raised  reason     the function raised an error, or could not be made
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ON_LINUX = sys.platform == "linux"
# linux/prctl.h
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 36, 38
# linux/sched.h, linux/capability.h
CLONE_NEWUSER, CLONE_NEWNET, CAPABILITY_VERSION = 0x10000000, 0x40000000, 0x20080522


def main() -> None:
    """Becomes the guard of a judge."""
    channel = Connection(int(sys.argv[1]))
    guard = os.getpid()
    control_process(PR_SET_CHILD_SUBREAPER, 1)
    control_process(PR_SET_NO_NEW_PRIVS, 1)  # for good, also for all that it starts: no sudo
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
    """Returns when the judge has ended, or has to be ended."""
    while judge not in reap():
        ready, _, _ = select.select([sys.stdin.fileno(), woken], [], [])
        if woken not in ready or signal.SIGTERM in os.read(woken, 4096):
            return


def reap() -> set[int]:
    """Returns the children that have ended."""
    ended = set()
    with contextlib.suppress(ChildProcessError):
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            ended.add(pid)
    return ended


def end_descendants(judge: int) -> None:
    """Sends SIGKILL to all descendants of this process and waits for their end.

    When a child has been waited for, its own children become this process's, so they are found in
    the next round.
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
    """Returns this process's children, on Linux."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            # "7 (a name) S 3 ...": number, name, state, parent; a name may hold blanks and brackets
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(stat.parent.name))
    return found


def leave_the_guard(guard: int) -> None:
    """Separates a judge from the process that it was forked from."""
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
    """Answers messages until the pool closes its end."""
    process = os.getpid()
    judges: list[Callable[..., Any]] = []

    def prepare() -> bool:
        make, megabytes, network = channel.recv()  # imports the module of `make`
        offline = not network and leave_the_network()
        judges.append(make())
        limit_memory(megabytes)
        return offline

    channel.send_bytes(reply("ready", prepare))
    with contextlib.suppress(EOFError):
        while True:
            message = channel.recv()
            answer = reply("scored", scored_by, judges[0], *message)
            if os.getpid() != process:  # a process that the verifier forked has come back with it
                os._exit(0)
            channel.send_bytes(answer)


def scored_by(judge: Callable[..., Any], text: str, problem: Any) -> list[Any]:
    """Returns a judge's Score as plain values."""
    score = judge(text, problem)
    return [float(score.reward), str(score.outcome), score.answer, score.rule]


def reply(kind: str, function: Callable[..., Any], *arguments: Any) -> bytes:
    """Returns a function's result under `kind`, or what went wrong, as JSON."""
    try:
        return json.dumps([kind, function(*arguments)]).encode()
    except MemoryError as error:
        return json.dumps(["memory", words_for(error)]).encode()
    except BaseException as error:  # SystemExit as well
        return json.dumps(["raised", words_for(error)]).encode()


def leave_the_network() -> bool:
    """Moves this process, and all that it starts, to a network of its own, without any device.
    Returns whether the kernel let it. A user without rights needs a user namespace for it, in which
    it keeps its own number and gains nothing.
    """
    if not ON_LINUX:
        return False
    libc, user, group = ctypes.CDLL(None, use_errno=True), os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWNET) == 0:
        return True
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET):
        return False
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        with contextlib.suppress(OSError):
            Path(f"/proc/self/{name}").write_text(text)
    nothing = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice 32 capabilities
    version = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    return not libc.capset(version, nothing)


def words_for(error: BaseException) -> str:
    """Describes what an error is and where it was raised."""
    from cegppo_jax.rewards.workers.scorer import reason_of  # the guard needs none of its imports

    return reason_of(error)


def limit_memory(megabytes: int) -> None:
    """Lets this process's address space grow by at most that many megabytes; 0: no limit.

    It also disables core dumps: those of a verifier that is killed often would fill the disk.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if megabytes:
        pages = int(Path("/proc/self/statm").read_text().split()[0]) if ON_LINUX else 0
        limit = pages * resource.getpagesize() + megabytes * 2**20
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        limit = limit if most == resource.RLIM_INFINITY else min(limit, most)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def control_process(option: int, value: int) -> None:
    """Calls prctl(2), if there is one."""
    if ON_LINUX and ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value})")


if __name__ == "__main__":
    main()
