"""A decode step on a paged cache: write each slot's token to its page, then attend to its pages.

A mesh's shards have slots and pages of their own, so each device works alone, on its kv heads.
"""

from __future__ import annotations

from functools import partial
from typing import Protocol

import jax
import jax.numpy as jnp

from cegppo_jax.models.attention.dense import attend
from cegppo_jax.models.attention.mask import PageTable
from cegppo_jax.models.kv_cache import PAGE_AXES, LayerCache
from cegppo_jax.sharding import partition_spec

# Pages that the kernel multiplies at once, at most. The compiler's final schedule for v5p takes 951
# instructions for 8 pages of 128 of a head, 1,555 for 16: 70 and 85 % of the speed of main memory
# on both cores. More would be read beyond the end of a sequence.
PAGES_OF_BLOCK = 16


class PagedStep(Protocol):
    """Attention of a decode step to the pages of one device, its own token among them."""

    def __call__(
        self, query: jax.Array, keys: jax.Array, values: jax.Array, table: PageTable, /
    ) -> jax.Array:
        """Returns [S, 1, N, H].

        Args:
          query: [S, 1, N, H]. keys, values: [K, P, page, H].
        """


def paged_step(
    step: PagedStep,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    cache: LayerCache,
    table: PageTable,
) -> tuple[jax.Array, LayerCache]:
    """Returns the mixed values [S, 1, N, H] and the pages with the step's tokens.

    Args:
      query: [S, 1, N, H]. key, value: [S, K, H] of the same tokens.
      cache: keys and values [K, P, page, H], each shard's pages in turn; `table` counts each from
        its shard's first.
    """

    def on_a_device(
        query: jax.Array, key: jax.Array, value: jax.Array, cache: LayerCache, table: PageTable
    ) -> tuple[jax.Array, LayerCache]:
        cache = write_to_pages(cache, key, value, table)
        return step(query, cache.keys, cache.values, table), cache

    if jax.sharding.get_abstract_mesh().empty:
        return on_a_device(query, key, value, cache, table)
    of_query = partition_spec(("slots", None, "heads", "head_size"))
    of_token = partition_spec(("slots", "kv_heads", "head_size"))
    of_cache = jax.tree.map(lambda _: partition_spec(PAGE_AXES), cache)
    of_table = jax.tree.map(lambda x: partition_spec(("slots", None)[: x.ndim]), table)
    on_all = jax.shard_map(
        on_a_device,
        in_specs=(of_query, of_token, of_token, of_cache, of_table),
        out_specs=(of_query, of_cache),
        check_vma=False,
    )
    return on_all(query, key, value, cache, table)


def spare_pages(slots: int, page_tokens: int) -> int:
    """Returns how many pages a shard of `slots` slots keeps for those that are not active: a place
    for each.
    """
    return -(-slots // page_tokens)


def write_to_pages(
    cache: LayerCache, keys: jax.Array, values: jax.Array, table: PageTable
) -> LayerCache:
    """Returns the pages [K, P, page, H] with the tokens' keys and values [S, K, H] written, in one
    scatter each. Slots that are not active write to the first pages, each to a place of its own.
    """
    page_tokens = cache.keys.shape[2]
    slots = jnp.arange(table.positions.shape[0])
    at = jnp.minimum(table.positions // page_tokens, table.pages.shape[1] - 1)
    own = jnp.take_along_axis(table.pages, at[:, None], axis=1)[:, 0]
    pages = jnp.where(table.active, own, slots // page_tokens)[:, None]
    places = jnp.where(table.active, table.positions % page_tokens, slots % page_tokens)[:, None]
    heads = jnp.arange(cache.keys.shape[0])[None, :]

    def write(rows: jax.Array, new: jax.Array) -> jax.Array:
        return rows.at[heads, pages, places].set(
            new.astype(rows.dtype), unique_indices=True, mode="promise_in_bounds"
        )

    return LayerCache(write(cache.keys, keys), write(cache.values, values))


def attend_to_gathered(
    query: jax.Array, keys: jax.Array, values: jax.Array, table: PageTable, /
) -> jax.Array:
    """The reference: copies each slot's pages side by side, then `attend`. The same to the bit as a
    step on a contiguous cache that is read up to `table.length`.
    """

    def gathered(pages: jax.Array) -> jax.Array:  # [S, K, length, H]
        rows = pages.swapaxes(0, 1)[table.pages]  # [S, n, K, page, H]
        by_head = rows.swapaxes(1, 2)
        slots, heads, count, page_tokens, head_size = by_head.shape
        joined = by_head.reshape(slots, heads, count * page_tokens, head_size)
        return joined[:, :, : table.length]

    reach = jnp.arange(table.length)[None, None, :] <= table.positions[:, None, None]
    return attend(query, gathered(keys), gathered(values), reach)


def attend_by_kernel(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    table: PageTable,
    /,
    *,
    interpret: bool,
) -> jax.Array:
    """JAX's paged attention for TPUs: reads the pages that active slots have filled, in blocks of
    PAGES_OF_BLOCK, and rounds keys and values to bfloat16. Chips whose two cores are one device
    share the slots between both.

    Args:
      interpret: whether the kernel is interpreted, for machines without a TPU.
    """
    # Here, since Pallas would add to every start
    from jax.experimental.pallas import tpu as pltpu
    from jax.experimental.pallas.ops.tpu.paged_attention import paged_attention

    slots, pages = table.pages.shape
    block = min(PAGES_OF_BLOCK, pages)
    attend_to_pages = partial(
        paged_attention,
        pages_per_compute_block=block,
        megacore_mode="batch" if _cores() == 2 and slots % 2 == 0 else None,
    )
    arguments = (
        # Scaled as in `attend`; in float32, which the kernel then sums in
        (query[:, 0] * query.shape[-1] ** -0.5).astype(jnp.float32),
        keys,
        values,
        jnp.where(table.active, table.positions + 1, 0),
        jnp.pad(table.pages, ((0, 0), (0, -pages % block))),
    )
    if interpret:
        with pltpu.force_tpu_interpret_mode():
            mixed = attend_to_pages(*arguments)
    else:
        mixed = attend_to_pages(*arguments)
    return mixed[:, None].astype(values.dtype)


def _cores() -> int | None:
    """Returns the cores of a device of the mesh; None without a mesh."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return None if device is None else device.num_cores
