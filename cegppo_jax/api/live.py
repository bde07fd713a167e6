"""Curves that grow in a notebook's cell while a loop trains."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from cegppo_jax.api.plots import Picture
from cegppo_jax.api.runs import Trainer
from cegppo_jax.reporting.metric_names import METRICS
from cegppo_jax.train import StepTaken

# Okabe and Ito's colours; the first lines of a comparison differ most.
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
COLUMNS = 3
SECONDS_BETWEEN_DRAWINGS = 1.0


class LiveCurves:
    """A panel for each metric, and a line in it for each label, redrawn in place in a cell: that
    of the `follow` or the `with` block.

        curves = cg.LiveCurves("policy/entropy", "reward/mean")
        for step in curves.follow(trainer, "CE-GPPO"):
            ...

    For loops by hand, `with curves:` and `curves.add(step, values, label)`; leaving the block draws
    the last points, and another block draws in its own cell. Outside a notebook nothing is shown,
    and `draw` returns the picture.
    """

    def __init__(self, *names: str, seconds: float = SECONDS_BETWEEN_DRAWINGS):
        """`names` of metrics, or of values of one's own; `seconds` between two drawings.

        Raises:
          ValueError: there is no name.
        """
        if not names:
            raise ValueError('name at least one metric: cg.LiveCurves("policy/entropy")')
        self._names, self._seconds, self._drawn = names, seconds, -float("inf")
        self._points: dict[str, dict[str, list[tuple[float, float]]]] = {}  # label -> name -> ...
        self._shown: Any = None  # the handle of the cell's output

    def add(self, step: float, values: Mapping[str, Any], label: str = "") -> None:
        """Adds a point to each panel that `values` has a number for. The others stay as they are:
        an evaluation comes every few steps.
        """
        line = self._points.setdefault(label, {name: [] for name in self._names})
        for name in self._names:
            if (value := values.get(name)) is not None:
                line[name].append((step, float(value)))
        if time.monotonic() - self._drawn >= self._seconds:
            self.show()

    def follow(
        self, trainer: Trainer, label: str = "", steps: int | None = None
    ) -> Iterator[StepTaken]:
        """Takes the trainer's steps that are left, or so many of them, and yields each after its
        point was added.
        """
        left = trainer.run.settings.steps - trainer.position.step
        with self:
            for _ in range(left if steps is None else min(steps, left)):
                step = trainer.step()
                self.add(step.position.step, step.values, label)
                yield step

    def draw(self) -> Picture:
        """Returns the picture of the present points."""
        columns = min(COLUMNS, len(self._names))
        rows = -(-len(self._names) // columns)
        figure = Picture(figsize=(3.7 * columns, 2.5 * rows), layout="constrained")
        panels: Any = figure.subplots(rows, columns, squeeze=False)
        for axes, name in zip(panels.flat, self._names, strict=False):
            for place, (label, line) in enumerate(self._points.items()):
                colour = LINES[place % len(LINES)]
                marker = "." if len(line[name]) < 30 else ""
                axes.plot(*_columns(line[name]), color=colour, marker=marker, label=label)
            axes.set_title(name, fontsize=10)
            axes.set_ylabel(METRICS[name].unit if name in METRICS else "")
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(alpha=0.25)
            axes.xaxis.get_major_locator().set_params(integer=True)
        for axes in panels.flat[len(self._names) :]:
            axes.set_axis_off()
        for axes in panels[-1]:
            axes.set_xlabel("step")
        if any(self._points):
            panels[0][0].legend(fontsize=8, frameon=False)
        return figure

    def show(self) -> None:
        """Draws in the cell's output now, in place of the picture before."""
        notebook = _notebook()
        if notebook is None:
            return
        self._drawn = time.monotonic()
        if self._shown is None:
            self._shown = notebook.display(self.draw(), display_id=True)
        else:
            self._shown.update(self.draw())

    def __enter__(self) -> LiveCurves:
        self._shown, self._drawn = None, -float("inf")  # a new output, in the present cell
        return self

    def __exit__(self, *exception: object) -> None:
        self.show()

    def __repr__(self) -> str:
        points = {
            label: max((len(one) for one in line.values()), default=0)
            for label, line in self._points.items()
        }
        return f"LiveCurves({', '.join(self._names)}; points: {points})"


def _columns(points: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """[(x, y), ...] -> ([x, ...], [y, ...])."""
    return [x for x, _ in points], [y for _, y in points]


def _notebook() -> Any:
    """Returns IPython.display where a kernel runs this, else None. IPython is there if it is."""
    module = sys.modules.get("IPython")
    if module is None or (shell := module.get_ipython()) is None or not hasattr(shell, "kernel"):
        return None
    import IPython.display

    return IPython.display
