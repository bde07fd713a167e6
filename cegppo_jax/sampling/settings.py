"""The sampler's static shapes: the section config.sampler."""

from __future__ import annotations

import dataclasses

from jax.sharding import Mesh

from cegppo_jax.models.attention.choose import AUTO, chosen_for
from cegppo_jax.sharding import batch_shards

# A cache's length is a multiple of the first: TPUs need it. Where that adds little, from so many
# places on, of the second: a whole tile.
SHORT_TILE, LONG_TILE, LONG_CACHE = 8, 128, 1024

# A slot's cache in one piece that the longest sequence fills, or in pages that it takes as it grows
CACHES = ("contiguous", "paged")
CACHE_SETTINGS = (AUTO, *CACHES)
# The kernel that attends to pages on TPUs takes pages and heads of multiples of these sizes
KERNEL_PAGE, KERNEL_HEAD = 8, 128


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
    cache: str  # CACHES, or "auto": what suits the platform
    page_tokens: int  # places of a page, of a paged cache
    pages: int  # of all shards together; 0: as many as all slots can fill

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
    def pages_of_slot(self) -> int:
        """Pages of the longest sequence."""
        return -(-self.cache_tokens // self.page_tokens)

    def pool(self, shards: int) -> int:
        """Returns the pages of each of so many shards that samples may hold."""
        return self.pages // shards if self.pages else self.slots // shards * self.pages_of_slot

    @property
    def reads_pages(self) -> bool:
        """Whether a step reads the pages that its slots have filled, and no more than blocks of
        them, without "auto"s.
        """
        return self.cache == "paged" and self.attention == "splash"

    @property
    def read_lengths(self) -> tuple[int, ...]:
        """Every compiled length of a cache read; the last one is the whole cache."""
        if self.reads_pages:
            return (self.cache_tokens,)
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
        if self.cache == "paged":
            self._check_pages(shards)

    def _check_pages(self, shards: int) -> None:
        if self.page_tokens < 1:
            raise ValueError(f"sampler.page_tokens = {self.page_tokens}: at least 1")
        least = self.pages_of_slot
        if self.pages % shards or self.pool(shards) < least:
            raise ValueError(
                f"sampler.pages = {self.pages:,} must be 0, or a multiple of the mesh's data x "
                f"fsdp = {shards} of at least {shards * least:,}: a sequence of "
                f"{self.cache_tokens:,} tokens takes {least:,} pages of {self.page_tokens} in one "
                "of these shards"
            )


def chosen(mesh: Mesh, settings: SamplerSettings, head_size: int) -> SamplerSettings:
    """Returns settings whose "auto"s are replaced by what the mesh's devices get: pages where JAX's
    kernel reads them, on TPUs in bfloat16, and else a contiguous cache, which a step of plain XLA
    reads without a copy.

    Args:
      head_size: H, of the model.

    Raises:
      ValueError: the devices cannot run what was asked for.
    """
    settings = chosen_for(mesh, settings)
    fails = "" if settings.attention == "xla" else _kernel_fails(settings, head_size)
    if settings.cache == AUTO:
        paged = settings.attention == "splash" and not fails
        return dataclasses.replace(settings, cache="paged" if paged else "contiguous")
    if settings.cache == "paged" and fails:
        raise ValueError(
            f"sampler.cache = 'paged' with {fails}. Set that, sampler.cache = 'contiguous' or "
            "sampler.attention = 'xla'"
        )
    return settings


def _kernel_fails(settings: SamplerSettings, head_size: int) -> str:
    """Returns why the kernel cannot attend to pages of these settings; empty if it can."""
    if settings.dtype != "bfloat16":
        return (
            f"sampler.dtype = {settings.dtype!r}: the kernel rounds keys and values to 'bfloat16'"
        )
    if settings.page_tokens % KERNEL_PAGE:
        size = settings.page_tokens
        return f"sampler.page_tokens = {size}: the kernel needs a multiple of {KERNEL_PAGE}"
    if head_size % KERNEL_HEAD:
        return f"heads of {head_size}: the kernel needs a multiple of {KERNEL_HEAD}"
    return ""
