"""What does a TPU's compiler make of the update? Its collectives, loops, copies, memory and cycles.

    pip install -e ".[tpu]"     # the compiler, libtpu; no TPU is needed
    python experiments/tpu_compiled.py --recipe=r1_distill_qwen_1p5b --topology=v5p:2x2x1

Compiles the gradient of an MLP and of the head's statistics with a recipe's real widths, and with
--whole old log-probs and update with --layers layers; rows are of --row_tokens tokens. The parts
take seconds, the whole takes minutes to an hour. Prints a Markdown table, and with --collectives a
list of every collective: how often it runs, what it moves and in which dtype.
"""

import argparse
import collections
import dataclasses
import importlib
import os
import re
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import flax.linen as nn
import jax
import jax.numpy as jnp

from cegppo_jax.losses.logprobs import token_statistics
from cegppo_jax.models.attention.choose import ATTENTION_SETTINGS
from cegppo_jax.models.decoder import REMATERIALISED
from cegppo_jax.models.layers import MLP
from cegppo_jax.planning import flops
from cegppo_jax.planning.chips import Chip, open_topology
from cegppo_jax.planning.estimate import phase_time
from cegppo_jax.planning.hlo import parse_module
from cegppo_jax.planning.kernels import kernel_seconds
from cegppo_jax.planning.programs import LOGPROBS, UPDATE, plan_programs
from cegppo_jax.planning.recipe_plan import END, planned_model
from cegppo_jax.planning.traffic import MOVED, group_size, read_traffic
from cegppo_jax.run.settings import read_settings
from cegppo_jax.sharding import make_mesh, named_sharding, tree_shardings

HEAD = (
    "| program | while loops | copies | collectives a pass | moved | temporary | model ms "
    "| processor |"
)


def settings_of(options: argparse.Namespace):
    """Returns the recipe's settings with the sizes of the command line."""
    config = importlib.import_module(f"configs.{options.recipe}").get_config()
    config.batch.row_tokens = options.row_tokens
    config.batch.rows_per_microbatch = options.rows
    config.sampler.max_prompt_tokens = options.row_tokens // 4
    config.sampler.max_completion_tokens = options.row_tokens - options.row_tokens // 4
    config.sampler.cache_read_ladder = ()
    config.trainer.logprob_chunk_tokens = options.chunk
    config.mesh.tensor = options.tensor
    config.trainer.attention = options.attention
    config.trainer.rematerialise = options.rematerialise
    return read_settings(config)


def mlp_gradient(model, mesh, rows: int, length: int):
    """Returns the jitted gradient of an MLP in its weights and input, and their shapes."""
    module = MLP(model, jnp.bfloat16)
    by_rows = named_sharding(mesh, "rows", "length", None)
    x = jax.ShapeDtypeStruct((rows, length, model.width), jnp.bfloat16, sharding=by_rows)
    boxed = jax.eval_shape(lambda x: module.init(jax.random.key(0), x), x)
    layout = tree_shardings(mesh, nn.get_partition_spec(boxed))

    def loss(weights, x):
        return jnp.sum(module.apply(weights, x).astype(jnp.float32) ** 2)

    gradient = jax.grad(loss, argnums=(0, 1))
    jitted = jax.jit(gradient, in_shardings=(layout, by_rows), out_shardings=(layout, by_rows))
    return jitted, (nn.meta.unbox(boxed), x)


def head_gradient(model, mesh, rows: int, length: int, chunk: int):
    """Returns the jitted gradient of the log-probabilities in head and states, and their shapes."""
    by_rows = named_sharding(mesh, "rows", "length", None)
    split = named_sharding(mesh, "width", "vocab")
    states = jax.ShapeDtypeStruct((rows, length, model.width), jnp.bfloat16, sharding=by_rows)
    head = jax.ShapeDtypeStruct((model.width, model.vocab_size), jnp.float32, sharding=split)
    tokens = jax.ShapeDtypeStruct(
        (rows, length), jnp.int32, sharding=named_sharding(mesh, "rows", "length")
    )

    def loss(head, states, tokens):
        found = token_statistics(
            states,
            head,
            tokens,
            temperature=1.0,
            chunk_tokens=chunk,
            differentiate_entropy=False,
        )
        return found.logprobs.sum() + found.entropy.sum()

    gradient = jax.grad(loss, argnums=(0, 1))
    return jax.jit(gradient, out_shardings=(split, by_rows)), (head, states, tokens)


def compiled_programs(options: argparse.Namespace, settings, model, mesh):
    """Compiles one program after the other: name, compiled, processor seconds."""
    rows, length = options.rows, options.row_tokens
    if options.whole:
        planned = plan_programs(settings, model, mesh, END).programs
        programs = [
            (one.name, one.jitted, one.arguments)
            for one in planned
            if one.name in ((UPDATE,) if options.update else (LOGPROBS, UPDATE))
        ]
    else:
        programs = [
            ("MLP, gradient", *mlp_gradient(model, mesh, rows, length)),
            ("head, gradient", *head_gradient(model, mesh, rows, length, options.chunk)),
        ]
    for name, jitted, arguments in programs:
        began = time.process_time()
        with jax.set_mesh(mesh):
            lowered = jitted.lower(*arguments)
        yield name, lowered.compile(), time.process_time() - began


def runs(module, name: str, times: float, found: dict[str, float]) -> dict[str, float]:
    """Adds how often each instruction of a computation runs, one pass of loops of traced length."""
    for one in module.computations[name]:
        found[one.name] = found.get(one.name, 0) + times
        passes = (module.trips(one) or 1) if one.opcode == "while" else 1
        for call in one.calls:
            runs(module, call, times * passes, found)
    return found


