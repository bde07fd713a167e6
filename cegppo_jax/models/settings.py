"""Which model a run trains or evaluates."""

from __future__ import annotations

import dataclasses

from cegppo_jax.read_settings import check_at_least


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """A pretrained decoder, or one to initialise with the tokenizer's vocabulary."""

    # Folder, .gguf file, hub id or "package:<name>"; "": initialise one
    pretrained: str
    ignored_fields: tuple[str, ...]  # of its config.json
    vocabulary_multiple: int  # the vocabulary is filled up to one of these
    # The shape of a model to initialise; ignored for a pretrained one
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
