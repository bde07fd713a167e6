"""Shows the numbers of a run on the console: aligned lines, and on a terminal a live bar below.

    CE-GPPO: 200 steps
       step reward correct held-out entropy clip-low clip-high tokens/s    left
      1/200  0.312   31.2%        -   0.842        0         0    5,120       -
     20/200  0.401   40.1%    44.5%   0.791  1.2e-04   3.1e-04    5,377    1:02

The lines stay, so a terminal ends up with the story of the run, as a log file does. Anything that
is not a terminal (a pipe, CI, nohup, a notebook) gets the lines only, without control characters.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TextIO

import rich.console
import rich.live
import rich.progress_bar
import rich.table
import rich.text

from cegppo_jax.reporting.metrics import METRICS, Phase

NamedLeaf = tuple[str, Any]  # path and array

SECONDS_BETWEEN_LINES = 5.0  # at most one line in this time, except for lines that always come
SECONDS_BETWEEN_COUNTS = 30.0  # between reports of progress within a step
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


EVALUATION = "evaluation"  # no phase of a run, but shown in the same way

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
    EVALUATION: (
        Column("correct", "reward/correct_fraction", 7, _share),
        Column("truncated", "rollout/truncated_fraction", 9, _share),
        Column("tokens", "rollout/completion_tokens_mean", 7, _thousands),
        Column("tokens/s", "rollout/tokens_per_second", 8, _thousands),
    ),
}
TIME_WIDTH = 7  # 9:59:59; with it, a line of up to 9999 steps fits into 80 columns


class Status:
    """Reports what happens between two lines of the table: always what begins, and now and then how
    far it is.
    """

    def __init__(self, show: Callable[[str], None], clock: Callable[[], float] = time.monotonic):
        """`show` prints a line."""
        self._show, self._clock = show, clock
        self._counted = -math.inf
        self.text = ""  # what is happening now

    def __call__(self, text: str, begins: bool) -> None:
        """Receives what is happening: something that begins, or how far it is."""
        self.text = text
        now = self._clock()
        if begins:
            self._counted = -math.inf  # how far it is comes at once
        elif now - self._counted < SECONDS_BETWEEN_COUNTS:
            return
        else:
            self._counted = now
        self._show(text)

    def shown(self) -> None:
        """Records that a line was printed which says how far it is."""
        self._counted = self._clock()

    def loading(self, leaves: Iterable[NamedLeaf], whole_bytes: int) -> Iterator[NamedLeaf]:
        """Passes on (path, array) of a model's weights as they come and reports progress;
        `whole_bytes` is the size of all.
        """
        self(f"loading {whole_bytes / 1e9:.3g} GB of weights", True)
        loaded = 0
        for path, leaf in leaves:
            loaded += leaf.nbytes
            yield path, leaf
            del leaf  # the caller may have released it
            self(f"loaded {loaded / 1e9:.3g} of {whole_bytes / 1e9:.3g} GB of weights", False)


SILENT = Status(lambda text: None)  # reports nothing


class Progress:
    """Shows one phase of a run. A context manager: leaving it always shows the last step."""

    def __init__(
        self,
        total_steps: int,
        title: str,
        phase: str = Phase.RL,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepares the display. Nothing is printed before the context is entered.

        Args:
            total_steps: number that the last step has.
            title: what is running, for example "CE-GPPO" or "warm start".
            phase: selects the columns.
            stream: where to print; standard output if None.
            clock: seconds that only rise; tests bring their own.
        """
        self._total, self._title, self._columns = total_steps, title, COLUMNS[phase]
        self._unit = "completion" if phase == EVALUATION else "step"
        self._stream = sys.stdout if stream is None else stream
        self._clock = clock
        self._step_width = max(len(f"{total_steps:d}") * 2 + 1, len(self._unit))
        self._start: tuple[int, float] | None = None  # (step, seconds) that the pace counts from
        self._step, self._row, self._left = 0, "", "-"  # of the latest update
        self._shown_step: int | None = None
        self._shown_seconds = -math.inf
        self._lines = 0
        self._live: rich.live.Live | None = None
        self.status = Status(self.message, clock)

    def __enter__(self) -> Progress:
        # Not rich's own test of a terminal: with FORCE_COLOR, which CI sets, it draws into a pipe.
        console = rich.console.Console(file=self._stream)
        self.message(f"{self._title}: {self._total:,d} {self._unit}s")
        if self._stream.isatty() and not console.is_dumb_terminal:
            self._live = rich.live.Live(
                console=console, get_renderable=self._draw, refresh_per_second=4, transient=True
            )
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._row and self._shown_step != self._step:
            self._show()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def update(self, step: int, values: Mapping[str, Any]) -> None:
        """Receives a finished step.

        The first step, the last and every step with an evaluation get a line; of the others, at
        most one in SECONDS_BETWEEN_LINES.

        Args:
            step: its number, up to total_steps; 0 for an evaluation before training.
            values: metric name -> number, as written to metrics.jsonl.
        """
        now = self._clock()
        self._step, self._left = step, self._time_left(step, now)
        cells = [column.cell(values) for column in self._columns]
        self.status.text = ""
        self._row = self._aligned([f"{step:d}/{self._total:d}", *cells, self._left])
        if (
            now - self._shown_seconds >= SECONDS_BETWEEN_LINES
            or step >= self._total
            or "evaluation/accuracy" in values
        ):
            self._show()

    def message(self, text: str) -> None:
        """Prints a line of text between the lines of the table."""
        if self._live is None:
            print(text, file=self._stream, flush=True)
        else:
            self._live.console.print(rich.text.Text(text), soft_wrap=True)

    def _show(self) -> None:
        self._shown_step, self._shown_seconds = self._step, self._clock()
        if self._live is not None:
            self._live.refresh()  # first, as printing repeats the live part that was drawn last
        if self._lines % LINES_BETWEEN_HEADERS == 0:
            titles = [column.title for column in self._columns]
            self.message(self._aligned([self._unit, *titles, "left"]))
        self.message(self._row)
        self._lines += 1
        self.status.shown()

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
        seconds = round(max(self._total - step, 0) * (now - then) / (step - first))
        hours, minutes = seconds // 3600, seconds // 60 % 60
        return (
            f"{hours}:{minutes:02}:{seconds % 60:02}" if hours else f"{minutes}:{seconds % 60:02}"
        )

    def _draw(self) -> rich.console.RenderableType:
        """Returns the live part: the present step until its line is printed, and the bar."""
        bar = rich.table.Table.grid(padding=(0, 1))
        bar.add_row(
            rich.text.Text(self._title, style="bold"),
            rich.progress_bar.ProgressBar(total=self._total, completed=self._step, width=40),
            f"{self._step:d}/{self._total:d}",
            f"{self._left} left",
        )
        lines = [self._row] if self._shown_step != self._step else []
        lines += [self.status.text] if self.status.text else []
        return rich.console.Group(
            *(rich.text.Text(one, "dim", no_wrap=True, overflow="ellipsis") for one in lines), bar
        )
