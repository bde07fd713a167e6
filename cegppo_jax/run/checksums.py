"""Checksums of arrays that do not depend on how they are laid out: those of a checkpoint.

A checksum is two sums, modulo 2^32, of the array's words times odd numbers that depend on their
places. A change of one word changes both, whatever the word; sums of whole numbers are exact, so
every mesh finds the same. Orbax (0.12) has none for values: a flipped bit is restored.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

WORDS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}  # by bytes of a number
MULTIPLIERS = (0x9E3779B1, 0x85EBCA77)  # odd, and their bits are spread


def tree_checksums(tree: Any) -> dict[str, list[int]]:
    """Tree of arrays -> two numbers for each leaf, by its path: "params/blocks/kernel"."""
    sums = jax.device_get(_leaf_checksums(jax.tree.leaves(tree)))
    paths = [path for path, _ in jax.tree.leaves_with_path(tree)]
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path in paths]
    return {name: [int(one) for one in pair] for name, pair in zip(names, sums, strict=True)}


@jax.jit
def _leaf_checksums(leaves: list[jax.Array]) -> list[tuple[jax.Array, ...]]:
    return [_checksum(jnp.atleast_1d(leaf)) for leaf in leaves]


def _checksum(array: jax.Array) -> tuple[jax.Array, ...]:
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    words = jax.lax.bitcast_convert_type(array, WORDS[array.dtype.itemsize]).astype(jnp.uint32)
    place, stride = jnp.zeros(array.shape, jnp.uint32), 1
    for axis in reversed(range(array.ndim)):
        along = jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis)
        place = place + along * jnp.uint32(stride % 2**32)
        stride *= array.shape[axis]
    sums = []
    for multiplier in MULTIPLIERS:
        mixed = (place + jnp.uint32(1)) * jnp.uint32(multiplier)
        odd = (mixed ^ (mixed >> jnp.uint32(15))) | jnp.uint32(1)
        sums.append(jnp.sum(words * odd, dtype=jnp.uint32))
    return tuple(sums)


def array_checksums(arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Arrays of the host by name -> the CRC-32 of each."""
    return {name: zlib.crc32(array.tobytes()) for name, array in arrays.items()}


def json_digest(value: Any) -> str:
    """Nested plain value -> 16 hexadecimal digits of its JSON."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def changed_since(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Returns the names in `found` whose checksum is not the expected one."""
    return [name for name, one in found.items() if expected.get(name) != one]
