"""Draws report.png, a run's curves on one page, from its metrics.jsonl.

python -m cegppo_jax.reporting.picture --workdir=runs/quickstart
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import matplotlib.ticker
import numpy as np
from absl import app, flags
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cegppo_jax.paths import local_path
from cegppo_jax.reporting.metrics import Phase, read_metrics
from cegppo_jax.reporting.panels import HELD_OUT, ORANGE, PANELS, Panel
from cegppo_jax.reporting.smoothing import SMOOTH_FROM_STEPS, smoothed, window_of

REPORT_FILE_NAME = "report.png"
CONFIG_NAME = "config.json"  # the resolved config, from which the title takes the method
COLUMNS = 3
PANEL_INCHES = (4.4, 2.9)
DOTS_PER_INCH = 150
CLIP_LINEAR_BELOW = 1e-4  # of the clip fractions' axis, which has to show 0 and three decades
LOG_RANGE = 1e4  # of a log axis, at most: a step without an update takes next to no time
TICKS_BETWEEN_DECADES_UP_TO = 1e3


def draw_run(workdir: str | os.PathLike[str]) -> pathlib.Path:
    """Draws the report.png of a run's directory, replacing an older one, and returns its path.
    Raises as `figure_of` does.
    """
    workdir = pathlib.Path(workdir)
    path = workdir / REPORT_FILE_NAME
    partial = path.with_suffix(".partial")  # a viewer of the old picture never meets half a new one
    figure_of(workdir).savefig(partial, dpi=DOTS_PER_INCH, format="png")
    os.replace(partial, path)
    return path


def figure_of(workdir: pathlib.Path) -> Figure:
    """Returns the figure of a run: its RL phase or, while there is none yet, the warm start.

    Raises:
        FileNotFoundError: when the directory has no metrics.jsonl.
        ValueError: when no line of it has a number that a panel shows.
    """
    lines = read_metrics(workdir)
    phase = Phase.RL if _of_phase(lines, Phase.RL) else Phase.SUPERVISED
    drawn = _of_phase(lines, phase)
    panels = [panel for panel in PANELS[phase] if _has_values(panel, drawn)]
    if not panels:
        raise ValueError(f"{workdir} has no number to draw yet: its metrics hold no finished step.")
    rows = -(-len(panels) // COLUMNS)
    columns = min(len(panels), COLUMNS)
    size = (max(PANEL_INCHES[0] * columns, 7.0), PANEL_INCHES[1] * rows + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw_panel(axes, panel, drawn)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes in grid.flat[max(len(panels) - columns, 0) : len(panels)]:
        axes.set_xlabel("step")
    title = f"{workdir}   {_method(workdir)}".rstrip() + "\n" + _summary(lines, phase)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def _of_phase(lines: list[dict[str, Any]], phase: Phase) -> list[dict[str, Any]]:
    return [line for line in lines if line["phase"] == phase]


def _has_values(panel: Panel, lines: list[dict[str, Any]]) -> bool:
    names = [curve.name for curve in panel.curves] + [HELD_OUT] * panel.evaluated
    return any(line.get(name) is not None for line in lines for name in names)


def _series(lines: list[dict[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns (steps, values), each [n], of the lines that have the name; null becomes NaN, a gap
    in the curve.
    """
    points = [(line["step"], line[name]) for line in lines if name in line]
    values = np.array([np.nan if v is None else v for _, v in points], dtype=float)
    return np.array([step for step, _ in points], dtype=int), values


def _draw_panel(axes: Axes, panel: Panel, lines: list[dict[str, Any]]) -> None:
    for curve in panel.curves:
        steps, values = _series(lines, curve.name)
        if not np.isfinite(values).any():
            continue
        marker = "." if len(values) < SMOOTH_FROM_STEPS else ""
        style: dict[str, Any] = {"color": curve.color, "label": curve.label}
        if curve.smooth and not marker:
            axes.plot(steps, values, color=curve.color, linewidth=0.8, alpha=0.35)
            axes.plot(steps, smoothed(values, window_of(len(values))), linewidth=1.8, **style)
        else:
            axes.plot(steps, values, linewidth=1.0, marker=marker, **style)
    if panel.evaluated and any(line.get(HELD_OUT) is not None for line in lines):
        _draw_evaluation(axes, lines)
    axes.set_title(panel.title, loc="left", fontsize=10)
    axes.tick_params(labelsize=8)
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6, integer=True))
    first, last = lines[0]["step"], lines[-1]["step"]
    margin = max(0.02 * (last - first), 0.5)
    axes.set_xlim(first - margin, last + margin)  # the same for all panels
    _set_scale(axes, panel)
    if axes.get_legend_handles_labels()[0]:
        roomy = panel.scale in ("clip", "log", "ratio")  # _set_scale leaves room above the curves
        axes.legend(fontsize=8, frameon=False, loc="upper right" if roomy else "best")


