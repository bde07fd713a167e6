"""Writes the numbers of a sweep: shares in percent, differences of shares in points."""

from __future__ import annotations

import math

from cegppo_jax.evaluation.intervals import Estimate
from cegppo_jax.sweeps.experiment import Measure


def number_text(measure: Measure, value: float) -> str:
    """0.953 -> "95.3%" for a share, "0.953" for another measure."""
    return f"{value:.1%}" if measure.is_share else f"{value:.4g}"


def estimate_text(measure: Measure, estimate: Estimate | None, *, signed: bool = False) -> str:
    """Returns "95.3% [92.0%, 98.6%]", or for a difference "+1.3 [-0.5, +3.1] points". Without an
    interval, the mean; None is "-".
    """
    if estimate is None:
        return "-"
    points = signed and measure.is_share
    sign = "+" if signed else ""

    def text(value: float) -> str:
        if points:
            return f"{100 * value:{sign}.1f}"
        return f"{value:{sign}.1%}" if measure.is_share else f"{value:{sign}.4g}"

    written = text(estimate.mean)
    if math.isfinite(estimate.low) and math.isfinite(estimate.high):
        written += f" [{text(estimate.low)}, {text(estimate.high)}]"
    return f"{written} points" if points else written
