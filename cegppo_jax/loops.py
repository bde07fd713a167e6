"""Loops whose length the data decide."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

T = TypeVar("T")


def bounded_loop(times: jax.Array, at_most: int, body: Callable[[jax.Array, T], T], start: T) -> T:
    """Returns start after `carry = body(i, carry)` for i in range(min(times, at_most)).

    The bound stands in the compiled program, where `cegppo plan` reads it.
    """

    def goes_on(state: tuple[jax.Array, T]) -> jax.Array:
        return (state[0] < at_most) & (state[0] < times)

    def once(state: tuple[jax.Array, T]) -> tuple[jax.Array, T]:
        return state[0] + 1, body(*state)

    return jax.lax.while_loop(goes_on, once, (jnp.int32(0), start))[1]
