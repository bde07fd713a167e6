"""How much host memory does an evaluation take? Measured on a random model with R1-Distill-Qwen's
widths.

    PYTHONPATH=. python experiments/evaluation_memory.py --folder=runs/evaluation_memory --layers=2

The need is stated before anything is loaded (cegppo_jax/run/memory.py). Prints the peak memory of
the evaluating process for each dtype of the sampler, not counting pages of mapped files. The whole
model has 28 layers.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
from export_memory import make_run, model_of, peaks

from cegppo_jax.models.decoder import init_params

FLAGS = (
    "--config=configs/quickstart.py",
    "--config.evaluation.problems=8",
    "--config.evaluation.samples_per_problem=2",
    "--config.sampler.slots=16",
)


def main() -> None:
    """Makes a model in one process, evaluates it in others, and prints their peaks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--make", action="store_true", help="only make the run")
    options = parser.parse_args()
    run, model, exported = options.folder / "run", model_of(options.layers), options.folder / "out"
    if options.make:
        make_run(run, model, alphabet="0123456789+-*=;#")
        return
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    size = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))
    if not exported.exists():
        subprocess.run([sys.executable, *sys.argv, "--make"], check=True)
        export = [sys.executable, "-m", "cegppo_jax.export", f"--workdir={run}"]
        subprocess.run([*export, f"--out={exported}"], check=True)
    for dtype in ("float32", "bfloat16"):
        began = time.perf_counter()
        results = options.folder / f"results_{dtype}_{time.time_ns()}"
        evaluate = [sys.executable, "-m", "cegppo_jax.evaluate", *FLAGS, f"--out={results}"]
        own, _ = peaks(
            [*evaluate, f"--config.model.pretrained={exported}", f"--config.sampler.dtype={dtype}"]
        )
        print(
            f"{size / 1e9:.2f} G parameters, {4 * size / 1e9:.2f} GB in float32, evaluated in "
            f"{dtype}: {own:.2f} GB at the peak, {time.perf_counter() - began:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