def _draw_evaluation(axes: Axes, lines: list[dict[str, Any]]) -> None:
    """Draws the held-out accuracy, with its interval if the lines have one."""
    evaluated = [line for line in lines if line.get(HELD_OUT) is not None]
    steps, middle = _series(evaluated, HELD_OUT)
    low, high = (
        np.array([line.get(f"{HELD_OUT}_{end}") for line in evaluated], dtype=float)
        for end in ("low", "high")
    )
    known = np.isfinite(low) & np.isfinite(high)
    reach = np.where(known, np.maximum([middle - low, high - middle], 0.0), 0.0)
    axes.errorbar(
        steps,
        middle,
        yerr=reach,
        color=ORANGE,
        marker="o",
        markersize=4,
        linewidth=1.4,
        capsize=3,
        label="held-out, 95 % interval" if known.any() else "held-out",
    )


def _set_scale(axes: Axes, panel: Panel) -> None:
    percent = matplotlib.ticker.FuncFormatter(lambda share, _: f"{100 * share:g}%")
    if panel.scale in ("log", "ratio") and axes.dataLim.y1 > 0:  # all 0: a linear axis can show it
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
        axes.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        low, high = axes.get_ylim()
        if panel.scale == "log":
            low = max(low, high / LOG_RANGE)
        between = (1, 2, 5) if high / low < TICKS_BETWEEN_DECADES_UP_TO else (1,)
        axes.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=between))
        axes.set_ylim(low, high * (high / low) ** (0.15 * len(panel.curves)))
        if panel.scale == "ratio":
            axes.axhline(1.0, color="0.6", linewidth=0.8)
    elif panel.scale == "clip":
        axes.set_yscale("symlog", linthresh=CLIP_LINEAR_BELOW, linscale=0.5)
        axes.set_ylim(-0.1 * CLIP_LINEAR_BELOW, max(axes.dataLim.y1 * 5, 1e-3))
        axes.yaxis.set_major_formatter(percent)
    elif panel.scale == "share":
        axes.set_ylim(-0.02, 1.02)
        axes.yaxis.set_major_formatter(percent)
    elif axes.dataLim.y0 >= 0:  # a reward may be negative
        axes.set_ylim(bottom=0)


def _method(workdir: pathlib.Path) -> str:
    """Returns the method, in the words of the config; "" without a config."""
    path = workdir / CONFIG_NAME
    loss = json.loads(path.read_text()).get("loss", {}) if path.is_file() else {}
    knobs = [f"{name} {loss[name]:g}" for name in ("beta_low", "beta_high") if name in loss]
    return "  ".join([str(loss.get("surrogate", "")), *knobs]).strip()


def _summary(lines: list[dict[str, Any]], phase: Phase) -> str:
    """Summarises what happened in one line of text."""
    drawn = _of_phase(lines, phase)
    parts = [f"{'warm start ' * (phase == Phase.SUPERVISED)}to step {drawn[-1]['step']}"]
    _, accuracy = _series([line for line in drawn if line.get(HELD_OUT) is not None], HELD_OUT)
    if len(accuracy):
        parts.append(f"held-out accuracy {accuracy[0]:.1%} to {accuracy[-1]:.1%}")
    if len(drawn) >= SMOOTH_FROM_STEPS:
        parts.append(f"thin: each step, thick: mean of {window_of(len(drawn))} steps")
    return "; ".join(parts)


def main(argv: Sequence[str]) -> None:
    del argv
    try:
        path = draw_run(local_path("--workdir", flags.FLAGS.workdir))
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f"no report: {error}") from error
    print(f"wrote {path}")


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "directory of the run", required=True)
    app.run(main)
