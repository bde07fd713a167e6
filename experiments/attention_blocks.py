"""How long are blocks of attention best? (models/attention/in_blocks.py)

    python experiments/attention_blocks.py --completion_tokens=128      # on this machine
    pip install -e ".[tpu]"
    python experiments/attention_blocks.py --topology=v5p:2x2x1 --row_tokens=20480     # compiled
    python experiments/attention_blocks.py --topology=v5p:2x2x1 --kernels               # splash

Here: milliseconds of the gradient in queries, keys and values of a row with a prompt of 64 tokens
and 8 completions, 9 heads of 64 on 3 of keys; medians of 9 turns. For a TPU: what the compiler
estimates for one chip and one row that is a single segment, the worst case, 12 heads of 128 on 2.
For splash kernels, which have no estimates: the instructions of the compiler's final schedule that
a step of their grid takes on a core, with a block that is computed and with one that is skipped.
"""

import argparse
import os
import re
import tempfile
import time
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

from cegppo_jax.models.attention import splash
from cegppo_jax.models.attention.in_blocks import attend_in_blocks
from cegppo_jax.models.attention.mask import SegmentMask
from cegppo_jax.planning.chips import open_topology
from cegppo_jax.planning.kernels import PRODUCTS
from cegppo_jax.planning.traffic import read_traffic

BLOCKS = (32, 64, 128, 256, 512, 1024)
PROMPT, SAMPLES = 64, 8


def gradient(block: int):
    """Returns the jitted gradient of attention with blocks of this length."""

    def loss(query, keys, values, ids, prompts):
        mixed = attend_in_blocks(query, keys, values, SegmentMask(ids, prompts), block=block)
        return jnp.sin(mixed.astype(jnp.float32)).sum()

    return jax.jit(jax.grad(loss, argnums=(0, 1, 2)))


def measure(completion_tokens: int) -> None:
    """Prints medians of turns on this machine."""
    lengths = [PROMPT, *[completion_tokens] * SAMPLES]
    ids = np.repeat(np.arange(1, SAMPLES + 2), lengths)[None].astype(np.int32)
    length, random = ids.size, np.random.default_rng(0)
    query = random.normal(size=(1, length, 9, 64)).astype(np.float32)
    keys, values = random.normal(size=(2, 1, 3, length, 64)).astype(np.float32)
    arguments = query, keys, values, ids, np.ones_like(ids)
    found = {block: (gradient(block), []) for block in BLOCKS}
    for turn in range(10):
        for jitted, seconds in found.values():
            began = time.perf_counter()
            jax.block_until_ready(jitted(*arguments))
            if turn:  # the first compiles
                seconds.append(time.perf_counter() - began)
    for block, (_, seconds) in found.items():
        print(f"row of {length:,}, blocks of {block:,}: {np.median(seconds) * 1e3:.0f} ms")


def estimate(name: str, length: int) -> None:
    """Prints what a TPU's compiler makes of it."""
    topology = open_topology(name)
    on_chip = SingleDeviceSharding(topology.devices[0])

    def shape(sizes, dtype):
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=on_chip)

    keys, ids = shape((1, 2, length, 128), jnp.bfloat16), shape((1, length), jnp.int32)
    query = shape((1, length, 12, 128), jnp.bfloat16)
    for block in BLOCKS:
        compiled = gradient(block).lower(query, keys, keys, ids, ids).compile()
        blocks = -(-length // block)
        traffic = read_traffic(compiled.as_text()).of(blocks * (blocks + 1) // 2)
        by_cycles = traffic.cycles / topology.chip.clock_ghz / 1e6
        temporary = compiled.memory_analysis().temp_size_in_bytes / 1e9
        print(
            f"row of {length:,}, blocks of {block:,}: {by_cycles:.1f} ms by the compiler's cycles, "
            f"{traffic.hbm_bytes / 1e9:.1f} GB moved, {temporary:.2f} GB temporary",
            flush=True,
        )


ADDRESS = re.compile(r"\s*(?:0x)?([0-9a-f]+)\s.*?:")


def steps_of(schedule: Path) -> tuple[int, int]:
    """Returns the instructions of a step of a kernel's grid with a computed and a skipped block.

    The loop over the grid has three regions that are jumped over: the start of a sum, the block's
    products, the end of a sum.
    """
    lines = [(int(found[1], 16), one) for one in schedule.read_text().splitlines()
             if (found := ADDRESS.match(one))]  # fmt: skip
    start = max(place for place, one in lines if " LB:" in one[:16])
    end = [place for place, one in lines if "sbr.rel (!" in one][-1]
    jumps = []
    for place, one in lines:
        target = re.search(r"sbr\.rel \(%\S+\) target = \$region(\d+)", one)
        if target and place > start:
            named = re.compile(rf"region {target[1]}\b")
            lands = min(to for to, other in lines if to > place and named.search(other))
            jumps.append((lands - place, place, lands))
    inner = [one for one in jumps if not any(one[1] < o[1] and o[2] <= one[2] for o in jumps)]
    first, products, last = sorted(sorted(inner)[-3:], key=lambda one: one[1])
    without = end - start - first[0] - last[0]
    return without, without - products[0]


def estimate_kernels(name: str, length: int) -> None:
    """Prints the schedules of splash kernels by length of their blocks."""
    folder = Path(tempfile.mkdtemp())
    os.environ["LIBTPU_INIT_ARGS"] = f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true"
    topology = open_topology(name)
    on_chip = SingleDeviceSharding(topology.devices[0])
    peak = topology.chip.flops_speed / topology.chip.cores / topology.chip.clock_ghz / 1e9
    keys = jax.ShapeDtypeStruct((1, 2, length, 128), jnp.bfloat16, sharding=on_chip)
    query = jax.ShapeDtypeStruct((1, length, 12, 128), jnp.bfloat16, sharding=on_chip)
    ids = jax.ShapeDtypeStruct((1, length), jnp.int32, sharding=on_chip)

    def loss(query, keys, values, ids):
        return splash.splash_rows(query, keys, values, SegmentMask(ids), interpret=False).sum()

    for block in (512, 1024):
        splash.BLOCKS = (block,)
        seen = {*folder.iterdir()}
        jitted = jax.jit(jax.grad(lambda *given: loss(*given), argnums=(0, 1, 2)))
        jitted.lower(query, keys, keys, ids).compile()
        for kind, products in PRODUCTS.items():
            [schedule] = [
                one
                for one in {*folder.glob(f"*splash_mha_{kind}*-final_bundles.txt")} - seen
                if "schedule" not in one.name
            ]
            computed, skipped = steps_of(schedule)
            least = 2 * products * block * block * 128 / peak
            print(
                f"{kind}, blocks of {block:,}: {computed:,} a computed block, its products at peak "
                f"{least:,.0f} ({least / computed:.0%}); {skipped:,} a skipped block",
                flush=True,
            )


def main() -> None:
    """Reads the flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--completion_tokens", type=int, default=128)
    parser.add_argument("--topology", help="as v5p:2x2x1; without: measured on this machine")
    parser.add_argument("--row_tokens", type=int, default=20480, help="with --topology")
    parser.add_argument("--kernels", action="store_true", help="with --topology: of splash")
    options = parser.parse_args()
    if options.kernels:
        estimate_kernels(options.topology, options.row_tokens)
    elif options.topology:
        estimate(options.topology, options.row_tokens)
    else:
        measure(options.completion_tokens)


if __name__ == "__main__":
    main()
