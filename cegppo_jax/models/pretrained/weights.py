"""Converts between named Hugging Face tensors and stacked parameters; each piece goes straight to
its device.

Every parameter is one row of PLACES. A kernel is the transpose of a Hugging Face weight: here
[*inputs, *outputs], there [product of outputs, product of inputs].
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cegppo_jax.distributed import read
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.decoder import Params, abstract_params
from cegppo_jax.models.finite import not_finite
from cegppo_jax.models.pretrained.tensor_sources import TensorSource
from cegppo_jax.sharding import tree_shardings

BLOCK_BYTES = 64 * 2**20  # of a tensor that is read, converted and copied at once

OUTER = {  # path in the parameters -> name
    "embedding": "model.embed_tokens.weight",
    "head": "lm_head.weight",
    "final_norm/scale": "model.norm.weight",
}
INNER = {  # path in a layer's parameters -> name after "model.layers.<i>."
    "attention_norm/scale": "input_layernorm.weight",
    "attention/query/kernel": "self_attn.q_proj.weight",
    "attention/query/bias": "self_attn.q_proj.bias",
    "attention/query_norm/scale": "self_attn.q_norm.weight",
    "attention/key/kernel": "self_attn.k_proj.weight",
    "attention/key/bias": "self_attn.k_proj.bias",
    "attention/key_norm/scale": "self_attn.k_norm.weight",
    "attention/value/kernel": "self_attn.v_proj.weight",
    "attention/value/bias": "self_attn.v_proj.bias",
    "attention/out/kernel": "self_attn.o_proj.weight",
    "mlp_norm/scale": "post_attention_layernorm.weight",
    "mlp/gate/kernel": "mlp.gate_proj.weight",
    "mlp/up/kernel": "mlp.up_proj.weight",
    "mlp/down/kernel": "mlp.down_proj.weight",
}
# How many of a kernel's axes are inputs; every other kernel has one.
INPUT_AXES = {"attention/out/kernel": 2}
STACK = "layers/block/"  # where the stacked tree keeps its layers


def input_axes(path: str) -> int | None:
    """Returns how many leading axes of the leaf at `path` are inputs; None: not transposed."""
    if path == "head":
        return 1
    return INPUT_AXES.get(path, 1) if path.endswith("kernel") else None


def source_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape of the Hugging Face tensor of a leaf with `shape`, which leaves out the
    layers' axis.
    """
    split = input_axes(path)
    if split is not None:
        return math.prod(shape[split:]), math.prod(shape[:split])
    return shape if path == "embedding" else (math.prod(shape),)


def leaves(model: ModelConfig) -> dict[str, tuple[tuple[int, ...], PartitionSpec]]:
    """Returns shape and logical axes of each leaf of the stacked tree, by path."""
    shapes, specs = abstract_params(model, unrolled=False)
    flat_specs = jax.tree.leaves(specs, is_leaf=lambda leaf: isinstance(leaf, PartitionSpec))
    return {
        "/".join(key.key for key in path): (leaf.shape, spec)
        for (path, leaf), spec in zip(
            jax.tree_util.tree_leaves_with_path(shapes), flat_specs, strict=True
        )
    }


def tensor_names(model: ModelConfig) -> dict[str, tuple[str, int | None, tuple[int, ...]]]:
    """Returns path, layer and Hugging Face shape of every tensor, by its Hugging Face name."""
    names: dict[str, tuple[str, int | None, tuple[int, ...]]] = {}
    for path, (shape, _) in leaves(model).items():
        if path.startswith(STACK):
            own = path.removeprefix(STACK)
            for layer in range(model.layers):
                name = f"model.layers.{layer}.{INNER[own]}"
                names[name] = own, layer, source_shape(own, shape[1:])
        else:
            names[OUTER[path]] = path, None, source_shape(path, shape)
    return names


