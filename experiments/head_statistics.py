"""How long do the statistics of a chunk's tokens take on a CPU, with logits that are read a few
tokens at a time and with logits that are read whole?

    python experiments/head_statistics.py                     # SmolLM2-135M's head, 512 tokens
    python experiments/head_statistics.py --vocab=2048 --width=128

Prints milliseconds of the product with the head alone and of both ways, medians of turns in one
process, and the largest difference of their results.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp

from cegppo_jax.losses import head_product
from cegppo_jax.losses.head_product import over_chunks
from cegppo_jax.losses.logprobs import statistics_of_logits


def timed(call: Callable[[], Any]) -> float:
    """Returns the milliseconds of one call."""
    began = time.perf_counter()
    jax.block_until_ready(call())
    return 1e3 * (time.perf_counter() - began)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, size in (("tokens", 512), ("width", 576), ("vocab", 49_152), ("turns", 7)):
        parser.add_argument(f"--{name}", type=int, default=size)
    options = parser.parse_args()
    keys = jax.random.split(jax.random.key(0), 3)
    states = jax.random.normal(keys[0], (1, 1, options.tokens, options.width))
    head = jax.random.normal(keys[1], (options.width, options.vocab)) * options.width**-0.5
    targets = jax.random.randint(keys[2], states.shape[:-1], 0, options.vocab)
    arrays = states, head, targets

    def forward(states: jax.Array, head: jax.Array, targets: jax.Array) -> Any:
        return over_chunks(statistics_of_logits, jnp.int32(1), head, states, targets)

    product = jax.jit(lambda states, head, targets: states[0, 0] @ head)
    ways = {"product alone": product.lower(*arrays).compile()}
    for name, cached in (
        ("a few tokens at a time", head_product.CACHED_PRODUCTS),
        ("whole", 2**40),
    ):
        with mock.patch.object(head_product, "CACHED_PRODUCTS", cached):
            jax.clear_caches()
            ways[name] = jax.jit(forward).lower(*arrays).compile()
    results = {name: way(*arrays) for name, way in ways.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.turns):
        for name, way in ways.items():
            times[name].append(timed(lambda way=way: way(*arrays)))
    for name, own in times.items():
        print(f"{name:24}{statistics.median(own):8.1f} ms ({min(own):.1f} to {max(own):.1f})")
    one, other = (jax.tree.leaves(results[name]) for name in list(ways)[1:])
    apart = max(float(jnp.max(jnp.abs(a - b))) for a, b in zip(one, other, strict=True))
    print(f"results differ by {apart} at most")


if __name__ == "__main__":
    main()
