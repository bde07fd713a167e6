"""Shows the numbers of a run on the console: aligned lines, and on a terminal a live bar below.

    CE-GPPO: 200 steps
       step reward correct held-out entropy clip-low clip-high tokens/s    left
      1/200  0.312   31.2%        -   0.842        0         0    5,120       -
     20/200  0.401   40.1%    44.5%   0.791  1.2e-04   3.1e-04    5,377    1:02

The lines stay, so a terminal ends up with the story of the run, as a log file does. Anything that
is not a terminal (a pipe, CI, nohup, a notebook) gets the lines only, without control characters.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import rich.console
import rich.progress_bar
import rich.table
import rich.text

from cegppo_jax.activity import EVALUATION, minutes
from cegppo_jax.reporting.metrics import METRICS, Phase
from cegppo_jax.reporting.screen import Display, dim

SECONDS_BETWEEN_LINES = 5.0  # at most one line in this time, except for lines that always come
LINES_BETWEEN_HEADERS = 20


def _share(value: float) -> str:
    return f"{value:.1%}"


def _small(value: float) -> str:
    """Formats clip fractions: counts of 1e-4 of all tokens, distinct from exactly 0."""
    return "0" if value == 0 else f"{value:.1e}"


def _three(value: float) -> str:
    return f"{value:.3f}"


def _thousands(value: float) -> str:
    return f"{value:,.0f}"


@dataclasses.dataclass(frozen=True)
class Column:
    """One metric's column in the table."""

    title: str
    name: str
    width: int
    text: Callable[[float], str]

    def __post_init__(self) -> None:
        if self.name not in METRICS:
            raise ValueError(f"column {self.title!r} shows {self.name!r}, which METRICS has not.")

    def cell(self, values: Mapping[str, Any]) -> str:
        """Returns the text of this column for a step; "-" if the step did not measure it."""
        value = values.get(self.name)
        if value is None:
            return "-"
        return self.text(float(value)) if math.isfinite(value) else "nan"


COLUMNS: dict[str, tuple[Column, ...]] = {
    Phase.SUPERVISED: (
        Column("loss", "supervised/loss", 7, _three),
        Column("entropy", "supervised/entropy", 7, _three),
        Column("grad-norm", "update/grad_norm", 9, _three),
    ),
    Phase.RL: (
        Column("reward", "reward/mean", 6, _three),
        Column("correct", "reward/correct_fraction", 7, _share),
        Column("held-out", "evaluation/accuracy", 8, _share),
        Column("entropy", "policy/entropy", 7, _three),
        Column("clip-low", "policy/clip_fraction_low", 8, _small),
        Column("clip-high", "policy/clip_fraction_high", 9, _small),
        Column("tokens/s", "rollout/tokens_per_second", 8, _thousands),
    ),
    EVALUATION: (  # no phase of a run, but shown in the same way
        Column("correct", "reward/correct_fraction", 7, _share),
        Column("truncated", "rollout/truncated_fraction", 9, _share),
        Column("tokens", "rollout/completion_tokens_mean", 7, _thousands),
        Column("tokens/s", "rollout/tokens_per_second", 8, _thousands),
    ),
}
TIME_WIDTH = 7  # 9:59:59; with it, a line of up to 9999 steps fits into 80 columns


class Progress:
    """Shows one phase of a run. A context manager: leaving it always shows the last step."""

    def __init__(
        self, total_steps: int, title: str, screen: Display, phase: str = Phase.RL
    ) -> None:
        """Prepares the display. Nothing is printed before the context is entered.

        Args:
            total_steps: number that the last step has.
            title: what is running, for example "CE-GPPO" or "warm start".
            screen: where the lines go, and on a terminal the bar.
            phase: selects the columns.
        """
        self._total, self._title, self._columns = total_steps, title, COLUMNS[phase]
        self._unit = "completion" if phase == EVALUATION else "step"
        self._screen = screen
        self._step_width = max(len(f"{total_steps:d}") * 2 + 1, len(self._unit))
        self._start: tuple[int, float] | None = None  # (step, seconds) that the pace counts from
        self._step, self._row, self._left = 0, "", "-"  # of the latest update
        self._shown_step: int | None = None
        self._shown_seconds = -math.inf
        self._lines = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Progress:
        self._screen.line(f"{self._title}: {self._total:,d} {self._unit}s")
        self._stack.enter_context(self._screen.showing(self._draw, self._next_step))
        return self

    def __exit__(self, *exception: object) -> None:
        if self._row and self._shown_step != self._step:
            self._show()
        self._stack.close()

    def update(self, step: int, values: Mapping[str, Any]) -> None:
        """Receives a finished step.

        The first step, the last and every step with an evaluation get a line; of the others, at
        most one in SECONDS_BETWEEN_LINES.

        Args:
            step: its number, up to total_steps; 0 for an evaluation before training.
            values: metric name -> number, as written to metrics.jsonl.
        """
        now = self._screen.clock()
        self._step, self._left = step, self._time_left(step, now)
        cells = [column.cell(values) for column in self._columns]
        self._row = self._aligned([f"{step:d}/{self._total:d}", *cells, self._left])
        if (
            now - self._shown_seconds >= SECONDS_BETWEEN_LINES
            or step >= self._total
            or "evaluation/accuracy" in values
        ):
            self._show()

    def _show(self) -> None:
        self._shown_step, self._shown_seconds = self._step, self._screen.clock()
        self._screen.refresh()  # the live part has the row until now
        if self._lines % LINES_BETWEEN_HEADERS == 0:
            titles = [column.title for column in self._columns]
            self._screen.line(self._aligned([self._unit, *titles, "left"]))
        self._screen.line(self._row)
        self._lines += 1

    def _aligned(self, cells: list[str]) -> str:
        widths = [self._step_width, *(column.width for column in self._columns), TIME_WIDTH]
        return " ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))

    def _time_left(self, step: int, now: float) -> str:
        """Returns steps left times the mean seconds a step, without the first step, which
        compiled.
        """
        if self._start is None or self._start[0] == 0:
            self._start = (step, now)
        first, then = self._start
        if step <= first:
            return "-"
        return minutes(round(max(self._total - step, 0) * (now - then) / (step - first)))

    def _next_step(self) -> str:
        """Returns what a line within a step begins with."""
        return f"step {self._step + 1:d}/{self._total:d}, " if self._unit == "step" else ""

    def _draw(self) -> list[rich.console.RenderableType]:
        """Returns the live part: the present step until its line is printed, and the bar."""
        bar = rich.table.Table.grid(padding=(0, 1))
        bar.add_row(
            rich.text.Text(self._title, style="bold"),
            rich.progress_bar.ProgressBar(total=self._total, completed=self._step, width=40),
            f"{self._step:d}/{self._total:d}",
            f"{self._left} left",
        )
        return [*([dim(self._row)] if self._shown_step != self._step else []), bar]
