"""Counts how often a jitted function was compiled, to detect recompilation."""

from __future__ import annotations

from typing import Any


def compiled_versions(function: Any) -> int:
    """Returns the number of compiled versions that a jitted function holds. jax has no public name
    for it.

    jit shares its cache between wrappers of one function object: wrap a functools.partial to count
    one wrapper's own.
    """
    return function._cache_size()
