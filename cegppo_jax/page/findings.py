"""What a rule of the doctor returns, and how rules read a run's log."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from cegppo_jax.reporting.run_log import RunLog

Severity = Literal["problem", "watch", "fine"]

RECENT = 0.25  # share of the steps, the last ones, that stands for "now"
FEWEST_RECENT = 5  # steps


@dataclasses.dataclass(frozen=True)
class Finding:
    """What the numbers show, with the numbers, and what to turn."""

    rule: str
    severity: Severity
    seen: str
    advice: str = ""


Rule = Callable[[RunLog], Finding | None]


def values(log: RunLog, name: str) -> np.ndarray:
    """Returns the finite values [n] of an RL metric, in order; [0] if there are none."""
    found = log.rl.curve(name)[1]
    return found[np.isfinite(found)]


def recent(log: RunLog, name: str) -> np.ndarray:
    """Returns the finite values of an RL metric in the last quarter of its steps."""
    found = values(log, name)
    return found[-max(FEWEST_RECENT, round(RECENT * len(found))) :]


def recent_mean(log: RunLog, name: str) -> float:
    """Returns the mean of `recent`; 0 if the metric was never measured."""
    found = recent(log, name)
    return float(found.mean()) if len(found) else 0.0


def total(log: RunLog, name: str) -> float:
    """Returns the sum of an RL metric over the run."""
    return float(values(log, name).sum())


def setting(log: RunLog, name: str) -> str:
    """Returns "name (0.5 now)" of a setting, for advice."""
    value: Any = log.settings.get(name, "unknown")
    return f"{name} ({value:g} now)" if isinstance(value, float) else f"{name} ({value} now)"


def percent(share: float) -> str:
    """0.834 -> "83 %"; less than 10 % with the digits that it takes to show something."""
    return f"{100 * share:.0f} %" if abs(share) >= 0.1 else f"{100 * share:.2g} %"
