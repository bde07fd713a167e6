"""How a run is asked to stop, and ends: what was computed is saved, and a line says so.

SIGTERM and SIGHUP (a machine that is taken away, a closed terminal) and Ctrl-C let the step in
progress come to where its state is whole, save it and end with EXIT_CODE. While completions are
drawn that is at once: the policy has not changed yet, and the resumed run draws the same ones. A
second Ctrl-C leaves without saving. Where several hosts train together, the notice that
jax.distributed passes to all of them stops them after the same step.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from cegppo_jax import distributed
from cegppo_jax.activity import LOGPROBS, ROLLOUT, SETTLING, Activity
from cegppo_jax.console.start import EXIT_CODE, stopped
from cegppo_jax.finite import NonFiniteError
from cegppo_jax.run.read_back import UnreadableCheckpointError
from cegppo_jax.storage.lease import InUseError
from cegppo_jax.storage.writing import CannotWriteError

# Stages in which a step has changed nothing yet, so that it can be left; but while the scores of a
# rollout are taken that was drawn in the step before, which come once
BEFORE_UPDATES = (ROLLOUT, LOGPROBS)

# What ends a run with its message alone
ERRORS_OF_A_RUN = (
    UnreadableCheckpointError,
    NonFiniteError,
    CannotWriteError,
    InUseError,
    distributed.HostsDifferError,
)


class StopAskedError(BaseException):
    """The run is to save its state and end; the message is what asked for it. No Exception, which
    a verifier or a library might catch.
    """


class StoppedError(Exception):
    """The run was asked to stop and has saved its state. The message is the line to print."""


class StopRequests:
    """What has asked a run to stop since its beginning."""

    def __init__(self, activity: Activity, at_once_in: Collection[str] | None) -> None:
        """`at_once_in`: as of stop_requests."""
        self._activity, self._at_once_in = activity, at_once_in
        self._reason: str | None = None

    def asked(self, step: int) -> str | None:
        """Returns what has asked, once after each step, so that all hosts agree; `step`: those
        taken.
        """
        if distributed.is_preempted(step):
            self._reason = "the notice of preemption"
        return self._reason

    def check(self, step: int) -> None:
        """Raises StopAskedError if something has asked. Arguments as of `asked`."""
        if (reason := self.asked(step)) is not None:
            raise StopAskedError(reason)

    def receive(self, signum: int, frame: object) -> None:
        """Handles a signal."""
        if self._reason is not None:
            return
        self._reason = signal.Signals(signum).name
        words = f"{self._reason}: saving the state"
        if signum == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            words += "; once more leaves at once"
        os.write(2, f"\n{words}\n".encode())  # a print may be going on
        names, stages = [doing.name for doing in self._activity.now], self._at_once_in
        if stages is None or (any(name in stages for name in names) and SETTLING not in names):
            raise StopAskedError(self._reason)


def saved_words(reason: object, what: str, step: int, steps: int) -> str:
    """Returns the last line of a run that was stopped; `what`: "step", of `steps`."""
    return (
        f"stopped by {reason}: {what} {step} of {steps} is saved, and the same command goes on "
        f"from there (exit code {EXIT_CODE})"
    )


@contextlib.contextmanager
def stop_requests(
    activity: Activity, at_once_in: Collection[str] | None = BEFORE_UPDATES
) -> Iterator[StopRequests]:
    """Within this context, signals ask the run to stop. What the process ignores (SIGHUP under
    nohup) it goes on ignoring. With several hosts, and outside the main thread, signals stay as
    they are.

    Args:
      at_once_in: stages that a signal leaves at once, by StopAskedError; None: whatever goes on.
    """
    stop, before = StopRequests(activity, at_once_in), dict[signal.Signals, Any]()
    if distributed.hosts() == 1 and threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, stop.receive)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def saves_when_stopped(save: Callable[[], int], steps: int) -> Iterator[None]:
    """Around the steps of a run: when something asks it to stop, saves.

    Args:
      save: saves the state after the newest whole step, and returns that step.
      steps: those of the run.

    Raises:
      StoppedError: the run was asked to stop, and is saved.
    """
    try:
        yield
    except StopAskedError as asked:
        raise StoppedError(saved_words(asked, "step", save(), steps)) from None


@contextlib.contextmanager
def counted_when_stopped(activity: Activity, saved: Sequence[object], total: int) -> Iterator[None]:
    """Around work whose every piece is on the disk once it is among `saved`, of `total`: what asks
    it to stop ends it at once.

    Raises:
      StoppedError: the work was asked to stop.
    """
    try:
        with stop_requests(activity, at_once_in=None):
            yield
    except StopAskedError as asked:
        raise StoppedError(
            f"stopped by {asked}: {len(saved):,} of {total:,} completions are saved, and the same "
            f"command goes on from there (exit code {EXIT_CODE})"
        ) from None


@contextlib.contextmanager
def ends_with_a_line() -> Iterator[None]:
    """Around the work of a command: a run that was stopped, or cannot go on, ends the process with
    one line and without a traceback.
    """
    try:
        yield
    except StoppedError as error:
        raise stopped(str(error)) from None
    except KeyboardInterrupt:
        raise stopped("stopped; the same command goes on from what is saved") from None
    except ERRORS_OF_A_RUN as error:
        raise SystemExit(f"error: {error}") from error
