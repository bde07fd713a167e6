"""Whole commands on a disk that fills, or is read-only at the next start: a line, and they go on
once it is not.
"""

import signal
import time

import child_runs
import pytest
from full_disks import small_disk
from test_resume import assert_same_run, lines_written

AS_IT_FILLS = ("size=100k", "size=220k")


def told(errors):
    """-> the one line of a command that ended."""
    assert "Traceback" not in errors
    line = errors.strip().splitlines()[-1]
    assert line.startswith("error: ")
    assert "cannot be written" in line
    assert " are free in " in line
    return line


@pytest.mark.slow
@pytest.mark.parametrize("size", AS_IT_FILLS)
def test_a_run_on_a_disk_that_fills_says_so_and_goes_on_when_there_is_room(
    size, finished_run, compile_cache, tiny_run, tmp_path
):
    """In its warm start, and in its steps."""
    with small_disk(tmp_path / "disk", size) as change:
        if change is None:
            pytest.skip("mounting a file system needs root")
        workdir = tmp_path / "disk" / "run"
        line = told(child_runs.fail(workdir, cache=compile_cache))
        assert str(workdir) in line
        assert "No space left on device" in line
        assert change("size=64m")
        child_runs.finish(workdir, cache=compile_cache)
        assert_same_run(workdir, finished_run[0], tiny_run)


@pytest.mark.slow
def test_a_run_on_a_disk_that_has_become_read_only_says_so_and_goes_on(
    finished_run, compile_cache, tiny_run, tmp_path
):
    """Between two starts: while a process has a file open for writing, Linux refuses to remount."""
    with small_disk(tmp_path / "disk", "size=64m") as change:
        if change is None:
            pytest.skip("mounting a file system needs root")
        workdir = tmp_path / "disk" / "run"
        child = child_runs.start(workdir, cache=compile_cache)
        while child.poll() is None and lines_written(workdir) < 20:
            time.sleep(child_runs.POLL_SECONDS)
        child.send_signal(signal.SIGTERM)
        child.communicate()
        assert child.returncode == 75
        assert change("ro")
        refused = child_runs.fail(workdir, cache=compile_cache)
        assert "Traceback" not in refused
        line = refused.strip().splitlines()[-1]
        assert line.startswith("error: ")
        assert "Read-only file system" in line
        assert change("rw")
        child_runs.finish(workdir, cache=compile_cache)
        assert_same_run(workdir, finished_run[0], tiny_run)


@pytest.mark.slow
def test_an_evaluation_on_a_disk_that_fills_says_so_and_goes_on(
    finished_run, compile_cache, tmp_path
):
    with small_disk(tmp_path / "disk", "size=12k") as change:
        if change is None:
            pytest.skip("mounting a file system needs root")
        out, flags = tmp_path / "disk" / "out", (f"--run={finished_run[0]}",)
        arguments = (*flags, f"--out={out}")
        options = {"command": "evaluate", "cache": compile_cache, "recipe": child_runs.RECIPE}
        line = told(child_runs.fail(None, *arguments, **options))
        assert str(out) in line
        assert change("size=64m")
        child_runs.finish(None, *arguments, **options)
        elsewhere = tmp_path / "elsewhere"
        child_runs.finish(None, *flags, f"--out={elsewhere}", **options)
        for name in ("problems.csv", "config.json"):
            assert (out / name).read_bytes() == (elsewhere / name).read_bytes()
