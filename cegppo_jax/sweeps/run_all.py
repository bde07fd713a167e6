"""Runs what is missing of a sweep: skips finished runs, resumes cut ones, outlives failed ones."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from cegppo_jax.saved_config import CONFIG_FILE_NAME
from cegppo_jax.storage.writing import writing
from cegppo_jax.sweeps.arms import ArmRun
from cegppo_jax.sweeps.children import (
    Child,
    available_cores,
    open_locked,
    shares_of,
    signals_interrupt,
    stop_all,
)
from cegppo_jax.sweeps.state import RunStatus, is_finished

POLL_SECONDS = 0.2


class Planned(Protocol):
    """What is run: see plan.PlannedRun."""

    @property
    def run(self) -> ArmRun: ...
    @property
    def workdir(self) -> Path: ...
    @property
    def command(self) -> tuple[str, ...]: ...
    @property
    def steps(self) -> int: ...


@dataclasses.dataclass
class RunState:
    """A run of the sweep as it goes on."""

    planned: Planned
    status: RunStatus
    child: Child | None = None
    seconds: float = 0.0  # that it ran, this time
    reason: str = ""  # that it failed

    @property
    def log(self) -> Path:
        """What its command prints."""
        return log_of(self.planned.workdir)


def log_of(workdir: Path) -> Path:
    """Returns the log of a run: beside its directory, which holds nothing before it is claimed."""
    return workdir.with_name(workdir.name + ".log")


class Watcher(Protocol):
    """Shows the states of all runs: when one of them changes, and now and then."""

    def changed(self, state: RunState) -> None:
        """A run began, ended or failed."""

    def waited(self) -> None:
        """Some time has passed."""


def initial_state(planned: Planned) -> RunState:
    """Returns the state of a run before anything is started."""
    if is_finished(planned.workdir, planned.steps):
        return RunState(planned, RunStatus.FINISHED)
    begun = (planned.workdir / CONFIG_FILE_NAME).exists()
    state = RunState(planned, RunStatus.CUT if begun else RunStatus.ABSENT)
    if state.log.exists():
        log = open_locked(state.log)
        if log is None:
            state.status = RunStatus.ELSEWHERE
        else:
            log.close()
    return state


def run_all(
    states: Sequence[RunState], jobs: int, watcher: Watcher, environment: Mapping[str, str]
) -> None:
    """Runs what is not finished, `jobs` at once, and brings the states up to date.

    A run that another process is at counts as one of the jobs, and is waited for: if that process
    does not finish it, it is resumed here.

    Args:
      environment: variables of the children, in addition to this process's.

    Raises:
      KeyboardInterrupt: Ctrl-C, SIGTERM or SIGHUP; the children have been stopped.
    """
    free = shares_of(available_cores(), jobs)
    waiting = [one for one in states if one.status is not RunStatus.FINISHED]
    with signals_interrupt():
        try:
            while waiting or any(state.child for state in states):
                for state in states:
                    _end_if_over(state, free, watcher)
                for state in list(waiting):
                    elsewhere = sum(one.status is RunStatus.ELSEWHERE for one in waiting)
                    if len(free) <= elsewhere - (state.status is RunStatus.ELSEWHERE):
                        continue
                    _begin(state, free, watcher, environment)
                    if state.status is not RunStatus.ELSEWHERE:
                        waiting.remove(state)
                watcher.waited()
                time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            running = [state.child for state in states if state.child]
            stop_all(running)
            raise


def _begin(
    state: RunState, free: list[list[int]], watcher: Watcher, environment: Mapping[str, str]
) -> None:
    """Starts a run, unless another process has it or has finished it."""
    before, planned = state.status, state.planned
    try:
        log = open_locked(state.log)
        if log is None:
            state.status = RunStatus.ELSEWHERE
        elif is_finished(planned.workdir, planned.steps):
            log.close()
            state.status = RunStatus.FINISHED
        else:
            with writing(state.log):
                state.child = Child(planned.command, log, free[0], environment)
            free.pop(0)
            state.status = RunStatus.RUNNING
    except OSError as error:  # no such program, no room on the disk
        state.status, state.reason = RunStatus.FAILED, str(error)
    if state.status is not before:
        watcher.changed(state)


def _end_if_over(state: RunState, free: list[list[int]], watcher: Watcher) -> None:
    """Records the end of a run's child and gives its cores back."""
    child = state.child
    if child is None:
        return
    code, state.seconds = child.exit_code(), time.monotonic() - child.began
    if code is None:
        return
    state.child = None
    free.append(child.cores)
    state.status = RunStatus.FINISHED
    if code or not is_finished(state.planned.workdir, state.planned.steps):
        state.status, state.reason = RunStatus.FAILED, _reason(code, state.log)
    watcher.changed(state)


def _reason(code: int, log: Path) -> str:
    """Returns the last line of a failed run's log, or the signal that ended it."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    with log.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
        lines = file.read().decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return last if code else f"ended before its last step: {last}"
