"""Attention: mixes values by queries, keys and a mask. Long rows are attended to in blocks of
queries, so that no array of scores [C, C] exists.
"""

from __future__ import annotations

from functools import partial

import flax.struct
import jax
import jax.numpy as jnp

from cegppo_jax.sharding import Leaf

# Finite, so that a fully masked (padding) query gives a uniform softmax and not NaN.
MASKED_SCORE = -1e30
# Queries whose scores [N, QUERY_BLOCK, T] exist at once: a multiple of every accelerator's tile.
QUERY_BLOCK = 512
BANDS = 4  # of blocks that see the same keys; each is compiled separately


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
        return _sees(self, places, self.segment_ids, places)


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


def attend_in_blocks(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    mask: SegmentMask,
    query_block: int = QUERY_BLOCK,
) -> jax.Array:
    """Attention of rows to themselves, `query_block` queries at a time.

    The blocks of a band see the keys up to the band's end: with 4 bands, 5/8 of all scores over a
    long row. The backward pass recomputes each block and also holds only one block's scores.

    Args:
      query: [B, C, N, H]. keys, values: [B, K, C, H].

    Returns:
      [B, C, N, H], the same as `attend` with the whole mask.
    """
    length = query.shape[1]
    if length <= query_block:
        return attend(query, keys, values, mask.whole())
    blocks = -(-length // query_block)

    def in_blocks(rows: jax.Array) -> jax.Array:
        """Splits [B, C, ...] into [blocks, B, query_block, ...], filling up the last with zeros."""
        rest = ((0, 0),) * (rows.ndim - 2)
        padded = jnp.pad(rows, ((0, 0), (0, blocks * query_block - length), *rest))
        return padded.reshape(rows.shape[0], blocks, query_block, *rows.shape[2:]).swapaxes(0, 1)

    places = jnp.arange(blocks * query_block).reshape(blocks, query_block)
    # In float32, so that the gradients of keys and values are summed over the blocks in it.
    keys32, values32 = keys.astype(jnp.float32), values.astype(jnp.float32)
    of_blocks = in_blocks(query), jax.tree.map(in_blocks, mask), places

    def one_block(end: int, block: tuple[jax.Array, SegmentMask, jax.Array]) -> jax.Array:
        """Returns the values [B, query_block, N, H] that a block's queries mix of the keys
        before `end`, from the queries, their segments and places.
        """
        query, segments, places = block
        sees = _sees(segments, places, mask.segment_ids[:, :end], jnp.arange(end))
        seen_keys = keys32[:, :, :end].astype(keys.dtype)
        seen_values = values32[:, :, :end].astype(values.dtype)
        return attend(query, seen_keys, seen_values, sees)

    mixed = []
    for band in range(BANDS):
        first, last = blocks * band // BANDS, blocks * (band + 1) // BANDS
        if first < last:
            end = min(last * query_block, length)
            part = jax.tree.map(lambda x, rows=slice(first, last): x[rows], of_blocks)
            mixed.append(jax.lax.map(jax.checkpoint(partial(one_block, end)), part))
    whole = jnp.concatenate(mixed).swapaxes(0, 1)
    return whole.reshape(query.shape[0], -1, *query.shape[2:])[:, :length]


def _sees(
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
