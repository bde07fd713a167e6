"""The key/value cache: explicit records that the decoder takes and returns."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from cegppo_jax.models.config import ModelConfig
from cegppo_jax.sharding import Leaf


@flax.struct.dataclass
class LayerCache:
    """Keys (after rotation) and values of one layer.

    (slot, kv head, length, head): each head's keys are contiguous along the length, which makes the
    decode step's batched products read memory in order. Or in pages, which any slot may hold.
    """

    keys: Leaf  # [S, K, T, H], or [K, P, page, H]
    values: Leaf  # of the same shape


KVCache = tuple[LayerCache, ...]  # one record a layer; where it is paged, of all slots' pages

CACHE_AXES = ("slots", "kv_heads", "length", "head_size")
# A paged cache: keys and values [K, pages of all shards, places of a page, H]
PAGE_AXES = ("kv_heads", "pages", "length", "head_size")


def empty_cache(config: ModelConfig, slots: int, length: int, dtype: jnp.dtype) -> KVCache:
    """Returns a zeroed cache for `slots` sequences of up to `length` tokens, [S, K, T, H] a
    layer; K counts copies of heads.
    """
    shape = (slots, config.cached_heads, length, config.head_size)
    return tuple(
        LayerCache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)) for _ in range(config.layers)
    )


def empty_pages(config: ModelConfig, pages: int, page_tokens: int, dtype: jnp.dtype) -> KVCache:
    """Returns zeroed pages, [K, pages, page_tokens, H] a layer."""
    shape = (config.cached_heads, pages, page_tokens, config.head_size)
    return tuple(
        LayerCache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)) for _ in range(config.layers)
    )


def write_token(
    cache: LayerCache, keys: jax.Array, values: jax.Array, positions: jax.Array
) -> LayerCache:
    """Returns the cache with one token's keys and values [S, K, H] written at its positions [S]. A
    position beyond the cache is that of a slot that is not read: its last place is overwritten.

    One scatter: from a vmapped dynamic_update_slice, XLA's TPU backend makes a loop over the slots.
    """
    slots = jnp.arange(positions.shape[0])[:, None]
    heads = jnp.arange(cache.keys.shape[1])[None, :]
    places = jnp.minimum(positions, cache.keys.shape[2] - 1)[:, None]

    def write(rows: jax.Array, new: jax.Array) -> jax.Array:
        return rows.at[slots, heads, places].set(
            new.astype(rows.dtype),
            unique_indices=True,
            indices_are_sorted=True,
            mode="promise_in_bounds",
        )

    return LayerCache(write(cache.keys, keys), write(cache.values, values))
