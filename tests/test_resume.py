"""A run that is killed, at whatever moment, and started again ends as if nothing had happened."""

import random
import time

import child_runs
import jax
import numpy as np

from cegppo_jax.checkpoint import Checkpointer
from cegppo_jax.metrics import Phase, read_metrics, without_clock
from cegppo_jax.parts import restore_state

RANDOM_SEED = 1
RANDOM_SECONDS = 0.1  # some steps, or half a checkpoint


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


def saved(workdir):
    """Steps of the whole checkpoints."""
    return sorted(int(p.name) for p in workdir.glob("checkpoints/*") if p.name.isdigit())


def final_state(workdir, parts):
    with Checkpointer(workdir, parts.settings.checkpoint) as checkpointer:
        return restore_state(parts, checkpointer)


def assert_same_run(workdir, expected, parts):
    """Parameters, optimizer state and counters bit for bit; metrics, samples, config as well."""
    lines, expected_lines = (
        [without_clock(line) for line in read_metrics(run)] for run in (workdir, expected)
    )
    assert lines == expected_lines
    for name in ("samples.jsonl", "config.json"):
        assert (workdir / name).read_bytes() == (expected / name).read_bytes()
    assert saved(workdir) == saved(expected)
    (state, position), (expected_state, expected_position) = (
        final_state(run, parts) for run in (workdir, expected)
    )
    assert position == expected_position
    leaves = dict(jax.tree.leaves_with_path(state))
    expected_leaves = dict(jax.tree.leaves_with_path(expected_state))
    assert leaves.keys() == expected_leaves.keys()
    for path, leaf in leaves.items():
        one, other = np.asarray(leaf), np.asarray(expected_leaves[path])
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes(), f"{jax.tree_util.keystr(path)} differs"


def test_the_uninterrupted_run_would_show_a_wrong_step(finished_run, tiny_parts):
    """Its every step moves the parameters, by rewards that differ and ratios that clip."""
    workdir, _ = finished_run
    lines = [line for line in read_metrics(workdir) if line["phase"] == Phase.RL][1:]
    assert all(line["reward/uniform_group_fraction"] < 1 for line in lines)
    assert sum(line["policy/clip_count_low"] for line in lines) > 0
    assert sum(line["policy/clip_count_high"] for line in lines) > 0
    state, position = final_state(workdir, tiny_parts)
    assert (position.step, int(state.step), int(state.updates)) == (6, 6, 12)
    assert position.next_prompt == 48
    assert all(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(state.optimizer_state))


def test_a_run_killed_in_each_phase_ends_as_the_uninterrupted_one(
    finished_run, compile_cache, tiny_parts, tmp_path
):
    workdir = tmp_path / "killed"

    def kill_when(happens):
        child_runs.kill_when(happens, workdir, cache=compile_cache)

    kill_when(lambda: last_position(workdir)[0] == Phase.SUPERVISED)
    assert last_position(workdir) < (Phase.SUPERVISED, 40)
    assert saved(workdir) == []

    kill_when(lambda: saving(workdir))
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
    assert_same_run(workdir, finished_run[0], tiny_parts)


def test_a_run_killed_at_random_moments_ends_as_the_uninterrupted_one(
    finished_run, compile_cache, tiny_parts, tmp_path
):
    """Up to RANDOM_SECONDS after a random line was written: one of the warm start, two of RL."""
    workdir = tmp_path / "killed"
    moments = random.Random(RANDOM_SEED)
    for line in (moments.randrange(1, 40), moments.randrange(41, 44), moments.randrange(44, 47)):
        child = child_runs.start(workdir, cache=compile_cache)
        while child.poll() is None and lines_written(workdir) < line:
            time.sleep(child_runs.POLL_SECONDS)
        seconds = moments.uniform(0, RANDOM_SECONDS)
        time.sleep(seconds)
        child.kill()
        child.communicate()
        print(
            f"killed {seconds:.3f} s after line {line}: metrics until {last_position(workdir)}, "
            f"checkpoints {saved(workdir)}"
        )
    child_runs.finish(workdir, cache=compile_cache)
    assert_same_run(workdir, finished_run[0], tiny_parts)


def test_a_finished_run_is_extended_to_the_longer_run(
    finished_run, compile_cache, tiny_parts, tmp_path
):
    """The extension compiles everything anew, as a command on another day does."""
    workdir = tmp_path / "extended"
    child_runs.finish(workdir, "--config.steps=4", cache=compile_cache)
    assert last_position(workdir) == (Phase.RL, 4)
    assert saved(workdir) == [2, 4]
    printed = child_runs.finish(workdir, cache=None)
    assert "resumed from the checkpoint of step 4" in printed
    assert_same_run(workdir, finished_run[0], tiny_parts)


def test_a_finished_run_started_again_changes_nothing(finished_run, compile_cache):
    """But for versions.json, which has a line for each kind of start."""
    workdir, printed = finished_run

    def files():
        found = [path for path in workdir.rglob("*") if path.is_file()]
        return {path: path.read_bytes() for path in found if path.name != "versions.json"}

    before = files()
    again = child_runs.finish(workdir, cache=compile_cache)
    assert files() == before
    assert again.endswith(printed[printed.index("held-out accuracy  ") :])
