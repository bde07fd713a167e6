"""Scores completions in worker processes that are killed when they take too long.

Each worker has a thread. The thread takes the next completion from the one queue, asks its process,
and waits for the reply, the time limit or the process's death, whichever comes first. The limit
thus begins when a completion's verification does. No process shares a lock or a pipe with another,
so killing one does not harm the others.

    what the process did         outcome     then
    replied                      the score
    raised an error              CRASHED     continues
    took longer than the limit   TIMED_OUT   killed; a new one
    died, or ran out of memory   CRASHED     a new one, in which the completion is tried again,
                                             `retries` times: the fault may have been another's

Why not pebble.ProcessPool (5.2): it kills a process but not what that has forked; a worker that
exits with code 0 counts as timed out; a worker that hangs in C code delays the limits of all others
by three seconds; and multiprocessing's spawn imports the main module, here train.py with jax, in
every worker.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from multiprocessing.connection import Pipe
from typing import Any

from cegppo_jax.rewards.scoring import RewardValues
from cegppo_jax.rewards.settings import PoolSettings
from cegppo_jax.rewards.workers.replies import MOST_REPLY_BYTES, read_reply
from cegppo_jax.rewards.workers.scorer import Judge, Scorer, ScorerCounts
from cegppo_jax.types import Outcome, Problem, Score

START_SECONDS = 120.0  # of a process: its imports, on a slow file system
START_ATTEMPTS = 5  # since it may be killed from outside before it is ready
END_SECONDS = 5.0  # for a guard to kill and reap what it guards

# Many workers share the cores with the sampler's host: one thread each.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


# What Python and its libraries need. All else may be a secret, and what a verifier reads was
# written by a model.
NEEDED = {"PATH", "HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "PYTHONHOME"}
FOR_VERIFIERS = ("LC_", "CEGPPO_VERIFIER_")  # begin the names of those that are passed on as well


def needed_environment() -> dict[str, str]:
    """Returns the variables of this process that a verifier's process gets."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in NEEDED or name.startswith(FOR_VERIFIERS)
    }


class WorkerFailed(RuntimeError):
    """No worker process could be started, so no completion can be scored."""


class WorkerProcess:
    """A process of worker.py, seen from the thread that asks it."""

    def __init__(self) -> None:
        self._channel, theirs = Pipe()
        with theirs:
            self._guard = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "cegppo_jax.rewards.workers.worker",
                    str(theirs.fileno()),
                ],
                stdin=subprocess.PIPE,  # closed by the end of this process, whatever ends it
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C in a terminal reaches the whole group
                env=needed_environment() | ONE_THREAD | {"PYTHONPATH": os.pathsep.join(sys.path)},
            )

    def ask(self, message: Any, seconds: float) -> tuple[str, Any]:
        """Sends a message and returns (kind, content) of the reply: worker.py's kinds, or
        "timed_out" or "died".
        """
        try:
            self._limit(seconds)
            self._channel.send(message)
            if not self._channel.poll(seconds):
                return "timed_out", None
            return read_reply(self._channel.recv_bytes(MOST_REPLY_BYTES))
        except BlockingIOError:  # within a message
            return "timed_out", None
        except (EOFError, OSError):  # or a reply of more than MOST_REPLY_BYTES
            return "died", "its process died"
        except ValueError as error:
            return "died", f"its process sent what is no reply ({error})"

    def _limit(self, seconds: float) -> None:
        """Limits how long a read or write waits: a process that has stopped accepts no more of a
        message than its buffer holds, and may have sent half of one.
        """
        whole, part = divmod(round(seconds * 1_000_000), 1_000_000)
        interval = struct.pack("@ll", whole, part)  # struct timeval
        with socket.socket(fileno=os.dup(self._channel.fileno())) as channel:
            for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
                channel.setsockopt(socket.SOL_SOCKET, option, interval)

    def interrupt(self) -> None:
        """Ends the process, which makes `ask` return in another thread."""
        with contextlib.suppress(OSError):  # it has ended
            self._guard.terminate()

    def end(self) -> None:
        """Kills the process and everything that it started, and waits for their end."""
        self.interrupt()
        try:
            self._guard.wait(END_SECONDS)
        except subprocess.TimeoutExpired:  # something has stopped the guard itself
            self._guard.kill()
            self._guard.wait()
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._channel.close()


