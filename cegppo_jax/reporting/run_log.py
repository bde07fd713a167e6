"""What the directory of a run holds, read back: finished or going on, wherever it was trained.

    log = open_run_log(Path("runs/quickstart"))
    log.rl["policy/entropy"]            # [n] float64, one value a line of the phase
    log.rl.curve("evaluation/accuracy") # (steps, values) of the lines that have it
    log.settings["loss.beta_low"]

Nothing here needs jax: a machine without an accelerator can read, plot and compare runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cegppo_jax.reporting.metrics import (
    LINE,
    METRICS_FILE_NAME,
    UPDATES_FILE_NAME,
    Phase,
    checked_line,
    read_metrics,
)
from cegppo_jax.reporting.samples import read_samples
from cegppo_jax.saved_config import (
    VERSIONS_FILE_NAME,
    flat,
    load_config,
    read_versions,
)
from cegppo_jax.storage import strict_json
from cegppo_jax.storage.jsonl import read_jsonl

EVALUATIONS_FOLDER_NAME = "evaluations"
RESULT_FILE_NAME = "evaluation.json"
NOT_METRICS = ("phase", "step", "update")
# Of evaluation.json; what an older version did not have may be missing
RESULT_FIELDS = {"problems", "samples_per_problem", "accuracy", "pass_at", "majority_at"}
RESULT_FIELDS |= {"truncated_fraction"}
OBJECTS = ("accuracy", "pass_at", "majority_at", "completion_tokens_quantiles", "outcomes")
ESTIMATE = {"mean", "low", "high"}


class Columns(Mapping[str, np.ndarray]):
    """Lines of one phase as columns: name of a metric -> values [n] float64, one a line, NaN where
    a line lacks it or it was not finite.
    """

    def __init__(self, lines: Sequence[Mapping[str, Any]]) -> None:
        self._lines = lines
        self.steps = np.asarray([line["step"] for line in lines], np.int64)  # [n]

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        values = [line.get(name) for line in self._lines]
        return np.asarray([np.nan if one is None else one for one in values], np.float64)

    def curve(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns steps and values, both [k], of the lines that have the name: NaN is a value that
        was not finite. Both are empty when no line has it.
        """
        lines = [line for line in self._lines if name in line]
        values = [np.nan if line[name] is None else line[name] for line in lines]
        return np.asarray([line["step"] for line in lines], np.int64), np.asarray(values, float)

    @cached_property
    def _names(self) -> dict[str, None]:
        names = {name: None for line in self._lines for name in line}
        return {name: None for name in names if name not in NOT_METRICS}

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"Columns({len(self.steps)} lines, {len(self)} names)"


@dataclasses.dataclass(frozen=True)
class SavedEvaluation:
    """An evaluation by the `evaluate` command, kept in the run's directory."""

    name: str  # of its folder
    step: int | None  # of the checkpoint
    result: dict[str, Any]  # the fields of evaluation.estimates.Evaluation
    config: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class RunLog:
    """The directory of a run. Each file is read once, when it is first asked for, without a
    half-written last line; a file that is not there yet is empty.

    Every property raises ValueError, with file and line, when what it reads is damaged.
    """

    workdir: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved config, nested; its tuples are lists."""
        return {name: one for name, one in self._saved_config.items() if name != "command"}

    @cached_property
    def _saved_config(self) -> dict[str, Any]:
        return load_config(self.workdir)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The resolved config by dotted names."""
        return flat(self.config)

    @cached_property
    def versions(self) -> list[dict[str, Any]]:
        """What each start ran on, oldest first: packages, python, git, devices."""
        return read_versions(self.workdir / VERSIONS_FILE_NAME)

    @cached_property
    def lines(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, None for what is not finite."""
        present = (self.workdir / METRICS_FILE_NAME).is_file()
        return read_metrics(self.workdir) if present else []

    @cached_property
    def rl(self) -> Columns:
        """The metrics of the RL phase."""
        return self._of(Phase.RL)

    @cached_property
    def warm_start(self) -> Columns:
        """The metrics of the supervised phase."""
        return self._of(Phase.SUPERVISED)

    def _of(self, phase: Phase) -> Columns:
        return Columns([line for line in self.lines if line["phase"] == phase])

    @cached_property
    def updates(self) -> Columns:
        """The lines of updates.jsonl, several a step."""
        path = self.workdir / UPDATES_FILE_NAME
        return Columns(read_jsonl(path, checked_line, LINE) if path.is_file() else [])

    @cached_property
    def samples(self) -> list[dict[str, Any]]:
        """The lines of samples.jsonl: completions with their scores."""
        try:
            return read_samples(self.workdir)
        except FileNotFoundError:
            return []

    @cached_property
    def evaluations(self) -> list[SavedEvaluation]:
        """The finished evaluations in the directory, by step and name."""
        found = []
        for path in (self.workdir / EVALUATIONS_FOLDER_NAME).glob(f"*/{RESULT_FILE_NAME}"):
            try:
                result = strict_json.loads(path.read_bytes())
                check_result(result)
                config = load_config(path.parent)
            except ValueError as error:
                raise ValueError(f"{path.parent} is damaged ({error})") from error
            found.append(SavedEvaluation(path.parent.name, config.get("step"), result, config))
        return sorted(found, key=lambda one: (one.step or 0, one.name))

    @property
    def is_supervised(self) -> bool:
        """Whether the `supervised` command wrote it: there is a warm start and nothing else."""
        return self._saved_config.get("command") == "supervised"

    @property
    def step(self) -> int:
        """Steps taken: RL steps, or those of a supervised run."""
        if self.is_supervised:
            return len(self.warm_start.steps)
        return int(self.rl.steps[-1]) if len(self.rl.steps) else 0

    @property
    def planned_steps(self) -> int:
        """Steps that the config asks for."""
        return int(self.settings["warm_start.steps" if self.is_supervised else "steps"])

    @property
    def is_finished(self) -> bool:
        """Whether all steps have been taken."""
        return self.step >= self.planned_steps

    def __repr__(self) -> str:
        return f"RunLog({str(self.workdir)!r}: step {self.step} of {self.planned_steps})"


def check_result(result: Any) -> None:
    """Raises ValueError unless a value is what evaluation.json holds: objects with numbers."""
    if not isinstance(result, dict) or not result.keys() >= RESULT_FIELDS:
        raise ValueError(f"{RESULT_FILE_NAME} lacks some of {sorted(RESULT_FIELDS)}")
    for name, value in result.items():
        if (name in OBJECTS) != isinstance(value, dict):
            raise ValueError(f"{RESULT_FILE_NAME}: {name} = {value!r:.60}")
    estimates = [result["accuracy"], *result["pass_at"].values(), *result["majority_at"].values()]
    if any(not isinstance(one, dict) or one.keys() != ESTIMATE for one in estimates):
        raise ValueError(f"{RESULT_FILE_NAME}: an estimate lacks some of {sorted(ESTIMATE)}")
    numbers = [value for name, value in result.items() if name not in OBJECTS]
    for one in (*estimates, *(result.get(name, {}) for name in OBJECTS[3:])):
        numbers += one.values()
    wrong = [one for one in numbers if one is not None and type(one) not in (int, float)]
    if wrong:
        raise ValueError(f"{RESULT_FILE_NAME} has {wrong[0]!r:.60}, which is no number")


def open_run_log(workdir: Path) -> RunLog:
    """Opens the directory of a run.

    Raises:
      ValueError: it holds none (no config.json), or one that is damaged.
    """
    load_config(workdir)
    return RunLog(workdir)
