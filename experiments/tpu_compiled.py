"""What does a TPU's compiler make of the update? Its collectives, loops, copies, memory and cycles.

    pip install -e ".[tpu]"     # the compiler, libtpu; no TPU is needed
    python experiments/tpu_compiled.py --recipe=r1_distill_qwen_1p5b --topology=v5p:2x2x1

Compiles old log-probs and update of a recipe with its real widths for --topology, with --layers
layers and rows of --row_tokens, so that it takes minutes. What is in the scan over layers counts as
often as it goes round. Prints a Markdown table, and with --collectives a list of every collective:
how often it runs, what it moves and in which dtype.
"""

import argparse
import collections
import dataclasses
import importlib
import os
import re
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

from cegppo_jax.planning.chips import open_topology
from cegppo_jax.planning.hlo import parse_module
from cegppo_jax.planning.programs import LOGPROBS, UPDATE, plan_programs
from cegppo_jax.planning.recipe_plan import END, planned_model
from cegppo_jax.planning.traffic import MOVED, group_size, read_traffic
from cegppo_jax.run.settings import read_settings
from cegppo_jax.sharding import make_mesh

HEAD = "| program | while loops | copies | collectives a pass | moved | temporary | model ms |"


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
    return read_settings(config)


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


def row_of(name: str, compiled, clock_ghz: float | None) -> str:
    """Returns a program's line of the table."""
    text = compiled.as_text()
    found = read_traffic(text)
    total = found.of(1)
    kinds = ", ".join(
        f"{total.collectives[kind]:,.0f} {kind} {total.moved[kind] / 1e9:.2f} GB"
        for kind in sorted(total.collectives)
    )
    milliseconds = f"{total.cycles / clock_ghz / 1e6:,.1f}" if clock_ghz else "-"
    temporary = compiled.memory_analysis().temp_size_in_bytes / 1e9
    cells = (
        name,
        f"{text.count(' while('):,}",
        f"{counted(text, {'copy', 'copy-start'}):,.0f}",
        kinds,
        f"{total.moved_bytes / 1e9:.2f} GB",
        f"{temporary:.2f} GB",
        milliseconds,
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="r1_distill_qwen_1p5b")
    parser.add_argument("--topology", default="v5p:2x2x1")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--row_tokens", type=int, default=4096)
    parser.add_argument("--rows", type=int, default=4, help="of a micro-batch, all chips together")
    parser.add_argument("--chunk", type=int, default=512, help="trainer.logprob_chunk_tokens")
    parser.add_argument("--tensor", type=int, default=1, help="mesh.tensor; the rest is fsdp")
    parser.add_argument("--collectives", action="store_true")
    parser.add_argument("--text", help="a folder: the programs' texts go there")
    options = parser.parse_args()
    settings = settings_of(options)
    topology = open_topology(options.topology)
    mesh = make_mesh(settings.mesh, topology.devices)
    model = dataclasses.replace(planned_model(settings).shape, layers=options.layers)
    print(HEAD, "|---" * HEAD.count(" |") + "|", sep="\n", flush=True)
    for program in plan_programs(settings, model, mesh, END).programs:
        if program.name not in (LOGPROBS, UPDATE):
            continue
        began = time.perf_counter()
        with jax.set_mesh(mesh):
            compiled = program.jitted.lower(*program.arguments).compile()
        print(row_of(program.name, compiled, topology.chip.clock_ghz), flush=True)
        if options.text:
            with open(os.path.join(options.text, f"{program.name}.txt"), "w") as file:
                file.write(compiled.as_text())
        if options.collectives:
            print(*collectives_of(compiled.as_text()), sep="\n")
            print(f"compiled in {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
