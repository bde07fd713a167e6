"""A run that is killed, at whatever moment, and started again ends as if nothing had happened."""

import dataclasses
import random
import re
import shutil
import signal

import bucket_server
import child_runs
import jax
import kills
import numpy as np
import pytest
import sampled_recipe
import steered_recipe

from cegppo_jax.reporting.metrics import Phase, read_metrics, without_clock
from cegppo_jax.run.build import build_run
from cegppo_jax.run.checkpoint import Checkpointer
from cegppo_jax.run.lifecycle import open_checkpoints, open_reference
from cegppo_jax.run.position import RunPosition
from cegppo_jax.run.settings import read_settings
from cegppo_jax.run.stopping import EXIT_CODE
from cegppo_jax.steering.steer import START, steer
from cegppo_jax.storage.bucket import Bucket
from cegppo_jax.storage.lease import LEASE_NAME

RANDOM_SEED = 1
KILLS, CHANGES = 3, 450  # of its files, at least, that an undisturbed run is seen to make


def last_position(workdir):
    """(phase, step) of the last line of metrics.jsonl, (None, -1) before the first."""
    lines = read_metrics(workdir) if (workdir / "metrics.jsonl").exists() else []
    return (lines[-1]["phase"], lines[-1]["step"]) if lines else (None, -1)


def lines_written(workdir):
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def saving(workdir):
    """Names of the checkpoints that are half written."""
    return sorted(path.name for path in workdir.glob("checkpoints/*tmp*"))


def saved(workdir, folder="checkpoints"):
    """Steps of the whole checkpoints."""
    return sorted(int(p.name) for p in workdir.glob(f"{folder}/*") if p.name.isdigit())


def final_state(workdir, run):
    with Checkpointer(workdir / "checkpoints", run.settings.checkpoint.keep) as checkpointer:
        return checkpointer.restore(run.learner.state_layout())


def assert_same_run(workdir, expected, run):
    """Parameters, optimizer state and counters bit for bit; metrics, samples, config as well."""
    lines, expected_lines = (
        [without_clock(line) for line in read_metrics(folder)] for folder in (workdir, expected)
    )
    assert lines == expected_lines
    for name in ("updates.jsonl", "samples.jsonl", "config.json"):
        assert (workdir / name).read_bytes() == (expected / name).read_bytes()
    assert saved(workdir) == saved(expected)
    (state, position), (expected_state, expected_position) = (
        final_state(folder, run) for folder in (workdir, expected)
    )
    assert position == expected_position
    leaves = dict(jax.tree.leaves_with_path(state))
    expected_leaves = dict(jax.tree.leaves_with_path(expected_state))
    assert leaves.keys() == expected_leaves.keys()
    for path, leaf in leaves.items():
        one, other = np.asarray(leaf), np.asarray(expected_leaves[path])
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes(), f"{jax.tree_util.keystr(path)} differs"


def test_the_uninterrupted_run_would_show_a_wrong_step(finished_run, tiny_run):
    """Its every step moves the parameters, by rewards that differ and ratios that clip."""
    workdir, _ = finished_run
    lines = [line for line in read_metrics(workdir) if line["phase"] == Phase.RL][1:]
    assert all(line["reward/uniform_group_fraction"] < 1 for line in lines)
    assert sum(line["policy/clip_count_low"] for line in lines) > 0
    assert sum(line["policy/clip_count_high"] for line in lines) > 0
    state, position = final_state(workdir, tiny_run)
    assert (position.step, int(state.step), int(state.updates)) == (6, 6, 12)
    assert position.next_prompt == 48
    assert all(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(state.optimizer_state))


