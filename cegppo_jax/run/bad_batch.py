"""The update whose gradient was not finite, kept as files from which it is computed again.

A folder has the parameters before it (`params`), the mini-batch (`batch.npz`), the numbers that
came out (`update.json`) and the config of its run. Updates that are left out change nothing, so
the parameters before the first of a row are those after the last.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cegppo_jax import distributed
from cegppo_jax.console.table import how_to_run
from cegppo_jax.finite import NonFiniteError
from cegppo_jax.learner.minibatches import Minibatch
from cegppo_jax.learner.train_state import TrainState
from cegppo_jax.losses.contract import Knobs
from cegppo_jax.losses.policy_loss import OldStatistics
from cegppo_jax.models.decoder import Params
from cegppo_jax.packing import PackedBatch
from cegppo_jax.reporting.skipped_updates import SkippedUpdates
from cegppo_jax.run.saved_params import save_params
from cegppo_jax.saved_config import CONFIG_FILE_NAME
from cegppo_jax.steering.guard import ROLLBACKS, GuardAction
from cegppo_jax.storage import strict_json
from cegppo_jax.storage.mirror import BEFORE_BAD_UPDATE, real_place
from cegppo_jax.storage.writing import writing

FOLDER, BATCH, UPDATE, PARAMS = "not_finite", "batch.npz", "update.json", BEFORE_BAD_UPDATE


@dataclasses.dataclass(frozen=True)
class BadUpdate:
    """One update, as it was asked for and as it came out."""

    step: int  # the rollout step
    update: int  # of the step, from 1
    updates: int  # of the run before it, those that were left out included
    minibatch: Minibatch
    knobs: Knobs
    is_old: bool  # whether it found its own old log-probs: learner/update.py
    values: Mapping[str, float]  # its metrics


class TakenUpdates(Protocol):
    """What a step has done to the policy."""

    @property
    def state(self) -> TrainState:
        """After it."""

    @property
    def action(self) -> GuardAction:
        """Of the guard."""

    @property
    def updates(self) -> list[dict[str, Any]]:
        """The metrics of each update."""

    @property
    def minibatches(self) -> list[Minibatch]:
        """One an update."""

    @property
    def finds_old(self) -> bool:
        """Whether the first of them found its own old log-probs."""

    @property
    def knobs(self) -> Knobs:
        """The method's numbers."""


class LeftOut:
    """The updates of a run that were left out: counted, said, and the first of a row kept, until
    too many in a row end the run.
    """

    def __init__(self, limit: int, workdir: Path) -> None:
        """Args: limit: checkpoint.stop_after_skipped."""
        self._skipped, self._workdir = SkippedUpdates(limit), workdir
        self.first: BadUpdate | None = None

    @property
    def in_a_row(self) -> int:
        """How many have been left out in a row, up to the latest update."""
        return self._skipped.in_a_row

    def message(self, step: int, taken: TakenUpdates) -> str | None:
        """Receives what a step did, and returns what to print; None: nothing."""
        before = int(taken.state.updates) - len(taken.updates)
        each = zip(taken.minibatches, taken.updates, strict=True)
        for place, (minibatch, values) in enumerate(each):
            if not values["update/skipped"]:
                self.first = None
            elif self.first is None:
                is_old = taken.finds_old and not place
                self.first = BadUpdate(
                    step, place + 1, before + place, minibatch, taken.knobs, is_old, values
                )
        if taken.action in ROLLBACKS:  # to other parameters than those before it
            self.first = None
        return self._skipped.message(step, taken.updates)

    def check(self, is_last: bool, saved_step: int | None, params: Params) -> None:
        """Ends a run that does not train any more, as SkippedUpdates.check, and saves the first
        update of the row. `params` are the present ones.
        """
        try:
            self._skipped.check(is_last, saved_step)
        except NonFiniteError as error:
            if self.first is None or distributed.hosts() > 1:
                raise
            folder = save_bad_update(self._workdir, self.first, params)
            command = how_to_run("replay", str(folder))
            raise NonFiniteError(
                f"{error}. The first of them, update {self.first.update} of step "
                f"{self.first.step}, is in {folder}: `{command}` computes it again and says what "
                "is not finite first"
            ) from None


def save_bad_update(workdir: Path, bad: BadUpdate, params: Params) -> Path:
    """Writes an update to a folder in the run's directory, in place of another, and returns it."""
    folder = workdir / FOLDER
    with writing(folder):
        shutil.rmtree(folder, ignore_errors=True)
        real_place(folder / PARAMS).rmtree(missing_ok=True)
        folder.mkdir()
        shutil.copyfile(workdir / CONFIG_FILE_NAME, folder / CONFIG_FILE_NAME)
        parts: dict[str, Any] = {"batch": bad.minibatch.batch, "old": bad.minibatch.old}
        arrays: dict[str, Any] = {
            f"{name}.{field.name}": np.asarray(value)
            for name, record in parts.items()
            for field in dataclasses.fields(record)
            if (value := getattr(record, field.name)) is not None
        }
        np.savez(folder / BATCH, **arrays)
        save_params(folder / PARAMS, params)
        described = {name: getattr(bad, name) for name in ("step", "update", "updates", "is_old")}
        described["knobs"] = {name: float(getattr(bad.knobs, name)) for name in bad.knobs.names}
        described["values"] = {name: float(value).hex() for name, value in bad.values.items()}
        strict_json.write_json(folder / UPDATE, described)
    return folder


def read_bad_update(folder: Path) -> BadUpdate:
    """Reads what save_bad_update wrote.

    Raises:
      ValueError: it is not such a folder, or is damaged.
    """
    path = folder / UPDATE
    if not path.is_file():
        raise ValueError(f"{folder} holds no update (no {UPDATE}): give RUN/{FOLDER}")
    try:
        described = strict_json.read_json_file(path)
        with np.load(folder / BATCH, allow_pickle=False) as arrays:
            batch, old = (
                {n.removeprefix(prefix): arrays[n] for n in arrays if n.startswith(prefix)}
                for prefix in ("batch.", "old.")
            )
        minibatch = Minibatch(PackedBatch(**batch), OldStatistics(**({"ref_logprobs": None} | old)))
        knobs = {name: np.float32(value) for name, value in described["knobs"].items()}
        values = {name: float.fromhex(value) for name, value in described["values"].items()}
        is_old = bool(described["is_old"])
        step, update, updates = (int(described[name]) for name in ("step", "update", "updates"))
        return BadUpdate(step, update, updates, minibatch, Knobs(**knobs), is_old, values)
    except Exception as error:  # zip, npz and JSON have errors of their own
        raise ValueError(f"{folder} is damaged ({type(error).__name__}: {error})") from error


def changed_values(bad: BadUpdate, values: Mapping[str, float]) -> list[str]:
    """Returns a line for each number of an update that did not come out to the same bits."""
    return [
        f"{name}: {bad.values.get(name)} in the run, {values.get(name)} now"
        for name in sorted(bad.values.keys() | values.keys())
        if _bits(bad.values.get(name)) != _bits(values.get(name))
    ]


def state_before(fresh: TrainState, bad: BadUpdate) -> TrainState:
    """Returns a state without updates as one that has taken those before the update."""
    return dataclasses.replace(
        fresh, step=fresh.step + (bad.step - 1), updates=fresh.updates + bad.updates
    )


def _bits(value: float | None) -> str | None:
    return None if value is None else float(value).hex()
