"""The sampler's compiled programs, apart from the memory that they work in: a Sampler runs them on
its slots, a plan compiles them from shapes alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.kv_cache import CACHE_AXES, LayerCache, empty_cache
from cegppo_jax.sampling.decode_copy import DecodeCopy
from cegppo_jax.sampling.settings import SamplerSettings
from cegppo_jax.sampling.slots import SlotState, admit, decode_chunk, prefill
from cegppo_jax.sharding import named_sharding

Jitted = Any  # a jitted function; jax has no public name for its type


@dataclasses.dataclass(frozen=True)
class SamplerPrograms:
    """What a sampler compiles. None holds memory until it is called."""

    decode_copy: DecodeCopy  # stacked float32 parameters -> the weights that the others read
    prefill: Jitted  # (decode copy, tokens [B, Tp]) -> prefix cache
    admit: Jitted  # (slots, prefix cache, Admissions, step key) -> slots; the slots are donated
    # (decode copy, slots, fewest active, SamplingFilter, read length) -> slots, Chunk; the slots
    # are donated. The last two are static: each rung of the ladder and each filter is compiled.
    decode: Jitted
    new_state: Jitted  # () -> empty slots


def make_programs(
    mesh: Mesh, model: ModelConfig, settings: SamplerSettings, eos_ids: Sequence[int]
) -> SamplerPrograms:
    """Returns a sampler's programs. Nothing is compiled until it is first used."""
    dtype = jnp.dtype(settings.dtype)
    replicated = named_sharding(mesh)
    by_slot = named_sharding(mesh, "slots")
    layer = named_sharding(mesh, *CACHE_AXES)
    cache = tuple(LayerCache(layer, layer) for _ in range(model.layers))
    state_layout = SlotState(cache, *(by_slot,) * 6)
    decode_copy = DecodeCopy(mesh, model, dtype)
    return SamplerPrograms(
        decode_copy=decode_copy,
        prefill=jax.jit(
            partial(prefill, model=model, dtype=dtype),
            in_shardings=(decode_copy.layout, named_sharding(mesh, "slots", None)),
            out_shardings=cache,
        ),
        # The prefix cache is read by every slot: admitting gathers the rows that a device's slots
        # ask for.
        admit=jax.jit(
            partial(admit),  # a new object: jit shares its cache between wrappers of one function
            donate_argnums=0,
            in_shardings=(state_layout, cache, by_slot, replicated),
            out_shardings=state_layout,
        ),
        decode=jax.jit(
            partial(
                decode_chunk,
                model=model,
                dtype=dtype,
                eos_ids=tuple(eos_ids),
                steps=settings.chunk_steps,
            ),
            static_argnums=(3, 4),  # sampling, read_length
            donate_argnums=1,
            in_shardings=(decode_copy.layout, state_layout, replicated),
            out_shardings=(state_layout, replicated),
        ),
        new_state=jax.jit(partial(_empty_state, model, settings), out_shardings=state_layout),
    )


def _empty_state(model: ModelConfig, settings: SamplerSettings) -> SlotState:
    slots = settings.slots
    zeros = jnp.zeros(slots, jnp.int32)
    return SlotState(
        cache=empty_cache(model, slots, settings.cache_tokens, jnp.dtype(settings.dtype)),
        last_tokens=zeros,
        positions=zeros,
        completion_tokens=zeros,
        token_limits=zeros,
        active=jnp.zeros(slots, bool),
        key_data=jnp.zeros((slots, 2), jnp.uint32),
    )
