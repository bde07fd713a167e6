"""Settings -> the parts of a run: mesh, tokenizer, prompt stream, model, sampler, trainer."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator
from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh
from transformers import PreTrainedTokenizerBase

from cegppo_jax.compilation import compiled_versions
from cegppo_jax.data.problems import Problems, open_problems
from cegppo_jax.data.prompts import PromptStream, render_evaluation_prompts
from cegppo_jax.data.tokenizer import ending_tokens
from cegppo_jax.evaluation.run import Evaluator
from cegppo_jax.learner.imitation import ImitationStep, imitate, validate_solutions
from cegppo_jax.learner.minibatches import Logprobs, MinibatchSettings
from cegppo_jax.learner.train_state import TrainState, fresh_state, init_state
from cegppo_jax.learner.update import (
    BatchNeeds,
    ForwardSettings,
    Update,
    make_logprobs,
    make_update,
)
from cegppo_jax.losses.contract import Knobs
from cegppo_jax.losses.policy_loss import make_policy_loss
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.decoder import Params
from cegppo_jax.models.pretrained.open import Pretrained, open_pretrained
from cegppo_jax.packing import PackedShape
from cegppo_jax.rewards.workers.open_scorer import open_scorer
from cegppo_jax.rewards.workers.scorer import Scorer
from cegppo_jax.run.checks import (
    check_model_fits,
    check_rows_fit,
    check_scorable,
    check_thinking_shows,
)
from cegppo_jax.run.settings import RunSettings
from cegppo_jax.sampling.sampler import Sampler
from cegppo_jax.sharding import make_mesh
from cegppo_jax.steering.steer import Steering
from cegppo_jax.types import Prompt

# Added to the run's seed for the warm start's prompt order: its problems are drawn apart from RL's.
SUPERVISED_SEED_OFFSET = 1_000_003
# Added to it for the draws of methods that make any: a root key apart from the run's.
DRAWS_SEED_OFFSET = 2_000_003


class KeyPurpose(enum.IntEnum):
    """First fold_in of the run's root key: what the randomness is for."""

    INITIAL_WEIGHTS = 0
    ROLLOUT = 1  # then the step
    EVALUATION = 2


def purpose_key(seed: int, purpose: KeyPurpose) -> jax.Array:
    """-> the root key of one purpose of a run."""
    return jax.random.fold_in(jax.random.key(seed), int(purpose))


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a run is made of. Building compiles nothing but the sampler's empty slots, and that
    after every check.
    """

    settings: RunSettings
    mesh: Mesh
    problems: Problems
    stream: PromptStream
    supervised_stream: PromptStream
    held_out_prompts: list[Prompt]
    pretrained: Pretrained | None  # None: weights are initialised
    eos_ids: tuple[int, ...]  # every token that ends a completion
    model: ModelConfig
    forward: ForwardSettings
    minibatches: MinibatchSettings
    supervised_shape: PackedShape
    sampler: Sampler
    scorer: Scorer  # open: the commands close it
    logprobs: Logprobs
    update: Update

    def key(self, purpose: KeyPurpose) -> jax.Array:
        """-> the root key of one purpose."""
        return purpose_key(self.settings.seed, purpose)

    @property
    def evaluator(self) -> Evaluator:
        """-> the evaluation that training repeats."""
        settings = self.settings.evaluation
        return Evaluator(
            self.sampler,
            self.held_out_prompts,
            self.problems.tokenizer,
            self.scorer,
            settings.samples_per_problem,
            settings.sampling,
            self.key(KeyPurpose.EVALUATION),
        )

    def initial_state(self) -> TrainState:
        """-> TrainState with pretrained or initialised weights, in its layout on the mesh."""
        if self.pretrained is not None:
            return self.fresh_state(self.pretrained.load(self.mesh))
        return self._new_state()

    def fresh_state(self, params: Params) -> TrainState:
        """Parameters in their layout -> TrainState that starts from them."""
        return fresh_state(self.mesh, self.model, self.settings.optimizer, params)

    def imitation(
        self, state: TrainState, finished: int = 0, next_prompt: int = 0
    ) -> Iterator[ImitationStep]:
        """TrainState of the warm start's optimizer, and where it stands -> its further steps."""
        settings = self.settings.warm_start
        return imitate(
            state,
            self.supervised_stream,
            finished=finished,
            next_prompt=next_prompt,
            steps=settings.steps,
            sequences=settings.sequences,
            shape=self.supervised_shape,
            max_completion_tokens=self.settings.sampler.max_completion_tokens,
            mesh=self.mesh,
            model=self.model,
            forward=dataclasses.replace(self.forward, temperature=1.0),
            optimizer=settings.optimizer,
        )

    def state_shapes(self) -> TrainState:
        """-> shapes and dtypes of a TrainState; computes and reads nothing."""
        return jax.eval_shape(self._new_state)

    def _new_state(self) -> TrainState:
        key = self.key(KeyPurpose.INITIAL_WEIGHTS)
        return init_state(self.mesh, self.model, self.settings.optimizer, key)

    def knobs(self, steering: Steering) -> Knobs:
        """What steering says for a step -> the method's numbers, as NumPy scalars: jit traces them,
        and always finds one type.
        """
        values = self.settings.loss.numbers() | {
            "beta_low": steering.betas.low,
            "beta_high": steering.betas.high,
            "entropy_coef": steering.entropy_coef,
        }
        return Knobs(**{name: np.float32(value) for name, value in values.items()})

    def check_compiled_once(self) -> None:
        """Raises RuntimeError when a hot function was compiled more often than it has shapes."""
        filters = {self.settings.sampling, self.settings.evaluation.sampling}
        rungs = len(self.settings.sampler.read_lengths)
        counts = self.sampler.compile_counts() | {
            "logprobs": compiled_versions(self.logprobs),
            "update": compiled_versions(self.update),
        }
        allowed = {"decode": rungs * len(filters)}
        excess = {name: n for name, n in counts.items() if n > allowed.get(name, 1)}
        if excess:
            raise RuntimeError(
                f"recompiled during training: {excess} (allowed: 1 each, decode "
                f"{allowed['decode']}). A shape, dtype "
                "or layout changed between steps"
            )


