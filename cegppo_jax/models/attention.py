"""Attention: mixes values by queries, keys and a mask. Long rows: attention_in_blocks.py."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from cegppo_jax.sharding import Leaf

# Finite, so that a fully masked (padding) query gives a uniform softmax and not NaN.
MASKED_SCORE = -1e30


@flax.struct.dataclass
class SegmentMask:
    """The mask [B, C, C] of packed rows, given by their segment ids: a token attends to itself, to
    earlier tokens of its segment, and to those of the segment that it continues.

    Worked example: ids 1 1 2 0 -> rows 1000, 1100, 0010, 0001 (padding attends to padding,
    harmlessly). If the 2 continues segment 1, its row is 1110.
    """

    segment_ids: Leaf  # [B, C] int32, 0 is padding
    # [B, C] int32, the segment that a token's segment continues; None: each only its own
    prompt_segments: Leaf | None = None

    def whole(self) -> jax.Array:
        """Returns the mask [B, C, C] bool."""
        places = jnp.arange(self.segment_ids.shape[-1])
        return sees(self, places, self.segment_ids, places)


Mask = jax.Array | SegmentMask  # [B, Q, T] bool, or of rows that look at themselves


def attend(query: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array) -> jax.Array:
    """Grouped-query attention with a float32 softmax.

    Args:
      query: [B, Q, N, H]. keys, values: [B, K, T, H]. mask: [B, Q, T] bool, True where a query may
        attend.

    Returns:
      [B, Q, N, H], the mixed values.
    """
    batch, queries, heads, head_size = query.shape
    kv_heads = keys.shape[1]
    group = heads // kv_heads
    # A matrix [G Q, H] for each row and head of the keys: in this order XLA's CPU backend does not
    # transpose scores.
    by_head = (query * head_size**-0.5).reshape(batch, queries, kv_heads, group, head_size)
    by_head = by_head.transpose(0, 2, 3, 1, 4).reshape(batch, kv_heads, -1, head_size)
    scores = jnp.einsum("bkmh,bkth->bkmt", by_head, keys, preferred_element_type=jnp.float32)
    scores = scores.reshape(batch, kv_heads, group, queries, -1)
    scores = jnp.where(mask[:, None, None], scores, MASKED_SCORE)
    weights = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
    mixed = weights.reshape(batch, kv_heads, group * queries, -1) @ values
    mixed = mixed.reshape(batch, kv_heads, group, queries, head_size)
    return mixed.transpose(0, 3, 1, 2, 4).reshape(batch, queries, heads, head_size)


def sees(
    queries: SegmentMask, query_places: jax.Array, key_ids: jax.Array, key_places: jax.Array
) -> jax.Array:
    """Returns the mask [B, Q, T] bool, from the queries' segments [B, Q] and the keys' segment ids
    [B, T], at places [Q] and [T] of their rows.
    """
    causal = query_places[:, None] >= key_places[None, :]
    reached = queries.segment_ids[:, :, None] == key_ids[:, None, :]
    if queries.prompt_segments is not None:
        reached |= queries.prompt_segments[:, :, None] == key_ids[:, None, :]
    return causal[None] & reached
