"""Two and four processes that train together: equal to one on the same devices, and never left
alone.
"""

import signal
import time

import child_runs
import pytest
from processes import FLAGS, begin, finish, train
from test_resume import assert_same_run, lines_written

from cegppo_jax.reporting.metrics import read_metrics, without_clock
from cegppo_jax.run.build import build_run
from cegppo_jax.run.command_line import recipe_config
from cegppo_jax.run.settings import read_settings

pytestmark = pytest.mark.slow

BOUND_SECONDS = 60  # for the others to stop; the heartbeat's is 10


@pytest.fixture(scope="module")
def one(tmp_path_factory, compile_cache):
    workdir = tmp_path_factory.mktemp("one_process") / "run"
    finish(begin(1, *train(workdir, *FLAGS), cache=compile_cache))
    return workdir


@pytest.fixture(scope="module")
def run():
    config = recipe_config(child_runs.ROOT / child_runs.RECIPE, "", "")
    config.mesh.fsdp = 2
    return build_run(read_settings(config))


def test_two_processes_are_one_bit_for_bit(one, run, tmp_path, compile_cache):
    """Warm start, evaluations, dynamic sampling, a reference, checkpoints: metrics, samples and
    every number of the checkpoints. The second writes nothing and prints nothing.
    """
    workdir = tmp_path / "run"
    first, second = finish(begin(2, *train(workdir, *FLAGS), cache=compile_cache))
    assert "held-out accuracy" in first
    assert not any(words in second for words in ("held-out", "compiling", "completions a step"))
    assert_same_run(workdir, one, run)

    again, _ = finish(begin(2, *train(workdir, *FLAGS), cache=compile_cache))
    assert "is complete" in again
    exports = [tmp_path / name for name in ("of_two", "of_one")]
    finish(begin(2, "export", f"--run={workdir}", f"--out={exports[0]}", cache=compile_cache))
    child_runs.command("export", f"--run={one}", f"--out={exports[1]}", cache=compile_cache)
    weights = [(folder / "model.safetensors").read_bytes() for folder in exports]
    assert weights[0] == weights[1]


def test_four_processes_are_one_bit_for_bit(run, tmp_path, compile_cache):
    """With a device each, of a mesh of 2 x 2; the one process has all four."""
    folders = [tmp_path / name for name in ("one", "four")]
    for count, workdir in zip((1, 4), folders, strict=True):
        finish(begin(count, *train(workdir, *FLAGS), cache=compile_cache, devices=4))
    assert_same_run(folders[1], folders[0], run)


def test_two_processes_with_a_rollout_ahead_are_one_bit_for_bit(run, tmp_path, compile_cache):
    """Both dispatch the same programs in the same order: else they would wait for each other."""
    flags = (
        *FLAGS[:2],
        "--config.batch.rollout_lag_steps=1",
        "--config.batch.dynamic_sampling=filter",
        "--config.batch.minibatch_prompts=2",
        "--config.reward.pool.workers=1",
    )
    folders = [tmp_path / name for name in ("one", "two")]
    for count, workdir in enumerate(folders, 1):
        finish(begin(count, *train(workdir, *flags), cache=compile_cache))
    assert_same_run(folders[1], folders[0], run)
    stale = [line.get("rollout/staleness_mean_steps") for line in read_metrics(folders[0])]
    assert stale[-3:-1] == [1, 1]


def test_two_processes_begin_a_run_that_one_ends_and_the_other_way_round(
    one, run, tmp_path, compile_cache
):
    """Resumed on another number of processes with the same devices: the same bits."""
    for begun, ended in ((2, 1), (1, 2)):
        workdir = tmp_path / f"{begun}_to_{ended}"
        first, rest = (*FLAGS, "--config.steps=2"), FLAGS
        finish(begin(begun, *train(workdir, *first), cache=compile_cache))
        finish(begin(ended, *train(workdir, *rest), cache=compile_cache))
        assert_same_run(workdir, one, run)


