"""What does a TPU's compiler make of decoding? Memory, copies, loops and collectives by layout.

    pip install -e ".[tpu]"     # the compiler, libtpu; no TPU is needed
    python experiments/tpu_decode.py --layers=2 --share=0.4
    python experiments/tpu_decode.py --layers=2 --cache=contiguous

Compiles admission and a chunk of decode steps with a recipe's real shapes. Prints a Markdown table;
"a step" and "an admission" are one pass of their loops: over the steps of a chunk, over the pages
of prompts that are copied.
"""

import argparse
import dataclasses
import importlib
import os
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np

from cegppo_jax.models.decoder import abstract_params
from cegppo_jax.planning.chips import open_topology
from cegppo_jax.planning.hlo import parse_module
from cegppo_jax.planning.lengths import plan_lengths, rollout_work
from cegppo_jax.planning.recipe_plan import END, planned_model
from cegppo_jax.planning.traffic import read_traffic
from cegppo_jax.run.settings import read_settings
from cegppo_jax.sampling.programs import SamplerPrograms
from cegppo_jax.sampling.settings import CACHES, chosen
from cegppo_jax.sampling.slots import Admissions
from cegppo_jax.sharding import make_mesh

HEAD = (
    "| program | arguments | temporary | peak | while loops | copies of 1 MB or more "
    "| collectives a pass | model ms a pass, without kernels | compiled in |"
)


def settings_of(options: argparse.Namespace):
    """Returns the recipe's settings with those of the command line."""
    config = importlib.import_module(f"configs.{options.recipe}").get_config()
    config.sampler.cache = options.cache
    config.sampler.cache_read_ladder = ()
    config.sampler.slot_ladder = ()
    config.mesh.tensor = options.tensor
    whole = config.sampler.slots * -(
        -(config.sampler.max_prompt_tokens + config.sampler.max_completion_tokens)
        // config.sampler.page_tokens
    )
    config.sampler.pages = int(options.share * whole) // 64 * 64
    return read_settings(config)


def programs_of(settings, model, mesh):
    """Yields the name, jitted function and arguments of admission and of a chunk."""
    sampler = SamplerPrograms(mesh, model, settings.sampler, END)
    sizes = sampler.settings
    shapes, _ = abstract_params(model, unrolled=True)
    dtype = jnp.dtype(sizes.dtype)
    copy = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(
            leaf.shape, dtype if leaf.ndim > 1 else leaf.dtype, sharding=sharding
        ),
        shapes,
        sampler.decode_copy.layout,
    )
    state = jax.eval_shape(sampler.new_state)
    prompts = jax.ShapeDtypeStruct((sizes.prefill_prompts, sizes.max_prompt_tokens), np.int32)
    prefix = sampler.prefill.eval_shape(copy, prompts)
    column = jax.ShapeDtypeStruct((sizes.slots,), np.int32)
    admissions = Admissions(*(column,) * len(dataclasses.fields(Admissions)))
    key = jax.eval_shape(lambda: jax.random.key(0))
    few = jax.ShapeDtypeStruct((), np.int32)
    copies, table = sampler.paged_shapes()
    chunk = (copy, state, few, settings.sampling, sizes.cache_tokens, *table)
    yield "admit", sampler.admit, (state, prefix, admissions, key, *copies)
    yield "decode", sampler.decode, chunk


def step_words(compiled, settings, model, devices: int, speed: float, asked: str) -> str:
    """Returns what a step moves on average in a rollout of some lengths, beside what it must read:
    its weights once, and the keys and values of what is live. settings: without "auto"s.
    """
    lengths = plan_lengths(asked, None, settings)
    work = rollout_work(lengths, settings.batch.samples_per_prompt, settings.sampler)
    steps, item = sum(work.steps.values()), 2  # bfloat16
    place = 2 * model.layers * model.kv_heads * model.head_size * item / devices
    shapes, _ = abstract_params(model, unrolled=True)
    weights = item * sum(leaf.size for leaf in jax.tree.leaves(shapes))
    weights = (weights - item * model.vocab_size * model.width) / settings.mesh.tensor
    live, fetched = work.live * place / steps, work.fetched * place / steps
    moved = read_traffic(compiled.as_text()).a_pass.hbm_bytes
    moved += fetched if settings.sampler.reads_pages else 0
    milliseconds = 1e3 * moved / speed
    return (
        f"{lengths.words}: a step moves {moved / 1e9:.2f} GB, {moved / (weights + live):.2f} times "
        f"its weights ({weights / 1e9:.2f} GB) and live keys and values ({live / 1e9:.2f} GB): "
        f"{milliseconds:.1f} ms, {(weights + live) / moved:.0%} of the roofline"
    )


def row_of(name: str, compiled, clock: float, seconds: float) -> str:
    """Returns a program's line of the table."""
    text = compiled.as_text()
    memory, a_pass = compiled.memory_analysis(), read_traffic(text).a_pass
    outside = read_traffic(text).outside
    copies = [
        one
        for lines in parse_module(text).computations.values()
        for one in lines
        if one.opcode in ("copy", "copy-start")
        and one.shapes[0].in_hbm  # and not to the chip's own memory, ahead of its use
        and one.shapes[0].size >= 1e6
    ]
    kinds = [
        f"{part.collectives[kind]:,.0f} {kind} {part.moved[kind] / 1e9:.3f} GB {when}"
        for part, when in ((outside, "before"), (a_pass, "in the loop"))
        for kind in sorted(part.collectives)
    ]
    cells = (
        name,
        f"{memory.argument_size_in_bytes / 1e9:.2f} GB",
        f"{memory.temp_size_in_bytes / 1e9:.2f} GB",
        f"{memory.peak_memory_in_bytes / 1e9:.2f} GB",
        f"{text.count(' while(')}",
        f"{len(copies)}",
        ", ".join(kinds) or "none",
        f"{a_pass.cycles / clock / 1e6:.2f}",
        f"{seconds:.0f} s",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="r1_distill_qwen_1p5b")
    parser.add_argument("--topology", default="v5p:2x2x1")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--tensor", type=int, default=1, help="mesh.tensor; the rest is fsdp")
    parser.add_argument("--cache", default="paged", choices=CACHES)
    parser.add_argument("--share", type=float, default=0.4, help="pages, of all slots'")
    parser.add_argument("--lengths", default="lognormal:6000:0.6", help="of completions")
    parser.add_argument("--text", help="folder for the compiled programs' texts")
    options = parser.parse_args()
    settings = settings_of(options)
    topology = open_topology(options.topology)
    mesh = make_mesh(settings.mesh, topology.devices)
    model = dataclasses.replace(planned_model(settings).shape.on(mesh), layers=options.layers)
    print(HEAD, "|---" * (HEAD.count(" |")) + "|", sep="\n", flush=True)
    with jax.set_mesh(mesh):
        for name, jitted, arguments in programs_of(settings, model, mesh):
            began = time.process_time()
            compiled = jitted.lower(*arguments).compile()
            seconds = time.process_time() - began
            print(row_of(name, compiled, topology.chip.clock_ghz, seconds), flush=True)
            if name == "decode":
                sampler = chosen(mesh, settings.sampler, model.head_size)
                known = dataclasses.replace(settings, sampler=sampler)
                about = known, model, len(topology.devices), topology.chip.hbm_speed
                print(step_words(compiled, *about, options.lengths), flush=True)
            if options.text:
                with open(os.path.join(options.text, f"{name}.txt"), "w") as out:
                    out.write(compiled.as_text())


if __name__ == "__main__":
    main()
