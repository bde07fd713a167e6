"""Reads an experiment file: a question, a prediction, a base, arms, and the metric that decides.

    QUESTION = "Does CE-GPPO's beta_low change what is learned?"
    PREDICTION = "No: few tokens leave the interval on its left."
    METRIC = "evaluation/accuracy"                        # its last value decides
    ALSO = ("policy/entropy", ("reward/mean", 10))        # a pair: the mean of the last 10 steps

    def base():
        from configs import quickstart
        return quickstart.get_config()

    def arms():
        return product(over("loss.beta_low", 0.0, 0.5, 1.0), seeds(0, 1, 2))

`base` is called only where configs are needed, so tables of finished runs are made without jax.
"""

from __future__ import annotations

import dataclasses
import difflib
import runpy
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cegppo_jax.reporting.metric_names import METRICS, check_names
from cegppo_jax.sweeps.arms import ArmRun, Arms, runs_of


@dataclasses.dataclass(frozen=True)
class Measure:
    """What is read from a finished run: a metric's mean over its last values."""

    name: str
    last: int = 1  # values: of that many steps, or evaluations

    @property
    def title(self) -> str:
        """The metric's name, and what the mean is over."""
        return self.name if self.last == 1 else f"{self.name}, mean of the last {self.last}"

    @property
    def is_share(self) -> bool:
        """Whether it lies between 0 and 1."""
        return self.name in METRICS and METRICS[self.name].unit == "share"


@dataclasses.dataclass(frozen=True)
class Experiment:
    """An experiment file, read. Nothing in it needs jax."""

    path: Path
    question: str
    prediction: str
    measures: tuple[Measure, ...]  # the first decides
    runs: tuple[ArmRun, ...]

    @property
    def name(self) -> str:
        """The file's name without .py."""
        return self.path.stem

    @property
    def arms(self) -> dict[str, list[ArmRun]]:
        """The runs of each arm, by its name, in order."""
        found: dict[str, list[ArmRun]] = {}
        for run in self.runs:
            found.setdefault(run.arm, []).append(run)
        return found

    def runs_named(self, name: str) -> list[ArmRun]:
        """Returns the runs of an arm, "beta_low=0.5", or the one run "beta_low=0.5/seed1".

        Raises:
          ValueError: there is none of that name; the nearest is suggested.
        """
        found = [run for run in self.runs if name in (run.arm, str(run))]
        if not found:
            names = [str(run) for run in self.runs] if "/" in name else list(self.arms)
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {names}"
            raise ValueError(f"{self.path} has no arm {name!r}: {hint}")
        return found


def read_experiment(path: Path) -> Experiment:
    """Reads an experiment file.

    Raises:
      ValueError: there is no such file, it raises an error, or lacks a part; a metric is unknown;
        or its arms are not distinct runs.
    """
    if not path.is_file():
        found = sorted(one.stem for one in path.parent.glob("*.py"))
        near = difflib.get_close_matches(path.stem, found, n=1)
        hint = f"did you mean {path.with_name(near[0] + '.py')}?" if near else "see experiments/"
        raise ValueError(f"there is no experiment {str(path)!r}: {hint}")
    content = running(path, lambda: runpy.run_path(str(path), run_name=path.stem))
    for name in ("base", "arms"):
        if not callable(content.get(name)):
            raise ValueError(f"{path} has no function {name}(): see experiments/sweeps.md")
    arms: Arms = running(path, content["arms"])
    try:
        measures = tuple(map(_measure, (content.get("METRIC"), *content.get("ALSO", ()))))
        runs = runs_of(arms)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    if len({one.name for one in measures}) < len(measures):
        raise ValueError(f"{path}: METRIC and ALSO name a metric twice")
    question, prediction = (_text(path, content, name) for name in ("QUESTION", "PREDICTION"))
    return Experiment(path, question, prediction, measures, runs)


def running(path: Path, call: Callable[[], Any]) -> Any:
    """Runs code of a file. What it raises becomes a ValueError: "FILE, line 7: KeyError: ..."."""
    try:
        return call()
    except Exception as error:
        place = f"{path}"
        if isinstance(error, SyntaxError):
            place = f"{error.filename}, line {error.lineno}"
        for frame in traceback.extract_tb(error.__traceback__):
            if frame.filename == str(path):
                place = f"{path}, line {frame.lineno}"
        text = " ".join(str(error.args[0] if error.args else error).split())
        raise ValueError(f"{place}: {type(error).__name__}: {text}") from error


def _text(path: Path, content: Mapping[str, Any], name: str) -> str:
    text = content.get(name)
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{path} has no {name}: a sentence, written before the runs start")
    return " ".join(text.split())


def _measure(written: Any) -> Measure:
    """ "policy/entropy", or ("policy/entropy", 10)."""
    name, last = written if isinstance(written, tuple) and len(written) == 2 else (written, 1)
    if not isinstance(name, str) or type(last) is not int or last < 1:
        raise ValueError(
            f"METRIC or ALSO has {written!r}: the name of a metric, or a pair (name, number of "
            "last values to take the mean of)"
        )
    check_names([name])
    return Measure(name, last)
