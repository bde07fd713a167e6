"""The works that are measured: what each does, at which sizes, and the config that it becomes."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from configs import base, quickstart

# Shapes of decoders with random weights, by config.model's names, and "vocab" for their vocabulary.
MODELS: dict[str, dict[str, Any]] = {
    "tiny": dict(layers=4, width=128, heads=4, kv_heads=4, head_size=32, mlp_width=512, vocab=512),
    "smollm2_135m": dict(
        layers=30, width=576, heads=9, kv_heads=3, head_size=64, mlp_width=1536, vocab=49_152
    ),
    "qwen2_1p5b": dict(
        layers=28, width=1536, heads=12, kv_heads=2, head_size=128, mlp_width=8960, vocab=151_936
    ),
}
LOGIT_TOKENS = 512  # whose logits exist at once
FEW_LAYERS = 8  # up to so many are unrolled in the update
# How long completions are. The mix of rollouts: log-normal, its median 3/8 of the longest.
LENGTHS = ("uniform", "ragged")
SIZES = (
    *("prompts", "samples", "prompt_tokens", "completion_tokens"),
    *("slots", "updates", "microbatch"),
)


@dataclasses.dataclass(frozen=True)
class Work:
    """One piece of work. `prompts` x `samples` sequences of `prompt_tokens` + up to
    `completion_tokens`.
    """

    title: str
    kind: str  # a name in measure.py: KINDS
    # Keys under which a peer's line has its seconds: the first that the line has. "a+b" is a sum
    peer_keys: tuple[str, ...]
    model: str = "smollm2_135m"  # a name in MODELS, or anything that model.pretrained takes
    dtype: str = "float32"
    prompts: int = 8
    samples: int = 8
    prompt_tokens: int = 64
    completion_tokens: int = 128
    slots: int = 64
    updates: int = 1  # of a step: its prompts are divided among them
    microbatch: int = 8  # sequences of the longest length
    lengths: str = "uniform"

    def __post_init__(self) -> None:
        for name in SIZES:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: at least 1")
        if self.prompts % self.updates:
            raise ValueError(f"updates = {self.updates} do not divide prompts = {self.prompts}")
        if self.lengths not in LENGTHS:
            raise ValueError(f"lengths = {self.lengths!r}: one of {LENGTHS}")

    def completion_lengths(self) -> np.ndarray:
        """Returns the tokens of each completion, [P, G] int."""
        shape, longest = (self.prompts, self.samples), self.completion_tokens
        if self.lengths == "uniform":
            return np.full(shape, longest)
        drawn = np.random.default_rng(0).normal(np.log(longest * 96 / 256), 0.6, shape)
        return np.clip(np.exp(drawn), max(longest // 32, 1), longest).astype(int)


_TINY: dict[str, Any] = {
    "model": "tiny",
    "prompt_tokens": 16,
    "completion_tokens": 16,
    "microbatch": 64,
}
_RAGGED: dict[str, Any] = {"completion_tokens": 256, "lengths": "ragged"}
WORKS: dict[str, Work] = {
    "W1": Work("uniform generation", "generation", ("seconds", "s", "generate_s")),
    "W2": Work("uniform update", "update", ("seconds", "train_s")),
    "W3": Work("whole step, 2 updates", "step", ("seconds", "step_s+oldlogp_s"), updates=2),
    "W4": Work("tiny whole step", "step", ("seconds", "step_s"), **_TINY),
    "W5": Work("ragged generation", "generation", ("seconds", "s"), prompts=32, **_RAGGED),
    "W6": Work("ragged update", "update", ("seconds", "train_s"), **_RAGGED),
    "logprobs": Work("old log-probabilities", "logprobs", ("seconds", "oldlogp_s")),
    "quickstart": Work("step of the quickstart", "quickstart", ("seconds",)),
}


def rounded(number: int, devices: int) -> int:
    """Returns the next multiple of the number of devices, which divide rows and slots."""
    return -(-number // devices) * devices


def config_of(work: Work, settings: Sequence[str], devices: int) -> ConfigDict:
    """Returns the config of a work's run.

    Args:
      settings: "NAME=VALUE", settings of configs/base.py by their dotted names, set last.

    Raises:
      ValueError: a setting is misspelt, or its value of another type.
    """
    config = quickstart.get_config() if work.kind == "quickstart" else _config(work, devices)
    for setting in settings:
        name, _, text = setting.partition("=")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        try:
            config.update_from_flattened_dict({name: value})
        except (KeyError, AttributeError, TypeError) as error:
            raise ValueError(f"--set={setting}: {error}") from error
    return config


def _config(work: Work, devices: int) -> ConfigDict:
    config = base.get_config()
    shape = MODELS.get(work.model, {})
    config.problems.task = f"experiments.benchmark.prompts:V{shape.get('vocab', 512)}"
    config.problems.long_prompt_policy = "skip"  # its problems are not what is prompted with
    config.evaluation.problems = 1
    config.reward.verifier = "final_answer"
    if shape:
        config.model.update({name: size for name, size in shape.items() if name != "vocab"})
    else:
        config.model.pretrained = work.model
    layers = shape.get("layers", FEW_LAYERS + 1)
    config.trainer.scan_unroll = layers if layers <= FEW_LAYERS else 1
    config.trainer.rematerialise = "minimal"
    config.trainer.dtype = config.sampler.dtype = work.dtype

    longest = work.prompt_tokens + work.completion_tokens
    config.batch.prompts = config.batch.trained_prompts = work.prompts
    config.batch.samples_per_prompt = work.samples
    config.batch.minibatch_prompts = work.prompts // work.updates
    config.batch.update(_rows(work, devices, "share_prompts" in config.batch))
    rows = config.batch.rows_per_microbatch
    config.trainer.logprob_chunk_tokens = _chunk(config.batch.row_tokens, LOGIT_TOKENS // rows)

    generates = work.kind in ("generation", "step")  # slots hold memory
    config.sampler.slots = rounded(work.slots if generates else 1, devices)
    config.sampler.prefill_prompts = rounded(min(work.prompts, 8), devices)
    config.sampler.max_prompt_tokens = work.prompt_tokens
    config.sampler.max_completion_tokens = work.completion_tokens
    config.sampler.chunk_steps = min(work.completion_tokens, 16)
    rungs = {work.prompt_tokens + work.completion_tokens // part for part in (4, 2)}
    config.sampler.cache_read_ladder = tuple(sorted(rung for rung in rungs if rung < longest - 1))
    if generates and work.lengths == "ragged":
        fewer = {rounded(config.sampler.slots // part, devices) for part in (4, 2)}
        config.sampler.slot_ladder = tuple(sorted(fewer - {config.sampler.slots}))
    return config


def _rows(work: Work, devices: int, shares_prompts: bool) -> dict[str, int]:
    """Returns length and number of a micro-batch's rows. A row has room for a sequence, or for a
    group around its prompt where rows can share prompts.
    """
    members = work.samples if shares_prompts else 1
    rows = max(work.microbatch // members, 1)
    return {
        "row_tokens": work.prompt_tokens + members * work.completion_tokens,
        "rows_per_microbatch": rounded(rows, devices),
    }


def _chunk(row_tokens: int, most: int) -> int:
    """Returns the largest divisor of a row's length up to `most`, at least 1."""
    return max(n for n in range(1, max(min(row_tokens, most), 1) + 1) if row_tokens % n == 0)
