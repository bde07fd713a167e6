"""Compiled programs: kept on disk between starts, and counted to detect recompilation."""

from __future__ import annotations

import os
from typing import Any

import jax

from cegppo_jax.storage.paths import users_cache

FOLDER_VARIABLE = "JAX_COMPILATION_CACHE_DIR"
LEAST_SECONDS_VARIABLE = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
# Quicker ones are compiled anew. jax's own limit, 1 s, leaves out most programs of a small model.
LEAST_SECONDS = 0.1


def keep_compiled_programs() -> str:
    """Lets jax keep what it compiles in the user's cache folder, unless the environment names
    another one (JAX_COMPILATION_CACHE_DIR) or turns this off (JAX_ENABLE_COMPILATION_CACHE=false).
    Returns the line that says so.

    jax names a program by a digest of all that it depends on, so a later start takes a program from
    there only if it would compile the same.
    """
    settings: Any = jax.config  # whose names are not in its type
    if not settings.jax_enable_compilation_cache:
        return "compiled programs are not kept (JAX_ENABLE_COMPILATION_CACHE)"
    if LEAST_SECONDS_VARIABLE not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)
    if FOLDER_VARIABLE in os.environ:
        return f"compiled programs are kept in {os.environ[FOLDER_VARIABLE] or 'no folder'}"
    folder = users_cache() / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"compiled programs are not kept: {error}; {FOLDER_VARIABLE} names another folder"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return f"compiled programs are kept in {folder}"


def compiled_versions(function: Any) -> int:
    """Returns the number of compiled versions that a jitted function holds. jax has no public name
    for it.

    jit shares its cache between wrappers of one function object: wrap a functools.partial to count
    one wrapper's own.
    """
    return function._cache_size()
