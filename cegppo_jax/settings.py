"""Config -> settings: the door at which a ConfigDict becomes typed, checked, hashable records.

Nothing below train.py, evaluate.py and supervised.py ever sees a config. A key that a record does
not have, and a record's field that the config lacks, are errors: there are no defaults here
(configs/base.py has each one once).
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Collection
from typing import Any, TypeVar

from ml_collections import ConfigDict

from cegppo_jax.advantages import AdvantageSettings
from cegppo_jax.checkpoint import CheckpointSettings
from cegppo_jax.data.problems import ProblemSettings
from cegppo_jax.losses.surrogates import SURROGATES
from cegppo_jax.optimizer import OptimizerSettings
from cegppo_jax.rewards.scoring import RewardValues
from cegppo_jax.rewards.verifiers import VERIFIERS
from cegppo_jax.sampling.filters import SamplingFilter
from cegppo_jax.sampling.sampler import SamplerSettings
from cegppo_jax.sharding import MeshShape

Record = TypeVar("Record")

DTYPES = ("float32", "bfloat16")  # of activations


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """A decoder to initialise; the vocabulary is the tokenizer's."""

    width: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    mlp_width: int
    rope_theta: float
    norm_epsilon: float
    tied_embeddings: bool

    def __post_init__(self) -> None:
        sizes = ("width", "layers", "heads", "kv_heads", "head_size", "mlp_width")
        check_at_least(1, "model", self, *sizes)


@dataclasses.dataclass(frozen=True)
class BatchSettings:
    """How many prompts, samples and updates make a step, and the rows they are packed into."""

    prompts: int  # P
    samples_per_prompt: int  # G
    minibatch_prompts: int  # an optimizer update each
    row_tokens: int  # C
    rows_per_microbatch: int  # R

    @property
    def updates(self) -> int:
        """Optimizer updates a step."""
        return self.prompts // self.minibatch_prompts

    @property
    def minibatch_sequences(self) -> int:
        """Completions an update."""
        return self.minibatch_prompts * self.samples_per_prompt

    def __post_init__(self) -> None:
        check_at_least(1, "batch", self, *(field.name for field in dataclasses.fields(self)))
        if self.samples_per_prompt < 2:
            raise ValueError(
                "batch.samples_per_prompt = 1: a group of one has no advantage over itself; take "
                "2 or more"
            )
        if self.prompts % self.minibatch_prompts:
            raise ValueError(
                f"batch.prompts = {self.prompts} is not a multiple of batch.minibatch_prompts = "
                f"{self.minibatch_prompts}: {self.prompts % self.minibatch_prompts} prompts "
                "would be left over"
            )


@dataclasses.dataclass(frozen=True)
class TrainerSettings:
    """How the trainer computes."""

    dtype: str
    rematerialise: bool
    scan_unroll: int
    logprob_chunk_tokens: int

    def __post_init__(self) -> None:
        check_choice("trainer.dtype", self.dtype, DTYPES)
        check_at_least(1, "trainer", self, "scan_unroll", "logprob_chunk_tokens")


@dataclasses.dataclass(frozen=True)
class LossSettings:
    """Which method, and its numbers."""

    surrogate: str
    clip_low: float
    clip_high: float
    beta_low: float
    beta_high: float

    def __post_init__(self) -> None:
        check_choice("loss.surrogate", self.surrogate, SURROGATES)
        check_at_least(0, "loss", self, "clip_low", "clip_high", "beta_low", "beta_high")


@dataclasses.dataclass(frozen=True)
class RewardSettings:
    """The verifier and what each of its outcomes is worth."""

    verifier: str
    outcomes: RewardValues

    def __post_init__(self) -> None:
        check_choice("reward.verifier", self.verifier, VERIFIERS)


