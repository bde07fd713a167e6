"""The train command on eight devices: the whole story of a run, on meshes of several axes."""

import child_runs
import pytest

from cegppo_jax.metrics import read_metrics

# The tiny recipe's vocabulary, 21 characters and special tokens, has no even divisor.
MESHES = {"data8": ("data=8",), "data4-fsdp2": ("data=4", "fsdp=2")}
COOL = ("--config.sampling.temperature=0.7", "--config.evaluation.sampling.temperature=0.5")


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
    assert len(lines) == len(one_device)
    for ours, theirs in zip(lines, one_device, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ("supervised/loss", "policy/entropy", "policy/loss", "update/grad_norm"):
            assert ours.get(name) == pytest.approx(theirs.get(name), rel=1e-2, abs=1e-3), name
    before, ours = one_device[-3]["evaluation/accuracy"], lines[-3]["evaluation/accuracy"]
    assert ours == before  # after the warm start: 16 samples, the same tokens


def test_a_vocabulary_that_the_mesh_does_not_divide_is_refused(tmp_path):
    flags = ("--config.mesh.tensor=2", "--config.model.kv_heads=2")
    errors = child_runs.fail(tmp_path / "run", *flags, devices=8)
    assert "the tokenizer's vocabulary = 21 is not divisible by the mesh's tensor = 2" in errors
    assert not (tmp_path / "run").exists()
