"""The product of hidden states and the head, one chunk of tokens at a time, so that no
[tokens, V] array exists: statistics of the logits, and their gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from cegppo_jax.loops import bounded_loop
from cegppo_jax.sharding import batch_shards, constrain, gathered

# From products [R, c, V] float32 and targets [R, c] to a tree of float32 arrays [R, c].
Statistics = Callable[[jax.Array, jax.Array], Any]
Kept = tuple[jax.Array, jax.Array, jax.Array, jax.Array]
CACHED_PRODUCTS = 2**19  # products that a CPU's cache holds: 2 MiB


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def over_chunks(
    statistics: Statistics,
    used: jax.Array,
    head: jax.Array,
    states: jax.Array,
    targets: jax.Array,
) -> Any:
    """Returns statistics(states[i] @ head, targets[i]) of the first `used` of N chunks, stacked:
    a tree of [N, R, c]. Those of the other chunks are 0 and cost nothing.

    The loop has a backward pass of its own, which computes each chunk's products again: JAX has
    none for a loop whose length the data decide, and under a conditional XLA keeps a copy of the
    head for each chunk. The head's gradient is summed over tokens, chunks and devices in float32,
    over devices once.

    Args:
      used: int32. head: [D, V] float32; rounded to the states' dtype and gathered over fsdp once.
      states: [N, R, c, D]. targets: [N, R, c] int32.
    """
    whole_head = _whole(head, states)
    one = jax.eval_shape(statistics, _products(states[0], whole_head), targets[0])
    nothing = jax.tree.map(lambda leaf: jnp.zeros((len(states), *leaf.shape), leaf.dtype), one)

    def add_chunk(i: jax.Array, found: Any) -> Any:
        own = _in_cache(statistics, _products(states[i], whole_head), targets[i])
        return jax.tree.map(lambda stacked, values: stacked.at[i].set(values), found, own)

    return bounded_loop(used, len(states), add_chunk, nothing)


def _forward(
    statistics: Statistics,
    used: jax.Array,
    head: jax.Array,
    states: jax.Array,
    targets: jax.Array,
) -> tuple[Any, Kept]:
    return over_chunks(statistics, used, head, states, targets), (used, head, states, targets)


def _backward(
    statistics: Statistics, kept: Kept, cotangents: Any
) -> tuple[None, jax.Array, jax.Array, None]:
    used, head, states, targets = kept
    whole_head = _whole(head, states)
    shards = batch_shards(jax.sharding.get_abstract_mesh())

    def by_shard(values: jax.Array) -> jax.Array:
        """Values [R, c, X] -> [S, tokens of the shard, X]."""
        return values.reshape(shards, -1, values.shape[-1])

    def add_chunk(
        i: jax.Array, gradients: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        of_head, of_states = gradients
        products = _products(states[i], whole_head)
        _, pull_back = jax.vjp(lambda own: statistics(own, targets[i]), products)
        (of_products,) = pull_back(jax.tree.map(lambda leaf: leaf[i], cotangents))
        sums = jnp.einsum(
            "std,stv->sdv", by_shard(states[i]), by_shard(of_products),
            preferred_element_type=jnp.float32,
        )  # fmt: skip
        before = jnp.einsum(
            "rcv,dv->rcd", of_products, whole_head, preferred_element_type=jnp.float32
        )
        return (
            constrain(of_head + sums, "rows", None, "vocab"),
            of_states.at[i].set(before.astype(states.dtype)),
        )

    nothing = jnp.zeros((shards, *head.shape), jnp.float32)
    start = constrain(nothing, "rows", None, "vocab"), jnp.zeros_like(states)
    of_head, of_states = bounded_loop(used, len(states), add_chunk, start)
    return None, constrain(jnp.sum(of_head, axis=0), "width", "vocab"), of_states, None


over_chunks.defvjp(_forward, _backward)


def _in_cache(statistics: Statistics, products: jax.Array, targets: jax.Array) -> Any:
    """Returns statistics(products, targets), on CPU a few tokens of each row at a time: the
    statistics read all products several times, and the few stay in the processor's cache.
    """
    rows, tokens, vocab = products.shape
    if products.size <= 2 * CACHED_PRODUCTS:
        return statistics(products, targets)
    most = max(CACHED_PRODUCTS // (rows * vocab), 1)
    at_once = max(n for n in range(1, tokens + 1) if tokens % n == 0 and n <= most)
    part = partial(jax.lax.dynamic_slice_in_dim, slice_size=at_once, axis=1)

    def few(i: jax.Array, found: Any) -> Any:
        own = statistics(part(products, i * at_once), part(targets, i * at_once))
        put = partial(jax.lax.dynamic_update_slice_in_dim, start_index=i * at_once, axis=1)
        return jax.tree.map(put, found, own)

    def by_few() -> Any:
        shapes = jax.eval_shape(statistics, products, targets)
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return jax.lax.fori_loop(0, tokens // at_once, few, nothing)

    return jax.lax.platform_dependent(cpu=by_few, default=lambda: statistics(products, targets))


def _whole(head: jax.Array, states: jax.Array) -> jax.Array:
    """Returns the head [D, V] in the states' dtype, whole on every shard of fsdp."""
    return gathered(head.astype(states.dtype), "width", "vocab")


def _products(states: jax.Array, head: jax.Array) -> jax.Array:
    """Returns states [R, c, D] @ head [D, V] = [R, c, V] in float32."""
    products = jnp.einsum("rcd,dv->rcv", states, head, preferred_element_type=jnp.float32)
    return constrain(products, "rows", "length", "vocab")
