"""Builds a training run from its settings: mesh, problems, actor, learner, evaluator."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
from jax.sharding import Mesh
from transformers import PreTrainedTokenizerBase

from cegppo_jax.activity import Activity
from cegppo_jax.data.ends import Ends, find_ends
from cegppo_jax.data.problems import Problems, open_problems
from cegppo_jax.data.prompts import PromptStream, render_evaluation_prompts
from cegppo_jax.evaluation.run import Evaluator
from cegppo_jax.keys import DRAWS_SEED_OFFSET, SUPERVISED_SEED_OFFSET, KeyPurpose, purpose_key
from cegppo_jax.learner.completion_table import MinibatchSettings
from cegppo_jax.learner.imitation import Imitator, validate_solutions
from cegppo_jax.learner.learner import Learner, make_learner
from cegppo_jax.learner.train_state import TrainState
from cegppo_jax.learner.update import BatchNeeds, ForwardSettings
from cegppo_jax.losses.contract import Knobs
from cegppo_jax.losses.policy_loss import make_policy_loss, supervised_loss
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.pretrained.open import Pretrained, open_pretrained
from cegppo_jax.models.pretrained.weights import as_tree
from cegppo_jax.packing import PackedShape
from cegppo_jax.rewards.workers.open_scorer import open_scorer
from cegppo_jax.rollout.actor import Actor
from cegppo_jax.rollout.rounds import GroupSource
from cegppo_jax.run.checks import (
    check_model_fits,
    check_rows_fit,
    check_scorable,
    check_thinking_shows,
)
from cegppo_jax.run.memory import check_memory, float32_bytes, training_need
from cegppo_jax.run.settings import RunSettings
from cegppo_jax.sampling.sampler import Sampler
from cegppo_jax.sharding import make_mesh
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
    """Builds a run from its settings, after every check that needs no compiled code. The run's
    parts tell `activity` what they do.

    Raises:
      ValueError: sizes that do not fit the mesh, malformed problem files, prompts or solutions over
        the limit.
      OSError: a file or tokenizer is not there.
    """
    mesh = make_mesh(settings.mesh)
    evaluation, batch = settings.evaluation, settings.batch
    name = settings.model.pretrained
    pretrained = open_pretrained(name, settings.model.ignored_fields) if name else None
    problems = open_problems(settings.problems, name, evaluation.problems, evaluation.problems_seed)
    check_scorable(problems, settings)
    model = model_of(settings, pretrained, problems.tokenizer)
    check_model_fits(settings.sampler, model, problems.tokenizer, mesh)
    check_rows_fit(settings, mesh)
    check_thinking_shows(settings.reward, problems.tokenizer)
    of_files, named = pretrained.eos_ids if pretrained else (), settings.problems.ending_tokens
    ends = find_ends(problems.tokenizer, of_files, named)
    stream = prompt_stream(settings, problems, settings.seed)
    stream.validate()
    activity = Activity() if activity is None else activity
    imitator = make_imitator(settings, mesh, model, problems, ends, activity)
    held_out_prompts = render_evaluation_prompts(
        problems.held_out,
        problems.tokenizer,
        settings.problems.system_prompt or None,
        settings.sampler.max_prompt_tokens,
        settings.problems.instruction,
    )
    with jax.set_mesh(mesh):  # where they are used: jit tells keys of two meshes apart
        rollout_key, evaluation_key = (
            purpose_key(settings.seed, purpose)
            for purpose in (KeyPurpose.ROLLOUT, KeyPurpose.EVALUATION)
        )
    learner = policy_learner(settings, mesh, model)
    memory = check_memory(training_need(settings, model, mesh), mesh)  # before any is taken
    sampler = Sampler(mesh, model, settings.sampler, ends.ids, activity)
    # Last of all that can fail: it starts processes
    scorer = open_scorer(settings.reward, problems.held_out)
    actor = Actor(sampler, problems.tokenizer, scorer, activity)
    return TrainingRun(
        settings=settings,
        problems=problems,
        pretrained=pretrained,
        ends=ends,
        source=GroupSource(actor, stream, batch, settings.sampling, rollout_key),
        minibatches=minibatch_settings(settings),
        learner=learner,
        imitator=imitator,
        evaluator=Evaluator(
            actor,
            held_out_prompts,
            evaluation.samples_per_problem,
            evaluation.sampling,
            evaluation_key,
        ),
        memory=memory,
    )


def packed_shape(settings: RunSettings, sequences: int, rows: int) -> PackedShape:
    """Returns the shape that holds so many sequences in micro-batches of `rows` rows."""
    return PackedShape.holding(
        sequences,
        rows=rows,
        max_sequence_tokens=settings.sampler.max_sequence_tokens,
        row_tokens=settings.batch.row_tokens,
    )


def make_imitator(
    settings: RunSettings,
    mesh: Mesh,
    model: ModelConfig,
    problems: Problems,
    ends: Ends,
    activity: Activity,
) -> Imitator:
    """Returns the supervised warm start.

    Raises:
      ValueError: a worked solution is over the limit.
    """
    warm_start, longest = settings.warm_start, settings.sampler.max_completion_tokens
    stream = prompt_stream(settings, problems, settings.seed + SUPERVISED_SEED_OFFSET)
    if warm_start.steps:
        validate_solutions(stream, ends.taught, longest)
    return Imitator(
        supervised_learner(settings, mesh, model),
        stream,
        ends.taught,
        warm_start.steps,
        warm_start.sequences,
        packed_shape(settings, warm_start.sequences, warm_start.rows_per_microbatch),
        longest,
        activity,
    )


def forward_settings(settings: RunSettings) -> ForwardSettings:
    """Returns how the run's trainer computes log-probabilities."""
    return ForwardSettings(
        **dataclasses.asdict(settings.trainer),
        temperature=settings.sampling.temperature,
        differentiate_entropy=settings.entropy_bonus,
    )


