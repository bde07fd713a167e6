"""The train command on eight devices: the whole story of a run, on meshes of several axes."""

import child_runs
import pytest

from cegppo_jax.reporting.metrics import read_metrics

# Its fixtures take a minute: once
pytestmark = pytest.mark.slow

# The tiny recipe has 21 characters and special tokens, and one key/value head.
MESHES = {
    "data8": ("data=8",),
    "data4-fsdp2": ("data=4", "fsdp=2"),
    "data2-fsdp2-tensor2": ("data=2", "fsdp=2", "tensor=2"),
}
COOL = (
    "--config.sampling.temperature=0.7",
    "--config.evaluation.sampling.temperature=0.5",
    "--config.model.vocabulary_multiple=2",
)


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("one")
    child_runs.finish(workdir, "--config.steps=2", *COOL)
    return read_metrics(workdir)


def test_sampler_and_trainer_agree_at_every_temperature(one_device):
    """A trainer at another temperature than the sampler's would see a gap of some tenths."""
    gaps = [
        line["policy/sampler_gap_max"]
        for line in one_device
        if line["step"] and "policy/sampler_gap_max" in line
    ]
    assert len(gaps) == 2
    assert max(gaps) < 1e-4


@pytest.mark.parametrize("axes", MESHES.values(), ids=MESHES)
def test_a_run_on_a_mesh_is_the_run_on_one_device(axes, one_device, tmp_path):
    flags = [f"--config.mesh.{axis}" for axis in axes]
    child_runs.finish(tmp_path, "--config.steps=2", *COOL, *flags, devices=8)
    lines = read_metrics(tmp_path)
    assert [line.keys() for line in lines] == [line.keys() for line in one_device]
    # 40 updates of the warm start and the first of CE-GPPO; from there on, one token that falls on
    # the other side of a rounding makes another sample.
    for name in ("supervised/loss", "policy/entropy", "update/loss", "update/grad_norm"):
        pairs = [(a[name], b[name]) for a, b in zip(lines, one_device, strict=True) if name in a]
        ours, theirs = pairs[-1] if name == "supervised/loss" else pairs[0]
        assert ours == pytest.approx(theirs, rel=1e-2, abs=1e-3), name


def test_a_vocabulary_that_the_mesh_does_not_divide_is_refused(tmp_path):
    errors = child_runs.fail(tmp_path / "run", "--config.mesh.tensor=2", devices=8)
    assert "the model's vocabulary = 21 is not divisible by the mesh's tensor = 2" in errors
    assert "model.vocabulary_multiple = 2" in errors
    assert not (tmp_path / "run").exists()
