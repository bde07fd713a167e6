"""Which checkpoints of a run stay: the newest, one every so many steps, and the best by a metric.

The score of a checkpoint is saved with it, so that a resumed run keeps the one that an
uninterrupted run keeps.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from cegppo_jax.read_settings import check_at_least, check_choice
from cegppo_jax.reporting.metric_names import check_names
from cegppo_jax.run.checksums import json_digest
from cegppo_jax.storage import strict_json

MODES = ("max", "min")
EVALUATED = "evaluation/"  # begins the metrics of steps with an evaluation alone

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class CheckpointSettings:
    """When to save and what to keep."""

    every_steps: int  # the last step is always saved
    keep: int  # newest checkpoints kept
    keep_every_steps: int  # those of multiples of it stay as well; 0: none
    keep_best: str  # the best by this metric stays as well; "": none
    keep_best_mode: str  # "max" or "min": which value of it is the best
    # Updates in a row whose gradient was not finite, after which the run stops. Until then nothing
    # is saved: the newest checkpoint stays the last good one
    stop_after_skipped: int

    def __post_init__(self) -> None:
        check_at_least(1, "checkpoint", self, "every_steps", "keep", "stop_after_skipped")
        check_at_least(0, "checkpoint", self, "keep_every_steps")
        if self.keep_every_steps % self.every_steps:
            raise ValueError(
                f"checkpoint.keep_every_steps = {self.keep_every_steps} is not a multiple of "
                f"checkpoint.every_steps = {self.every_steps}: what is kept must have been saved"
            )
        check_choice("checkpoint.keep_best_mode", self.keep_best_mode, MODES)
        if self.keep_best:
            try:
                check_names([self.keep_best])
            except ValueError as error:
                raise ValueError(f"checkpoint.keep_best = {self.keep_best!r}: {error}") from error

    def check_evaluated(self, every_steps: int) -> None:
        """Raises ValueError when checkpoints and evaluations, one every `every_steps` steps, meet
        so rarely that the best by a metric of evaluations means little.
        """
        if not self.keep_best.startswith(EVALUATED):
            return
        if not every_steps or (self.every_steps % every_steps and every_steps % self.every_steps):
            raise ValueError(
                f"checkpoint.keep_best = {self.keep_best!r} is measured every "
                f"evaluation.every_steps = {every_steps} steps, and checkpoints are saved every "
                f"checkpoint.every_steps = {self.every_steps}: one must divide the other"
            )

    def most_at_once(self, steps: int) -> int:
        """Returns the most checkpoints that a run of that many steps has at once, beside the one
        being written.
        """
        kept = self.keep + bool(self.keep_best)
        if self.keep_every_steps:
            kept += steps // self.keep_every_steps + 1  # that of step 0 as well
        return kept

    @property
    def milestones(self) -> Milestones:
        """What stays beside the newest."""
        return Milestones(self.keep_every_steps, self.keep_best, self.keep_best_mode)


@dataclasses.dataclass(frozen=True)
class Milestones:
    """The checkpoints that stay beside the newest; fields as of CheckpointSettings."""

    every_steps: int
    best: str
    mode: str

    def options(self, keep: int | None) -> ocp.CheckpointManagerOptions:
        """Returns Orbax's options for these and the newest `keep` (None: all)."""
        kept = ocp.checkpoint_managers
        policies: list[Any] = [kept.LatestN(keep)]
        if self.every_steps:
            policies.append(kept.EveryNSteps(self.every_steps))
        if self.best:
            best = kept.BestN(
                get_metric_fn=self.value,
                reverse=self.mode == "min",
                n=1,
                keep_checkpoints_without_metrics=False,
            )
            policies.append(best)
        return ocp.CheckpointManagerOptions(
            preservation_policy=kept.AnyPreservationPolicy(policies),
            best_fn=self.value if self.best else None,
            best_mode=self.mode,
            lightweight_initialize=not self.best,  # else scores are read
            enable_async_checkpointing=True,
        )

    def score(self, step: int, values: Mapping[str, Any]) -> dict[str, Any] | None:
        """Returns what is saved beside a checkpoint of a step with these metrics; None: it cannot
        be the best. Where the metric is missing or not finite, a warning says so.
        """
        if not self.best or not values:
            return None
        value = float(np.asarray(values.get(self.best, math.nan)))
        if math.isfinite(value):
            score = {"name": self.best, "value": value}
            return score | {"digest": json_digest(score)}
        if step:  # before the first step there are evaluations alone
            found = "is not finite" if self.best in values else "was not measured"
            logger.warning(
                "checkpoint.keep_best = %r %s in step %d: its checkpoint cannot be the best",
                self.best,
                found,
                step,
            )
        return None

    def value(self, score: Mapping[str, Any]) -> float:
        """Saved score -> its value; the worst there is, where it is of another metric, which the
        run kept before.
        """
        if score["name"] == self.best:
            return float(score["value"])
        return -math.inf if self.mode == "max" else math.inf


NO_MILESTONES = Milestones(0, "", "max")


def check_scores(place: epath.Path, steps: list[int]) -> None:
    """Checks the scores in a folder of checkpoints, which Orbax reads as it opens it.

    Raises:
      ValueError: one is not what was saved.
    """
    for step in steps:
        file = place / str(step) / "metrics" / "metrics"
        if not file.exists():
            continue
        try:
            saved = strict_json.loads(file.read_text())
            digest = saved.pop("digest")
            whole = digest == json_digest(saved) and saved.keys() == {"name", "value"}
        except (ValueError, KeyError, TypeError, AttributeError):
            whole = False
        if not whole:
            raise ValueError(
                f"{file} is damaged, which has the checkpoint's score: move {file.parent.parent} "
                "away, or set checkpoint.keep_best = '' (the best is then not kept any more)"
            )