def build_parts(settings: RunSettings) -> Parts:
    """Settings -> Parts, every check that needs no compiled code done.

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
    ends = ending_tokens(problems.tokenizer, pretrained.eos_ids if pretrained else ())
    stream = prompt_stream(settings, problems, settings.seed)
    stream.validate()
    supervised_stream = prompt_stream(settings, problems, settings.seed + SUPERVISED_SEED_OFFSET)
    if settings.warm_start.steps:
        validate_solutions(supervised_stream, settings.sampler.max_completion_tokens)
    forward = forward_settings(settings)
    shape = partial(
        PackedShape.holding,
        max_sequence_tokens=settings.sampler.max_sequence_tokens,
        row_tokens=batch.row_tokens,
    )
    return Parts(
        settings=settings,
        mesh=mesh,
        problems=problems,
        stream=stream,
        supervised_stream=supervised_stream,
        held_out_prompts=render_evaluation_prompts(
            problems.held_out,
            problems.tokenizer,
            settings.problems.system_prompt or None,
            settings.sampler.max_prompt_tokens,
            settings.problems.instruction,
        ),
        pretrained=pretrained,
        eos_ids=ends,
        model=model,
        forward=forward,
        minibatches=minibatch_settings(
            settings, shape(batch.minibatch_sequences, rows=batch.rows_per_microbatch)
        ),
        supervised_shape=shape(
            settings.warm_start.sequences, rows=settings.warm_start.rows_per_microbatch
        ),
        sampler=Sampler(mesh, model, settings.sampler, ends),
        logprobs=make_logprobs(mesh, model, forward),
        update=make_method_update(settings, mesh, model),
        # Last: it starts processes, which an error behind it would leave
        scorer=open_scorer(settings.reward, problems.held_out),
    )


def forward_settings(settings: RunSettings) -> ForwardSettings:
    """-> how the run's trainer computes log-probabilities."""
    return ForwardSettings(
        **dataclasses.asdict(settings.trainer),
        temperature=settings.sampling.temperature,
        differentiate_entropy=settings.entropy_bonus,
    )


def prompt_stream(settings: RunSettings, problems: Problems, seed: int) -> PromptStream:
    """-> the run's training problems as prompts, in the order of a seed."""
    return PromptStream(
        source=problems.train,
        tokenizer=problems.tokenizer,
        seed=seed,
        system_prompt=settings.problems.system_prompt or None,
        max_prompt_tokens=settings.sampler.max_prompt_tokens,
        long_prompt_policy=settings.problems.long_prompt_policy,
        instruction=settings.problems.instruction,
    )


def make_method_update(settings: RunSettings, mesh: Mesh, model: ModelConfig) -> Update:
    """-> the jitted update of the run's method."""
    method = settings.loss.method()
    kl_estimator = settings.loss.kl_estimator if settings.loss.kl_place == "loss" else None
    loss = make_policy_loss(method, kl_estimator, settings.loss.high_probability)
    needs = BatchNeeds(method.selections, method.draws, settings.seed + DRAWS_SEED_OFFSET)
    return make_update(mesh, model, forward_settings(settings), settings.optimizer, loss, needs)


def minibatch_settings(settings: RunSettings, shape: PackedShape) -> MinibatchSettings:
    """Settings of a run -> how its completions become mini-batches of `shape`."""
    loss, batch = settings.loss, settings.batch
    return MinibatchSettings(
        shape=shape,
        minibatch_prompts=batch.minibatch_prompts,
        advantage=settings.advantage,
        aggregation=settings.aggregation,
        overlong=settings.overlong,
        mismatch=settings.mismatch,
        positive_lm=loss.positive_lm_coef > 0,
        kl_place=loss.kl_place,
        kl_estimator=loss.kl_estimator,
        kl_coef=loss.kl_coef,
        measures_all=settings.steering.reads_entropy,
    )


def model_of(
    settings: RunSettings, pretrained: Pretrained | None, tokenizer: PreTrainedTokenizerBase
) -> ModelConfig:
    """-> the architecture of the run's model.

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
