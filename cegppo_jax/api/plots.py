"""Plots for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cegppo_jax.api.losses import gradient_weight, method_of

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#999999"


def plot_gradient_weights(
    methods: Sequence[str], *, largest_ratio: float = 2.2, **numbers: float
) -> Figure:
    """Draws F over the ratio for each method: blue for A > 0, orange for A < 0; dashed: tokens that
    the method selected; dotted: F = ratio. Each token is a sequence by itself.

    Args:
      methods: names in SURROGATES, or "package.module:METHOD".
      numbers: of the methods; each reads its own.
    """
    figure = Figure(figsize=(3.2 * len(methods), 2.4), layout="constrained")
    grid: Any = figure.subplots(1, len(methods), squeeze=False, sharey=True)
    ratios = np.linspace(0.2, largest_ratio, 1001, dtype=np.float32)
    for axes, name in zip(grid[0], methods, strict=True):
        draw_gradient_weights(axes, name, ratios, numbers)
        axes.set_title(name, fontsize=10)
    grid[0][0].set_ylabel("gradient weight F")
    return figure


def draw_gradient_weights(
    axes: Any, name: str, ratios: np.ndarray, numbers: dict[str, float]
) -> None:
    """Draws one method's F at ratios [n] into axes."""
    method = method_of(name)
    own = {number: value for number, value in numbers.items() if number in method.all_numbers}
    axes.plot(ratios, ratios, color=GREY, linewidth=0.6, linestyle=":")
    for advantage, colour, width in ((1.0, BLUE, 3.0), (-1.0, ORANGE, 1.3)):  # both where equal
        axes.plot(
            ratios, gradient_weight(name, ratios, advantage, **own), color=colour, linewidth=width
        )
        if method.selections:
            chosen = gradient_weight(name, ratios, advantage, selected=True, **own)
            axes.plot(ratios, chosen, color=colour, linewidth=1.0, linestyle="--")
    axes.set(xlim=(ratios[0], ratios[-1]), ylim=(-0.1, 2.3), xlabel="ratio")
    axes.spines[["top", "right"]].set_visible(False)
