"""Charts -> plotly figures: arms together by colour, or one figure for each arm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from cegppo_jax.page.arms import Arm, Curve
from cegppo_jax.page.charts import ARM_COLOURS, BLACK, GREY, ORANGE, TOTALS, Chart, Limit, Series

DIGITS = 5  # significant ones, so that the page stays small
HELD_OUT = "evaluation/accuracy"
HEIGHT = 300  # pixels
MOST_MARKERS = 25  # points of a curve that are marked


def figures_of(chart: Chart, arms: Sequence[Arm]) -> list[tuple[str, go.Figure]]:
    """Returns (name of the arm or "", figure) for each figure of a chart that has something to
    show: one for all arms, or one for each.
    """
    if chart.kind == "lines":
        figure = _lines(chart, arms)
        return [("", _whole_steps(figure))] if figure.data else []
    draw = {"stack": _stack, "area": _area, "scatter": _scatter}[chart.kind]
    found = [(arm.name if len(arms) > 1 else "", draw(chart, arm)) for arm in arms]
    return [(name, _whole_steps(figure)) for name, figure in found if figure.data]


def _whole_steps(figure: go.Figure) -> go.Figure:
    """No tick between two steps of a short run."""
    if figure.layout.xaxis.title.text != "step":
        return figure
    last = max(max((step for step in one.x if step is not None), default=0) for one in figure.data)
    return figure.update_xaxes(dtick=1) if last <= 10 else figure


def _lines(chart: Chart, arms: Sequence[Arm]) -> go.Figure:
    """One arm: its series by colour. Several: arms by colour, as the page's key has them, and a
    chart's series by dash.
    """
    figure, several = _empty(chart), len(arms) > 1
    for place, arm in enumerate(arms):
        prefix = f"{arm.name}: " if several else ""
        for series in chart.series:
            colour = arm_colour(place) if several else series.colour
            curve = _positive(arm.curve(series.name, chart.phase), chart)
            label = (prefix + series.label).removesuffix(": ")
            _add_curve(figure, curve, series, label, colour, in_legend=not several)
        if chart.evaluated:
            colour = arm_colour(place) if several else ORANGE
            _add_evaluations(figure, arm, f"{prefix}held-out", colour, in_legend=not several)
    if figure.data and several:
        _add_dashes(figure, chart, arms)
    if figure.data:
        for limit in chart.limits:
            _add_limit(figure, limit, arms, chart)
    return figure


def _add_dashes(figure: go.Figure, chart: Chart, arms: Sequence[Arm]) -> None:
    """A legend of the dashes, where there are several."""
    named = chart.series + ((Series(HELD_OUT, "held-out"),) if chart.evaluated else ())
    series = [one for one in named if any(len(arm.curve(one.name, chart.phase)) for arm in arms)]
    if len(series) < 2:
        return
    for one in series:
        line = {"color": BLACK, "dash": one.dash, "width": 2}
        figure.add_scatter(
            x=[None], y=[None], mode="lines", name=one.label, line=line, showlegend=True
        )


def _positive(curve: Curve, chart: Chart) -> Curve:
    """On a log axis, a mean that it cannot show becomes a gap; a band ends at the smallest value
    that it can show.
    """
    shown = curve.mean[curve.mean > 0]
    if chart.axis != "log" or not len(shown):
        return curve if chart.axis != "log" else Curve(*[np.zeros(0)] * 4)
    known, below = curve.mean > 0, min(shown.min(), curve.low[curve.low > 0].min(initial=np.inf))
    low = np.where(curve.low > 0, curve.low, below)
    return Curve(
        curve.steps, *(np.where(known, one, np.nan) for one in (curve.mean, low, curve.high))
    )


def _add_curve(
    figure: go.Figure, curve: Curve, series: Series, label: str, colour: str, in_legend: bool
) -> None:
    """The mean, and behind it the band of several seeds or the steps of one, before smoothing."""
    if not np.isfinite(curve.mean).any():
        return
    drawn = curve.smooth() if series.noisy else curve
    options = {"legendgroup": label, "name": label, "showlegend": in_legend and bool(label)}
    if (curve.high > curve.low).any():
        both = np.concatenate([drawn.high, drawn.low[::-1]])
        steps = np.concatenate([drawn.steps, drawn.steps[::-1]])
        known = np.isfinite(both)
        figure.add_scatter(
            x=steps[known], y=_rounded(both[known]), fill="toself", mode="lines", hoverinfo="skip",
            line={"width": 0}, fillcolor=_see_through(colour, 0.18),
            **{**options, "showlegend": False},
        )  # fmt: skip
    elif drawn is not curve:
        figure.add_scatter(
            x=curve.steps, y=_rounded(curve.mean), mode="lines", hoverinfo="skip",
            line={"width": 1, "color": _see_through(colour, 0.3)},
            **{**options, "showlegend": False},
        )  # fmt: skip
    few = len(curve) <= MOST_MARKERS
    figure.add_scatter(
        x=drawn.steps,
        y=_rounded(drawn.mean),
        mode="lines+markers" if few else "lines",
        marker={"size": 5},
        line={"color": colour, "width": 2, "dash": series.dash},
        **options,
    )


def _add_evaluations(figure: go.Figure, arm: Arm, label: str, colour: str, in_legend: bool) -> None:
    """Held-out accuracy: of one run with its interval, of several the band of all."""
    curve = arm.curve(HELD_OUT)
    if not len(curve):
        return
    if len(arm.runs) > 1:
        series = Series(HELD_OUT, noisy=False)
        _add_curve(figure, curve, series, label, colour, in_legend)
        return
    low, high = arm.curve(f"{HELD_OUT}_low"), arm.curve(f"{HELD_OUT}_high")
    bars = None
    if len(low) == len(high) == len(curve):
        bars = {
            "array": _rounded(high.mean - curve.mean),
            "arrayminus": _rounded(curve.mean - low.mean),
            "thickness": 1,
            "width": 3,
        }
    figure.add_scatter(
        x=curve.steps, y=_rounded(curve.mean), error_y=bars, name=label, mode="lines+markers",
        line={"color": colour, "width": 2}, showlegend=in_legend,
    )  # fmt: skip


def _add_limit(figure: go.Figure, limit: Limit, arms: Sequence[Arm], chart: Chart) -> None:
    """A line for a setting that all arms share."""
    values = {arm.settings.get(limit.setting) for arm in arms}
    on = not limit.only_if or all(arm.settings.get(limit.only_if) for arm in arms)
    value = values.pop() if len(values) == 1 else None
    if not on or not isinstance(value, int | float) or not np.isfinite(value):
        return
    if chart.axis == "log" and value <= 0:
        return
    figure.add_hline(
        y=value,
        line={"color": GREY, "width": 1, "dash": "dash"},
        annotation={"text": limit.label, "font": {"size": 10, "color": GREY}},
    )


def _stack(chart: Chart, arm: Arm) -> go.Figure:
    """Bars of the parts, from 0 up and down, and a line of the whole."""
    figure = _empty(chart)
    for series in chart.series:
        curve = arm.curve(series.name, chart.phase)
        if len(curve) and np.any(curve.mean != 0):
            figure.add_bar(
                x=curve.steps, y=_rounded(curve.mean), name=series.label,
                marker={"color": series.colour, "line": {"width": 0}},
            )  # fmt: skip
    total = arm.curve(TOTALS[chart.title], chart.phase)
    if figure.data and len(total):
        figure.add_scatter(
            x=total.steps, y=_rounded(total.mean), name="whole", mode="lines",
            line={"color": "black", "width": 1.5},
        )  # fmt: skip
    return figure.update_layout(barmode="relative", bargap=0.1)


def _area(chart: Chart, arm: Arm) -> go.Figure:
    """Shares on top of one another."""
    figure = _empty(chart)
    for series in chart.series:
        curve = arm.curve(series.name, chart.phase)
        if len(curve) and np.any(curve.mean > 0):
            figure.add_scatter(
                x=curve.steps, y=_rounded(curve.mean), name=series.label, stackgroup="one",
                mode="lines", line={"width": 0.5, "color": series.colour},
                fillcolor=_see_through(series.colour, 0.6),
            )  # fmt: skip
    return figure


def _scatter(chart: Chart, arm: Arm) -> go.Figure:
    """The second series over the first: a point a step of every seed, coloured by the step."""
    figure, points = _empty(chart), []
    for run in arm.runs:
        one, other = (dict(zip(*run.rl.curve(s.name), strict=True)) for s in chart.series)
        points += [(step, one[step], other[step]) for step in one if step in other]
    points = [point for point in points if np.isfinite(point).all()]
    figure.update_xaxes(title=chart.series[0].label, nticks=4, tickangle=0, zerolinecolor="#999")
    if not points:
        return figure
    steps, first, second = np.asarray(points, float).T
    figure.add_scatter(
        x=_rounded(first), y=_rounded(second), mode="markers", showlegend=False,
        text=[f"step {step:.0f}" for step in steps], hovertemplate="%{text}<br>%{x}<br>%{y}",
        marker={"size": 7, "color": steps, "colorscale": "Viridis", "showscale": True,
                "colorbar": {"title": "step", "thickness": 8}},
    )  # fmt: skip
    agree = int(np.sum(np.sign(first) == np.sign(second)))
    text = f"same sign in {agree} of {len(points)} steps"
    return figure.add_annotation(
        text=text, xref="paper", yref="paper", x=0, y=1.08, showarrow=False, font={"size": 11}
    )


def _empty(chart: Chart) -> go.Figure:
    figure = go.Figure(layout_template="none")
    figure.update_layout(
        height=HEIGHT,
        margin={"l": 62, "r": 12, "t": 24, "b": 42},
        font={"size": 12},
        hovermode="closest" if chart.kind == "scatter" else "x unified",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 11}},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
    grid = {"gridcolor": "#e6e6e6", "zeroline": chart.kind in ("stack", "scatter")}
    figure.update_xaxes(title="step", exponentformat="power", **grid)
    figure.update_yaxes(title=chart.unit, exponentformat="power", automargin=True, **grid)
    if chart.unit.startswith("tokens"):
        figure.update_yaxes(tickformat=",.0f")
    if chart.axis == "share":
        figure.update_yaxes(tickformat=".2~%", rangemode="tozero")
    elif chart.axis == "log":
        figure.update_yaxes(type="log", nticks=6)
    elif chart.kind == "lines":
        figure.update_yaxes(rangemode="tozero")
    return figure


def arm_colour(place: int) -> str:
    """The colour of an arm by its place; after the last colour they begin again."""
    return ARM_COLOURS[place % len(ARM_COLOURS)]


def _rounded(values: np.ndarray) -> list[float | None]:
    return [float(f"{one:.{DIGITS}g}") if np.isfinite(one) else None for one in values]


def _see_through(colour: str, share: float) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{share})"