def check_complete(source: TensorSource, model: ModelConfig, place: str) -> None:
    """Checks that every tensor has a place, that every place has a tensor, and that shapes agree.

    A head next to tied embeddings is ignored if it repeats them.

    Raises:
      ValueError: with the tensors without a place, the places without a tensor, or both shapes.
    """
    expected, found = tensor_names(model), dict(source.shapes)
    head, table = OUTER["head"], OUTER["embedding"]
    if model.tied_embeddings and found.get(head) == found.get(table) == expected[table][2]:
        if not _equal(source, head, table):
            raise ValueError(
                f"{place}: tie_word_embeddings is true, but {head!r} is not {table!r}: which one "
                "is meant? Set it to false in config.json to use both"
            )
        del found[head]
    for wrong, words in (
        (sorted(expected.keys() - found.keys()), "lacks tensors that the model needs"),
        (sorted(found.keys() - expected.keys()), "has tensors that the model does not know"),
    ):
        if wrong:
            raise ValueError(f"{place} {words}: {wrong[:5]} ({len(wrong)} in all)")
    for name, (_, _, shape) in expected.items():
        if found[name] != shape:
            raise ValueError(
                f"{place}: tensor {name!r} has shape {found[name]}, and config.json asks for "
                f"{shape}"
            )


def _equal(source: TensorSource, one: str, other: str) -> bool:
    whole = slice(None)
    return all(
        np.array_equal(
            source.read(one, rows, whole), source.read(other, rows, whole), equal_nan=True
        )
        for rows in _blocks(slice(0, source.shapes[one][0]), source.shapes[one][1])
    )


def load_params(source: TensorSource, model: ModelConfig, mesh: Mesh) -> Params:
    """Loads stacked float32 parameters, layers as [L, ...], in their layout on the mesh:
    load_leaves as a tree.
    """
    return as_tree(load_leaves(source, model, mesh), model)


def as_tree(leaves_in_order: Iterable[tuple[str, jax.Array]], model: ModelConfig) -> Params:
    """Builds the tree of stacked parameters from what load_leaves yields."""
    shapes, _ = abstract_params(model, unrolled=False)
    loaded = [leaf for _, leaf in leaves_in_order]
    return jax.tree.unflatten(jax.tree.structure(shapes), loaded)


def load_leaves(
    source: TensorSource, model: ModelConfig, mesh: Mesh
) -> Iterator[tuple[str, jax.Array]]:
    """Yields (path, stacked float32 leaf in its layout on the mesh), in the tree's order; leaves of
    layers are [L, ...].

    It reads one tensor and one layer at a time, and gives each device only its part. Apart from
    what stays on its devices, the host holds the float32 part of one tensor and a block of
    BLOCK_BYTES. Check the source first (check_complete).

    Raises:
      NonFiniteError: a tensor has numbers that are NaN or infinite in float32.
    """
    _, specs = abstract_params(model.on(mesh), unrolled=False)
    layouts = tree_shardings(mesh, specs)
    flat_layouts = jax.tree.leaves(layouts, is_leaf=lambda leaf: isinstance(leaf, NamedSharding))
    for (path, (shape, _)), layout in zip(leaves(model).items(), flat_layouts, strict=True):
        if path.startswith(STACK):
            yield path, _load_stack(source, path.removeprefix(STACK), shape, layout)
        else:
            # A copy: the leaf may be the host's own memory, which an update must not be given.
            copy = jax.jit(jnp.copy, out_shardings=layout)
            yield path, copy(_load_leaf(source, OUTER[path], path, shape, layout))


def _load_stack(
    source: TensorSource, path: str, shape: tuple[int, ...], layout: NamedSharding
) -> jax.Array:
    """Returns a leaf [L, ...], written layer after layer in place."""
    of_layer = NamedSharding(layout.mesh, PartitionSpec(*layout.spec[1:]))
    write = jax.jit(
        lambda stack, piece, layer: jax.lax.dynamic_update_index_in_dim(stack, piece, layer, 0),
        donate_argnums=0,
        out_shardings=layout,
    )
    stack = jax.jit(partial(jnp.zeros, shape, jnp.float32), out_shardings=layout)()
    for layer in range(shape[0]):
        name = f"model.layers.{layer}.{INNER[path]}"
        piece = _load_leaf(source, name, path, shape[1:], of_layer)
        stack = jax.block_until_ready(write(stack, piece, layer))
    return stack


