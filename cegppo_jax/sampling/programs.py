"""The sampler's jitted programs: what it compiles for a mesh, a model and static shapes. They hold
no memory; `Sampler` keeps the slots that they work on, and a planner compiles them without any.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cegppo_jax.compilation import compiled_versions
from cegppo_jax.models.attention.paged import spare_pages
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.kv_cache import (
    CACHE_AXES,
    PAGE_AXES,
    KVCache,
    LayerCache,
    empty_cache,
    empty_pages,
)
from cegppo_jax.sampling.decode_copy import DecodeCopy
from cegppo_jax.sampling.page_copies import PageCopies, most_copies
from cegppo_jax.sampling.seats import PagedSeats, Seats
from cegppo_jax.sampling.settings import SamplerSettings, chosen
from cegppo_jax.sampling.slots import SlotState, admit, decode_chunk, empty_slots, narrow, prefill
from cegppo_jax.sharding import Placing, batch_shards, named_sharding


def slots_cache(
    model: ModelConfig, settings: SamplerSettings, shards: int
) -> Callable[[], KVCache]:
    """Returns what makes the slots' empty cache, for settings without "auto" on so many shards."""
    dtype = jnp.dtype(settings.dtype)
    if settings.cache == "contiguous":
        return partial(empty_cache, model, settings.slots, settings.cache_tokens, dtype)
    spare = spare_pages(settings.slots // shards, settings.page_tokens)
    pages = shards * (spare + settings.pool(shards))
    return partial(empty_pages, model, pages, settings.page_tokens, dtype)


def cache_axes(settings: SamplerSettings) -> tuple[str, ...]:
    """Returns the logical axes of that cache."""
    return PAGE_AXES if settings.cache == "paged" else CACHE_AXES


class SamplerPrograms:
    """decode_copy, prefill, admit, decode, new_state and what narrows slots, jitted with their
    layouts.
    """

    def __init__(
        self, mesh: Mesh, model: ModelConfig, settings: SamplerSettings, eos_ids: Sequence[int]
    ):
        """Args: eos_ids: tokens that end a completion.

        Raises:
          ValueError: shapes that do not fit the mesh, or no EOS token.
        """
        settings = chosen(mesh, settings, model.head_size)
        settings.check(mesh)
        if not eos_ids:
            raise ValueError(
                "the sampler needs at least one EOS token id, to know when a completion ends"
            )
        dtype = jnp.dtype(settings.dtype)
        paged = settings.cache == "paged"
        replicated = named_sharding(mesh)
        by_slot, rows = named_sharding(mesh, "slots"), named_sharding(mesh, "slots", None)
        prefixes, cache = (
            (LayerCache(*(named_sharding(mesh, *axes),) * 2),) * model.layers
            for axes in (CACHE_AXES, cache_axes(settings))
        )
        self.settings, self._shards, self.table_layout = settings, batch_shards(mesh), rows
        self.state_layout = SlotState(cache, *(by_slot,) * 6)
        self.decode_copy = DecodeCopy(mesh, model, dtype)
        decode_layout = self.decode_copy.layout
        prefilling = jax.jit(
            partial(prefill, model=model, dtype=dtype, attention=settings.attention),
            in_shardings=(decode_layout, rows),
            out_shardings=prefixes,
        )
        self.prefill = Placing(prefilling, decode_layout, rows)
        # The prefix cache is read by every slot: admitting gathers the rows that a device's slots
        # ask for; to pages, all of them.
        copies = (PageCopies(rows, rows, rows, by_slot),) if paged else ()
        admitting = jax.jit(
            partial(admit),  # a new object: jit shares its cache between wrappers of one function
            donate_argnums=0,
            in_shardings=(self.state_layout, prefixes, by_slot, replicated, *copies),
            out_shardings=self.state_layout,
        )
        self.admit = Placing(admitting, self.state_layout, prefixes, by_slot, replicated, *copies)
        # Static and compiled one by one: each rung of the ladder and each filter. Each
        # number of slots is compiled as well.
        self.decode = jax.jit(
            partial(
                decode_chunk,
                model=model,
                dtype=dtype,
                attention=settings.attention,
                eos_ids=tuple(eos_ids),
                steps=settings.chunk_steps,
            ),
            static_argnums=(3, 4),  # sampling, read_length
            donate_argnums=1,
            in_shardings=(decode_layout, self.state_layout, replicated, *(rows,) * paged),
            out_shardings=(self.state_layout, replicated),
        )
        self._narrow_layer = jax.jit(
            partial(narrow),
            in_shardings=(prefixes[0], replicated),
            out_shardings=prefixes[0],
        )
        self._narrow_columns = jax.jit(partial(narrow), out_shardings=by_slot)
        self.new_state = jax.jit(
            partial(empty_slots, settings.slots, slots_cache(model, settings, self._shards)),
            out_shardings=self.state_layout,
        )

    @property
    def paged(self) -> bool:
        """Whether the cache is paged: `admit` takes copies and `decode` a table of pages."""
        return self.settings.cache == "paged"

    def paged_shapes(self) -> tuple[tuple[PageCopies, ...], tuple[jax.ShapeDtypeStruct, ...]]:
        """Returns what a paged cache's `admit` and `decode` take in addition, as shapes."""
        if not self.paged:
            return (), ()
        integers = partial(jax.ShapeDtypeStruct, dtype=np.int32)
        most = integers((self._shards, most_copies(self.settings, self._shards)))
        copies = PageCopies(most, most, most, integers((self._shards,)))
        return (copies,), (integers((self.settings.slots, self.settings.pages_of_slot)),)

    def seats(self) -> Seats:
        """Returns the host's side of new slots."""
        return PagedSeats(self.settings, self._shards) if self.paged else Seats(self.settings)

    def narrowed(self, state: SlotState, order: np.ndarray) -> SlotState:
        """Returns only the slots of `order` [s] int32, in that order, for s of the slot ladder.

        A contiguous cache is given up layer by layer, so this needs memory for one further layer.
        Pages stay where they are.
        """
        columns = {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}
        cache = columns.pop("cache")
        if not self.paged:
            layers = []
            for layer in cache:
                layers.append(jax.block_until_ready(self._narrow_layer(layer, order)))
                layer.keys.delete()
                layer.values.delete()
            cache = tuple(layers)
        return SlotState(cache=cache, **self._narrow_columns(columns, order))

    def compile_counts(self) -> dict[str, int]:
        """Returns the compiled versions of each jitted function, to detect recompilation."""
        return {
            "decode_copy": self.decode_copy.compiled(),
            "prefill": compiled_versions(self.prefill),
            "admit": compiled_versions(self.admit),
            "decode": compiled_versions(self.decode),
            "narrow": compiled_versions(self._narrow_columns if self.paged else self._narrow_layer),
        }
