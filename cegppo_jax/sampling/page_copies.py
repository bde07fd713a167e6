"""Prompts' pages, from a prefix cache to the pages of the shards that sample them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from cegppo_jax.models.kv_cache import CACHE_AXES, PAGE_AXES, KVCache
from cegppo_jax.sampling.pages import PageCopy
from cegppo_jax.sampling.settings import SamplerSettings
from cegppo_jax.sharding import Leaf, partition_spec


@flax.struct.dataclass
class PageCopies:
    """The copies of one admission, of each shard; [shards, most copies], read up to `counts`."""

    rows: Leaf  # int32, of the prefix cache
    pages_of_prompts: Leaf  # int32
    pages: Leaf  # int32, of the shard
    counts: Leaf  # [shards] int32


def most_copies(settings: SamplerSettings, shards: int) -> int:
    """Returns how many pages an admission may copy to a shard: all of each prompt's that it shares,
    and one for each slot.
    """
    shared = (settings.max_prompt_tokens - 1) // settings.page_tokens
    return settings.prefill_prompts * shared + settings.slots // shards


def copies_by_shard(
    copies: Sequence[PageCopy], rows: Mapping[int, int], settings: SamplerSettings, shards: int
) -> PageCopies:
    """Returns copies as arrays. rows: of the prompts in the prefix cache."""
    from_rows, places, pages = np.zeros((3, shards, most_copies(settings, shards)), np.int32)
    counts = np.zeros(shards, np.int32)
    for one in copies:
        at = one.shard, counts[one.shard]
        from_rows[at], places[at], pages[at] = rows[one.prompt], one.page_of_prompt, one.page
        counts[one.shard] += 1
    return PageCopies(from_rows, places, pages, counts)


def copy_pages(cache: KVCache, prefixes: KVCache, copies: PageCopies) -> KVCache:
    """Returns the pages [K, P, page, H] of each layer with the copies from the prefix cache
    [B, K, Tp, H] done. The loop on a device goes round once a copy.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return _on_a_device(cache, prefixes, copies)
    pages = partition_spec(PAGE_AXES)
    prefix = partition_spec((None, *CACHE_AXES[1:]))  # whole, for any of its rows
    of_copies = jax.tree.map(lambda x: partition_spec(("slots", None)[: x.ndim]), copies)
    on_all = jax.shard_map(
        _on_a_device, in_specs=(pages, prefix, of_copies), out_specs=pages, check_vma=False
    )
    return on_all(cache, prefixes, copies)


def _on_a_device(cache: KVCache, prefixes: KVCache, copies: PageCopies) -> KVCache:
    page_tokens = cache[0].keys.shape[2]
    rows, places, pages = copies.rows[0], copies.pages_of_prompts[0], copies.pages[0]

    def filled(prefix: jax.Array) -> jax.Array:
        missing = -prefix.shape[2] % page_tokens
        return jnp.pad(prefix, ((0, 0), (0, 0), (0, missing), (0, 0))) if missing else prefix

    prefixes = jax.tree.map(filled, prefixes)

    def copy(i: jax.Array, cache: KVCache) -> KVCache:
        def put(into: jax.Array, prefix: jax.Array) -> jax.Array:
            sizes = (1, prefix.shape[1], page_tokens, prefix.shape[3])
            new = jax.lax.dynamic_slice(prefix, (rows[i], 0, places[i] * page_tokens, 0), sizes)
            return jax.lax.dynamic_update_slice(into, new.swapaxes(0, 1), (0, pages[i], 0, 0))

        return jax.tree.map(put, cache, prefixes)

    return jax.lax.fori_loop(0, copies.counts[0], copy, cache)