class PoolScorer(Scorer):
    """Judges in worker processes that can be killed. Any thread may submit."""

    def __init__(
        self, make_judge: Callable[[], Judge], settings: PoolSettings, values: RewardValues
    ) -> None:
        """Starts `settings.workers` processes; the pickled `make_judge` gives each its Judge."""
        super().__init__(values)
        self._settings = settings
        self._make_judge = make_judge
        self._queue: queue.SimpleQueue[tuple[str, Problem, Future[Score]] | None]
        self._queue = queue.SimpleQueue()
        self._lock = threading.Lock()  # of all below
        self._closed = False
        self.offline = False  # whether its newest process has no network
        self._processes: set[WorkerProcess] = set()
        self._counts = ScorerCounts(0, 0)
        # Daemons: a process that forgets to close the scorer can end all the same
        self._threads = [
            threading.Thread(target=self._work, name=f"scorer-{n}", daemon=True)
            for n in range(settings.workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, text: str, problem: Problem) -> Future[Score]:
        """Returns a Future of a completion's Score, which is WorkerFailed if no process can be
        started.
        """
        future: Future[Score] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("this scorer is closed")
            self._queue.put((text, problem, future))
        return future

    def counts(self) -> ScorerCounts:
        """Returns the retries and restarts so far."""
        return self._counts

    def close(self) -> None:
        """Kills every process, whatever it is doing, and cancels completions that were not
        scored.
        """
        with self._lock:
            self._closed = True
            running = list(self._processes)
        with contextlib.suppress(queue.Empty):
            while True:
                waiting = self._queue.get_nowait()
                if waiting is not None:
                    waiting[-1].cancel()
        for process in running:
            process.interrupt()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        for process in list(self._processes):  # of threads that an error took away from theirs
            self._end(process)

    def _work(self) -> None:
        """The loop of a thread: a process, and completions for it."""
        process: WorkerProcess | None = None
        with contextlib.suppress(WorkerFailed, CancelledError):  # raised where a score is requested
            process = self._start()
        while (waiting := self._queue.get()) is not None:
            text, problem, future = waiting
            if future.set_running_or_notify_cancel():
                try:
                    score, process = self._score((text, problem), process)
                    future.set_result(score)
                except BaseException as error:
                    process = None
                    future.set_exception(error)
        if process is not None:
            self._end(process)

    def _score(
        self, message: tuple[str, Problem], process: WorkerProcess | None
    ) -> tuple[Score, WorkerProcess | None]:
        """Scores a completion. Also returns the process for the next one: None if it had to end."""
        reason = ""
        for attempt in range(1 + self._settings.retries):
            if attempt:
                self._count(retries=1)
            process = process or self._start()
            kind, content = process.ask(message, self._settings.timeout_seconds)
            if kind == "scored":
                return content, process
            if kind == "raised":
                return self._crashed(content), process
            self._end(process)
            process, reason = None, content
            if self._closed:
                raise CancelledError("the scorer was closed")
            self._count(restarts=1)
            if kind == "timed_out":
                return self._failed(Outcome.TIMED_OUT), None
        return self._crashed(reason), None

    def _start(self) -> WorkerProcess:
        """Returns a process that is ready."""
        reason: object = None
        for _ in range(START_ATTEMPTS):
            process = WorkerProcess()
            with self._lock:
                self._processes.add(process)
            if self._closed:
                self._end(process)
                raise CancelledError("the scorer was closed")
            settings = self._settings
            first = (self._make_judge, settings.memory_megabytes, settings.network)
            kind, reason = process.ask(first, START_SECONDS)
            if kind == "ready":
                self.offline = bool(reason)
                return process
            self._end(process)
            if kind == "raised":  # it would again
                break
            reason = f"not ready within {START_SECONDS} s" if kind == "timed_out" else reason
        raise WorkerFailed(f"no process for the verifier could be started: {reason}")

    def _end(self, process: WorkerProcess) -> None:
        process.end()
        with self._lock:
            self._processes.discard(process)

    def _count(self, *, retries: int = 0, restarts: int = 0) -> None:
        with self._lock:
            before = self._counts
            self._counts = ScorerCounts(before.retries + retries, before.restarts + restarts)
