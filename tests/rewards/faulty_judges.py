"""Judges that do to a worker process whatever the completion's first word says."""

import contextlib
import ctypes
import os
import signal
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path

from cegppo_jax.types import Outcome, Score

KEPT = []  # what a leaking verifier keeps


def good(text):
    """ "3 + 4 = 7" -> whether the sum is right."""
    left, _, right = text.partition("=")
    return sum(int(one) for one in left.split("+")) == int(right)


def sleeps():
    time.sleep(1000)


def ignores_signals():
    """Nothing but SIGKILL ends it."""
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    sleeps()


def hangs_in_c():
    """One operation that runs for minutes, holds the GIL and grows."""
    return 10**10**10


def eats_memory():
    return bytearray(2**40)


def leaks_memory():
    while True:
        KEPT.append(bytearray(16 * 2**20))


def raises():
    raise RuntimeError("no such answer")


def leaves():
    sys.exit("bye")


def exits_as_if_well():
    os._exit(0)


def segfaults():
    ctypes.string_at(0)


def is_killed():
    os.kill(os.getpid(), signal.SIGKILL)


def kills_its_group():
    os.killpg(0, signal.SIGKILL)


def kills_its_guard():
    os.kill(os.getppid(), signal.SIGKILL)
    sleeps()


def stops_its_guard():
    os.kill(os.getppid(), signal.SIGSTOP)
    sleeps()


def closes_everything():
    os.closerange(0, 256)


def prints_a_flood():
    for stream in (sys.stdout, sys.stderr):
        for _ in range(200):
            stream.write("x" * 100_000)
    os.write(1, b"x" * 100_000)
    os.write(2, b"x" * 100_000)


def reads_the_terminal():
    return sys.stdin.read()


def forks_and_sleeps():
    for _ in range(3):
        if os.fork() == 0:
            sleeps()


def forks_and_returns_twice():
    os.fork()


def leaves_daemons_behind():
    """A grandchild in a session of its own, as of a code runner; then the verifier dies."""
    subprocess.Popen(
        [sys.executable, "-S", "-c", "import os, time; os.fork(); time.sleep(1000)"],
        start_new_session=True,
    )
    time.sleep(0.1)
    os._exit(7)


def dies_the_first_time(marker):
    """Only once, as when the machine runs short of memory for a moment."""
    marker = Path(marker)
    if not marker.exists():
        marker.touch()
        is_killed()


def stops_after_its_answer():
    """The next completion finds a process that does not read."""
    stop = f"import os, time; time.sleep(0.2); os.kill({os.getpid()}, {int(signal.SIGSTOP)})"
    subprocess.Popen([sys.executable, "-S", "-c", stop])


def answers_by_half():
    """The head of a message of 100 bytes on the pool's socket, and never the rest."""
    for descriptor in range(3, 32):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                os.write(descriptor, struct.pack("!i", 100))
    sleeps()


def takes(seconds):
    time.sleep(float(seconds))


def takes_megabytes(number):
    bytearray(int(number) * 2**20)


def needs(module):
    """Imported already, or an error."""
    sys.modules[module]


FAULTS = {
    function.__name__: function
    for function in (
        *(sleeps, ignores_signals, hangs_in_c, eats_memory, leaks_memory, raises, leaves),
        *(exits_as_if_well, segfaults, is_killed, kills_its_group, kills_its_guard),
        *(stops_its_guard, closes_everything, prints_a_flood, reads_the_terminal),
        *(forks_and_sleeps, forks_and_returns_twice, leaves_daemons_behind, dies_the_first_time),
        *(stops_after_its_answer, answers_by_half, takes, takes_megabytes, needs),
    )
}


def judge(text, problem):
    """ "fault: rest" does the fault first; the rest is a sum."""
    fault, colon, rest = text.rpartition(":")
    if colon:
        name, *arguments = fault.split()
        FAULTS[name](*arguments)
    right = good(rest)
    return Score(1.0 if right else -1.0, Outcome.CORRECT if right else Outcome.WRONG, None)


def make():
    return judge


def cannot_be_made():
    raise ImportError("no module 'x'")


def rights(text, problem):
    """Judges by what its process has: "no_new_privileges", or the name of a variable."""
    status = Path("/proc/self/status").read_text()
    if text == "no_new_privileges":
        has = "NoNewPrivs:\t1" in status
    elif text == "network":
        has = len(Path("/proc/net/dev").read_text().splitlines()) > 3  # two of heads, and lo
    else:
        has = text in os.environ
    return Score(float(has), Outcome.CORRECT if has else Outcome.WRONG, None)


def judge_of_rights():
    return rights
