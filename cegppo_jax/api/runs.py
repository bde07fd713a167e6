"""Runs by hand: one trained step by step, and saved ones read back."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import signal
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from cegppo_jax.api.loading import load
from cegppo_jax.api.policy import Policy
from cegppo_jax.evaluation.estimates import Evaluation
from cegppo_jax.evaluation.run import evaluate_policy
from cegppo_jax.finite import at_step
from cegppo_jax.learner.train_state import TrainState
from cegppo_jax.reporting.run_log import RunLog, open_run_log
from cegppo_jax.run.build import build_run
from cegppo_jax.run.command_line import RecipeParser
from cegppo_jax.run.parts import minibatch_settings
from cegppo_jax.run.position import RunPosition
from cegppo_jax.run.saved_model import open_run_model
from cegppo_jax.run.settings import read_settings
from cegppo_jax.steering.steer import START
from cegppo_jax.storage.mirror import mirrored_folder, pull_changes, shown_place
from cegppo_jax.train import StepTaken, train_step

# Receives a step, from 1 on, and its metrics
Watch = Callable[[int, Mapping[str, float]], None]


class Trainer:
    """A training run in memory: iterate over it, look at each step, change numbers between two.

        with cg.Trainer("configs/quickstart.py") as trainer:
            for step in trainer:
                print(step.position.step, step.values["policy/entropy"])
                trainer.set_numbers(beta_low=0.5)

    Nothing is written and nothing can be resumed; `train` does that. An interrupt (Ctrl-C) comes
    through after the step, so that one can look and go on; a second one comes at once.
    """

    def __init__(self, config: ConfigDict | str | Path, watch: Watch | None = None):
        """Builds the run and, where the config says so, warm-starts it, which can take minutes.

        Args:
          config: of a recipe, or its file: "configs/quickstart.py", "configs/quickstart.py:grpo".
          watch: is called after each step of the warm start: `add` of LiveCurves, for example.

        Raises:
          RecipeError: there is no such recipe.
          TypeError: it is neither a ConfigDict nor the name of a file.
          ValueError, OSError: a setting or a file that it names is wrong.
        """
        if isinstance(config, str | Path):
            config = RecipeParser().parse(str(config))
        elif not isinstance(config, ConfigDict):
            raise TypeError(
                f"config is of type {type(config).__name__}: give a recipe's ConfigDict, or its "
                'file, "configs/quickstart.py"'
            )
        self.run = build_run(read_settings(config))
        # Ends the verifiers' processes, also of a trainer that nobody closes
        self._closing = weakref.finalize(self, self.run.actor.scorer.close)
        with jax.set_mesh(self.run.mesh):
            self.state = self._initial_state(watch)
            self._reference = None
            if self.run.settings.loss.kl_place != "none":
                self._reference = jax.tree.map(jnp.copy, self.state.params)
        self.position = RunPosition(step=0, next_prompt=0, steering=START)

    def _initial_state(self, watch: Watch | None) -> TrainState:
        imitator = self.run.imitator
        if not imitator.steps:
            return self.run.initial_state(self.run.learner)
        state = self.run.initial_state(imitator.learner)
        for taken in imitator.train(state):
            state = taken.state
            if watch is not None:
                watch(taken.finished, taken.metrics)
        return self.run.learner.fresh_state(state.params)

    def __repr__(self) -> str:
        loss = self.run.settings.loss
        numbers = ", ".join(f"{name} = {loss.numbers[name]:g}" for name in self._own_numbers())
        return (
            f"Trainer({loss.surrogate}, {numbers}: step {self.position.step} of "
            f"{self.run.settings.steps})"
        )

    def _own_numbers(self) -> list[str]:
        return ["clip_low", "clip_high", *self.run.settings.loss.method().numbers]

    def __iter__(self) -> Iterator[StepTaken]:
        """Yields the steps that are left. Iterating again goes on."""
        while self.position.step < self.run.settings.steps:
            yield self.step()

    def step(self) -> StepTaken:
        """Takes one rollout step with all its updates, also beyond the config's last. Rollbacks of
        a guard are not carried out: there are no checkpoints.

        Raises:
          RuntimeError: an interrupt has destroyed the state in the middle of an earlier step.
          NonFiniteError: a log-probability is NaN or infinite.
        """
        if any(leaf.is_deleted() for leaf in jax.tree.leaves(self.state)):
            raise RuntimeError(
                f"step {self.position.step + 1} was stopped in the middle of an update, which "
                "leaves no state to go on from: make a new Trainer"
            )
        with _interrupt_waits(), jax.set_mesh(self.run.mesh), at_step(self.position.step + 1):
            taken = train_step(self.run, self.state, self.position, self._reference)
            self.state, self.position = taken.state, taken.position
        return taken

    def set_numbers(self, **numbers: float) -> None:
        """Sets numbers of the loss for the steps to come: beta_low, clip_high, kl_coef, ... Nothing
        is compiled again. The betas are the base that a schedule or controller moves.

        Raises:
          ValueError: the loss has no such number, or it is not allowed.
        """
        run = self.run
        settings = dataclasses.replace(run.settings, loss=run.settings.loss.with_numbers(**numbers))
        minibatches = minibatch_settings(settings)
        self.run = dataclasses.replace(run, settings=settings, minibatches=minibatches)

    def evaluate(self) -> Evaluation:
        """Evaluates the present policy on the held-out problems."""
        with jax.set_mesh(self.run.mesh):
            return evaluate_policy(self.run.evaluator, self.state.params)[0]

    def policy(self) -> Policy:
        """Returns a copy of the present policy, 4 bytes a parameter. Its optimizer is a new one."""
        run = self.run
        params = jax.tree.map(jnp.copy, self.state.params)
        tokenizer, dtype = run.problems.tokenizer, run.settings.trainer.dtype
        return Policy(params, run.model, tokenizer, run.ends.ids, run.mesh, dtype)

    def close(self) -> None:
        """Ends the verifiers' processes. A second call does nothing."""
        self._closing()

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@contextlib.contextmanager
def _interrupt_waits() -> Iterator[None]:
    """While the block runs, the first Ctrl-C waits for its end; a second one comes at once."""
    before = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or before is not signal.default_int_handler:
        yield
        return
    waiting = False

    def wait(signum: int, frame: object) -> None:
        nonlocal waiting
        if waiting:
            raise KeyboardInterrupt
        waiting = True
        print("stopping after this step; interrupt again to stop at once", flush=True)

    signal.signal(signal.SIGINT, wait)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if waiting:
        raise KeyboardInterrupt


