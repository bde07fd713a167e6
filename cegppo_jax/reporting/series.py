"""A run's metrics as series over steps, as its pictures draw them."""

from __future__ import annotations

from typing import Any

import numpy as np

from cegppo_jax.reporting.metrics import Phase
from cegppo_jax.reporting.panels import HELD_OUT, Panel

Lines = list[dict[str, Any]]  # of metrics.jsonl


def of_phase(lines: Lines, phase: Phase) -> Lines:
    """Returns the lines of one phase of the run."""
    return [line for line in lines if line["phase"] == phase]


def has_values(panel: Panel, lines: Lines) -> bool:
    """Whether a panel has something to show."""
    names = [curve.name for curve in panel.curves] + [HELD_OUT] * panel.evaluated
    found = [{line[name] for line in lines if line.get(name) is not None} for name in names]
    if panel.scale == "against":
        return any(all(line.get(name) is not None for name in names) for line in lines)
    return any(len(values) > panel.left_out_if_constant for values in found)


def series(lines: Lines, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns (steps, values), each [n], of the lines that have the name; null becomes NaN, a gap
    in the curve.
    """
    points = [(line["step"], line[name]) for line in lines if name in line]
    values = np.array([np.nan if v is None else v for _, v in points], dtype=float)
    return np.array([step for step, _ in points], dtype=int), values
