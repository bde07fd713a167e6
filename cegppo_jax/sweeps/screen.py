"""Shows a sweep while it runs: a table on a terminal, and plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TextIO

import rich.box
import rich.console
import rich.live
import rich.table

from cegppo_jax.sweeps.experiment import Measure
from cegppo_jax.sweeps.numbers import number_text
from cegppo_jax.sweeps.run_all import RunState
from cegppo_jax.sweeps.state import ProgressReader, RunStatus

SECONDS_BETWEEN_REPORTS = 60.0  # of what runs, where there is no terminal
SECONDS_BETWEEN_READS = 1.0  # of the runs' metrics, on a terminal
STYLES = {RunStatus.FINISHED: "green", RunStatus.RUNNING: "bold", RunStatus.FAILED: "red"}


class SweepScreen:
    """Shows the states of a sweep's runs. A context manager."""

    def __init__(
        self,
        states: Sequence[RunState],
        measure: Measure,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepares the display.

        Args:
          measure: shown for each run.
          stream: where to print; standard output if None.
          clock: seconds that only rise; tests bring their own.
        """
        self._states, self._measure = states, measure
        self._progress = ProgressReader(measure)
        self._stream = sys.stdout if stream is None else stream
        self._clock = clock
        self._shown = clock()
        self._live: rich.live.Live | None = None

    def __enter__(self) -> SweepScreen:
        console = rich.console.Console(file=self._stream)
        if self._stream.isatty() and not console.is_dumb_terminal:
            self._live = rich.live.Live(
                self.table(), console=console, auto_refresh=False, vertical_overflow="crop"
            )
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.update(self.table(), refresh=True)
            self._live.stop()
            self._live = None

    def changed(self, state: RunState) -> None:
        """Shows that a run began, ended or failed."""
        if self._live is not None:
            self._live.update(self.table(), refresh=True)
        else:
            self._print(state)

    def waited(self) -> None:
        """Shows how far the runs are, if it was not shown lately."""
        live = self._live
        every = SECONDS_BETWEEN_REPORTS if live is None else SECONDS_BETWEEN_READS
        if self._clock() - self._shown < every:
            return
        self._shown = self._clock()
        if live is not None:
            live.update(self.table(), refresh=True)
            return
        for state in self._states:
            if state.status is RunStatus.RUNNING:
                self._print(state)

    def table(self) -> rich.table.Table:
        """Returns the table of all runs; of a long sweep those that run or failed."""
        counts = Counter(state.status for state in self._states)
        title = ", ".join(f"{counts[one]} {one}" for one in RunStatus if counts[one])
        table = rich.table.Table(
            title=f"{len(self._states)} runs: {title}",
            title_justify="left",
            title_style="bold",
            box=rich.box.SIMPLE_HEAD,
        )
        for name, justify in (("run", "left"), ("", "left"), ("step", "left")):
            table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
        table.add_column(self._measure.title, justify="right")
        table.add_column("time", justify="right", no_wrap=True)
        busy = (RunStatus.RUNNING, RunStatus.FAILED, RunStatus.ELSEWHERE)
        shown = [one for one in self._states if one.status in busy]
        if len(self._states) <= self._rows():
            shown = list(self._states)
        for state in shown:
            style = STYLES.get(state.status, "")
            table.add_row(str(state.planned.run), state.status, *self._cells(state), style=style)
        return table

    def _rows(self) -> int:
        """Returns how many runs fit on the screen."""
        return (self._live.console.height if self._live else 24) - 6

    def _cells(self, state: RunState) -> tuple[str, str, str]:
        """Returns step, value and time of a run."""
        progress = self._progress(state.planned.workdir)
        value = "-" if progress.value is None else number_text(self._measure, progress.value)
        child = state.child
        seconds = time.monotonic() - child.began if child else state.seconds
        took = f"{seconds / 60:.0f} min" if seconds >= 600 else f"{seconds:.0f} s"
        step = f"step {progress.step} of {state.planned.steps}"
        if state.status is RunStatus.ABSENT:
            step = ""
        if progress.warm_start and not progress.step:
            step = f"warm start, {progress.warm_start} steps"
        return step, value, took if seconds else ""

    def _print(self, state: RunState) -> None:
        step, value, took = self._cells(state)
        line = f"{time.strftime('%T')}  {state.planned.run!s:32} {state.status:8} {step}"
        if value != "-":
            line += f"  {self._measure.title} {value}"
        line += f"  {took}" if took else ""
        if state.status is RunStatus.FAILED:
            line += f"\n          {state.reason}\n          log: {state.log}"
        print(line.rstrip(), file=self._stream, flush=True)
