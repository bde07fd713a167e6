"""Trains for 500 steps and measures what grows: memory, handles, threads, processes.

    python experiments/leaks.py --steps=500

The run is that of tests/tiny_recipe.py with evaluations, checkpoints and samples every ten steps. A
program that is compiled a second time ends it with an error (invariant of `train`). Readings are of
every SECONDS; growth is that from the median of their second fifth to the median of their last.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
SECONDS = 0.5
UNITS = {"rss": "MB", "handles": "", "threads": "", "processes": ""}


def main() -> None:
    """Prints a row for each thing that could grow. Raises SystemExit where the run fails."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=500, help="of the run (500)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="leaks-") as scratch:
        readings, code = readings_of(options.steps, Path(scratch))
        lines = (Path(scratch) / "run" / "metrics.jsonl").read_text().count('"phase": "rl"')
    print(f"{lines - 1} steps, {len(readings)} readings, exit code {code}")
    print("| | early | late | growth a 100 steps |\n|---|---|---|---|")
    fifth = len(readings) // 5
    for name, unit in UNITS.items():
        early = statistics.median(one[name] for one in readings[fifth : 2 * fifth])
        late = statistics.median(one[name] for one in readings[-fifth:])
        growth = (late - early) / (0.6 * options.steps / 100)
        print(f"| {name} | {early:,.0f} {unit} | {late:,.0f} {unit} | {growth:+.2f} {unit} |")
    raise SystemExit(code)


def readings_of(steps: int, scratch: Path) -> tuple[list[dict[str, float]], int]:
    """Returns what the process had from its first RL step on, and its exit code."""
    often = ("evaluation.every_steps", "checkpoint.every_steps", "logging.samples_every_steps")
    command = [sys.executable, "-m", "cegppo_jax.train", "--config=tests/tiny_recipe.py"]
    command += [f"--workdir={scratch / 'run'}", f"--config.steps={steps}"]
    command += [f"--config.{name}=10" for name in often]
    # Numbers stay finite and completions differ: nothing of the run's own stops it
    command += ["--config.optimizer.learning_rate=1e-4"]
    variables = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    with (scratch / "printed").open("wb") as printed:
        child = subprocess.Popen(
            command, cwd=ROOT, env=variables, stdout=printed, stderr=subprocess.STDOUT
        )
    process, readings = psutil.Process(child.pid), []
    metrics = scratch / "run" / "metrics.jsonl"
    while child.poll() is None:
        time.sleep(SECONDS)
        if not metrics.exists() or '"phase": "rl", "step": 1,' not in metrics.read_text():
            continue
        try:
            readings.append(
                {
                    "rss": process.memory_info().rss / 1e6,
                    "handles": process.num_fds(),
                    "threads": process.num_threads(),
                    "processes": len(process.children(recursive=True)),
                }
            )
        except psutil.NoSuchProcess:
            break
    if child.returncode:
        print((scratch / "printed").read_text()[-2000:])
    return readings, child.wait()


if __name__ == "__main__":
    main()
