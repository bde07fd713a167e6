"""Does the paper's update of the 1.5B model fit on a TPU slice? Compiled for it, without one.

    pip install -e ".[tpu]"     # or pip install "jax[tpu]": the libtpu that this jax asks for
    TPU_SKIP_MDS_QUERY=1 python experiments/tpu_memory.py

Compiles one update of configs/r1_distill_qwen_1p5b.py (rows of 20,480 tokens, bfloat16 activations,
float32 AdamW, every weight split over all chips) for --topology, and prints what each chip holds.

Prediction: scores of one row in blocks of 512 queries are 12 x 512 x 20,480 x 4 bytes = 0.5 GB, a
few of them at once in the backward pass; residuals of 28 blocks 28 x 20,480 x 1536 x 2 = 1.8 GB;
parameters and optimizer 1.3 GB: well within 16 GB a chip.
"""

import argparse
import importlib.metadata
import os
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
from export_memory import model_of
from jax.experimental import topologies
from packaging.requirements import Requirement

from cegppo_jax.learner.optimizer import make_optimizer
from cegppo_jax.learner.train_state import TrainState
from cegppo_jax.losses.contract import Knobs
from cegppo_jax.losses.policy_loss import OldStatistics
from cegppo_jax.models.decoder import abstract_params
from cegppo_jax.packing import PackedShape, pack
from cegppo_jax.run.parts import policy_learner
from cegppo_jax.run.settings import read_settings
from cegppo_jax.sharding import MeshShape, make_mesh
from configs import r1_distill_qwen_1p5b

LAYERS = 28


def scalar(dtype) -> jax.ShapeDtypeStruct:
    """Returns the shape of a scalar of that dtype."""
    return jax.ShapeDtypeStruct((), dtype)


def check_libtpu() -> None:
    """Ends the process unless the installed libtpu is the version that jax pins."""
    asked = map(Requirement, importlib.metadata.requires("jax") or [])
    [wanted] = [one for one in asked if one.name == "libtpu"]  # of its extra "tpu"
    try:
        found = importlib.metadata.version("libtpu")
    except importlib.metadata.PackageNotFoundError:
        found = None
    if found is None or not wanted.specifier.contains(found, prereleases=True):
        raise SystemExit(
            f"error: jax {jax.__version__} needs libtpu{wanted.specifier}, and "
            f"{'none' if found is None else found} is installed: "
            f'pip install "jax[tpu]=={jax.__version__}"'
        )


def main() -> None:
    """Prints the memory a chip needs, and how long the compilation took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--topology", default="v5p:2x2x4")
    options = parser.parse_args()
    check_libtpu()
    topology = topologies.get_topology_desc(platform="tpu", topology_name=options.topology)
    mesh = make_mesh(MeshShape(1, -1, 1), topology.devices)
    settings = read_settings(r1_distill_qwen_1p5b.get_config("ce_gppo"))
    model, batch = model_of(LAYERS), settings.batch
    params, _ = abstract_params(model, unrolled=False)
    optimizer = jax.eval_shape(make_optimizer(settings.optimizer).init, params)
    state = TrainState(params, optimizer, scalar(jnp.int32), scalar(jnp.int32))
    shape = PackedShape.holding(
        batch.minibatch_sequences,
        max_sequence_tokens=settings.sampler.max_sequence_tokens,
        rows=batch.rows_per_microbatch,
        row_tokens=batch.row_tokens,
    )
    packed = jax.eval_shape(lambda: pack([], shape))
    old = OldStatistics(packed.advantages, packed.advantages, None)
    knobs = Knobs(**dict.fromkeys((*settings.loss.numbers, "entropy_coef"), scalar(jnp.float32)))
    began = time.perf_counter()
    with jax.set_mesh(mesh):
        update = policy_learner(settings, mesh, model).update
        memory = update.lower(state, packed, old, knobs).compile().memory_analysis()
    held, needed = memory.argument_size_in_bytes / 1e9, memory.temp_size_in_bytes / 1e9
    print(
        f"{options.topology}, {len(topology.devices)} x {topology.devices[0].device_kind}: "
        f"{batch.rows_per_microbatch} rows of {batch.row_tokens:,} tokens a micro-batch; each chip "
        f"holds {held:.2f} GB and needs {needed:.2f} GB more; compiled in "
        f"{time.perf_counter() - began:.0f} s"
    )


if __name__ == "__main__":
    main()