def test_two_processes_train_supervised_as_one_does(tmp_path, compile_cache):
    flags = ("--config.warm_start.steps=4", "--config.evaluation.every_steps=2")
    folders = [tmp_path / name for name in ("one", "two")]
    for count, workdir in enumerate(folders, 1):
        _, *options = train(workdir, *flags)
        finish(begin(count, "supervised", *options, cache=compile_cache))
    lines = [[without_clock(line) for line in read_metrics(folder)] for folder in folders]
    assert lines[0] == lines[1]
    assert [line["step"] for line in lines[0]] == list(range(4))
    weights = []
    for workdir in folders:
        out = tmp_path / f"{workdir.name}-model"
        child_runs.command("export", f"--run={workdir}", f"--out={out}", cache=compile_cache)
        weights.append((out / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


@pytest.mark.parametrize("victim", [0, 1])
def test_two_processes_of_which_one_is_killed_stop_and_resume(
    one, run, victim, tmp_path, compile_cache
):
    workdir = tmp_path / "run"
    children = begin(2, *train(workdir, *FLAGS), cache=compile_cache)
    while lines_written(workdir) < 13 and all(child.poll() is None for child in children):
        time.sleep(0.02)
    children[victim].send_signal(signal.SIGKILL)
    killed, other = time.monotonic(), children[1 - victim]
    _, errors = other.communicate(timeout=BOUND_SECONDS)
    children[victim].communicate()
    assert time.monotonic() - killed < BOUND_SECONDS
    assert other.returncode != 0
    assert f"error: host {victim} of 2 has died (last seen: " in errors
    (workdir / ".seen_by_all_0123").touch()  # left by one that was killed at its start
    finish(begin(2, *train(workdir, *FLAGS), cache=compile_cache))
    assert not list(workdir.glob(".seen_by_all_*"))
    assert_same_run(workdir, one, run)


def test_a_process_whose_other_never_starts_ends_with_a_line(tmp_path, compile_cache):
    flags = ("--start_timeout_seconds=10",)
    first, second = begin(2, *train(tmp_path / "run", *flags), cache=compile_cache)
    second.kill()
    _, errors = first.communicate(timeout=BOUND_SECONDS)
    second.communicate()
    assert first.returncode == 1
    assert "error: not all hosts have started within 10 s" in errors
    assert not (tmp_path / "run").exists()


def test_two_processes_use_the_score_of_the_one_whose_verifier_timed_out(tmp_path, compile_cache):
    """That of process 1 hangs. With scores of their own they would train different policies."""
    flags = (
        "--config.steps=1",
        "--config.warm_start.steps=0",
        "--config.evaluation.problems=1",
        "--config.batch.prompts=2",
        "--config.batch.trained_prompts=2",
        "--config.batch.minibatch_prompts=2",
        "--config.reward.verifier=tests.hangs_on_one_host:verify",
        "--config.reward.pool.workers=1",
        "--config.reward.pool.timeout_seconds=0.2",
    )
    workdir = tmp_path / "run"
    finish(
        begin(
            2, *train(workdir, *flags), cache=compile_cache, own={1: {"CEGPPO_VERIFIER_HANGS": "1"}}
        )
    )
    [*_, last] = read_metrics(workdir)
    timed_out = last["reward/timed_out_fraction"] * last["rollout/completions"]
    assert 0 < timed_out <= last["rollout/completions"] / 2  # every other one is process 1's
    assert last["reward/pool_restarts"] == timed_out


def test_two_processes_refuse_a_work_directory_that_they_do_not_share(tmp_path, compile_cache):
    folders = [tmp_path / "here", tmp_path / "there"]
    for folder in folders:
        folder.mkdir()
    recipe = f"--config={child_runs.ROOT / child_runs.RECIPE}"
    variables = {"PYTHONPATH": str(child_runs.ROOT)}
    children = begin(
        2,
        "train",
        recipe,
        "--workdir=run",
        cache=compile_cache,
        own={0: variables, 1: variables},
        folders=folders,
    )
    for child in children:
        _, errors = child.communicate()
        assert child.returncode == 1
        assert "hosts [1] of 2 do not see what host 0 has written in run" in errors
    assert not (folders[1] / "run").exists()
