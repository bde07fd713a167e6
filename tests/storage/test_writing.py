"""A disk that takes no more is one line with file and space, and what was whole stays so."""

import dataclasses
import errno
import json
import logging
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from full_disks import files_of_at_most

from cegppo_jax.export import export_run
from cegppo_jax.page.page import write_page
from cegppo_jax.reporting.metrics import MetricsWriter, read_metrics
from cegppo_jax.reporting.picture import draw_run
from cegppo_jax.reporting.writers import Phase, resolve_writer
from cegppo_jax.run.checkpoint import Checkpointer
from cegppo_jax.run.position import RunPosition
from cegppo_jax.run.saved_model import save_model_description
from cegppo_jax.steering.steer import START
from cegppo_jax.storage import strict_json
from cegppo_jax.storage.jsonl import JsonlLog, read_jsonl
from cegppo_jax.storage.writing import CannotWriteError, is_new, leave_out_echoes, refusal, writing

FULL = OSError(errno.ENOSPC, "No space left on device")


def caused(error, by):
    error.__cause__ = by
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FULL, "No space left on device"),
        (OSError(errno.EROFS, "x"), "Read-only file system"),
        (OSError(errno.EDQUOT, "x"), "Disk quota exceeded"),
        (ValueError("RESOURCE_EXHAUSTED: ... [OS error 28: No space left on device]"), "No space"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "No space left"),
        (caused(RuntimeError("a thread died"), FULL), "No space left on device"),
        (ValueError("no space in this text"), None),
        (PermissionError(errno.EACCES, "Permission denied"), None),
    ],
)
def test_what_libraries_say_of_a_disk_is_told_from_other_errors(error, words, tmp_path):
    reason = refusal(error)
    assert reason is None if words is None else reason.startswith(words)
    expected = type(error) if words is None else CannotWriteError
    with pytest.raises(expected) as raised, writing(tmp_path / "made" / "later.txt"):
        raise error
    if words is not None:
        line = str(raised.value)
        assert str(tmp_path / "made" / "later.txt") in line
        assert f"GB are free in {tmp_path}" in line
        assert "\n" not in line


def test_a_log_of_what_is_told_anyway_is_left_out():
    record = logging.LogRecord("asyncio", logging.ERROR, "", 1, "never retrieved", (), None)
    assert is_new(record)
    for error, kept in ((FULL, False), (ValueError("a bug"), True)):
        record.exc_info = type(error), error, None
        assert is_new(record) == kept


def test_only_late_replies_are_left_out_of_what_nobody_can_catch(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    leave_out_echoes()
    leave_out_echoes()
    for error in (RuntimeError("Event loop is closed"), RuntimeError("a bug")):
        sys.unraisablehook(SimpleNamespace(exc_value=error))
    assert [str(one.exc_value) for one in told] == ["a bug"]


def test_lines_are_appended_whole_or_not_at_all(tmp_path):
    """The kernel takes a part of them, and refuses the rest."""
    path = tmp_path / "log.jsonl"
    with JsonlLog(path, None, "a line") as log:
        log.append([{"n": 1}])
        with files_of_at_most(200), pytest.raises(CannotWriteError, match=r"log\.jsonl cannot"):
            log.append([{"n": 2, "text": "x" * 100}, {"n": 3, "text": "x" * 100}])
        assert path.read_bytes() == b'{"n": 1}\n'
        log.append([{"n": 4}])
    assert [line["n"] for line in read_jsonl(path, dict, "a line")] == [1, 4]


def test_metrics_say_it_at_the_step(tmp_path):
    values = {"reward/mean": 0.5, "policy/entropy": 1.0}
    with MetricsWriter(tmp_path, None, ("tensorboard",)) as writer:
        writer.write("rl", 0, values)
        with files_of_at_most(90), pytest.raises(CannotWriteError, match=r"metrics\.jsonl"):
            writer.write("rl", 1, values)
        writer.write("rl", 1, values)
    assert [line["step"] for line in read_metrics(tmp_path)] == [0, 1]


def test_no_thread_of_tensorboard_dies_in_silence(tmp_path):
    board = resolve_writer("tensorboard")(tmp_path, None)
    board.write(Phase.RL, 0, {"reward/mean": 0.5})
    with files_of_at_most(120), pytest.raises(CannotWriteError, match="tensorboard"):
        board.write(Phase.RL, 1, {"reward/mean": 0.5})
    board.close()


def test_a_file_that_is_replaced_stays_as_it_was(tmp_path):
    strict_json.write_json(tmp_path / "config.json", {"a": 1})
    with files_of_at_most(100), pytest.raises(CannotWriteError, match=r"config\.json"):
        strict_json.write_json(tmp_path / "config.json", {"a": "x" * 1000})
    assert json.loads((tmp_path / "config.json").read_text()) == {"a": 1}


@pytest.fixture(scope="module")
def saved_run(tiny_run, tmp_path_factory):
    """The directory of a run with a checkpoint of step 0, and its state."""
    workdir = tmp_path_factory.mktemp("run")
    tiny_run.problems.tokenizer.save_pretrained(workdir / "tokenizer")
    save_model_description(workdir, tiny_run.model, tiny_run.ends.ids)
    with jax.set_mesh(tiny_run.mesh), Checkpointer(workdir / "checkpoints", 1) as checkpoints:
        state = tiny_run.initial_state(tiny_run.learner)
        checkpoints.save(state, RunPosition(0, 0, START))
    return workdir, state


def test_a_checkpoint_that_finds_no_room_is_told_and_the_last_good_one_stays(saved_run, tiny_run):
    workdir, state = saved_run
    later = dataclasses.replace(state, step=state.step + 2)
    with jax.set_mesh(tiny_run.mesh):
        with (
            Checkpointer(workdir / "checkpoints", 1) as checkpoints,
            files_of_at_most(2000),
            pytest.raises(CannotWriteError, match=str(workdir / "checkpoints")),
        ):
            _save_and_wait(checkpoints, later)
        with Checkpointer(workdir / "checkpoints", 1) as checkpoints:  # the same command again
            assert checkpoints.steps() == [0]
            restored = checkpoints.restore(tiny_run.learner.state_layout())
            for one, other in zip(*map(jax.tree.leaves, (restored[0], state)), strict=True):
                np.testing.assert_array_equal(one, other)
            _save_and_wait(checkpoints, later)
            assert checkpoints.steps() == [2]


def _save_and_wait(checkpoints, state):
    checkpoints.save(state, RunPosition(int(state.step), 0, START))  # goes on in the background
    checkpoints.wait()


def test_an_export_leaves_nothing_half_written(saved_run, tmp_path):
    with files_of_at_most(2000), pytest.raises(CannotWriteError, match=r"out\.partial"):
        export_run(saved_run[0], tmp_path / "out", "float32", None, 2.0)
    assert list(tmp_path.iterdir()) == []


def test_pages_and_pictures_say_it(finished_run, tmp_path):
    out = tmp_path / "page.html"
    with files_of_at_most(2000), pytest.raises(CannotWriteError, match=r"page\.html"):
        write_page({"one": [finished_run[0]]}, out, cdn=True)
    assert not out.exists()
    lines = (finished_run[0] / "metrics.jsonl").read_bytes()
    (tmp_path / "metrics.jsonl").write_bytes(lines)
    (tmp_path / "config.json").write_bytes((finished_run[0] / "config.json").read_bytes())
    with files_of_at_most(2000), pytest.raises(CannotWriteError, match=r"report\.png"):
        draw_run(tmp_path)
    assert not (tmp_path / "report.png").exists()
