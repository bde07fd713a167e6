"""Which checkpoints stay beside the newest, also where a run is resumed, and which are refused."""

import dataclasses
import json
import math

import child_runs
import jax
import numpy as np
import pytest
import tiny_recipe
from jax.sharding import NamedSharding, PartitionSpec

from cegppo_jax.learner.train_state import TrainState
from cegppo_jax.run.checkpoint import Checkpointer, saved_steps
from cegppo_jax.run.position import RunPosition
from cegppo_jax.run.read_back import DamagedCheckpointError
from cegppo_jax.run.retention import CheckpointSettings, Milestones
from cegppo_jax.run.settings import read_settings
from cegppo_jax.sharding import MeshShape, make_mesh
from cegppo_jax.steering.steer import START

ACCURACY = "evaluation/accuracy"
SETTINGS = CheckpointSettings(2, 1, 0, "", "max", 1)


def state_at(step):
    whole = NamedSharding(make_mesh(MeshShape(1, 8, 1)), PartitionSpec())
    values = TrainState({"kernel": np.ones(8)}, (np.int32(0),), np.int32(step), np.int32(step))
    return jax.tree.map(lambda leaf: jax.device_put(leaf, whole), values)


def save(folder, scores, milestones, keep=1):
    """Saves a checkpoint for each score, by step; None: one off the schedule, without metrics."""
    with Checkpointer(folder, keep, milestones) as checkpointer:
        for step, score in scores.items():
            values = {} if score is None else {ACCURACY: np.float32(score), "update/loss": 0.0}
            checkpointer.save(state_at(step), RunPosition(step, 0, START), values)
    return sorted(saved_steps(folder))


@pytest.mark.parametrize(
    ("milestones", "kept"),
    [
        (Milestones(0, "", "max"), [6]),
        (Milestones(4, "", "max"), [0, 4, 6]),
        (Milestones(0, ACCURACY, "max"), [3, 6]),  # of two that are equal, the newer
        (Milestones(0, ACCURACY, "min"), [1, 6]),
        (Milestones(4, ACCURACY, "max"), [0, 3, 4, 6]),
    ],
)
def test_what_stays_is_the_same_when_the_run_is_resumed_between_any_two(milestones, kept, tmp_path):
    """Step 5 was saved as the run was asked to stop: it is never the best, and goes."""
    scores = {0: 0.5, 1: 0.125, 2: 0.75, 3: 0.75, 4: math.nan, 5: None, 6: 0.25}
    assert save(tmp_path / "whole", scores, milestones) == kept
    for step, score in scores.items():
        steps = save(tmp_path / "resumed", {step: score}, milestones)
    assert steps == kept
    with Checkpointer(tmp_path / "resumed", 1, milestones) as checkpointer:
        best = {"": None, "max": 3, "min": 1}[milestones.best and milestones.mode]
        assert checkpointer.best_step() == best
        assert checkpointer.latest_step() == 6


def test_another_metric_than_before_begins_anew(tmp_path):
    save(tmp_path, {0: 0.9, 2: 0.5}, Milestones(0, ACCURACY, "max"))
    assert save(tmp_path, {4: None}, Milestones(0, "update/loss", "min")) == [2, 4]
    assert save(tmp_path, {6: 0.1, 8: 0.2, 10: None}, Milestones(0, "update/loss", "min")) == [
        8,
        10,
    ]


def test_a_metric_that_was_not_measured_is_told(caplog):
    milestones = Milestones(0, "policy/kl_ref", "min")
    assert milestones.score(0, {ACCURACY: 0.5}) is None
    assert caplog.messages == []
    assert milestones.score(2, {ACCURACY: 0.5}) is None
    assert milestones.score(4, {"policy/kl_ref": math.inf}) is None
    assert ["policy/kl_ref" in one for one in caplog.messages] == [True, True]
    assert "step 2" in caplog.text
    assert "step 4" in caplog.text


