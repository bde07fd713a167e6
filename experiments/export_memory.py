"""How much host memory does an export take? Of a random model shaped as R1-Distill-Qwen-1.5B.

    python experiments/export_memory.py --folder=runs/export_memory

Stated in cegppo_jax/export.py: beside the parameters and the copy that is read back to be compared
with them (both on the devices, which on CPU is the host), two files of --shard_gigabytes. Prints
the peak of the exporting process. Needs 11 GB of disk for the whole model.

Prediction: 2 x 7.1 GB + 2 x 2 GB and a gigabyte of program.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from cegppo_jax.data.tokenizer import build_character_tokenizer
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.decoder import init_params
from cegppo_jax.run_model import CHECKPOINTS, TOKENIZER, save_model_description

WIDTH_OF_LAYERS = {"width": 1536, "heads": 12, "kv_heads": 2, "head_size": 128, "mlp_width": 8960}


def model_of(layers: int) -> ModelConfig:
    """Number of layers (28: the whole model) -> its shape."""
    return ModelConfig(
        vocab_size=151936,
        layers=layers,
        rope_theta=10_000.0,
        norm_epsilon=1e-6,
        tied_embeddings=False,
        query_key_value_bias=True,
        **WIDTH_OF_LAYERS,
    )


def make_run(folder: Path, model: ModelConfig) -> None:
    """Writes what an export reads of a run: description, tokenizer, parameters."""
    folder.mkdir(parents=True)
    save_model_description(folder, model, eos_ids=(1,))
    build_character_tokenizer("0123456789").save_pretrained(folder / TOKENIZER)
    params = jax.jit(init_params, static_argnums=0)(model, jax.random.key(0))
    with ocp.CheckpointManager((folder / CHECKPOINTS).absolute(), item_names=("state",)) as manager:
        state = ocp.args.StandardSave({"params": params})
        manager.save(0, args=ocp.args.Composite(state=state))


def main() -> None:
    """Makes the run in a process of its own, exports it in another, prints that one's peak."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--make", action="store_true", help="only make the run")
    options = parser.parse_args()
    run, model = options.folder / "run", model_of(options.layers)
    if options.make:
        make_run(run, model)
        return
    size = sum(
        int(np.prod(leaf.shape))
        for leaf in jax.tree.leaves(jax.eval_shape(lambda: init_params(model, jax.random.key(0))))
    )
    subprocess.run([sys.executable, *sys.argv, "--make"], check=True)
    began = time.perf_counter()
    export = [sys.executable, "-m", "cegppo_jax.export", f"--workdir={run}"]
    _, status, usage = _waited([*export, f"--out={options.folder / 'out'}"])
    assert status == 0
    gigabytes = usage.ru_maxrss * 1024 / 1e9  # Linux counts in KiB
    print(
        f"{size / 1e9:.2f} G parameters, {4 * size / 1e9:.2f} GB in float32: exported in "
        f"{time.perf_counter() - began:.0f} s with a peak of {gigabytes:.2f} GB"
    )


def _waited(command: list[str]) -> tuple[int, int, resource.struct_rusage]:
    """Runs a command -> its id, exit status and what it used."""
    child = subprocess.Popen(command)
    return os.wait4(child.pid, 0)


if __name__ == "__main__":
    main()