def _load_leaf(
    source: TensorSource, name: str, path: str, shape: tuple[int, ...], layout: NamedSharding
) -> jax.Array:
    """Returns one tensor's leaf. Each device's part is read separately, equal parts once."""
    wrong = 0

    @cache
    def part(bounds: tuple[tuple[int, int], ...]) -> np.ndarray:
        nonlocal wrong
        with np.errstate(over="ignore"):  # a float64 beyond float32: counted as well
            values = read_part(source, name, path, shape, tuple(slice(*pair) for pair in bounds))
        wrong += values.size - int(np.count_nonzero(np.isfinite(values)))
        return values

    def callback(index: tuple[slice, ...] | None) -> np.ndarray:
        whole = index or (slice(None),) * len(shape)
        pairs = zip(whole, shape, strict=True)
        return part(tuple(one.indices(size)[:2] for one, size in pairs))

    leaf = jax.make_array_from_callback(shape, layout, callback)
    if wrong:
        raise not_finite(source.place, name, wrong, math.prod(shape))
    return leaf


def read_part(
    source: TensorSource, name: str, path: str, shape: tuple[int, ...], index: tuple[slice, ...]
) -> np.ndarray:
    """Reads a part of a leaf [*shape], given by `index`, as float32."""
    split = input_axes(path)
    part_shape = tuple(one.stop - one.start for one in index)
    if len(source.shapes[name]) == 1:
        rows = _flat(index, shape)
        return np.asarray(source.read(name, rows, slice(None)), np.float32).reshape(part_shape)
    rows, columns = (
        (index[0], index[1])
        if split is None
        else (
            _flat(index[split:], shape[split:]),
            _flat(index[:split], shape[:split]),
        )
    )
    width = columns.stop - columns.start
    out_shape = (rows.stop - rows.start, width)
    out = np.empty(out_shape if split is None else out_shape[::-1], np.float32)
    for block in _blocks(rows, width):
        values = source.read(name, block, columns)
        own = slice(block.start - rows.start, block.stop - rows.start)
        if split is None:
            out[own] = values
        else:
            out[:, own] = values.T
    return out.reshape(part_shape)


def _flat(index: tuple[slice, ...], shape: tuple[int, ...]) -> slice:
    """Returns the slice of several axes taken as one, from slices of each that are whole except the
    first.

    Worked example: heads 2 to 4 of 8 with 64 numbers each are rows 128 to 256.
    """
    assert all((i.start, i.stop) == (0, n) for i, n in zip(index[1:], shape[1:], strict=True))
    width = math.prod(shape[1:])
    return slice(index[0].start * width, index[0].stop * width)


def _blocks(rows: slice, width: int) -> Iterator[slice]:
    """Splits rows of `width` numbers into blocks of at most BLOCK_BYTES as float32."""
    step = max(BLOCK_BYTES // (4 * width), 1)
    for start in range(rows.start, rows.stop, step):
        yield slice(start, min(start + step, rows.stop))


def export_tensors(
    params: Params, model: ModelConfig, dtype: Any
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (Hugging Face name, tensor) of stacked parameters one by one, each fetched separately.

    Raises:
      ValueError: a tensor has numbers that are not finite, or too large for the dtype.
    """
    flat = {
        "/".join(key.key for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    for name, (path, layer, shape) in tensor_names(model).items():
        leaf = flat[path] if layer is None else flat[STACK + path][layer]
        split = input_axes(path)
        values = read(leaf)
        if split is not None:
            values = values.reshape(math.prod(values.shape[:split]), -1).T
        with np.errstate(over="ignore"):  # counted below
            rounded = values.reshape(shape).astype(dtype)
        if wrong := rounded.size - int(np.count_nonzero(np.isfinite(rounded))):
            if not np.isfinite(values).all():
                raise not_finite("the run", name, wrong, rounded.size)
            raise ValueError(
                f"tensor {name!r} has {wrong:,} of {rounded.size:,} numbers too large for "
                f"{jnp.dtype(dtype).name} (the largest is {np.abs(values).max():.3g}): choose "
                "another --dtype"
            )
        yield name, np.ascontiguousarray(rounded)
