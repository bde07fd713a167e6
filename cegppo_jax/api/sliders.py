"""Gradient weights under a slider, for notebooks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from cegppo_jax.api.plots import BLUE, GREY, ORANGE
from cegppo_jax.api.surrogates import AnyMethod, gradient_weight, method_of

WIDE = np.linspace(0.2, 2.2, 401, dtype=np.float32)  # ratios that are drawn


def slide_gradient_weights(
    method: AnyMethod, number: str, values: Sequence[float], **others: float
) -> go.Figure:
    """Draws a method's F over the ratio, with a slider that moves one of its numbers.

    Args:
      method: a name in SURROGATES, "package.module:METHOD", a Method, or a function.
      number: the one that moves: "beta_low".
      values: where the slider stops.
      others: numbers that stay.

    Returns:
      a figure, which a notebook shows.

    Raises:
      ValueError: the method has no such number, a value is not allowed, or there is none.
    """
    if not len(values):
        raise ValueError(f"no values of {number}: the slider needs at least one")
    known = method_of(method).all_numbers
    if number not in known:
        raise ValueError(f"{number!r} is no number of this method: it has {sorted(known)}")
    figure = go.Figure()
    dotted = dict(color=GREY, width=1, dash="dot")
    figure.add_scatter(x=WIDE, y=WIDE, name="F = ratio", line=dotted)
    for place, value in enumerate(values):
        for name, advantage, colour in (("A > 0", 1.0, BLUE), ("A < 0", -1.0, ORANGE)):
            weights = gradient_weight(method, WIDE, advantage, **others, **{number: value})
            line = dict(color=colour, width=4 if advantage > 0 else 2)
            figure.add_scatter(x=WIDE, y=weights, name=name, line=line, visible=place == 0)
    lines = 2 * len(values)
    steps = [
        dict(
            label=f"{value:g}",
            method="update",
            args=[{"visible": [True, *(one // 2 == place for one in range(lines))]}],
        )
        for place, value in enumerate(values)
    ]
    figure.update_layout(
        sliders=[dict(steps=steps, currentvalue=dict(prefix=f"{number} = "), pad=dict(t=55))],
        xaxis=dict(title="ratio δ = π / π_old", range=[WIDE[0], WIDE[-1]]),
        yaxis=dict(title="gradient weight F", range=[-0.1, 2.3]),
        template="plotly_white",
        width=640,
        height=420,
        margin=dict(t=30, r=20),
    )
    return figure
