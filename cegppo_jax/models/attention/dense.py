"""Attention by a whole array of scores: decode steps and short rows, and the reference of tests."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cegppo_jax.models.attention.mask import MASKED_SCORE


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
