"""Draws report.png, a run's curves on one page, from its metrics.jsonl.

python -m cegppo_jax.reporting.picture --workdir=runs/quickstart
python -m cegppo_jax.reporting.picture --workdir=runs/quickstart --formats=pdf,svg
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import matplotlib
import matplotlib.ticker
import numpy as np
from absl import app, flags
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cegppo_jax.reporting.metrics import Phase, read_metrics
from cegppo_jax.reporting.panels import (
    BLUE,
    FORMATS,
    GREEN,
    HELD_OUT,
    ORANGE,
    PANELS,
    Panel,
    Range,
    check_formats,
)
from cegppo_jax.reporting.picture_words import (
    method_words,
    metric_words,
    origin_words,
    range_words,
    read_config,
    sign_words,
)
from cegppo_jax.reporting.series import Lines, has_values, of_phase, series
from cegppo_jax.reporting.smoothing import SMOOTH_FROM_STEPS, smoothed, window_of
from cegppo_jax.storage.paths import local_path
from cegppo_jax.storage.writing import writing

REPORT_NAME = "report"  # .png
COLUMNS = (3, 4)  # whichever leaves fewer cells empty
PANEL_INCHES = (4.6, 3.1)
DOTS_PER_INCH = 150
CLIP_LINEAR_BELOW = 1e-4  # of the clip fractions' axis, which has to show 0 and three decades
LOG_FROM_RATIO = 4  # of the largest value to the smallest, on an axis that may be a log one
LOG_RANGE = 1e4  # of a log axis, at most: a step without an update takes next to no time
TICKS_BETWEEN_DECADES_UP_TO = 1e3
SHADE: dict[str, Any] = {"color": GREEN, "alpha": 0.08, "linewidth": 0, "zorder": 0}


def draw_run(
    workdir: str | os.PathLike[str], formats: Sequence[str] = ("png",)
) -> list[pathlib.Path]:
    """Draws the report of a run's directory as report.png, or in other formats, replacing older
    ones. Returns the paths. Raises as `figure_of` does.
    """
    figure = figure_of(pathlib.Path(workdir))
    paths = [pathlib.Path(workdir) / f"{REPORT_NAME}.{one}" for one in formats]
    for path, kind in zip(paths, formats, strict=True):
        partial = path.with_suffix(".partial")  # no viewer of the old one ever meets half a new one
        with matplotlib.rc_context({"svg.hashsalt": REPORT_NAME}), writing(path):
            figure.savefig(partial, dpi=DOTS_PER_INCH, format=kind, metadata=FORMATS[kind])
            os.replace(partial, path)
    return paths


def figure_of(workdir: pathlib.Path) -> Figure:
    """Returns the figure of a run: its RL phase or, while there is none yet, the warm start.

    Raises:
        FileNotFoundError: when the directory has no metrics.jsonl.
        ValueError: when no line of it has a number that a panel shows.
    """
    lines, config = read_metrics(workdir), read_config(workdir)
    phase = Phase.RL if of_phase(lines, Phase.RL) else Phase.SUPERVISED
    drawn = of_phase(lines, phase)
    panels = [panel for panel in PANELS[phase] if has_values(panel, drawn)]
    if not panels:
        raise ValueError(f"{workdir} has no number to draw yet: its metrics hold no finished step.")
    columns = min(len(panels), min(COLUMNS, key=lambda count: -len(panels) % count))
    rows = -(-len(panels) // columns)
    size = (max(PANEL_INCHES[0] * columns, 7.0), PANEL_INCHES[1] * rows + 1.0)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw_panel(axes, panel, drawn, panel.healthy(config) if panel.healthy else None)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes in grid.flat[max(len(panels) - columns, 0) : len(panels)]:
        axes.set_xlabel(axes.get_xlabel() or "step", fontsize=8)
    title = [
        f"{workdir}   {method_words(config)}".rstrip(),
        origin_words(workdir, config),
        _summary(lines, phase),
    ]
    figure.suptitle("\n".join(line for line in title if line), x=0.01, ha="left", fontsize=11)
    return figure


def _draw_panel(axes: Axes, panel: Panel, lines: Lines, healthy: Range | None) -> None:
    small = metric_words(panel)
    if panel.scale == "against":
        small += f"   {_draw_against(axes, panel, lines)}"
    else:
        _draw_curves(axes, panel, lines)
        _set_scale(axes, panel)
    axes.set_title(panel.title, loc="left", fontsize=10, pad=16)
    if healthy is not None:
        _shade(axes, healthy)
        small += f"   {range_words(healthy, panel.scale in ('share', 'clip'))}"
    names = axes.annotate(
        small,
        (0, 1),
        xytext=(0, 4),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=7,
        color="0.5",
    )
    names.set_in_layout(False)  # long ones would narrow the panel
    axes.set_ylabel(panel.unit, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        columns = 2 if len(panel.curves) > 2 else 1
        # _set_scale leaves room above the curves of these
        roomy = columns > 1 or axes.get_yscale() != "linear"
        axes.legend(
            fontsize=8, frameon=False, ncols=columns, loc="upper right" if roomy else "best"
        )


def _draw_curves(axes: Axes, panel: Panel, lines: Lines) -> None:
    for curve in panel.curves:
        steps, values = series(lines, curve.name)
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
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6, integer=True))
    first, last = lines[0]["step"], lines[-1]["step"]
    margin = max(0.02 * (last - first), 0.5)
    axes.set_xlim(first - margin, last + margin)  # the same for all panels over steps


def _draw_against(axes: Axes, panel: Panel, lines: Lines) -> str:
    """Draws two metrics against each other, later steps darker; where both have one sign is
    shaded. Returns how often they have, in words.
    """
    names = [curve.name for curve in panel.curves]
    both = [line for line in lines if all(line.get(name) is not None for name in names)]
    (steps, across), (_, up) = (series(both, name) for name in names)
    shades = 0.3 + 0.7 * (steps - steps[0]) / max(steps[-1] - steps[0], 1)
    axes.scatter(across, up, s=14, color=BLUE, alpha=shades)
    axes.set_xlabel(panel.curves[0].label, fontsize=8)
    for values, set_limits in ((across, axes.set_xlim), (up, axes.set_ylim)):
        reach = 1.15 * np.abs(values).max() or 1.0
        set_limits(-reach, reach)
    axes.axhline(0.0, color="0.6", linewidth=0.8)
    axes.axvline(0.0, color="0.6", linewidth=0.8)
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for corner, width, height in (((left, bottom), -left, -bottom), ((0, 0), right, top)):
        axes.add_patch(Rectangle(corner, width, height, **SHADE))
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5))
    for axis in (axes.xaxis, axes.yaxis):  # a common power of ten would stand in the panel's words
        axis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:.2g}"))
    return sign_words(across, up)


def _shade(axes: Axes, healthy: Range) -> None:
    """Shades the healthy values among those that the panel shows."""
    shown = axes.get_ylim()
    low, high = max(healthy[0], shown[0]), min(healthy[1], shown[1])
    if healthy[0] == 0:
        low = shown[0]  # the margin below 0 looks healthy too, and a log axis has no 0
    if low < high:
        axes.axhspan(low, high, **SHADE)
    axes.set_ylim(shown)


def _draw_evaluation(axes: Axes, lines: Lines) -> None:
    """Draws the held-out accuracy, with its interval if the lines have one."""
    evaluated = [line for line in lines if line.get(HELD_OUT) is not None]
    steps, middle = series(evaluated, HELD_OUT)
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
    if panel.scale in ("log", "ratio") and _spans_much(axes, panel):
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
    else:
        low, high = axes.dataLim.y0, axes.dataLim.y1
        bottom = min(low, 0.0)  # a reward may be negative
        room = (0.35 if len(panel.curves) > 2 else 0.08) * (high - bottom)
        if room > 0:
            axes.set_ylim(bottom if bottom == 0 else None, high + room)


def _spans_much(axes: Axes, panel: Panel) -> bool:
    """Whether a logarithmic axis has more than one or two ticks; without a value above 0 it has
    none.
    """
    lowest = axes.dataLim.minposy
    return axes.dataLim.y1 > (LOG_FROM_RATIO * lowest if panel.scale == "log" else 0)


def _summary(lines: Lines, phase: Phase) -> str:
    """Summarises what happened in one line of text."""
    drawn = of_phase(lines, phase)
    parts = [f"{'warm start ' * (phase == Phase.SUPERVISED)}to step {drawn[-1]['step']}"]
    _, accuracy = series([line for line in drawn if line.get(HELD_OUT) is not None], HELD_OUT)
    if len(accuracy):
        parts.append(f"held-out accuracy {accuracy[0]:.1%} to {accuracy[-1]:.1%}")
    if len(drawn) >= SMOOTH_FROM_STEPS:
        parts.append(f"thin: each step, thick: mean of {window_of(len(drawn))} steps")
    parts.append("shaded: healthy values")
    return "; ".join(parts)


def main(argv: Sequence[str]) -> None:
    del argv
    formats = flags.FLAGS.formats
    try:
        check_formats("--formats", formats)
        paths = draw_run(local_path("--workdir", flags.FLAGS.workdir), formats)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f"no report: {error}") from error
    print(f"wrote {' '.join(map(str, paths))}")


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "directory of the run", required=True)
    flags.DEFINE_list("formats", ["png"], f"of the report: {', '.join(FORMATS)}")
    app.run(main)
