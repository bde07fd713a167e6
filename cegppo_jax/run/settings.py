"""Turns a ConfigDict into typed, checked, hashable settings.

Only train.py, evaluate.py and supervised.py see a config; nothing below them does. There are no
defaults here: configs/base.py has each one once.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from ml_collections import ConfigDict

from cegppo_jax.data.problems import ProblemSettings
from cegppo_jax.import_path import tried
from cegppo_jax.learner.advantages import AdvantageSettings, compute_advantages
from cegppo_jax.learner.mismatch import MismatchSettings
from cegppo_jax.learner.optimizer import OptimizerSettings
from cegppo_jax.losses.aggregation import AggregationSettings
from cegppo_jax.losses.settings import LossSettings
from cegppo_jax.models.attention.choose import ATTENTION_SETTINGS
from cegppo_jax.models.decoder import REMATERIALISED
from cegppo_jax.models.settings import ModelSettings
from cegppo_jax.read_settings import check_at_least, check_choice
from cegppo_jax.reporting.panels import check_formats
from cegppo_jax.reporting.writers import resolve_writer
from cegppo_jax.rewards.overlong import OverlongSettings, overlong_penalty
from cegppo_jax.rewards.settings import RewardSettings
from cegppo_jax.rollout.settings import BatchSettings
from cegppo_jax.run.bounds import read_within_bounds
from cegppo_jax.run.retention import CheckpointSettings
from cegppo_jax.sampling.filters import SamplingFilter
from cegppo_jax.sampling.settings import CACHE_SETTINGS, SamplerSettings
from cegppo_jax.sharding import MeshShape
from cegppo_jax.steering.betas import Betas
from cegppo_jax.steering.settings import SteeringSettings

ACTIVATION_DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class TrainerSettings:
    """How the trainer computes."""

    dtype: str
    rematerialise: str
    scan_unroll: int
    logprob_chunk_tokens: int
    attention: str

    def __post_init__(self) -> None:
        check_choice("trainer.dtype", self.dtype, ACTIVATION_DTYPES)
        check_choice("trainer.attention", self.attention, ATTENTION_SETTINGS)
        check_choice("trainer.rematerialise", self.rematerialise, tuple(REMATERIALISED))
        check_at_least(1, "trainer", self, "scan_unroll", "logprob_chunk_tokens")


@dataclasses.dataclass(frozen=True)
class WarmStartSettings:
    """Supervised training on worked solutions before the first rollout; 0 steps turn it off."""

    steps: int
    sequences: int  # (prompt, solution) pairs a step
    rows_per_microbatch: int
    optimizer: OptimizerSettings

    def __post_init__(self) -> None:
        check_at_least(0, "warm_start", self, "steps")
        check_at_least(1, "warm_start", self, "sequences", "rows_per_microbatch")


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """Held-out evaluation."""

    every_steps: int  # 0: before and after training only
    problems: int  # of a generated task; a file is evaluated whole
    problems_seed: int  # of a generated task's held-out set: shared by runs of every seed
    samples_per_problem: int
    sampling: SamplingFilter

    def __post_init__(self) -> None:
        check_at_least(0, "evaluation", self, "every_steps")
        check_at_least(1, "evaluation", self, "problems", "samples_per_problem")


@dataclasses.dataclass(frozen=True)
class LoggingSettings:
    """What a run writes for people to read."""

    samples_every_steps: int  # 0: never
    samples_groups: int  # groups written each time
    samples_tokens: int  # first tokens of each completion whose readings are written
    entropy_change_every_steps: int  # 0: never; see metric budget/measured_change
    # Where metrics go in addition to metrics.jsonl: names in WRITERS, or "package.module:Class"
    writers: tuple[str, ...]
    report_formats: tuple[str, ...]  # of the curves drawn at the end

    def __post_init__(self) -> None:
        every = "samples_every_steps", "entropy_change_every_steps"
        check_at_least(0, "logging", self, *every, "samples_groups", "samples_tokens")
        for writer in self.writers:
            resolve_writer(writer)
        if len(set(self.writers)) < len(self.writers):
            raise ValueError(f"logging.writers = {self.writers}: each at most once")
        check_formats("logging.report_formats", self.report_formats)


def check_sampler(sampler: SamplerSettings) -> None:
    """Raises ValueError for sizes that no mesh could work with."""
    lengths = ("max_prompt_tokens", "max_completion_tokens", "chunk_steps")
    check_at_least(1, "sampler", sampler, *lengths)
    check_choice("sampler.dtype", sampler.dtype, ACTIVATION_DTYPES)
    check_choice("sampler.attention", sampler.attention, ATTENTION_SETTINGS)
    check_choice("sampler.cache", sampler.cache, CACHE_SETTINGS)


def check_verifier(problems: ProblemSettings, reward: RewardSettings) -> None:
    """Raises ValueError when a built-in task's answers would go to a verifier that cannot read
    them.
    """
    by_source = dict(reward.scoring.by_source)
    for task in problems.tasks:
        verifier = by_source.get(task.name, reward.verifier)
        users_own = ":" in verifier  # it knows what it reads
        if verifier != task.verifier and not users_own:
            raise ValueError(
                f"reward.verifier = {verifier!r} cannot read the answers of "
                f"problems.task = {task.name!r}: that is {task.verifier!r} (in a mixture: "
                f"reward.by_source = ('{task.name}={task.verifier}',))"
            )


@dataclasses.dataclass(frozen=True)
class EvaluateSettings:
    """The part of a run's settings that an evaluation reads."""

    seed: int
    mesh: MeshShape
    problems: ProblemSettings
    model: ModelSettings
    sampler: SamplerSettings
    reward: RewardSettings
    evaluation: EvaluationSettings

    def __post_init__(self) -> None:
        check_sampler(self.sampler)
        check_verifier(self.problems, self.reward)


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """All settings of a run."""

    seed: int
    steps: int
    mesh: MeshShape
    problems: ProblemSettings
    model: ModelSettings
    batch: BatchSettings
    sampler: SamplerSettings
    sampling: SamplingFilter
    reward: RewardSettings
    advantage: AdvantageSettings
    loss: LossSettings
    steering: SteeringSettings
    mismatch: MismatchSettings
    trainer: TrainerSettings
    optimizer: OptimizerSettings
    warm_start: WarmStartSettings
    evaluation: EvaluationSettings
    checkpoint: CheckpointSettings
    logging: LoggingSettings

    def __post_init__(self) -> None:
        check_at_least(0, "config", self, "steps")
        check_sampler(self.sampler)
        if not self.sampling.keeps_full_support:
            raise ValueError(
                f"training samples with {self.sampling}: policy gradients need every token to "
                "keep its softmax probability. Set sampling.temperature > 0, top_k = 0, top_p = 1 "
                "(evaluation is free to filter)"
            )
        check_verifier(self.problems, self.reward)
        self.steering.controller.check_base(self.base_betas)
        self.loss.check_steered(self.steering.moves_betas)
        self.steering.check_lag(self.batch.rollout_lag_steps)
        self._check_advantages()
        self.checkpoint.check_evaluated(self.evaluation.every_steps)
        # Made, to be checked: both know the sampler's limit.
        _ = self.overlong, self.aggregation
        row, chunk = self.batch.row_tokens, self.trainer.logprob_chunk_tokens
        if row % chunk:
            raise ValueError(
                f"trainer.logprob_chunk_tokens = {chunk} does not divide batch.row_tokens = {row}"
            )
        longest = self.sampler.max_sequence_tokens
        if row < longest:
            raise ValueError(
                f"batch.row_tokens = {row} cannot hold the longest prompt + completion, "
                f"{self.sampler.max_prompt_tokens} + {self.sampler.max_completion_tokens} = "
                f"{longest} tokens"
            )

    def _check_advantages(self) -> None:
        """Raises ValueError when the estimator cannot take the rewards that this run may give. It
        is tried on a group with the lowest and the highest of them, and on one of equal rewards.
        """
        rewards = np.zeros((2, self.batch.samples_per_prompt))
        outcomes = dataclasses.astuple(self.reward.outcomes)
        penalty = overlong_penalty(np.asarray(self.sampler.max_completion_tokens), self.overlong)
        taken_off = self.loss.numbers["kl_coef"] if self.loss.kl_place == "reward" else 0.0
        highest = max(outcomes) + self.reward.highest_bonus
        rewards[0, 0], rewards[0, 1] = min(outcomes) + penalty - taken_off, highest
        tried(
            "advantage.estimator",
            self.advantage.estimator,
            lambda: compute_advantages(rewards, self.advantage),
        )

    @property
    def base_betas(self) -> Betas:
        """(beta_low, beta_high) when no schedule and no controller moves them."""
        return Betas(self.loss.numbers["beta_low"], self.loss.numbers["beta_high"])

    @property
    def overlong(self) -> OverlongSettings:
        """What happens to completions that reach the sampler's limit."""
        reward = self.reward
        return OverlongSettings(
            reward.overlong_policy,
            self.sampler.max_completion_tokens,
            reward.overlong_buffer_tokens,
            reward.overlong_penalty,
        )

    @property
    def aggregation(self) -> AggregationSettings:
        """How tokens become one loss."""
        return AggregationSettings(
            self.loss.aggregation,
            self.sampler.max_completion_tokens,
            self.loss.emulated_microbatch_sequences,
        )

    @property
    def entropy_bonus(self) -> bool:
        """Whether the loss has an entropy bonus, which makes the entropy differentiable."""
        bonus = self.steering.entropy_bonus
        return bonus.coef > 0 or bonus.target > 0

    def arithmetic(self) -> str:
        """Returns the batch arithmetic in words, which is printed before anything is compiled."""
        batch = self.batch
        at_most = "at most " if batch.mode.selects else ""
        most, samples = sum(batch.draws), batch.samples_per_prompt
        up_to = "up to " if batch.mode.refills else ""
        return (
            f"{up_to}{most} prompts x {samples} samples = {most * samples} completions a step, "
            f"{at_most}{batch.updates} updates of {batch.minibatch_prompts} x "
            f"{batch.samples_per_prompt} = {batch.minibatch_sequences} completions each; "
            f"{self.steps} steps = {up_to}{self.steps * most * samples:,} completions and "
            f"{self.steps * batch.updates:,} updates"
        )


def read_settings(config: ConfigDict) -> RunSettings:
    """Reads a config. Raises ValueError for missing, unknown or contradictory values."""
    return read_within_bounds(RunSettings, config.to_dict())


def read_evaluate_settings(config: ConfigDict) -> EvaluateSettings:
    """Reads the part of a run's config that an evaluation needs, so a batch that could not train is
    no obstacle. Raises ValueError as read_settings does.
    """
    values = config.to_dict()
    names = [field.name for field in dataclasses.fields(EvaluateSettings)]
    own = {name: values[name] for name in names if name in values}
    return read_within_bounds(EvaluateSettings, own)