@dataclasses.dataclass(frozen=True)
class SavedRun:
    """The directory of a run, finished or going on. Each look reads what it holds by then."""

    workdir: Path  # of a run in a bucket: a temporary folder with its files, but for arrays

    @property
    def log(self) -> RunLog:
        """Everything that the directory holds by now, as columns."""
        pull_changes(self.workdir)
        return RunLog(self.workdir)

    @property
    def config(self) -> ConfigDict:
        """The resolved config: `Trainer` takes it."""
        return ConfigDict(self.log.config)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, None for what is not finite."""
        return self.log.lines

    def names(self) -> list[str]:
        """Returns the names of all metrics that the run has."""
        return sorted({name for line in self.metrics for name in line} - {"phase", "step"})

    def __getitem__(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Name of a metric -> steps [n] int and values [n] float64 of the lines that have it, NaN
        for what is not finite: plot(*run["policy/entropy"]). A name that the supervised warm start
        shares with RL means RL's.

        Raises:
          KeyError: no line has it.
        """
        log = self.log
        if name in log.rl:
            return log.rl.curve(name)
        if name in log.warm_start:
            return log.warm_start.curve(name)
        near = difflib.get_close_matches(name, self.names(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise KeyError(
            f"{name!r} is no metric of {shown_place(self.workdir)}: {hint}.names() lists them"
        )

    @property
    def samples(self) -> list[dict[str, Any]]:
        """The lines of samples.jsonl: completions with their scores; [] where none were kept."""
        return self.log.samples

    def policy(self, step: int | None = None, **options: Any) -> Policy:
        """Loads the policy of a checkpoint; None: the newest. Options as of `load`.

        Raises:
          ValueError: there is no checkpoint (of that step) yet.
        """
        return load(open_run_model(self.workdir, step).workdir, step=step, **options)

    def __repr__(self) -> str:
        lines = self.metrics
        last = f"{lines[-1]['phase']} step {lines[-1]['step']}" if lines else "no step yet"
        return f"SavedRun({shown_place(self.workdir)!r}: {last}, {len(self.names())} metrics)"


def open_run(workdir: str | Path) -> SavedRun:
    """Opens the directory of a run, finished or going on, which may be in a bucket: gs://...

    Raises:
      ValueError: it holds none.
      BucketError: the bucket cannot be read.
    """
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(mirrored_folder("workdir", str(workdir)))
        run = SavedRun(open_run_log(folder).workdir)
        weakref.finalize(run, stack.pop_all().close)  # deletes what was copied from a bucket
    return run
