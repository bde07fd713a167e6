"""Runs as arms: those whose configs are equal but for the seed belong together, and their curves
become a mean and a band.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cegppo_jax.reporting.run_log import RunLog, open_run_log
from cegppo_jax.reporting.smoothing import SMOOTH_FROM_STEPS, smoothed, window_of
from cegppo_jax.saved_config import ABSENT, CONFIG_FILE_NAME, json_value, load_config

# Settings that make no other experiment: the seed, how it was run and what was written.
NOT_COMPARED = ("seed", "steps", "mesh.", "checkpoint.", "logging.", "evaluation.every_steps")


@dataclasses.dataclass(frozen=True)
class ArmCurve:
    """A metric over the steps of an arm, all [n] float64: the mean over its seeds, and from the
    smallest to the largest of them. Of one seed, all three are equal.
    """

    steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def __len__(self) -> int:
        return len(self.steps)

    def smooth(self) -> ArmCurve:
        """Returns running means over a twentieth of a long run; a short one as it is."""
        if len(self) < SMOOTH_FROM_STEPS:
            return self
        window = window_of(len(self))
        return ArmCurve(
            self.steps, *(smoothed(a, window) for a in (self.mean, self.low, self.high))
        )


@dataclasses.dataclass(frozen=True)
class Arm:
    """Runs of one config with different seeds."""

    name: str
    runs: tuple[RunLog, ...]

    @property
    def settings(self) -> dict[str, Any]:
        """The dotted settings of the first run."""
        return self.runs[0].settings

    def curve(self, metric: str, phase: str = "rl") -> ArmCurve:
        """Returns a metric over steps, at those steps that a run has, as the mean over the runs
        that have it; values that are not finite count as not measured.
        """
        logs = [log.rl if phase == "rl" else log.warm_start for log in self.runs]
        measured: dict[int, list[float]] = {}
        for log in logs:
            for step, value in zip(*log.curve(metric), strict=True):
                measured.setdefault(int(step), [])
                if np.isfinite(value):
                    measured[int(step)].append(float(value))
        steps = sorted(step for step, values in measured.items() if values)
        kept = [measured[step] for step in steps]
        columns = [[f(values) for values in kept] for f in (np.mean, np.min, np.max)]
        return ArmCurve(np.asarray(steps, np.int64), *(np.asarray(c, float) for c in columns))

    def run_name(self, run: RunLog) -> str:
        """Names a run of several arms: the arm, with the seed if it has several."""
        seed = run.settings.get("seed")
        return self.name if len(self.runs) == 1 else f"{self.name}, seed {seed}"


def open_arms(arms: Mapping[str, Sequence[Path]]) -> list[Arm]:
    """Opens the runs of named arms.

    Raises:
      ValueError: a directory holds no run, there is no arm, or one without a run.
    """
    if not arms or not all(arms.values()):
        raise ValueError("there is no run to report: name at least one directory of a run")
    return [
        Arm(name, tuple(open_run_log(Path(path)) for path in paths)) for name, paths in arms.items()
    ]


def find_runs(path: Path) -> list[Path]:
    """Returns the directories of runs that a path names: itself, or those below it, in order.

    Raises:
      ValueError: there is none.
    """
    found = _runs_below(path)
    if not found:
        raise ValueError(f"{path} holds no run: no {CONFIG_FILE_NAME} of one is in it or below it")
    return found


def _runs_below(path: Path) -> list[Path]:
    if _is_run(path):
        return [path]  # and what is below is the run's own
    folders = sorted(one for one in path.iterdir() if one.is_dir()) if path.is_dir() else []
    return [run for folder in folders for run in _runs_below(folder)]


def _is_run(path: Path) -> bool:
    """Whether a folder's config.json is that of a run: those of evaluations and of models have no
    `steps`.
    """
    if not (path / CONFIG_FILE_NAME).is_file():
        return False
    try:
        return "steps" in load_config(path)
    except ValueError:
        return True  # opening the run says what is damaged


def group_runs(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """Groups directories of runs into arms whose configs differ in NOT_COMPARED alone. An arm is
    named by the settings that set it apart, or by its directory where there is nothing to tell.

    Raises:
      ValueError: a directory holds no run, or is named twice.
    """
    resolved = [path.resolve() for path in paths]
    if twice := sorted({str(path) for path in resolved if resolved.count(path) > 1}):
        raise ValueError(f"{twice} are named more than once: each run counts once")
    groups: list[tuple[dict[str, Any], list[Path]]] = []
    for path in paths:
        settings = compared_settings(open_run_log(path).settings)
        for known, members in groups:
            if known == settings:
                members.append(path)
                break
        else:
            groups.append((settings, [path]))
    apart = differing([settings for settings, _ in groups])
    arms: dict[str, list[Path]] = {}
    for settings, members in groups:
        name = ", ".join(f"{short(n)}={setting_words(settings.get(n, ABSENT))}" for n in apart[:4])
        name = name if name and len(apart) <= 4 and name not in arms else members[0].name
        while name in arms:
            name += "'"
        arms[name] = members
    return arms


def compared_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that make an experiment, as JSON has them."""
    return {
        name: json_value(value)
        for name, value in settings.items()
        if not name.startswith(NOT_COMPARED)
    }


def differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the names, sorted, that do not have one value in all of several flat configs."""
    names = sorted({name for one in settings for name in one})
    return [
        name
        for name in names
        if any(one.get(name, ABSENT) != settings[0].get(name, ABSENT) for one in settings)
    ]


def short(name: str) -> str:
    """The last part of a dotted name."""
    return name.rpartition(".")[2]


def setting_words(value: Any) -> str:
    """A setting's value as one reads it: 1e-06, ppo_clip, ()."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return f"({', '.join(map(setting_words, value))})"
    return str(value)