def counted(text: str, opcodes: set[str]) -> float:
    """Returns how often instructions of these kinds run."""
    module = parse_module(text)
    often = runs(module, module.entry, 1, {})
    every = (one for lines in module.computations.values() for one in lines)
    return sum(often.get(one.name, 0) for one in every if one.opcode in opcodes)


def collectives_of(text: str) -> list[str]:
    """Returns a line for each kind of collective and shape of its operands."""
    module = parse_module(text)
    often = runs(module, module.entry, 1, {})
    types = dict(
        re.findall(r"^ *(?:ROOT )?%?([\w.\-]+) = (.*?) [a-z][\w\-]*\(", text, re.MULTILINE)
    )
    counts: collections.Counter = collections.Counter()
    for lines in module.computations.values():
        sizes = {one.name: sum(shape.size for shape in one.shapes) for one in lines}
        for one in lines:
            kind = one.opcode.removesuffix("-start")
            if kind not in MOVED:
                continue
            operands = ", ".join(re.sub(r"\{.*?\}", "", types.get(n, "?")) for n in one.operands)
            size = sum(sizes.get(name, 0) for name in one.operands)
            moved = size * MOVED[kind](group_size(one.text)) * often.get(one.name, 0)
            counts[kind, operands, "times"] += often.get(one.name, 0)
            counts[kind, operands, "bytes"] += moved
    keys = sorted({key[:2] for key in counts}, key=lambda key: -counts[(*key, "bytes")])
    return [
        f"{counts[(*key, 'times')]:6.0f} x {key[0]:18} {counts[(*key, 'bytes')] / 1e6:10.1f} MB"
        f"  of {key[1][:150]}"
        for key in keys
    ]


def row_of(name: str, compiled, chip: Chip, seconds: float) -> str:
    """Returns a program's line of the table."""
    text = compiled.as_text()
    found = read_traffic(text)
    total = found.of(1)
    kinds = ", ".join(
        f"{total.collectives[kind]:,.0f} {kind} {total.moved[kind] / 1e9:.2f} GB"
        for kind in sorted(total.collectives)
    )
    clock, kernels = chip.clock_ghz, kernel_seconds(total.kernels, chip) * 1e3
    milliseconds = f"{total.cycles / clock / 1e6 + kernels:,.1f}" if clock else "-"
    temporary = compiled.memory_analysis().temp_size_in_bytes / 1e9
    cells = (
        name,
        f"{text.count(' while('):,}",
        f"{counted(text, {'copy', 'copy-start'}):,.0f}",
        kinds,
        f"{total.moved_bytes / 1e9:.2f} GB",
        f"{temporary:.2f} GB",
        milliseconds,
        f"{seconds:.0f} s",
    )
    return f"| {' | '.join(cells)} |"


def update_words(compiled, settings, model, topology) -> str:
    """Returns the time of one micro-batch of full rows, each one sequence, and its MFU: by roofline
    and by the compiler's cycles.
    """
    traffic, chip = read_traffic(compiled.as_text()).of(1), topology.chip
    rows, length = settings.batch.rows_per_microbatch, settings.batch.row_tokens
    own = rows * flops.forward_flops(model, [length], head=True)
    kept = settings.trainer.rematerialise
    again = flops.computed_again(model, rows, length, rows * length, kept)
    devices = len(topology.devices)
    time_of = phase_time(traffic, (flops.TRAINING * own + again) / devices, chip)
    peak = flops.TRAINING * own / devices / chip.flops_speed
    words = [
        f"{name} {1e3 * seconds:,.0f} ms, MFU {peak / seconds:.0%}"
        for name, seconds in (("roofline", time_of.roofline), ("compiler", time_of.compiler))
        if seconds is not None
    ]
    return (
        f"a micro-batch of {rows} full rows: {'; '.join(words)} (compute {time_of.compute:.3f} s, "
        f"memory {time_of.memory:.3f} s, network {time_of.network:.3f} s, kernels "
        f"{kernel_seconds(traffic.kernels, chip):.3f} s)"
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="r1_distill_qwen_1p5b")
    parser.add_argument("--topology", default="v5p:2x2x1")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--row_tokens", type=int, default=20480)
    parser.add_argument("--rows", type=int, default=4, help="of a micro-batch, all chips together")
    parser.add_argument("--chunk", type=int, default=512, help="trainer.logprob_chunk_tokens")
    parser.add_argument("--tensor", type=int, default=1, help="mesh.tensor; the rest is fsdp")
    parser.add_argument("--update", action="store_true", help="with --whole: only the update")
    parser.add_argument("--attention", default="auto", choices=ATTENTION_SETTINGS)
    parser.add_argument("--rematerialise", default="full", choices=tuple(REMATERIALISED))
    parser.add_argument("--collectives", action="store_true")
    parser.add_argument("--whole", action="store_true", help="old log-probs and update themselves")
    options = parser.parse_args()
    settings = settings_of(options)
    topology = open_topology(options.topology)
    mesh = make_mesh(settings.mesh, topology.devices)
    shape = planned_model(settings).shape.on(mesh)
    model = dataclasses.replace(shape, layers=options.layers)
    print(HEAD, "|---" * HEAD.count(" |") + "|", sep="\n", flush=True)
    for name, compiled, seconds in compiled_programs(options, settings, model, mesh):
        print(row_of(name, compiled, topology.chip, seconds), flush=True)
        if name == UPDATE:
            print(update_words(compiled, settings, model, topology), flush=True)
        if options.collectives:
            print(*collectives_of(compiled.as_text()), sep="\n", flush=True)


if __name__ == "__main__":
    main()
