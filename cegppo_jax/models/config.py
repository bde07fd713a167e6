"""The architecture of a decoder."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable

from jax.sharding import AbstractMesh, Mesh


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Llama 3.1's scaling of rotary positions beyond the length that a model was trained on
    (layers.py: frequencies).
    """

    factor: float  # slow pairs turn this much slower
    low_freq_factor: float  # pairs of fewer turns in original_tokens than this are slow
    high_freq_factor: float  # of more than this, untouched; between, interpolated
    original_tokens: int


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Architecture of a decoder of the Llama, Qwen2, Qwen3 and SmolLM3 families: RMSNorm, rotary
    positions, grouped-query attention, gated SiLU MLP. Fields express the differences between
    families.
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
    query_key_value_bias: bool = False  # Qwen2
    query_key_norm: bool = False  # Qwen3: an RMSNorm over each head, before the rotation
    rope_scaling: RopeScaling | None = None  # Llama 3.1 and later
    unrotated_layers: tuple[int, ...] = ()  # SmolLM3: layers without rotary positions
    # Copies of each key/value head, side by side, where there are more tensor shards than heads:
    # each shard computes and caches the head that its queries read
    kv_copies: int = 1
    max_tokens: int | None = None  # longest sequence that it was trained for; None: not known
    # Ids of a padded vocabulary that the tokenizer does not have, as ranges [first, last): sampler
    # and trainer give them probability 0 (logprobs.mask_unused)
    unused_ids: tuple[tuple[int, int], ...] = ()

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
        if not set(self.unrotated_layers) <= set(range(self.layers)):
            raise ValueError(
                f"unrotated_layers = {self.unrotated_layers} are not all of the {self.layers} "
                "layers"
            )

    @property
    def cached_heads(self) -> int:
        """Key/value heads of the cache, copies included."""
        return self.kv_heads * self.kv_copies

    def on(self, mesh: Mesh | AbstractMesh) -> ModelConfig:
        """Returns the same model as it is laid out on a mesh: with copies of its key/value heads if
        there are fewer of them than tensor shards. Its weights are the same.

        Worked example: of 2 key/value heads on 8 shards there are 4 copies each; shard 5 has one of
        the second. If neither divides the other, there are no copies, and the mesh is refused
        (run/checks.py).
        """
        shards = mesh.shape["tensor"]
        copies = shards // self.kv_heads if shards % self.kv_heads == 0 else 1
        return dataclasses.replace(self, kv_copies=copies)

    def padded(self, multiple: int) -> ModelConfig:
        """Returns the same model with a vocabulary filled up to a multiple, which a mesh's tensor
        axis may then divide.
        """
        missing = -self.vocab_size % multiple
        return dataclasses.replace(self, vocab_size=self.vocab_size + missing)

    def with_tokens(self, ids: Iterable[int]) -> ModelConfig:
        """Returns the same model with all ids unused that the tokenizer does not have.

        Worked example: in a vocabulary of 8 with ids 0 to 4 and 6, the unused ranges are (5, 6) and
        (7, 8).
        """
        used = sorted({-1, self.vocab_size, *(one for one in ids if one < self.vocab_size)})
        gaps = ((one + 1, after) for one, after in itertools.pairwise(used))
        return dataclasses.replace(self, unused_ids=tuple(gap for gap in gaps if gap[0] < gap[1]))

    def rotates(self, layer: int) -> bool:
        """Whether a layer has rotary positions."""
        return layer not in self.unrotated_layers