@pytest.mark.slow
def test_a_run_that_lost_its_last_checkpoint_takes_its_steps_again_to_the_same_bits(
    finished_run, compile_cache, tiny_run, tmp_path
):
    """As if killed before it was saved: steps 5 and 6 are in every file, and not in the state."""
    workdir = tmp_path / "run"
    shutil.copytree(finished_run[0], workdir)
    shutil.rmtree(workdir / "checkpoints" / "6")
    assert saved(workdir)[-1] == 4
    printed = child_runs.finish(workdir, cache=compile_cache)
    assert "resumed from the checkpoint of step 4" in printed
    assert_same_run(workdir, finished_run[0], tiny_run)


@pytest.mark.slow
def test_a_run_asked_to_stop_in_each_phase_saves_and_ends_as_the_uninterrupted_one(
    finished_run, compile_cache, tiny_run, tmp_path
):
    """By SIGTERM in the warm start, and by Ctrl-C in a step after which no checkpoint is due."""
    workdir, options = tmp_path / "stopped", {"cache": compile_cache}
    code, errors = child_runs.stopped(
        signal.SIGTERM, lambda: lines_written(workdir) >= 5, workdir, **options
    )
    assert code == EXIT_CODE, errors
    [step] = re.findall(r"stopped by SIGTERM: warm-start step (\d+) of 40 is saved", errors)
    assert saved(workdir, "warm_start")[-1] == int(step) == lines_written(workdir)
    assert saved(workdir) == []

    # Off the schedule: a line for every step, so that the signal comes in step 2 or 4
    code, errors = child_runs.stopped(
        signal.SIGINT, lambda: last_position(workdir) == (Phase.RL, 1), workdir, **options
    )
    assert code == EXIT_CODE, errors
    [step] = re.findall(r"stopped by SIGINT: step (\d+) of 6 is saved", errors)
    assert saved(workdir)[-1] == int(step) == last_position(workdir)[1]
    assert not (workdir / "warm_start").exists()

    printed = child_runs.finish(workdir, **options)
    assert f"resumed from the checkpoint of step {step}" in printed
    assert_same_run(workdir, finished_run[0], tiny_run)


@pytest.mark.slow
def test_a_run_killed_in_each_phase_ends_as_the_uninterrupted_one(
    finished_run, compile_cache, tiny_run, tmp_path
):
    workdir = tmp_path / "killed"

    def kill_when(happens):
        child_runs.kill_when(happens, workdir, cache=compile_cache)

    kill_when(lambda: saved(workdir, "warm_start")[-1:] == [4])
    assert last_position(workdir) < (Phase.SUPERVISED, 40)
    assert saved(workdir) == []

    kill_when(lambda: saving(workdir))
    assert saved(workdir, "warm_start")[-1] == 40
    assert last_position(workdir) == (Phase.RL, 0)
    assert saved(workdir) == []

    kill_when(lambda: last_position(workdir) == (Phase.RL, 3))
    assert 4 not in saved(workdir)

    # Steps 3 and 4 are in metrics.jsonl, and what they did is not in a checkpoint.
    kill_when(lambda: [name for name in saving(workdir) if name.startswith("4")])
    assert last_position(workdir) >= (Phase.RL, 4)
    assert 4 not in saved(workdir)

    printed = child_runs.finish(workdir, cache=compile_cache)
    assert "resumed from the checkpoint of step 2" in printed
    assert_same_run(workdir, finished_run[0], tiny_run)