def prompt_stream(settings: RunSettings, problems: Problems, seed: int) -> PromptStream:
    """Returns the run's training problems as prompts, in the order given by a seed."""
    return PromptStream(
        source=problems.train,
        tokenizer=problems.tokenizer,
        seed=seed,
        system_prompt=settings.problems.system_prompt or None,
        max_prompt_tokens=settings.sampler.max_prompt_tokens,
        long_prompt_policy=settings.problems.long_prompt_policy,
        instruction=settings.problems.instruction,
    )


def policy_learner(settings: RunSettings, mesh: Mesh, model: ModelConfig) -> Learner:
    """Returns the learner of the run's method."""
    method = settings.loss.method()
    kl_estimator = settings.loss.kl_place_estimator if settings.loss.kl_place == "loss" else None
    loss = make_policy_loss(method, kl_estimator, settings.loss.high_probability)
    needs = BatchNeeds(method.selections, method.draws, settings.seed + DRAWS_SEED_OFFSET)
    return make_learner(mesh, model, forward_settings(settings), settings.optimizer, loss, needs)


def supervised_learner(settings: RunSettings, mesh: Mesh, model: ModelConfig) -> Learner:
    """Returns the learner of the warm start: another loss and optimizer, at temperature 1."""
    forward = dataclasses.replace(forward_settings(settings), temperature=1.0)
    needs = BatchNeeds(selections=(), draws=False, seed=0)
    return make_learner(mesh, model, forward, settings.warm_start.optimizer, supervised_loss, needs)


def minibatch_settings(settings: RunSettings) -> MinibatchSettings:
    """Settings of a run -> how its completions become mini-batches."""
    loss, batch = settings.loss, settings.batch
    return MinibatchSettings(
        shape=packed_shape(settings, batch.minibatch_sequences, batch.rows_per_microbatch),
        share_prompts=batch.share_prompts,
        minibatch_prompts=batch.minibatch_prompts,
        advantage=settings.advantage,
        aggregation=settings.aggregation,
        overlong=settings.overlong,
        mismatch=settings.mismatch,
        positive_lm=loss.numbers["positive_lm_coef"] > 0,
        kl_place=loss.kl_place,
        kl_estimator=loss.kl_place_estimator,
        kl_coef=loss.numbers["kl_coef"],
        measures_all=settings.steering.reads_entropy,
    )


def model_of(
    settings: RunSettings, pretrained: Pretrained | None, tokenizer: PreTrainedTokenizerBase
) -> ModelConfig:
    """Returns the architecture of the run's model.

    Raises:
      ValueError: its layers do not divide into the trainer's scan.
    """
    if pretrained is None:
        shape = dataclasses.asdict(settings.model)
        del shape["pretrained"], shape["ignored_fields"]
        longest = settings.sampler.max_sequence_tokens
        model = ModelConfig(vocab_size=len(tokenizer), max_tokens=longest, **shape)
    else:
        model = pretrained.model.with_tokens(tokenizer.get_vocab().values())
    unroll = settings.trainer.scan_unroll
    if model.layers % unroll:
        raise ValueError(
            f"trainer.scan_unroll = {unroll} does not divide the model's {model.layers} layers"
        )
    return model