@dataclasses.dataclass(frozen=True)
class WarmStartSettings:
    """Supervised training on worked solutions before the first rollout; 0 steps: none."""

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

    def __post_init__(self) -> None:
        check_at_least(0, "logging", self, "samples_every_steps", "samples_groups")


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """Everything that a run is."""

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
    trainer: TrainerSettings
    optimizer: OptimizerSettings
    warm_start: WarmStartSettings
    evaluation: EvaluationSettings
    checkpoint: CheckpointSettings
    logging: LoggingSettings

    def __post_init__(self) -> None:
        check_at_least(0, "config", self, "steps")
        lengths = ("max_prompt_tokens", "max_completion_tokens", "chunk_steps")
        check_at_least(1, "sampler", self.sampler, *lengths)
        check_choice("sampler.dtype", self.sampler.dtype, DTYPES)
        if not self.sampling.keeps_full_support:
            raise ValueError(
                f"training samples with {self.sampling}: policy gradients need every token to "
                "keep its softmax "
                "probability. Set sampling.temperature > 0, top_k = 0, top_p = 1 (evaluation is "
                "free to filter)"
            )
        row, chunk = self.batch.row_tokens, self.trainer.logprob_chunk_tokens
        if row % chunk:
            raise ValueError(
                f"trainer.logprob_chunk_tokens = {chunk} does not divide batch.row_tokens = {row}"
            )
        unroll, layers = self.trainer.scan_unroll, self.model.layers
        if layers % unroll:
            raise ValueError(
                f"trainer.scan_unroll = {unroll} does not divide model.layers = {layers}"
            )
        longest = self.sampler.max_prompt_tokens + self.sampler.max_completion_tokens
        if row < longest:
            raise ValueError(
                f"batch.row_tokens = {row} cannot hold the longest prompt + completion, "
                f"{self.sampler.max_prompt_tokens} + {self.sampler.max_completion_tokens} = "
                f"{longest} tokens"
            )

    def arithmetic(self) -> str:
        """-> the batch arithmetic in words, printed before anything is compiled."""
        batch = self.batch
        return (
            f"{batch.prompts} prompts x {batch.samples_per_prompt} samples = "
            f"{batch.prompts * batch.samples_per_prompt} completions a step, "
            f"{batch.updates} updates of {batch.minibatch_prompts} x {batch.samples_per_prompt} = "
            f"{batch.minibatch_sequences} completions each; {self.steps} steps = "
            f"{self.steps * batch.prompts * batch.samples_per_prompt:,} completions and "
            f"{self.steps * batch.updates:,} updates"
        )


def read_settings(config: ConfigDict) -> RunSettings:
    """Config -> RunSettings. Raises ValueError for missing, unknown or contradictory values."""
    return read_record(RunSettings, config.to_dict(), "config")


def read_record(record: type[Record], values: dict[str, Any], place: str) -> Record:
    """Nested dict -> dataclass, field by field; `place` is the dotted path for messages."""
    fields = {field.name for field in dataclasses.fields(record)}  # type: ignore[arg-type]
    kinds = typing.get_type_hints(record)
    for name in values.keys() - fields:
        near = difflib.get_close_matches(name, fields, n=1)
        hint = f": did you mean {near[0]!r}?" if near else f"; it has {sorted(fields)}"
        raise ValueError(f"{place}.{name} is not a setting{hint}")
    missing = sorted(fields - values.keys())
    if missing:
        raise ValueError(f"{place} lacks {missing}: start recipes from configs/base.py")
    return record(
        **{name: _read_value(kinds[name], values[name], f"{place}.{name}") for name in fields}
    )


def setting_names(record: type[Any], prefix: str = "") -> list[str]:
    """Dataclass -> dotted names of all its settings, those of its sections included."""
    names = []
    for name, kind in typing.get_type_hints(record).items():
        if dataclasses.is_dataclass(kind):
            names += setting_names(kind, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            names.append(f"{prefix}{name}")
    return names


def _read_value(kind: Any, value: Any, place: str) -> Any:
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if isinstance(value, dict):
            return read_record(kind, value, place)
        raise ValueError(f"{place} = {value!r} is not a section of settings")
    if typing.get_origin(kind) is tuple and isinstance(value, tuple | list):
        (member, _) = typing.get_args(kind)  # tuple[member, ...]
        return tuple(_read_value(member, one, f"{place}[{i}]") for i, one in enumerate(value))
    is_bool = isinstance(value, bool)  # and, to Python, a whole number as well
    if kind is float and isinstance(value, int) and not is_bool:
        return float(value)
    allowed = typing.get_args(kind) or (kind,)
    if not isinstance(value, allowed) or (is_bool and bool not in allowed):
        expected = getattr(kind, "__name__", kind)
        raise ValueError(f"{place} = {value!r} is of type {type(value).__name__}, not {expected}")
    return value


def check_choice(place: str, name: str, choices: Collection[str]) -> None:
    """Raises ValueError when `name` is not one of `choices`, suggesting the nearest."""
    if name not in choices:
        near = difflib.get_close_matches(name, choices, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"{place} = {name!r} does not exist: {hint}There are {sorted(choices)}")


def check_at_least(minimum: int, section: str, record: Any, *names: str) -> None:
    """Raises ValueError for the first of the record's numbers that is below `minimum`, or NaN."""
    for name in names:
        if not getattr(record, name) >= minimum:
            raise ValueError(f"{section}.{name} = {getattr(record, name)}: at least {minimum}")
