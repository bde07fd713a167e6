"""Plots for notebooks."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cegppo_jax.api.surrogates import AnyMethod, gradient_weight, method_of

MOST_COLUMNS = 5
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#999999"


class Picture(Figure):
    """A figure that a notebook shows, whether pyplot is loaded or not. `savefig` writes it."""

    def _repr_png_(self) -> bytes:
        image = io.BytesIO()
        self.savefig(image, format="png")
        return image.getvalue()


def plot_gradient_weights(
    methods: AnyMethod | Sequence[AnyMethod], *, largest_ratio: float = 2.2, **numbers: float
) -> Picture:
    """Draws F over the ratio for each method: blue for A > 0, orange for A < 0; dashed: tokens that
    the method selected; dotted: F = ratio. Each token is a sequence by itself.

    Args:
      methods: names in SURROGATES, "package.module:METHOD", Methods, or functions.
      numbers: of the methods; each reads its own.

    Raises:
      ValueError: no such method, or a number that none of them reads.
    """
    if isinstance(methods, str) or not isinstance(methods, Sequence):
        methods = [methods]
    known = {number for method in methods for number in method_of(method).all_numbers}
    if unknown := sorted(numbers.keys() - known):
        raise ValueError(f"{unknown} are numbers of none of these methods: {sorted(known)}")
    columns = min(MOST_COLUMNS, len(methods))
    rows = -(-len(methods) // columns)
    figure = Picture(figsize=(3.2 * columns, 2.4 * rows), layout="constrained")
    grid: Any = figure.subplots(rows, columns, squeeze=False, sharey=True)
    ratios = np.linspace(0.2, largest_ratio, 1001, dtype=np.float32)
    for axes, method in zip(grid.flat, methods, strict=False):
        draw_gradient_weights(axes, method, ratios, numbers)
        axes.set_title(_title(method), fontsize=10)
    for axes in grid.flat[len(methods) :]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set_ylabel("gradient weight F")
    return figure


def _title(method: AnyMethod) -> str:
    if isinstance(method, str):
        return method.rpartition(":")[2]
    return getattr(getattr(method, "surrogate", method), "__name__", "")


def draw_gradient_weights(
    axes: Any, method: AnyMethod, ratios: np.ndarray, numbers: Mapping[str, float]
) -> None:
    """Draws one method's F at ratios [n] into axes; of the numbers it reads its own."""
    record = method_of(method)
    own = {number: value for number, value in numbers.items() if number in record.all_numbers}
    axes.plot(ratios, ratios, color=GREY, linewidth=0.6, linestyle=":")
    for advantage, colour, width in ((1.0, BLUE, 3.0), (-1.0, ORANGE, 1.3)):  # both where equal
        weights = gradient_weight(record, ratios, advantage, **own)
        axes.plot(ratios, weights, color=colour, linewidth=width)
        if record.selections:
            chosen = gradient_weight(record, ratios, advantage, selected=True, **own)
            axes.plot(ratios, chosen, color=colour, linewidth=1.0, linestyle="--")
    axes.set(xlim=(ratios[0], ratios[-1]), ylim=(-0.1, 2.3), xlabel="ratio")
    axes.spines[["top", "right"]].set_visible(False)
