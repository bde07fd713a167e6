"""Supervised training as a run of its own: it learns, resumes to the same bits, hands its model
on.
"""

import json

import child_runs
import numpy as np
import pytest
from safetensors.numpy import load_file

from cegppo_jax.reporting.metrics import read_metrics, without_clock

FLAGS = (
    "--config.warm_start.steps=30",
    "--config.checkpoint.every_steps=10",
    "--config.evaluation.every_steps=10",
)


def supervise(workdir, cache, *flags):
    return child_runs.finish(workdir, *FLAGS, *flags, command="supervised", cache=cache)


def weights(workdir, out):
    child_runs.command("export", f"--workdir={workdir}", f"--out={out}", "--dtype=float32")
    return load_file(out / "model.safetensors")


@pytest.mark.slow
def test_a_run_killed_and_resumed_is_the_uninterrupted_one(compile_cache, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    printed = supervise(whole, compile_cache)
    lines = read_metrics(whole)
    assert [line["step"] for line in lines] == list(range(30))
    assert lines[-1]["supervised/loss"] < 0.7 * lines[0]["supervised/loss"]
    assert [i for i, line in enumerate(lines) if "evaluation/accuracy" in line] == [9, 19, 29]
    assert f"held-out accuracy  {lines[-1]['evaluation/accuracy']:.1%} [" in printed
    assert (whole / "report.png").is_file()

    def between_checkpoints():
        # A save is asynchronous, and appears by a rename: on a busy machine some steps later.
        path = killed / "metrics.jsonl"
        saved = (killed / "checkpoints" / "10").exists()
        return saved and path.exists() and path.read_bytes().count(b"\n") >= 14

    child_runs.kill_when(
        between_checkpoints, killed, *FLAGS, command="supervised", cache=compile_cache
    )
    assert not (killed / "checkpoints" / "30").exists()
    assert "resumed from the checkpoint of step " in supervise(killed, compile_cache)
    assert [without_clock(line) for line in read_metrics(killed)] == [
        without_clock(line) for line in lines
    ]
    first, second = (weights(run, tmp_path / f"{run.name}-model") for run in (whole, killed))
    for name, tensor in first.items():
        np.testing.assert_array_equal(tensor, second[name])

    # The same directory, longer; then RL from its model.
    supervise(whole, compile_cache, "--config.warm_start.steps=32")
    assert len(read_metrics(whole)) == 32
    errors = child_runs.fail(whole, *FLAGS, "--config.warm_start.steps=31", command="supervised")
    assert "taken 32 steps, and warm_start.steps = 31 asks for fewer" in errors.splitlines()[-1]
    rl = tmp_path / "rl"
    child_runs.finish(
        rl,
        f"--config.model.pretrained={tmp_path / 'whole-model'}",
        "--config.warm_start.steps=0",
        "--config.steps=1",
        cache=compile_cache,
    )
    start = read_metrics(rl)[0]["evaluation/accuracy"]
    assert start == lines[-1]["evaluation/accuracy"]  # the same policy, drawn from alike


@pytest.mark.slow
def test_a_run_of_one_command_is_not_taken_over_by_another(compile_cache, tmp_path):
    supervise(tmp_path / "run", compile_cache, "--config.warm_start.steps=1")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["command"] == "supervised"
    errors = child_runs.refused(tmp_path / "run", *FLAGS, "--config.warm_start.steps=1")
    assert "command: the run has 'supervised', this command 'train'" in errors


def test_no_steps_are_refused(tmp_path):
    flag = "--config.warm_start.steps=0"
    errors = child_runs.refused(tmp_path / "run", flag, command="supervised")
    assert errors.splitlines()[-1].startswith("error: warm_start.steps = 0")
    assert not (tmp_path / "run").exists()
