"""Settings -> the parts of a run: model, stream of prompts, learners, mini-batches."""

from __future__ import annotations

import dataclasses

from jax.sharding import Mesh
from transformers import PreTrainedTokenizerBase

from cegppo_jax.activity import Activity
from cegppo_jax.data.ends import Ends
from cegppo_jax.data.problems import Problems
from cegppo_jax.data.prompts import PromptStream
from cegppo_jax.keys import DRAWS_SEED_OFFSET, SUPERVISED_SEED_OFFSET
from cegppo_jax.learner.completion_table import MinibatchSettings
from cegppo_jax.learner.diagnosis import DiagnoseUpdate, make_diagnosis
from cegppo_jax.learner.forward import ForwardSettings
from cegppo_jax.learner.imitation import Imitator, validate_solutions
from cegppo_jax.learner.learner import Learner, make_learner
from cegppo_jax.learner.update import BatchNeeds
from cegppo_jax.losses.policy_loss import LossFunction, make_policy_loss, supervised_loss
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.pretrained.open import Pretrained
from cegppo_jax.packing import PackedShape
from cegppo_jax.run.settings import RunSettings


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


def policy_loss(settings: RunSettings) -> tuple[LossFunction, BatchNeeds]:
    """Returns the loss of the run's method, and what it needs of a batch."""
    method = settings.loss.method()
    kl_estimator = settings.loss.kl_place_estimator if settings.loss.kl_place == "loss" else None
    loss = make_policy_loss(method, kl_estimator, settings.loss.high_probability)
    return loss, BatchNeeds(method.selections, method.draws, settings.seed + DRAWS_SEED_OFFSET)


def policy_learner(settings: RunSettings, mesh: Mesh, model: ModelConfig) -> Learner:
    """Returns the learner of the run's method."""
    forward, (loss, needs) = forward_settings(settings), policy_loss(settings)
    return make_learner(mesh, model, forward, settings.optimizer, loss, needs)


def policy_diagnosis(settings: RunSettings, mesh: Mesh, model: ModelConfig) -> DiagnoseUpdate:
    """Returns what finds the first number of the method's update that is not finite."""
    return make_diagnosis(mesh, model, forward_settings(settings), *policy_loss(settings))


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
        multiple = shape.pop("vocabulary_multiple")
        del shape["pretrained"], shape["ignored_fields"]
        longest = settings.sampler.max_sequence_tokens
        model = ModelConfig(vocab_size=len(tokenizer), max_tokens=longest, **shape)
        model = model.padded(multiple)
    else:
        model = pretrained.model
    model = model.with_tokens(tokenizer.get_vocab().values())
    unroll = settings.trainer.scan_unroll
    if model.layers % unroll:
        raise ValueError(
            f"trainer.scan_unroll = {unroll} does not divide the model's {model.layers} layers"
        )
    return model
