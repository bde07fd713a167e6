"""The sampler's jitted programs: what it compiles for a mesh, a model and static shapes. They hold
no memory; `Sampler` keeps the slots that they work on, and a planner compiles them without any.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cegppo_jax.compilation import compiled_versions
from cegppo_jax.models.attention.choose import chosen_for
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.kv_cache import CACHE_AXES, LayerCache
from cegppo_jax.sampling.decode_copy import DecodeCopy
from cegppo_jax.sampling.settings import SamplerSettings
from cegppo_jax.sampling.slots import SlotState, admit, decode_chunk, empty_slots, narrow, prefill
from cegppo_jax.sharding import Placing, named_sharding


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
        settings.check(mesh)
        if not eos_ids:
            raise ValueError(
                "the sampler needs at least one EOS token id, to know when a completion ends"
            )
        dtype = jnp.dtype(settings.dtype)
        attention = chosen_for(mesh, settings).attention
        replicated = named_sharding(mesh)
        by_slot = named_sharding(mesh, "slots")
        layer = named_sharding(mesh, *CACHE_AXES)
        cache = tuple(LayerCache(layer, layer) for _ in range(model.layers))
        self.state_layout = SlotState(cache, *(by_slot,) * 6)
        self.decode_copy = DecodeCopy(mesh, model, dtype)
        decode_layout = self.decode_copy.layout
        rows = named_sharding(mesh, "slots", None)
        prefilling = jax.jit(
            partial(prefill, model=model, dtype=dtype, attention=attention),
            in_shardings=(decode_layout, rows),
            out_shardings=cache,
        )
        self.prefill = Placing(prefilling, decode_layout, rows)
        # The prefix cache is read by every slot: admitting gathers the rows that a device's slots
        # ask for.
        admitting = jax.jit(
            partial(admit),  # a new object: jit shares its cache between wrappers of one function
            donate_argnums=0,
            in_shardings=(self.state_layout, cache, by_slot, replicated),
            out_shardings=self.state_layout,
        )
        self.admit = Placing(admitting, self.state_layout, cache, by_slot)
        # Static and compiled one by one: each rung of the ladder and each filter. Each
        # number of slots is compiled as well.
        self.decode = jax.jit(
            partial(
                decode_chunk,
                model=model,
                dtype=dtype,
                attention=attention,
                eos_ids=tuple(eos_ids),
                steps=settings.chunk_steps,
            ),
            static_argnums=(3, 4),  # sampling, read_length
            donate_argnums=1,
            in_shardings=(decode_layout, self.state_layout, replicated),
            out_shardings=(self.state_layout, replicated),
        )
        self._narrow_layer = jax.jit(
            partial(narrow),
            in_shardings=(cache[0], replicated),
            out_shardings=cache[0],
        )
        self._narrow_columns = jax.jit(partial(narrow), out_shardings=by_slot)
        self.new_state = jax.jit(
            partial(empty_slots, model, settings.slots, settings.cache_tokens, dtype),
            out_shardings=self.state_layout,
        )

    def narrowed(self, state: SlotState, order: np.ndarray) -> SlotState:
        """Returns only the slots of `order` [s] int32, in that order, for s of the slot ladder.

        The given cache is given up layer by layer, so this needs memory for one further layer.
        """
        columns = {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}
        layers = []
        for layer in columns.pop("cache"):
            layers.append(jax.block_until_ready(self._narrow_layer(layer, order)))
            layer.keys.delete()
            layer.values.delete()
        return SlotState(cache=tuple(layers), **self._narrow_columns(columns, order))

    def compile_counts(self) -> dict[str, int]:
        """Returns the compiled versions of each jitted function, to detect recompilation."""
        return {
            "decode_copy": self.decode_copy.compiled(),
            "prefill": compiled_versions(self.prefill),
            "admit": compiled_versions(self.admit),
            "decode": compiled_versions(self.decode),
            "narrow": compiled_versions(self._narrow_layer),
        }
