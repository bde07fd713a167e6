"""One process writes to a directory: a second one is refused, a killed one leaves nothing."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys

import child_runs
import pytest

from cegppo_jax.run.directory import is_occupied
from cegppo_jax.run.evaluation_folder import writing_evaluation
from cegppo_jax.run.one_writer import LOCK_FILE_NAME, DirectoryLock, InUseError
from cegppo_jax.saved_config import load_config

HOLDS = """
import pathlib, sys, time
from cegppo_jax.run.evaluation_folder import writing_evaluation
from cegppo_jax.run.one_writer import DirectoryLock
lock = DirectoryLock(pathlib.Path(sys.argv[1]))
lock.hold()
print("held", flush=True)
time.sleep(600)
"""


def held_elsewhere(folder):
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "held\n"
    return child


def test_a_second_process_is_refused_and_told_who_writes_until_that_one_is_killed(tmp_path):
    child = held_elsewhere(tmp_path)
    try:
        with DirectoryLock(tmp_path) as lock, pytest.raises(InUseError) as raised:
            lock.hold()
        for part in (str(tmp_path), f"process {child.pid}", socket.gethostname()):
            assert part in str(raised.value)
        assert "\n" not in str(raised.value)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    with DirectoryLock(tmp_path) as lock:
        lock.hold()
        assert f'"process": {os.getpid()}' in (tmp_path / LOCK_FILE_NAME).read_text()


def test_the_lock_is_given_back_and_its_file_is_not_an_occupied_directory(tmp_path):
    for _ in range(2):
        with DirectoryLock(tmp_path / "run") as lock:
            lock.hold()
            lock.hold()
    assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK_FILE_NAME]
    assert not is_occupied(tmp_path / "run")


def test_nothing_is_made_in_a_directory_that_had_no_writer(tmp_path):
    with DirectoryLock(tmp_path / "run") as lock:
        lock.hold_if_begun()
    assert not (tmp_path / "run").exists()


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def unsupported(*arguments):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    said = []
    with DirectoryLock(tmp_path, said.append) as lock:
        lock.hold()
    [line] = said
    assert str(tmp_path / LOCK_FILE_NAME) in line
    assert "second process" in line


@pytest.mark.parametrize("command", ["train", "supervised"])
def test_a_run_started_twice_is_refused_by_its_holder_and_nothing_is_made(command, tmp_path):
    workdir = tmp_path / "run"
    with DirectoryLock(workdir) as lock:
        lock.hold()
        line = child_runs.refused(workdir, command=command)
    assert line.startswith(f"error: {workdir} is being written to by process {os.getpid()} on ")
    assert [path.name for path in workdir.iterdir()] == [LOCK_FILE_NAME]


def test_an_evaluation_started_twice_is_refused_and_its_description_stays(tmp_path):
    with writing_evaluation(tmp_path, {"step": 4}, {}):
        with (
            pytest.raises(InUseError, match=f"process {os.getpid()}"),
            writing_evaluation(tmp_path, {"step": 6}, {}),
        ):
            raise AssertionError("two of them")
        assert load_config(tmp_path) == {"step": 4}
