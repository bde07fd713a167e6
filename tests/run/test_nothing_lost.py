"""A run without its checkpoints is refused, not started over its own logs."""

import json
import os
import shutil

import child_runs
import pytest

from cegppo_jax.reporting.metrics import Phase, check_lines
from cegppo_jax.run.checkpoint import saved_lines
from cegppo_jax.run.nothing_lost import MARK, check_nothing_lost, check_resumable
from cegppo_jax.storage.jsonl import JsonlLog


def write_lines(workdir, *positions):
    lines = [json.dumps({"phase": phase, "step": step}) for phase, step in positions]
    (workdir / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize("left", ["missing", "empty"])
def test_a_run_whose_checkpoints_are_gone_is_refused_and_keeps_its_lines(
    left, finished_run, tmp_path
):
    workdir = tmp_path / "run"
    shutil.copytree(finished_run[0], workdir)
    shutil.rmtree(workdir / "checkpoints")
    if left == "empty":  # a file system that is not mounted
        (workdir / "checkpoints").mkdir()
    names = ("metrics.jsonl", "updates.jsonl", "samples.jsonl")
    before = [(workdir / name).read_bytes() for name in names]
    line = child_runs.refused(workdir)
    for part in (f"{workdir}/metrics.jsonl has 47 lines", "rl step 6", f"{workdir}/checkpoints"):
        assert part in line
    assert f"To start over and lose these lines, delete {workdir}" in line
    assert [(workdir / name).read_bytes() for name in names] == before


@pytest.mark.parametrize(
    ("positions", "marked", "refused"),
    [
        ([], True, False),
        ([(Phase.SUPERVISED, 0)], False, False),  # killed before its first checkpoint
        ([(Phase.SUPERVISED, 0)], True, True),
        ([(Phase.RL, 0), (Phase.RL, 1)], False, False),  # killed while the first one was saved
        ([(Phase.RL, 0), (Phase.RL, 2)], False, True),  # of version 0.2
    ],
)
def test_what_starts_over_is_only_what_never_had_a_checkpoint(positions, marked, refused, tmp_path):
    write_lines(tmp_path, *positions)
    (tmp_path / "checkpoints").mkdir()
    if marked:
        (tmp_path / MARK).touch()
    if refused:
        with pytest.raises(ValueError, match=rf"{positions[-1][0]} step {positions[-1][1]}, and"):
            check_nothing_lost(tmp_path)
    else:
        check_nothing_lost(tmp_path)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ((0, 1, 2), "ends with rl step 2, and the newest checkpoint is of rl step 4"),
        ((0, 1, 4), r"no line of rl step 2 \(2 steps are missing .* of step 4\)"),
    ],
)
def test_metrics_that_lack_a_step_of_the_checkpoint_are_noticed(steps, message, tmp_path):
    write_lines(tmp_path, *((Phase.RL, step) for step in steps))
    with pytest.raises(ValueError, match=message):
        check_lines(tmp_path, (Phase.RL, 4), {})


@pytest.mark.parametrize("left", ["all but one line", "all but the first line", "nothing", None])
@pytest.mark.parametrize("name", ["metrics.jsonl", "updates.jsonl", "samples.jsonl"])
def test_a_log_with_other_lines_than_its_checkpoint_counts_on_is_named(
    name, left, finished_run, tmp_path
):
    workdir = tmp_path / "run"
    shutil.copytree(finished_run[0], workdir)
    lines = (workdir / name).read_bytes().splitlines(keepends=True)
    kept = {"all but one line": lines[:-1], "all but the first line": lines[1:], "nothing": []}
    (workdir / name).unlink()
    if left is not None:
        (workdir / name).write_bytes(b"".join(kept[left]))
    assert str(workdir / name) in (refusal := child_runs.refused(workdir))
    if name != "metrics.jsonl":
        found = len(kept.get(left, []))
        assert f"has {found} lines up to rl step 6, and had {len(lines)}" in refusal


def test_a_run_goes_on_whose_checkpoint_does_not_say_how_many_lines_there_were(
    finished_run, tmp_path
):
    """An older version's, or a damaged one's: what reads it whole says so."""
    shutil.copytree(finished_run[0] / "checkpoints" / "6", tmp_path / "6")
    assert saved_lines(tmp_path, 6) == {
        name: len((finished_run[0] / name).read_bytes().splitlines())
        for name in ("metrics.jsonl", "updates.jsonl", "samples.jsonl")
    }
    path = tmp_path / "6" / "position" / "metadata"
    content = path.read_bytes()
    assert b'"next_prompt":' in content
    others = [b"", b"[]", b"[" * 1000, b"{}", b"\xff", content.replace(b"next_prompt", b"prompt")]
    for other in others:
        path.write_bytes(other)
        assert saved_lines(tmp_path, 6) == {}


def test_a_damaged_folder_of_the_warm_start_is_no_reason_to_start_over(tmp_path):
    """Its checkpoint says that 4 steps were taken; the metrics have 3."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "warm_start" / "4").mkdir(parents=True)
    (tmp_path / "warm_start" / "4" / "_CHECKPOINT_METADATA").touch()
    write_lines(tmp_path, *((Phase.SUPERVISED, step) for step in range(3)))
    with pytest.raises(ValueError, match=r"ends with supervised step 2, .* supervised step 3"):
        check_resumable(tmp_path, "steps", 6)
    write_lines(tmp_path, *((Phase.SUPERVISED, step) for step in range(4)))
    assert check_resumable(tmp_path, "steps", 6) is None


def test_lines_are_on_the_disk_when_sync_returns(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (synced.append(number), fsync(number)))
    with JsonlLog(tmp_path / "log.jsonl", None, "a line") as log:
        log.append([{"n": 1}])
        assert synced == []
        log.sync()
    assert len(synced) == 1
    with pytest.raises(ValueError, match="closed"):
        log.sync()
