"""Runs by hand: one trained step by step, and finished ones read back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from cegppo_jax.api.policy import Policy, load
from cegppo_jax.evaluation.estimates import Evaluation
from cegppo_jax.evaluation.run import evaluate_policy
from cegppo_jax.models.decoder import Params
from cegppo_jax.reporting.metrics import read_metrics
from cegppo_jax.reporting.samples import read_samples
from cegppo_jax.run.build import build_run
from cegppo_jax.run.directory import load_config
from cegppo_jax.run.position import RunPosition
from cegppo_jax.run.settings import read_settings
from cegppo_jax.steering.steer import START
from cegppo_jax.train import StepTaken, train_step


class Trainer:
    """A training run in memory: iterate over it, look at each step, change the betas between two.

        with cg.Trainer(config) as trainer:
            for step in trainer:
                print(step.position.step, step.values["policy/entropy"])
                trainer.set_betas(0.5, 1.0)

    Nothing is written and nothing can be resumed; `train` does that.
    """

    def __init__(self, config: ConfigDict):
        """Builds the run of a config and warm-starts it. Raises ValueError for a bad setting."""
        self.run = build_run(read_settings(config))
        with jax.set_mesh(self.run.mesh):
            if self.run.imitator.steps:
                self.state = self.run.learner.fresh_state(self._warm_started_params())
            else:
                self.state = self.run.initial_state(self.run.learner)
            no_reference = self.run.settings.loss.kl_place == "none"
            params = self.state.params
            self._reference = None if no_reference else jax.tree.map(lambda x: x.copy(), params)
        self.position = RunPosition(step=0, next_prompt=0, steering=START)

    def _warm_started_params(self) -> Params:
        imitator = self.run.imitator
        state = self.run.initial_state(imitator.learner)
        for taken in imitator.train(state):
            state = taken.state
        return state.params

    def __iter__(self) -> Iterator[StepTaken]:
        while self.position.step < self.run.settings.steps:
            yield self.step()

    def step(self) -> StepTaken:
        """Takes one rollout step with all its updates. Rollbacks of a guard are not carried out:
        there are no checkpoints.
        """
        with jax.set_mesh(self.run.mesh):
            taken = train_step(self.run, self.state, self.position, self._reference)
        self.state, self.position = taken.state, taken.position
        return taken

    def set_betas(self, low: float, high: float) -> None:
        """Sets the base betas of the steps to come; nothing is compiled again."""
        settings = self.run.settings
        loss = settings.loss.with_numbers(beta_low=low, beta_high=high)
        settings = dataclasses.replace(settings, loss=loss)
        self.run = dataclasses.replace(self.run, settings=settings)

    def evaluate(self) -> Evaluation:
        """Evaluates the present policy on the held-out problems."""
        with jax.set_mesh(self.run.mesh):
            return evaluate_policy(self.run.evaluator, self.state.params)[0]

    @property
    def policy(self) -> Policy:
        """The present policy. The next step takes its memory: sample from it before that."""
        run = self.run
        dtype = run.settings.trainer.dtype
        tokenizer = run.problems.tokenizer
        return Policy(self.state.params, run.model, tokenizer, run.ends.ids, run.mesh, dtype)

    def close(self) -> None:
        """Ends the verifiers' processes."""
        self.run.actor.scorer.close()

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@dataclasses.dataclass(frozen=True)
class SavedRun:
    """The directory of a run, read."""

    workdir: Path
    config: dict[str, Any]
    metrics: list[dict[str, Any]]  # the lines of metrics.jsonl

    def __getitem__(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Name of a metric -> (steps [n], values [n]) of the lines of RL that have it."""
        lines = [one for one in self.metrics if one["phase"] == "rl"]
        pairs = [(one["step"], one[name]) for one in lines if one.get(name) is not None]
        if not pairs:
            names = sorted({name for one in self.metrics for name in one})
            raise KeyError(f"{self.workdir} has no {name!r}; it has {names}")
        steps, values = zip(*pairs, strict=True)
        return np.asarray(steps), np.asarray(values)

    @property
    def samples(self) -> list[dict[str, Any]]:
        """The lines of samples.jsonl: completions with their scores."""
        return read_samples(self.workdir)

    def policy(self) -> Policy:
        """Loads the policy of the newest checkpoint."""
        return load(self.workdir)


def open_run(workdir: str | Path) -> SavedRun:
    """Opens the directory of a run, finished or not. Raises ValueError when it holds none."""
    folder = Path(workdir).expanduser()
    return SavedRun(folder, load_config(folder), read_metrics(folder))
