"""Trains for 500 steps and measures what grows from step to step.

    python experiments/leaks.py --steps=500

The run is that of tests/tiny_recipe.py, in this process, with evaluations, checkpoints and samples
every ten steps. A program that is compiled a second time ends it with an error (invariant of
`train`). Growth is that from the median of the readings' second fifth to the median of their last.
tests/test_leaks.py does it for fewer steps, and fails on growth.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import psutil

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

EVERY_STEPS = 10  # a reading, all of them after an evaluation and a checkpoint
UNITS = {
    "memory": "MB",  # resident
    "allocated": "MB",  # of it, by malloc and not freed: arrays, and what libraries hold
    "objects": "",  # of Python, small ones: its own allocator has them
    "arrays": "",  # of jax
    "handles": "",
    "threads": "",
    "processes": "",
}


def main() -> None:
    """Prints a row for each thing that could grow."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=500, help="of the run (500)")
    parser.add_argument("--record", action="store_true", help="write it to experiments/promises.md")
    options = parser.parse_args()
    import promises
    from compiling import compile_fast

    compile_fast()
    with tempfile.TemporaryDirectory(prefix="leaks-") as scratch:
        readings = readings_of(options.steps, Path(scratch) / "run")
    early, late = medians(readings)
    print("\n| | early | late | growth a 100 steps |\n|---|---|---|---|")
    for name, growth in growth_a_step(readings).items():
        unit = UNITS[name]
        print(
            f"| {name} | {early[name]:,.1f} {unit} | {late[name]:,.1f} {unit} "
            f"| {100 * growth:+.2f} {unit} |"
        )
    if options.record:
        promises.record(
            f"{options.steps} steps: "
            + ", ".join(
                f"{name} {early[name]:,.0f} to {late[name]:,.0f} {unit}".strip()
                for name, unit in UNITS.items()
            )
            + ", 0 programs compiled again"
        )


def readings_of(steps: int, workdir: Path) -> list[dict[str, float]]:
    """Trains, and returns what the process had every EVERY_STEPS steps."""
    import child_runs

    from cegppo_jax import train
    from cegppo_jax.reporting.record import RunRecord
    from cegppo_jax.run import command_line

    often = ("evaluation.every_steps", "checkpoint.every_steps", "logging.samples_every_steps")
    flags = [f"--config.steps={steps}", *(f"--config.{name}=10" for name in often)]
    # Numbers stay finite and completions differ: nothing of the run's own stops it
    flags += ["--config.optimizer.learning_rate=1e-4"]
    readings: list[dict[str, float]] = []
    write_step = RunRecord.write_step

    def measured(record: RunRecord, step: int, *written: Any) -> None:
        write_step(record, step, *written)
        if step % EVERY_STEPS == 0:
            readings.append(reading() | {"step": step})

    with (
        child_runs.in_this_process("train", workdir, *flags),
        mock.patch.object(RunRecord, "write_step", measured),
    ):
        command_line.run("train", train.main)
    return readings


def reading() -> dict[str, float]:
    """Returns what this process has, by the names of UNITS."""
    import jax

    gc.collect()
    process = psutil.Process()
    return {
        "memory": process.memory_info().rss / 1e6,
        "allocated": allocated_bytes() / 1e6,
        "objects": sys.getallocatedblocks(),
        "arrays": len(jax.live_arrays()),
        "handles": process.num_fds(),
        "threads": process.num_threads(),
        "processes": len(process.children(recursive=True)),
    }


# Fields of struct mallinfo2
MALLINFO = ("arena", "ordblks", "smblks", "hblks", "hblkhd")
MALLINFO += ("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")


class Mallinfo(ctypes.Structure):
    """struct mallinfo2 of malloc.h."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in MALLINFO)


def allocated_bytes() -> int:
    """Returns how much malloc has given out, of all threads (glibc)."""
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = Mallinfo
    found = mallinfo()
    return found.uordblks + found.hblkhd


def medians(readings: Sequence[dict[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Returns those of the second fifth of the readings and of the last."""
    fifth = len(readings) // 5
    parts = readings[fifth : 2 * fifth], readings[-fifth:]
    early, late = (
        {name: statistics.median(one[name] for one in part) for name in readings[0]}
        for part in parts
    )
    return early, late


def growth_a_step(readings: Sequence[dict[str, float]]) -> dict[str, float]:
    """Returns by how much each of UNITS grows in a step, on average."""
    early, late = medians(readings)
    return {name: (late[name] - early[name]) / (late["step"] - early["step"]) for name in UNITS}


if __name__ == "__main__":
    main()