@pytest.mark.parametrize("damage", ["", "[" * 100_000, "[1]", '{"name": 1}', "changed"])
def test_a_damaged_score_is_named_before_anything_is_deleted(damage, tmp_path):
    milestones = Milestones(0, ACCURACY, "max")
    save(tmp_path, {0: 0.5, 2: 0.25}, milestones)
    [file] = (tmp_path / "0" / "metrics").glob("metrics")
    assert json.loads(file.read_text())["value"] == 0.5
    file.write_text(damage if damage != "changed" else file.read_text().replace("0.5", "0.1"))
    with pytest.raises(DamagedCheckpointError, match=rf"{file} is damaged"):
        save(tmp_path, {4: 0.1}, milestones)
    assert save(tmp_path, {4: 0.1}, Milestones(0, "", "max"), keep=3) == [0, 2, 4]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"every_steps": 0}, "every_steps = 0: .*1"),
        ({"keep": 0}, "keep = 0: .*1"),
        ({"stop_after_skipped": 0}, "stop_after_skipped = 0: .*1"),
        ({"keep_every_steps": 3}, "keep_every_steps = 3 .* checkpoint.every_steps = 2"),
        ({"keep_best_mode": "best"}, "keep_best_mode = 'best'"),
        ({"keep_best": "evaluation/accuracies"}, "keep_best = .*'evaluation/accuracy'"),
    ],
)
def test_settings_that_would_not_keep_what_they_say_are_refused(changes, named):
    with pytest.raises(ValueError, match=rf"checkpoint\.{named}"):
        dataclasses.replace(SETTINGS, **changes)


@pytest.mark.parametrize(("every", "refused"), [(0, True), (3, True), (1, False), (4, False)])
def test_checkpoints_and_evaluations_must_meet_where_the_best_is_by_an_evaluation(every, refused):
    config = tiny_recipe.get_config()
    config.checkpoint.keep_best = ACCURACY
    config.evaluation.every_steps = every
    if refused:
        with pytest.raises(ValueError, match=rf"evaluation\.every_steps = {every} "):
            read_settings(config)
    else:
        read_settings(config)


def test_the_disk_must_hold_all_that_stays():
    assert SETTINGS.most_at_once(steps=100) == 1
    kept = dataclasses.replace(SETTINGS, keep=3, keep_every_steps=10, keep_best=ACCURACY)
    assert kept.most_at_once(steps=100) == 3 + 1 + 11  # steps 0, 10, ... 100


@pytest.mark.slow
def test_a_run_keeps_its_best_and_the_commands_take_it_by_its_step(tmp_path, compile_cache):
    flags = ["--config.checkpoint.keep=1", f"--config.checkpoint.keep_best={ACCURACY}"]
    flags += ["--config.checkpoint.keep_every_steps=4", "--config.checkpoint.keep_best_mode=min"]
    workdir = tmp_path / "run"
    child_runs.kill_when(
        lambda: 4 in saved_steps(workdir / "checkpoints"), workdir, *flags, cache=compile_cache
    )
    printed = child_runs.finish(workdir, *flags, cache=compile_cache)
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    found = {one["step"]: one for one in map(json.loads, lines) if one["phase"] == "rl"}
    scores = {step: one[ACCURACY] for step, one in found.items() if step % 2 == 0}
    worst = max(step for step, score in scores.items() if score == min(scores.values()))
    assert sorted(saved_steps(workdir / "checkpoints")) == sorted({0, 4, 6, worst})
    assert f"the best one       cegppo evaluate --run={workdir} --step={worst}" in printed
    for step in (0, 4):
        printed = child_runs.command(
            "evaluate", f"--run={workdir}", f"--step={step}", cache=compile_cache
        )
        assert f"step{step}-" in printed
        out = f"--out={tmp_path / str(step)}"
        printed = child_runs.command("export", f"--run={workdir}", f"--step={step}", out)
        assert f"step {step}: " in printed
