"""The sampler's static shapes: the section config.sampler."""

from __future__ import annotations

import dataclasses

from jax.sharding import Mesh

from cegppo_jax.sharding import batch_shards

# A cache's length is a multiple of the first: TPUs need it. Where that adds little, from so many
# places on, of the second: a whole tile.
SHORT_TILE, LONG_TILE, LONG_CACHE = 8, 128, 1024


@dataclasses.dataclass(frozen=True)
class SamplerSettings:
    """The sampler's static shapes."""

    slots: int  # S
    prefill_prompts: int  # prompts of one prefill call
    max_prompt_tokens: int
    max_completion_tokens: int
    chunk_steps: int  # decode steps between two checks by the host
    cache_read_ladder: tuple[
        int, ...
    ]  # lengths at which the cache is read; the last one is all of it
    slot_ladder: tuple[int, ...]  # fewer slots, which decode once no sample waits
    dtype: str  # of decode activations, weights copy and cache
    attention: str  # models/attention/choose.py: ATTENTION_SETTINGS

    @property
    def max_sequence_tokens(self) -> int:
        """Longest prompt plus longest completion."""
        return self.max_prompt_tokens + self.max_completion_tokens

    @property
    def cache_tokens(self) -> int:
        """T: nothing is decoded from a completion's last token, so it needs no place. Rounded up to
        whole tiles of an accelerator: XLA's TPU backend copies any other cache whole in each chunk.
        """
        longest = self.max_sequence_tokens - 1
        tile = LONG_TILE if longest > LONG_CACHE else SHORT_TILE
        return -(-longest // tile) * tile

    @property
    def read_lengths(self) -> tuple[int, ...]:
        """Every compiled length of a cache read; the last one is the whole cache."""
        return (*self.cache_read_ladder, self.cache_tokens)

    @property
    def slot_counts(self) -> tuple[int, ...]:
        """Every compiled number of slots, most first."""
        return (self.slots, *self.slot_ladder[::-1])

    def versions(self, filters: int) -> dict[str, int]:
        """Returns how often each program with several shapes is compiled, for so many filters."""
        lengths, counts = len(self.read_lengths), len(self.slot_counts)
        return {"decode": filters * lengths * counts, "narrow": counts - 1}

    def check(self, mesh: Mesh) -> None:
        """Raises ValueError for shapes that fit neither each other nor the mesh."""
        shards = batch_shards(mesh)
        for name, size in (("slots", self.slots), ("prefill_prompts", self.prefill_prompts)):
            if size < 1 or size % shards:
                raise ValueError(
                    f"sampler.{name} = {size} is not a positive multiple of the mesh's data x "
                    f"fsdp = {shards}"
                )
        fewer = self.slot_ladder
        rises = list(self.slot_counts) == sorted(set(self.slot_counts), reverse=True)
        if not rises or any(count < 1 or count % shards for count in fewer):
            raise ValueError(
                f"sampler.slot_ladder = {fewer} must rise to below sampler.slots = {self.slots}, "
                f"in positive multiples of the mesh's data x fsdp = {shards}"
            )
        ladder = self.cache_read_ladder
        rising = list(self.read_lengths) == sorted(set(self.read_lengths))
        if not rising or self.read_lengths[0] < 1:
            raise ValueError(
                f"sampler.cache_read_ladder = {ladder} must rise from 1 at least to below the "
                f"cache length {self.cache_tokens} (longest prompt + longest completion - 1, "
                "rounded up)"
            )