@pytest.mark.slow
def test_a_run_in_a_bucket_killed_and_stopped_ends_as_the_one_on_a_disk(
    finished_run, compile_cache, tiny_run, tmp_path
):
    """Each start has nothing but the bucket. Then the other commands work on it there."""
    options = {"cache": compile_cache}
    with bucket_server.serving() as url:
        run = Bucket("--workdir", f"{url}/runs/a")

        def has(name):
            return any(one.startswith(name) for one in run.files())

        workdir = run.url
        child_runs.kill_when(lambda: has("warm_start/8/"), workdir, **options)
        assert run.exists(LEASE_NAME)
        assert not has("checkpoints/")
        # The lease of the killed one is watched until it is seen to be stale
        code, errors = child_runs.stopped(
            signal.SIGTERM, lambda: has("checkpoints/2/commit_success.txt"), workdir, **options
        )
        assert code == EXIT_CODE, errors
        assert not run.exists(LEASE_NAME)
        printed = child_runs.finish(workdir, **options)
        assert "resumed from the checkpoint of step" in printed
        assert f"evaluate --run={workdir}" in printed
        assert f"{workdir} is complete" in child_runs.finish(workdir, **options)
        run.download(run.files(), tmp_path / "a")
        assert_same_run(tmp_path / "a", finished_run[0], tiny_run)

        printed = child_runs.command("evaluate", f"--run={workdir}", **options)
        [results] = re.findall(rf"{url}/\S+(?=: evaluation.json)", printed)
        evaluation = Bucket("--run", results)
        assert {"evaluation.json", "completions.jsonl", "problems.csv"} <= evaluation.files().keys()
        child_runs.command("export", f"--run={workdir}", f"--out={url}/models/a", **options)
        child_runs.command("report", workdir, f"--out={url}/page.html", **options)
        assert Bucket("--out", f"{url}/page.html").files()
        child_runs.command(
            "evaluate",
            f"--config={child_runs.RECIPE}",
            f"--config.model.pretrained={url}/models/a",
            f"--out={url}/results/a",
            **options,
        )
        printed = child_runs.command("compare", workdir, f"{url}/results/a", **options)
        assert results in printed


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_as_the_uninterrupted_one(
    finished_run, compile_cache, tiny_run, tmp_path
):
    """By the code of experiments/kill_matrix.py, which does it to every command that writes."""
    kills.prepare(compile_cache)
    work = kills.Work("train", kills.train("tiny_recipe"))
    moments = random.Random(RANDOM_SEED)
    killed = kills.kill_often(work, tmp_path / "killed", CHANGES, KILLS, moments)
    assert killed >= 2
    assert kills.differences(tmp_path / "killed", finished_run[0]) == []
    assert_same_run(tmp_path / "killed", finished_run[0], tiny_run)


@pytest.mark.slow
def test_a_steered_run_killed_before_and_after_its_rollback_ends_as_the_uninterrupted_one(
    compile_cache, tmp_path
):
    """Controller, guard, bonus, reference and draws: all that steering remembers is restored."""
    options = {"recipe": "tests/steered_recipe.py", "cache": compile_cache}
    expected, workdir = tmp_path / "uninterrupted", tmp_path / "killed"
    printed = child_runs.finish(expected, **options)
    lines = [line for line in read_metrics(expected) if line["phase"] == Phase.RL][1:]
    [back, *_] = [line["step"] for line in lines if line["steering/rollbacks"] == 1]
    # The checkpoint of step 2 is not good: its policy's entropy was measured in step 3, too low.
    assert "step 0, betas" in printed
    assert 3 <= back <= 6
    assert len({line["steering/beta_low"] for line in lines}) > 3
    assert any(line["steering/entropy_coef"] > 0 for line in lines)
    assert sum(line.get("policy/not_preserved_count", 0) for line in lines) > 0
    assert [line["policy/kl_ref"] for line in lines if "policy/kl_ref" in line][-1] > 0

    for step in (back - 1, back + 1):
        child_runs.kill_when(
            lambda step=step: last_position(workdir) == (Phase.RL, step), workdir, **options
        )
    child_runs.finish(workdir, **options)
    assert_same_run(workdir, expected, build_run(read_settings(steered_recipe.get_config())))


