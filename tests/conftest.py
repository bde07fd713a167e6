"""Eight devices on the CPU for every test; a small model and a finished run that tests share."""

import fcntl
import os
import signal
from pathlib import Path

from compiling import compile_fast

os.environ.setdefault("JAX_PLATFORMS", "cpu")
compile_fast()

# What a shell starts in the background ignores interrupts, and so do its children: a test's too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A program is compiled once, and not by every test, worker and run of the suite. Its name is a
# digest of all that it was compiled from; `pytest --cache-clear` starts anew.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    compiled = Path(__file__).parents[1] / ".pytest_cache" / "d" / "compiled_programs"
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": str(compiled),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }

import jax
import numpy as np
import pytest
from hypothesis import settings

jax.config.update("jax_num_cpu_devices", 8)
# Arrays of different ranks do not broadcast: where that is meant, the code has the axes.
jax.config.update("jax_numpy_rank_promotion", "raise")

import child_runs
import tiny_recipe

from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.decoder import init_params
from cegppo_jax.run.build import build_run
from cegppo_jax.run.settings import read_settings
from cegppo_jax.sharding import MeshShape, make_mesh
from cegppo_jax.types import Problem, Prompt

# The same examples in every run; how long one takes says nothing on a busy machine.
settings.register_profile("tests", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("tests")

# Grouped queries, and heads that eight tensor shards divide.
SMALL_MODEL = ModelConfig(
    vocab_size=32,
    width=32,
    layers=2,
    heads=16,
    kv_heads=8,
    head_size=4,
    mlp_width=48,
    rope_theta=10_000.0,
    norm_epsilon=1e-6,
    tied_embeddings=True,
)

# Every way of laying eight devices out on (data, fsdp, tensor): every day the one with all three.
EVERYDAY_MESHES = (MeshShape(2, 2, 2),)
MESHES = [
    pytest.param(
        shape,
        id=f"data{shape.data}-fsdp{shape.fsdp}-tensor{shape.tensor}",
        marks=() if shape in EVERYDAY_MESHES else pytest.mark.slow,
    )
    for data in (1, 2, 4, 8)
    for fsdp in (1, 2, 4, 8)
    if data * fsdp <= 8
    for shape in [MeshShape(data, fsdp, 8 // (data * fsdp))]
]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from whole_files import WholeFiles  # pytest-xdist may be missing

    return WholeFiles(config, log)


@pytest.fixture(scope="session")
def model():
    return SMALL_MODEL


@pytest.fixture(scope="session")
def params(model):
    # Larger than at initialisation: distributions far from uniform, so that a wrong token would
    # show.
    return jax.tree.map(lambda leaf: 2 * leaf, init_params(model, jax.random.key(1)))


@pytest.fixture(params=MESHES)
def any_mesh(request):
    mesh = make_mesh(request.param)
    with jax.set_mesh(mesh):
        yield mesh


@pytest.fixture
def one_device():
    mesh = make_mesh(MeshShape(1, 1, 1), jax.devices()[:1])
    with jax.set_mesh(mesh):
        yield mesh


@pytest.fixture(scope="session")
def prompts():
    """Twelve prompts of 1 to 8 tokens, with indices that are not their places."""
    random = np.random.default_rng(0)
    lengths = [1, 8, 3, 5, 2, 7, 4, 6, 8, 1, 3, 5]
    return [
        Prompt(
            Problem(id=f"p{i}", problem="", answer="", source="test"),
            tuple(int(t) for t in random.integers(2, 32, size=n)),
            index=100 + 7 * i,
        )
        for i, n in enumerate(lengths)
    ]


@pytest.fixture(scope="session")
def of_all_workers(tmp_path_factory):
    """A folder of the session: workers of pytest-xdist have a folder each, in the session's."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def compile_cache(of_all_workers):
    """A folder in which processes of the session leave compiled programs for one another."""
    folder = of_all_workers / "compile_cache"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def finished_run(of_all_workers, compile_cache):
    """(workdir, what it printed) of an uninterrupted run of the tiny recipe; for reading only. The
    first worker that asks for it runs it; the others wait.
    """
    workdir, printed = of_all_workers / "finished_run", of_all_workers / "finished_run.txt"
    with (of_all_workers / "finished_run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not printed.exists():
            printed.write_text(child_runs.finish(workdir, cache=compile_cache))
    return workdir, printed.read_text()


@pytest.fixture(scope="session")
def tiny_run():
    """The parts of the tiny recipe's run, on eight devices."""
    return build_run(read_settings(tiny_recipe.get_config()))
