"""What attends to what: masks of packed rows, and which of their blocks meet."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from cegppo_jax.sharding import Leaf

# Splash attention codes a query whose segment continues another by places below this.
LONGEST_CODED = 1 << 15
# What an implementation keeps of a row for its backward pass, by name (jax.checkpoint)
ATTENTION_RESULT = "attention"
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


@flax.struct.dataclass
class PageTable:
    """Where the caches of a decode step's slots lie in the pages of their shard, and how far each
    reaches: up to the token of this step, which is written first.
    """

    pages: Leaf  # [S, n] int32, page of places 0, 1, ... of each slot
    positions: Leaf  # [S] int32, place of this step's token
    active: Leaf  # [S] bool; a slot that is not writes to a spare page, and its result is not read
    length: int = flax.struct.field(pytree_node=False)  # no active slot reaches further


# [B, Q, T] bool; of rows that look at themselves; of slots whose cache is in pages
Mask = jax.Array | SegmentMask | PageTable


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


def id_ranges(ids: jax.Array, block: int) -> tuple[jax.Array, jax.Array]:
    """Returns the least and the greatest of ids [B, C] in each block, [B, blocks]."""
    by_block = ids.reshape(len(ids), -1, block)
    return by_block.min(axis=-1), by_block.max(axis=-1)


def ranges_meet(one: tuple[jax.Array, jax.Array], other: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Returns whether ranges [B, X] and [B, Y] have an id in common, [B, X, Y]."""
    return (one[0][:, :, None] <= other[1][:, None]) & (other[0][:, None] <= one[1][:, :, None])
