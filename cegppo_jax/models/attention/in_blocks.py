"""Attention of long packed rows, block by block: no array of scores [C, C] exists, and blocks of
keys that no query of a block may see cost nothing.

The softmax is that of FlashAttention-2 (Dao 2023, arXiv 2307.08691): running maxima and sums, and a
backward pass that computes the scores again from each query's log of the sum. What is added here is
the list of the pairs of blocks, which follows from the segments.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from cegppo_jax.loops import bounded_loop
from cegppo_jax.models.attention.dense import attend
from cegppo_jax.models.attention.mask import (
    ATTENTION_RESULT,
    MASKED_SCORE,
    SegmentMask,
    id_ranges,
    ranges_meet,
    sees,
)

# Tokens of a block. On CPU small ones, which skip more; on accelerators a pair of blocks has to
# outweigh a turn of the loop (experiments/performance.md), and a row fills whole tiles.
CPU_BLOCK, BLOCK, TILE = 64, 1024, 128
WHOLE_ROW = 320  # rows up to this length are attended to at once

Grouped = jax.Array  # [B, K, G, C, H], queries by the head of the keys that they share
Kept = tuple[Grouped, jax.Array, jax.Array, SegmentMask, Grouped, jax.Array]


def attend_in_blocks(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    mask: SegmentMask,
    *,
    block: int | None = None,
    whole_row: int = WHOLE_ROW,
) -> jax.Array:
    """Attention of rows to themselves.

    Args:
      query: [B, C, N, H]. keys, values: [B, K, C, H].
      block: tokens of a block; None: as suits the platform that the program is compiled for.
      whole_row: rows up to this length are attended to at once, by `attend`.

    Returns:
      [B, C, N, H], the same as `attend` with the whole mask.
    """
    batch, length, heads, head_size = query.shape
    if length <= whole_row:
        return attend(query, keys, values, mask.whole())
    by_head = (query * head_size**-0.5).reshape(batch, length, keys.shape[1], -1, head_size)
    mixed = _attend(block, by_head.transpose(0, 2, 3, 1, 4), keys, values, mask)
    rows = mixed.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads, head_size)
    return rows.astype(values.dtype)


def pairs_of_blocks(mask: SegmentMask, block: int) -> tuple[jax.Array, jax.Array, int]:
    """Returns which blocks of queries look at which blocks of keys, in any of the rows.

    Segments lie in a row in the order of their ids, so two blocks share one where the ranges of
    their ids meet; in another order a pair too many may be listed, never one too few.

    Returns:
      pairs: [at_most, 2] int32, (queries, keys), those that are wanted first.
      wanted: int32, their number.
      at_most: the number of pairs that causality leaves.
    """
    ids = mask.segment_ids
    blocks = ids.shape[1] // block
    last = jnp.where(ids == 0, jnp.max(ids) + 1, ids)  # padding comes after all segments
    own = id_ranges(last, block)
    meets = ranges_meet(own, own)
    if mask.prompt_segments is not None:
        prompts = jnp.where(ids == 0, last, mask.prompt_segments)
        meets |= ranges_meet(id_ranges(prompts, block), own)
    at_most = blocks * (blocks + 1) // 2
    found = jnp.tril(jnp.any(meets, axis=0))  # [queries, keys]
    places = jnp.nonzero(found, size=at_most, fill_value=0)
    return jnp.stack(places, axis=1).astype(jnp.int32), jnp.sum(found), at_most


class _Blocks:
    """Reads and writes blocks of arrays, and says what a block of queries sees of one of keys."""

    def __init__(self, mask: SegmentMask, block: int):
        self.block, self.length = block, mask.segment_ids.shape[1]
        self.mask = jax.tree.map(partial(self.filled, axis=1), mask)
        self.pairs, self.wanted, self.at_most = pairs_of_blocks(self.mask, block)

    def filled(self, x: jax.Array, axis: int) -> jax.Array:
        """Fills an axis of tokens up to whole blocks."""
        missing = -self.length % self.block
        return jnp.pad(x, [(0, missing if one == axis else 0) for one in range(x.ndim)])

    def tokens(self, x: jax.Array, axis: int) -> jax.Array:
        """Undoes `filled`."""
        return jax.lax.slice_in_dim(x, 0, self.length, axis=axis)

    def at(self, x: jax.Array, number: jax.Array, axis: int) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(x, number * self.block, self.block, axis)

    def put(self, x: jax.Array, new: jax.Array, number: jax.Array, axis: int) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(x, new, number * self.block, axis)

    def scores(
        self, query: jax.Array, keys: jax.Array, pair: tuple[jax.Array, jax.Array]
    ) -> jax.Array:
        """Returns the scores [B, K, G, block, block] float32 of a pair, masked."""
        of_queries, of_keys = pair
        scores = jnp.einsum(
            "bkgqh,bkth->bkgqt", query, self.at(keys, of_keys, 2),
            preferred_element_type=jnp.float32,
        )  # fmt: skip
        segments = jax.tree.map(lambda ids: self.at(ids, of_queries, 1), self.mask)
        place = jnp.arange(self.block)
        seen = sees(
            segments,
            of_queries * self.block + place,
            self.at(self.mask.segment_ids, of_keys, 1),
            of_keys * self.block + place,
        )
        return jnp.where(seen[:, None, None], scores, MASKED_SCORE)


def _with_block(
    work: Callable[..., Any], block: int | None, mask: SegmentMask, *arguments: Any
) -> Any:
    """Returns work(block, mask, *arguments), where None is what suits platform and rows."""
    if block is not None:
        return work(block, mask, *arguments)
    row = -(-mask.segment_ids.shape[1] // TILE) * TILE
    return jax.lax.platform_dependent(
        mask, *arguments, cpu=partial(work, CPU_BLOCK), default=partial(work, min(BLOCK, row))
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(
    block: int | None, query: Grouped, keys: jax.Array, values: jax.Array, mask: SegmentMask
) -> Grouped:
    """Returns the mixed values, float32. query: scaled. keys, values: [B, K, C, H]."""
    return _attend_forward(block, query, keys, values, mask)[0]


def _attend_forward(
    block: int | None, query: Grouped, keys: jax.Array, values: jax.Array, mask: SegmentMask
) -> tuple[Grouped, Kept]:
    kept = _with_block(_mixed, block, mask, query, keys, values)
    mixed, log_total = (checkpoint_name(one, ATTENTION_RESULT) for one in kept)
    return mixed, (query, keys, values, mask, mixed, log_total)


def _attend_backward(
    block: int | None, kept: Kept, cotangent: Grouped
) -> tuple[Grouped, jax.Array, jax.Array, None]:
    query, keys, values, mask, mixed, log_total = kept
    of_rows = query, keys, values, mixed, log_total, cotangent
    return *_with_block(_gradients, block, mask, *of_rows), None


_attend.defvjp(_attend_forward, _attend_backward)


def _mixed(
    block: int, mask: SegmentMask, query: Grouped, keys: jax.Array, values: jax.Array
) -> tuple[Grouped, jax.Array]:
    """Returns the mixed values, and the log of each query's sum of exponentials [B, K, G, C, 1]."""
    blocks = _Blocks(mask, block)
    query, keys, values = blocks.filled(query, 3), blocks.filled(keys, 2), blocks.filled(values, 2)

    def add_pair(i: jax.Array, found: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        of_queries, of_keys = pair = tuple(blocks.pairs[i])
        highest, total, mixed = (blocks.at(one, of_queries, 3) for one in found)
        scores = blocks.scores(blocks.at(query, of_queries, 3), keys, pair)
        new_highest = jnp.maximum(highest, scores.max(axis=-1, keepdims=True))
        weights = jnp.exp(scores - new_highest)
        shrunk = jnp.exp(highest - new_highest)
        added = jnp.einsum(
            "bkgqt,bkth->bkgqh", weights.astype(values.dtype), blocks.at(values, of_keys, 2),
            preferred_element_type=jnp.float32,
        )  # fmt: skip
        new_total = total * shrunk + weights.sum(axis=-1, keepdims=True)
        new = new_highest, new_total, mixed * shrunk + added
        return tuple(
            blocks.put(one, part, of_queries, 3) for one, part in zip(found, new, strict=True)
        )

    a_query = (*query.shape[:-1], 1)
    start: tuple[jax.Array, ...] = (
        jnp.full(a_query, 2 * MASKED_SCORE),
        jnp.zeros(a_query),
        jnp.zeros(query.shape, jnp.float32),
    )
    highest, total, mixed = bounded_loop(blocks.wanted, blocks.at_most, add_pair, start)
    return blocks.tokens(mixed / total, 3), blocks.tokens(highest + jnp.log(total), 3)


def _gradients(
    block: int,
    mask: SegmentMask,
    query: Grouped,
    keys: jax.Array,
    values: jax.Array,
    mixed: Grouped,
    log_total: jax.Array,
    cotangent: Grouped,
) -> tuple[Grouped, jax.Array, jax.Array]:
    """Returns the gradients of query, keys and values, in their dtypes."""
    blocks = _Blocks(mask, block)
    along = jnp.sum(cotangent * mixed, axis=-1, keepdims=True)  # [B, K, G, C, 1]
    query, cotangent, along, log_total = (
        blocks.filled(one, 3) for one in (query, cotangent, along, log_total)
    )
    keys, values = blocks.filled(keys, 2), blocks.filled(values, 2)
    product = partial(jnp.einsum, preferred_element_type=jnp.float32)

    def add(sums: jax.Array, part: jax.Array, number: jax.Array, axis: int) -> jax.Array:
        return blocks.put(sums, blocks.at(sums, number, axis) + part, number, axis)

    def add_pair(i: jax.Array, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        of_queries, of_keys = pair = tuple(blocks.pairs[i])
        own_query = blocks.at(query, of_queries, 3)
        own_keys, own_values = (blocks.at(one, of_keys, 2) for one in (keys, values))
        scores = blocks.scores(own_query, keys, pair)
        weights = jnp.exp(scores - blocks.at(log_total, of_queries, 3))
        pulled = blocks.at(cotangent, of_queries, 3).astype(values.dtype)
        of_weights = product("bkgqh,bkth->bkgqt", pulled, own_values)
        of_scores = weights * (of_weights - blocks.at(along, of_queries, 3))
        of_scores = of_scores.astype(query.dtype)
        weights = weights.astype(values.dtype)
        return (
            add(sums[0], product("bkgqt,bkth->bkgqh", of_scores, own_keys), of_queries, 3),
            add(sums[1], product("bkgqt,bkgqh->bkth", of_scores, own_query), of_keys, 2),
            add(sums[2], product("bkgqt,bkgqh->bkth", weights, pulled), of_keys, 2),
        )

    start = tuple(jnp.zeros(one.shape, jnp.float32) for one in (query, keys, values))
    of_query, of_keys, of_values = bounded_loop(blocks.wanted, blocks.at_most, add_pair, start)
    return (
        blocks.tokens(of_query, 3).astype(query.dtype),
        blocks.tokens(of_keys, 2).astype(keys.dtype),
        blocks.tokens(of_values, 2).astype(values.dtype),
    )
