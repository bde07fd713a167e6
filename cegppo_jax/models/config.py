"""The shape of a decoder."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Architecture of a Llama-style decoder: RMSNorm, rotary positions, grouped-query attention,
    gated SiLU MLP.
    """

    vocab_size: int  # V
    width: int  # D, of the residual stream
    layers: int  # L
    heads: int  # N, query heads
    kv_heads: int  # K, divides N
    head_size: int  # H, even: rotary positions turn pairs
    mlp_width: int
    rope_theta: float
    norm_epsilon: float
    tied_embeddings: bool  # output head = transposed embedding

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise ValueError(
                f"model.heads = {self.heads} is not a multiple of model.kv_heads = "
                f"{self.kv_heads}: "
                "each key/value head serves the same number of query heads"
            )
        if self.head_size % 2:
            raise ValueError(
                f"model.head_size = {self.head_size} is odd: rotary positions turn pairs"
            )
