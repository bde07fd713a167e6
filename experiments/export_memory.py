"""How much host memory does an export take? Measured on a random model like R1-Distill-Qwen-1.5B.

    python experiments/export_memory.py --folder=runs/export_memory

Stated in cegppo_jax/export.py: the float32 parameters (on CPU in the host's memory), twice the
largest leaf or twice a file of --shard_gigabytes, whichever is more, and a gigabyte of program.
Prints the exporting process's peak memory; pages of mapped files, which the system reclaims when it
needs them, are counted separately. Needs 11 GB of disk for the whole model.
"""

import argparse
import contextlib
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from absl import logging

from cegppo_jax.data.tokenizer import build_character_tokenizer
from cegppo_jax.learner.train_state import TrainState
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.decoder import init_params
from cegppo_jax.run.checkpoint import Checkpointer
from cegppo_jax.run.position import RunPosition
from cegppo_jax.run.saved_model import CHECKPOINTS, TOKENIZER, save_model_description
from cegppo_jax.steering.steer import START

SHARD_GIGABYTES = 2.0  # the command's own choice
WIDTH_OF_LAYERS = {"width": 1536, "heads": 12, "kv_heads": 2, "head_size": 128, "mlp_width": 8960}


def model_of(layers: int) -> ModelConfig:
    """Returns the shape of a model with that many layers (28: the whole model)."""
    return ModelConfig(
        vocab_size=151936,
        layers=layers,
        rope_theta=10_000.0,
        norm_epsilon=1e-6,
        tied_embeddings=False,
        query_key_value_bias=False,  # a Qwen model would want a Qwen tokenizer
        **WIDTH_OF_LAYERS,
    )


def make_run(folder: Path, model: ModelConfig, alphabet: str) -> None:
    """Writes what an export reads of a run: description, tokenizer, parameters."""
    folder.mkdir(parents=True)
    save_model_description(folder, model, eos_ids=(1,))
    build_character_tokenizer(alphabet).save_pretrained(folder / TOKENIZER)
    params = jax.jit(init_params, static_argnums=0)(model, jax.random.key(0))
    start = jnp.zeros((), jnp.int32)
    with Checkpointer(folder / CHECKPOINTS, None) as checkpoints:
        checkpoints.save(TrainState(params, {}, start, start), RunPosition(0, 0, START))


def main() -> None:
    """Makes the run in one process, exports it in another, and prints the exporter's peak."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--make", action="store_true", help="only make the run")
    options = parser.parse_args()
    run, model = options.folder / "run", model_of(options.layers)
    if options.make:
        logging.set_verbosity(logging.WARNING)  # Orbax logs every file at INFO
        make_run(run, model, alphabet="0123456789")
        return
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    size = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))
    largest = max(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))
    subprocess.run([sys.executable, *sys.argv, "--make"], check=True)
    began = time.perf_counter()
    export = [sys.executable, "-m", "cegppo_jax.export", f"--workdir={run}"]
    own, mapped = peaks([*export, f"--out={options.folder / 'out'}"])
    stated = 4 * size / 1e9 + 2 * max(4 * largest / 1e9, SHARD_GIGABYTES) + 1
    print(
        f"{size / 1e9:.2f} G parameters, {4 * size / 1e9:.2f} GB in float32: exported in "
        f"{time.perf_counter() - began:.0f} s with a peak of {own:.2f} GB private (stated: "
        f"{stated:.1f}), {mapped:.2f} GB with pages of mapped files"
    )


def peaks(command: list[str]) -> tuple[float, float]:
    """Runs a command and returns the peaks of its private and of its resident memory, GB.

    Raises:
      CalledProcessError: the command failed.
    """
    child = psutil.Popen(command)
    own = resident = 0
    while child.poll() is None:
        with contextlib.suppress(psutil.Error):
            memory = child.memory_info()
            own, resident = max(own, memory.rss - memory.shared), max(resident, memory.rss)
        time.sleep(0.02)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    return own / 1e9, resident / 1e9


if __name__ == "__main__":
    main()
