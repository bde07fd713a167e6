"""Builds a training run from its settings: mesh, problems, actor, learner, evaluator."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
from jax.sharding import Mesh

from cegppo_jax.activity import Activity
from cegppo_jax.data.ends import Ends
from cegppo_jax.data.problems import Problems
from cegppo_jax.evaluation.run import Evaluator
from cegppo_jax.keys import KeyPurpose, purpose_key
from cegppo_jax.learner.completion_table import MinibatchSettings
from cegppo_jax.learner.imitation import Imitator
from cegppo_jax.learner.learner import Learner
from cegppo_jax.learner.train_state import TrainState
from cegppo_jax.losses.contract import Knobs
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.pretrained.open import Pretrained
from cegppo_jax.models.pretrained.weights import as_tree
from cegppo_jax.rewards.workers.open_scorer import open_scorer
from cegppo_jax.rollout.actor import Actor
from cegppo_jax.rollout.rounds import GroupSource
from cegppo_jax.run.door import CHECKS, RunParts
from cegppo_jax.run.memory import float32_bytes
from cegppo_jax.run.parts import minibatch_settings
from cegppo_jax.run.settings import RunSettings
from cegppo_jax.sampling.sampler import Sampler
from cegppo_jax.steering.steer import Steering


@dataclasses.dataclass(frozen=True)
class TrainingRun:
    """The parts of a training run. Building it compiles nothing but the sampler's empty slots, and
    that only after every check.
    """

    settings: RunSettings
    problems: Problems
    pretrained: Pretrained | None  # None: weights are initialised
    ends: Ends  # the tokens that end a completion
    source: GroupSource  # prompts -> scored groups, by the actor
    minibatches: MinibatchSettings  # groups -> mini-batches
    learner: Learner  # mini-batches -> TrainState
    imitator: Imitator  # the supervised warm start
    evaluator: Evaluator  # the evaluation that training repeats
    memory: str  # how much the run needs, in words

    @property
    def mesh(self) -> Mesh:
        """The devices that the run computes on."""
        return self.learner.mesh

    @property
    def model(self) -> ModelConfig:
        """The architecture of the run's model."""
        return self.learner.model

    @property
    def actor(self) -> Actor:
        """Samples completions and scores them."""
        return self.source.actor

    @property
    def activity(self) -> Activity:
        """What the run is doing now."""
        return self.actor.activity

    def initial_state(self, learner: Learner) -> TrainState:
        """Returns a learner's state with pretrained or initialised weights, in its layout on the
        mesh.
        """
        if self.pretrained is None:
            return learner.new_state(purpose_key(self.settings.seed, KeyPurpose.INITIAL_WEIGHTS))
        leaves = self.pretrained.load_leaves(self.mesh)
        loading = self.activity.loading(leaves, float32_bytes(self.model))
        return learner.fresh_state(as_tree(loading, self.model))

    def knobs(self, steering: Steering) -> Knobs:
        """Returns the method's numbers for a step, as steering sets them. They are NumPy scalars:
        jit traces them and always sees one type.
        """
        values = dict(self.settings.loss.numbers) | {
            "beta_low": steering.betas.low,
            "beta_high": steering.betas.high,
            "entropy_coef": steering.entropy_coef,
        }
        return Knobs(**{name: np.float32(value) for name, value in values.items()})

    def check_compiled_once(self) -> None:
        """Raises RuntimeError if a hot function was compiled more often than it has shapes."""
        filters = {self.settings.sampling, self.settings.evaluation.sampling}
        counts = self.actor.sampler.compile_counts() | self.learner.compile_counts()
        allowed = self.settings.sampler.versions(len(filters))
        excess = {name: n for name, n in counts.items() if n > allowed.get(name, 1)}
        if excess:
            raise RuntimeError(
                f"recompiled during training: {excess} (allowed: 1 each, decode "
                f"{allowed['decode']}). A shape, dtype or layout changed between steps"
            )


def build_run(settings: RunSettings, activity: Activity | None = None) -> TrainingRun:
    """Builds a run from its settings, after every check of the door (door.py). The run's
    parts tell `activity` what they do.

    Raises:
      ValueError: sizes that do not fit the mesh, malformed problem files, prompts or solutions over
        the limit.
      OSError: a file or tokenizer is not there.
    """
    parts = RunParts(settings, Activity() if activity is None else activity)
    for check in CHECKS:
        check.passed(parts)
    mesh, evaluation = parts.mesh, settings.evaluation
    with jax.set_mesh(mesh):  # where they are used: jit tells keys of two meshes apart
        rollout_key, evaluation_key = (
            purpose_key(settings.seed, purpose)
            for purpose in (KeyPurpose.ROLLOUT, KeyPurpose.EVALUATION)
        )
    problems, ends = parts.problems, parts.ends
    sampler = Sampler(mesh, parts.model, parts.sampler, ends.ids, parts.activity)
    # Last of all that can fail: it starts processes
    scorer = open_scorer(settings.reward, problems.held_out)
    actor = Actor(sampler, problems.tokenizer, scorer, parts.activity)
    return TrainingRun(
        settings=settings,
        problems=problems,
        pretrained=parts.pretrained,
        ends=ends,
        source=GroupSource(actor, parts.stream, settings.batch, settings.sampling, rollout_key),
        minibatches=minibatch_settings(settings),
        learner=parts.learner,
        imitator=parts.imitator,
        evaluator=Evaluator(
            actor,
            parts.held_out_prompts,
            evaluation.samples_per_problem,
            evaluation.sampling,
            evaluation_key,
        ),
        memory=parts.memory,
    )