@pytest.mark.slow
def test_a_run_that_carries_groups_killed_while_some_wait_ends_as_the_uninterrupted_one(
    compile_cache, tmp_path
):
    """Carried groups, and the store that weighs prompts and has forgotten some."""
    options = {"recipe": "tests/sampled_recipe.py", "cache": compile_cache}
    expected, workdir = tmp_path / "uninterrupted", tmp_path / "killed"
    child_runs.finish(expected, **options)
    lines = [line for line in read_metrics(expected) if line["phase"] == Phase.RL][1:]
    assert sum(line["rollout/refill_rounds"] for line in lines) > 0
    assert sum(line.get("difficulty/skipped_fraction", 0) for line in lines) > 0
    assert lines[-1]["difficulty/problems"] == 40  # of more that were drawn
    # Checkpoints are of even steps.
    waiting = [
        line["step"]
        for line in lines
        if line["step"] % 2 == 0 and line["rollout/groups_carried_out"] and line["step"] < 8
    ]
    assert waiting
    # Killed once step `waiting[0]` is the newest checkpoint and a step beyond it is written.
    child_runs.kill_when(
        lambda: (
            saved(workdir)[-1:] == waiting[:1] and last_position(workdir) > (Phase.RL, waiting[0])
        ),
        workdir,
        **options,
    )
    printed = child_runs.finish(workdir, **options)
    assert f"resumed from the checkpoint of step {waiting[0]}" in printed
    assert_same_run(workdir, expected, build_run(read_settings(sampled_recipe.get_config())))


def test_a_rollback_returns_the_good_parameters_under_the_present_counts(tiny_run, tmp_path):
    with jax.set_mesh(tiny_run.mesh):
        guard = dataclasses.replace(tiny_run.settings.steering.guard, floor=0.5, rollback=True)

        def measured(position, entropy):
            steering, _ = steer(
                settings.steering, position.steering, settings.base_betas, position.step, entropy
            )
            return dataclasses.replace(position, steering=steering)

        steering = dataclasses.replace(tiny_run.settings.steering, guard=guard)
        settings = dataclasses.replace(tiny_run.settings, steering=steering)
        state = tiny_run.initial_state(tiny_run.learner)
        state = dataclasses.replace(state, step=state.step + 2)
        with open_checkpoints(settings, tmp_path, tiny_run.activity) as checkpoints:
            position = checkpoints.save(state, RunPosition(2, 16, START), {}, {})
            position = measured(position, 0.6)
            assert position.steering.guard.last_good_step == 2
            worse = dataclasses.replace(
                state,
                params=jax.tree.map(lambda leaf: leaf + 1, state.params),
                step=state.step + 2,
                updates=state.updates + 8,
            )
            later = dataclasses.replace(position, step=4)
            later = measured(checkpoints.save(worse, later, {}, {}), 0.4)
            assert later.steering.guard.last_good_step == 2  # step 4's entropy is too low
            for step in (6, 8):
                bad = dataclasses.replace(later, step=step)
                later = measured(checkpoints.save(worse, bad, {}, {}), 0.4)
            # The good one, those of the last two saves: a run may resume from either.
            assert saved(tmp_path, "good_checkpoints") == [2, 6, 8]
            back = checkpoints.roll_back(tiny_run.learner, worse, later)
        assert (int(back.step), int(back.updates)) == (4, 8)
        for name in ("params", "optimizer_state"):
            jax.tree.map(
                lambda one, other: np.testing.assert_array_equal(
                    np.asarray(one), np.asarray(other)
                ),
                getattr(back, name),
                getattr(state, name),
            )


