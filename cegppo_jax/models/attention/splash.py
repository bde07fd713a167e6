"""Attention of packed rows by the splash kernels that JAX has for TPUs (Pallas).

Their own masks are static, and would compute all that causality leaves. Here the blocks that no
segment needs are skipped: which ones follows from the segments, on the device.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_mask_info import MaskInfo

from cegppo_jax.models.attention.mask import (
    ATTENTION_RESULT,
    LONGEST_CODED,
    SegmentMask,
    id_ranges,
    ranges_meet,
)
from cegppo_jax.sharding import partition_spec

# Tokens of a block, longest first: the longest that fills a row up by no more than MOST_FILLED.
BLOCKS, MOST_FILLED = (1024, 512, 256, 128), 1 / 8
COMPUTED = 512  # keys of a block that are multiplied at once, at most
# A query that continues a prompt is one number: flag, where its segment begins, its place
PLACE_BITS = LONGEST_CODED.bit_length() - 1


def splash_rows(
    query: jax.Array, keys: jax.Array, values: jax.Array, mask: SegmentMask, *, interpret: bool
) -> jax.Array:
    """Attention of rows to themselves. On a mesh each device attends to its rows with its heads.

    Args:
      query: [B, C, N, H]. keys, values: [B, K, C, H]; N / K queries share a head of keys, which is
        not repeated.
      mask: of segments that each lie in one piece, in the order of their ids.
      interpret: whether the kernels are interpreted, for machines without a TPU.

    Returns:
      [B, C, N, H]. At padding, which sees only its own block: finite and of no meaning.

    Raises:
      ValueError: rows with shared prompts that are too long for their places to be coded.
    """
    attend = partial(_on_a_device, interpret=interpret)
    if jax.sharding.get_abstract_mesh().empty:
        return attend(query, keys, values, mask)
    of_query = partition_spec(("rows", "length", "heads", "head_size"))
    of_keys = partition_spec(("rows", "kv_heads", "length", "head_size"))
    of_ids = jax.tree.map(lambda _: partition_spec(("rows", "length")), mask)
    on_all = jax.shard_map(
        attend, in_specs=(of_query, of_keys, of_keys, of_ids), out_specs=of_query, check_vma=False
    )
    return on_all(query, keys, values, mask)


def block_of(length: int) -> int:
    """Returns the tokens of a block for rows of this length."""
    for block in BLOCKS:
        if -length % block <= MOST_FILLED * length:
            return block
    return BLOCKS[-1]


def _on_a_device(
    query: jax.Array, keys: jax.Array, values: jax.Array, mask: SegmentMask, *, interpret: bool
) -> jax.Array:
    length, head_size = query.shape[1], query.shape[3]
    block = block_of(length)
    missing = -length % block

    def filled(x: jax.Array, axis: int) -> jax.Array:
        return jnp.pad(x, [(0, missing if one == axis else 0) for one in range(x.ndim)])

    by_head = filled((query * head_size**-0.5).swapaxes(1, 2), 2)
    keys, values = filled(keys, 2), filled(values, 2)
    if mask.prompt_segments is not None:  # a second time, for those who continue a prompt
        keys, values = (jnp.concatenate([x, x], axis=2) for x in (keys, values))
    plan = _plan(jax.tree.map(partial(filled, axis=1), mask), block)
    attend = partial(_one_row, block=block, interpret=interpret)
    # One row after the other: which blocks are skipped is another number of steps in each
    mixed = jax.lax.map(lambda row: attend(*row), (by_head, keys, values, plan))
    return mixed[:, :, :length].swapaxes(1, 2).astype(values.dtype)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Plan:
    """Which keys the queries of each row see; T = C, or 2 C with a second copy for prompts."""

    blocks: jax.Array  # [B, C / block, T / block] bool, those that are computed
    query_codes: jax.Array  # [B, C] int32, what the mask's function knows of a query
    query_ids: jax.Array  # [B, C] int32: queries see keys of the same id
    key_ids: jax.Array  # [B, T] int32


def _plan(mask: SegmentMask, block: int) -> _Plan:
    ids, places = mask.segment_ids, jnp.arange(mask.segment_ids.shape[1])
    length, padding = places.size, ids == 0
    segments = _ranges(ids, ~padding, block)
    itself = jnp.eye(length // block, dtype=bool)[None]  # all that a block of padding needs
    own = jnp.tril(ranges_meet(segments, segments)) | itself
    if mask.prompt_segments is None:
        return _Plan(own, jnp.broadcast_to(places[None], ids.shape), ids, ids)
    if length > LONGEST_CODED:
        raise ValueError(
            f"rows of {length:,} tokens: where segments continue others, splash attention takes at "
            f"most {LONGEST_CODED:,}. Set batch.row_tokens to that, or trainer.attention = 'xla'"
        )
    prompts = jnp.where(padding, 0, mask.prompt_segments)
    continues = prompts != ids
    asked, there = _ranges(prompts, continues, block), _ranges(ids, ~continues & ~padding, block)
    of_prompts = jnp.tril(ranges_meet(asked, there))
    before = jnp.pad(ids[:, :-1], [(0, 0), (1, 0)], constant_values=-1)
    begins = jax.lax.cummax(jnp.where(ids != before, places[None], 0), axis=1)
    codes = places[None] | begins << PLACE_BITS | continues << 2 * PLACE_BITS
    key_ids = jnp.concatenate([prompts, jnp.where(continues, -1, ids)], axis=1)
    return _Plan(jnp.concatenate([own, of_prompts], axis=2), codes, prompts, key_ids)


def _ranges(ids: jax.Array, counted: jax.Array, block: int) -> tuple[jax.Array, jax.Array]:
    """Returns the least and the greatest of the ids [B, C] that count in each block; where none
    does, a range that meets no other.
    """
    none = jnp.max(ids) + 1
    least, _ = id_ranges(jnp.where(counted, ids, none), block)
    _, greatest = id_ranges(jnp.where(counted, ids, -1), block)
    return least, greatest


def _causal(places: jax.Array, keys: jax.Array) -> jax.Array:
    return places >= keys


@dataclasses.dataclass(frozen=True)
class _CausalOrPrompt:
    """Whether queries, by their codes, see keys at places of [keys, keys again for prompts]."""

    length: int

    def __call__(self, codes: jax.Array, keys: jax.Array) -> jax.Array:
        lower = LONGEST_CODED - 1
        place, begin = codes & lower, (codes >> PLACE_BITS) & lower
        continues = codes >> 2 * PLACE_BITS == 1
        return ((keys >= begin) & (keys <= place)) | (continues & (keys >= self.length))


def _one_row(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    plan: _Plan,
    *,
    block: int,
    interpret: bool,
) -> jax.Array:
    """Returns the mixed values [N, C, H] of one row. query: scaled. keys, values: [K, T, H]."""
    computed = min(block, COMPUTED)
    sizes = splash.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=computed,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=computed,
        # Keys' and queries' gradients in one kernel: 5 products a block and not 7, for parts of the
        # latter, [C / block, N, C, H], that are summed after it
        use_fused_bwd_kernel=True,
    )
    twice = keys.shape[1] > query.shape[1]
    kernel = splash.SplashAttentionKernel(
        _mask_info(plan, axis=1),
        None,
        _mask_info(plan, axis=0),
        block_sizes=sizes,
        is_mqa=False,
        save_residuals=False,
        mask_value=splash.DEFAULT_MASK_VALUE,
        attn_logits_soft_cap=None,
        residual_checkpoint_name=ATTENTION_RESULT,
        mask_function=_CausalOrPrompt(query.shape[1]) if twice else _causal,
        interpret=interpret,
    )
    ids = splash.SegmentIds(plan.query_ids, plan.key_ids)
    mixed: jax.Array = kernel(query, keys, values, ids)  # type: ignore[assignment]
    return mixed


def _mask_info(plan: _Plan, axis: int) -> MaskInfo:
    """Returns what the kernel reads from scalar memory: whether a block is computed, and which one
    is fetched next along `axis` (0: of queries, 1: of keys).
    """
    blocks = plan.blocks
    size = blocks.shape[axis]
    numbers = jnp.arange(size).reshape((-1, 1) if axis == 0 else (1, -1))
    following = jax.lax.cummin(jnp.where(blocks, numbers, size), axis=axis, reverse=True)
    last = jnp.max(jnp.where(blocks, numbers, 0), axis=axis, keepdims=True)
    fetched = jnp.minimum(following, last)
    return MaskInfo(
        data_next=fetched[None].astype(jnp.int32),
        mask_next=None,
        block_mask=blocks[None].astype(jnp.int32),
        partial_mask_blocks=None,
        q_sequence=plan.query_codes,  # type: ignore[arg-type]  # the kernels take arrays of JAX
    )
