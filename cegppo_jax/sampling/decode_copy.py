"""Makes the unrolled copy that the sampler decodes with, leaf by leaf, from stacked float32
parameters.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import unflatten_dict
from jax.sharding import Mesh

from cegppo_jax.compilation import compiled_versions
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.decoder import Params, abstract_params
from cegppo_jax.sharding import DECODE_RULES, tree_shardings

STACK = ("layers", "block")  # where the stacked tree keeps its layers


class DecodeCopy:
    """The layout of a decode copy, and how each leaf gets there.

    Copying leaf by leaf needs memory for the parameters, the copy and never more than one further
    leaf; if the parameters come one by one from a file and are released, only for the copy and one
    leaf. The newest copy is kept for the next call with the same parameters, until `release`.
    """

    def __init__(self, mesh: Mesh, model: ModelConfig, dtype: jnp.dtype):
        _, specs = abstract_params(model, unrolled=False)
        _, decode_specs = abstract_params(model, unrolled=True)
        self.layout = tree_shardings(mesh, decode_specs, DECODE_RULES)
        self.copies: dict[tuple[str, ...], Any] = {}  # path of a stacked leaf -> jitted copy
        for path, sharding in _flat(tree_shardings(mesh, specs)).items():
            stacked = path[:2] == STACK
            place = ("layer_0", *path[2:]) if stacked else path
            out = _flat(self.layout)[place]
            copy = partial(_cast_layers if stacked else _cast, dtype=dtype)
            self.copies[path] = jax.jit(
                copy,
                in_shardings=sharding,
                out_shardings=(out,) * model.layers if stacked else out,
            )
        self._kept: tuple[list[weakref.ref[jax.Array]], Params] | None = None

    def of(self, params: Params) -> Params:
        """Returns the decode copy of stacked parameters: matrices in the dtype of the
        computation, norm scales in float32. The same arrays as in the last call give its copy.
        """
        leaves: list[jax.Array] = jax.tree.leaves(params)
        if self._kept is not None:
            known, copy = self._kept
            if len(known) == len(leaves) and all(
                ref() is leaf and not leaf.is_deleted()  # by donation
                for ref, leaf in zip(known, leaves, strict=True)
            ):
                return copy
        self.release()
        copy = self.of_leaves(("/".join(path), leaf) for path, leaf in _flat(params).items())
        self._kept = [weakref.ref(leaf) for leaf in leaves], copy
        return copy

    def release(self) -> None:
        """Gives up the copy that is kept, and with it its memory, once nobody decodes with it."""
        self._kept = None

    def of_leaves(self, leaves: Iterable[tuple[str, jax.Array]]) -> Params:
        """Returns the decode copy of parameters that come as (path, stacked leaf [L, ...]) in
        any order. Each leaf is released before the next one is requested.
        """
        copied: dict[tuple[str, ...], jax.Array] = {}
        for name, leaf in leaves:
            path = tuple(name.split("/"))
            result = jax.block_until_ready(self.copies[path](leaf))
            del leaf
            if path[:2] == STACK:
                copied |= {(f"layer_{i}", *path[2:]): part for i, part in enumerate(result)}
            else:
                copied[path] = result
        return unflatten_dict(copied)

    def compiled(self) -> int:
        """Returns the largest number of times that a leaf's copy was compiled."""
        return max(compiled_versions(copy) for copy in self.copies.values())


def is_decode_copy(params: Params) -> bool:
    """Whether these are a decode copy rather than the stacked parameters."""
    return "layer_0" in params


def _flat(tree: Params) -> dict[tuple[str, ...], jax.Array]:
    """Returns the leaves by path. Shardings are leaves too."""
    return {
        tuple(key.key for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _cast(leaf: jax.Array, dtype: jnp.dtype) -> jax.Array:
    return leaf.astype(dtype) if leaf.ndim > 1 else leaf


def _cast_layers(stack: jax.Array, dtype: jnp.dtype) -> tuple[jax.Array, ...]:
    return tuple(_cast(layer, dtype) for layer in stack)
