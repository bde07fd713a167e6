"""The machine's limits, measured: how fast matrix products of the works' shapes run, and copies.

    python -m experiments.benchmark.machine '{"thin": 64, "wide": 1536, "width": 576,
        "mlp_width": 1536, "vocab_size": 49152, "dtype": "float32"}'

Rows of a product are slots in decoding ("thin") and tokens of a micro-batch in training ("wide").
Each rate is the best of the turns, since other work can only take time away.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

TURNS = 5
SECONDS = 0.3  # of a turn, at least
COPIED = {"cpu": 2**28}  # bytes; elsewhere 2**30


def fastest(call: Callable[[], jax.Array]) -> float:
    """Returns the seconds of one call, in turns that are long enough to be timed."""
    jax.block_until_ready(call())
    calls, best = 1, float("inf")
    for _ in range(TURNS):
        while True:
            began = time.perf_counter()
            for _ in range(calls):
                result = call()
            jax.block_until_ready(result)
            taken = time.perf_counter() - began
            if taken >= SECONDS:
                break
            calls *= 2
        best = min(best, taken / calls)
    return best


def product_gflops(rows: int, inner: int, columns: int, dtype: str) -> float:
    """Returns GFLOP/s of [rows, inner] x [inner, columns]."""
    keys = jax.random.split(jax.random.key(0))
    left = jax.random.normal(keys[0], (rows, inner), dtype)
    right = jax.random.normal(keys[1], (inner, columns), dtype)
    product = jax.jit(jnp.matmul)
    seconds = fastest(lambda: product(left, right))
    return 2 * rows * inner * columns / seconds / 1e9


def copy_gbytes(size: int) -> float:
    """Returns GB/s that are read and written, both counted, on one device. The array is changed in
    place: new memory is slower on a CPU.
    """
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    array = jnp.ones(size // 4, jnp.float32)

    def change() -> jax.Array:
        nonlocal array
        array = add(array)
        return array

    return 2 * size / fastest(change) / 1e9


def limits(products: dict[str, Any]) -> dict[str, Any]:
    """Returns the rates for the products of a work (measure.py: counted)."""
    width, dtype = products["width"], products["dtype"]
    rates: dict[str, Any] = {}
    for kind in ("thin", "wide"):
        rates[kind] = {
            f"{products[kind]}x{width}x{columns}": product_gflops(
                products[kind], width, columns, dtype
            )
            for columns in sorted({products["mlp_width"], products["vocab_size"]})
        }
    one = jax.devices()[0]
    return {
        "machine": one.device_kind,
        "dtype": dtype,
        "devices": jax.device_count(),
        "products_gflops": rates,
        "copy_gbytes_per_second": copy_gbytes(COPIED.get(one.platform, 2**30)),
    }


if __name__ == "__main__":
    print(json.dumps(limits(json.loads(sys.argv[1]))), flush=True)