def test_a_good_checkpoint_beyond_the_one_resumed_from_is_forgotten(tiny_run, tmp_path):
    """Killed at step 6, its good checkpoint written and its own not; resumed from step 2 with
    checkpoint.every_steps changed to 2, so that step 4 is a candidate.
    """
    with jax.set_mesh(tiny_run.mesh):
        guard = dataclasses.replace(tiny_run.settings.steering.guard, floor=0.5, rollback=True)
        steering = dataclasses.replace(tiny_run.settings.steering, guard=guard)
        settings = dataclasses.replace(tiny_run.settings, steering=steering)
        state = tiny_run.initial_state(tiny_run.learner)
        with open_checkpoints(settings, tmp_path, tiny_run.activity) as checkpoints:
            position = checkpoints.save(state, RunPosition(2, 16, START), {}, {})
            checkpoints.save(state, dataclasses.replace(position, step=6), {}, {})
        shutil.rmtree(tmp_path / "checkpoints" / "6")
        with open_checkpoints(settings, tmp_path, tiny_run.activity) as checkpoints:
            assert saved(tmp_path, "good_checkpoints") == [2]
            later = dataclasses.replace(state, step=state.step + 4)
            position = checkpoints.save(later, dataclasses.replace(position, step=4), {}, {})
            assert saved(tmp_path, "good_checkpoints") == [2, 4]
            measured, _ = steer(settings.steering, position.steering, settings.base_betas, 4, 0.6)
            assert measured.guard.last_good_step == 4
            position = dataclasses.replace(position, steering=measured, step=5)
            checkpoints.roll_back(tiny_run.learner, state, position)


@pytest.mark.slow
def test_the_reference_is_the_policy_of_step_0(compile_cache, tmp_path):
    """Also after the run has moved on: it is restored, not taken from the present state."""
    workdir = tmp_path / "run"
    flags = ("--config.steps=1", "--config.checkpoint.keep=5")
    child_runs.finish(workdir, *flags, recipe="tests/steered_recipe.py", cache=compile_cache)
    run = build_run(read_settings(steered_recipe.get_config()))
    with jax.set_mesh(run.mesh), Checkpointer(workdir / "checkpoints", 5) as checkpointer:
        start, _ = checkpointer.restore(run.learner.state_layout(), 0)
        end, _ = checkpointer.restore(run.learner.state_layout(), 1)
        reference = open_reference(run, workdir)
        jax.tree.map(
            lambda one, other: np.testing.assert_array_equal(np.asarray(one), np.asarray(other)),
            reference,
            start.params,
        )
        moved = jax.tree.map(
            lambda one, other: bool(np.any(np.asarray(one) != np.asarray(other))),
            reference,
            end.params,
        )
    assert any(jax.tree.leaves(moved))


@pytest.mark.slow
def test_a_finished_run_is_extended_to_the_longer_run(
    finished_run, compile_cache, tiny_run, tmp_path
):
    """The extension compiles everything anew, as a command on another day does."""
    workdir = tmp_path / "extended"
    child_runs.finish(workdir, "--config.steps=4", cache=compile_cache)
    assert last_position(workdir) == (Phase.RL, 4)
    assert saved(workdir) == [2, 4]
    printed = child_runs.finish(workdir, cache=None)
    assert "resumed from the checkpoint of step 4" in printed
    assert_same_run(workdir, finished_run[0], tiny_run)


def test_fewer_steps_than_were_taken_are_refused(finished_run):
    errors = child_runs.refused(finished_run[0], "--config.steps=1")
    assert "has taken 6 steps, and steps = 1 asks for fewer" in errors.splitlines()[-1]


def test_a_finished_run_started_again_is_complete_and_nothing_is_written(finished_run):
    workdir, printed = finished_run

    def files():
        found = [path for path in workdir.rglob("*") if path.is_file()]
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in found}

    before = files()
    again = child_runs.finish(workdir, "--config.steps=6")
    assert files() == before
    first, *words, last = again.splitlines()
    assert first.startswith(f"{workdir} is complete: it has taken all of its 6 steps")
    assert words == ["", *printed[printed.index("held-out accuracy  ") :].splitlines()]
    assert last.endswith(f" --config={child_runs.RECIPE} --workdir={workdir} --config.steps=12")
    assert "steps=6" not in last


@pytest.mark.slow
def test_a_finished_run_without_its_report_draws_it(finished_run, tmp_path, compile_cache):
    """Killed between its last checkpoint and its report."""
    workdir = tmp_path / "run"
    shutil.copytree(finished_run[0], workdir)
    (workdir / "report.png").unlink()
    assert "is complete" not in child_runs.finish(workdir, cache=compile_cache)
    assert (workdir / "report.png").is_file()
