"""`cegppo check` says what `train` would say, and not only of the first thing that is wrong."""

import shutil
from collections import namedtuple

import child_runs
import pytest
import tiny_recipe

from cegppo_jax import check
from cegppo_jax.run import disk, memory
from cegppo_jax.run.one_writer import DirectoryLock


def results(workdir, **changes):
    """-> {name: Result} of the tiny recipe with changed settings."""
    config = tiny_recipe.get_config()
    config.update_from_flattened_dict(changes)
    return {one.name: one for one in check.check_start(config.lock(), workdir)}


def marks(found, mark):
    return [name for name, one in found.items() if one.mark == mark]


def test_a_start_that_is_right_passes_every_check_and_writes_nothing(tmp_path):
    found = results(tmp_path / "run")
    assert set(found) >= {"settings", "directory", "memory", "disk", "verifiers"}
    assert marks(found, "ok") == list(found)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"loss.beta_low": -1.0}, "settings"),
        ({"mesh.tensor": 3}, "mesh and devices"),
        ({"model.pretrained": "/no/such/model"}, "model files"),
        ({"problems.tokenizer": "/no/such/tokenizer"}, "problems and tokenizer"),
        ({"reward.by_source": ("nowhere=final_answer",)}, "answers"),
        ({"model.kv_heads": 3, "mesh.tensor": 2, "mesh.data": 4}, "model, tokenizer and mesh"),
        (
            {"sampler.cache": "paged", "sampler.page_tokens": 4, "sampler.pages": 8},
            "model, tokenizer and mesh",
        ),
        ({"reward.scope": "after_think"}, "ends and tags"),
        ({"sampler.max_prompt_tokens": 2}, "training prompts"),
        ({"sampler.max_completion_tokens": 6}, "warm start"),
        ({"sampler.slots": 2**20}, "memory"),
        ({"reward.verifier": "tests.faulty:none"}, "settings"),
        ({"reward.verifier": "own_verifiers:raises"}, "verifiers"),
    ],
    ids=lambda one: "-".join(one) if isinstance(one, dict) else one,
)
def test_what_check_finds_wrong_is_what_train_refuses_with_the_same_words(
    changes, wrong, tmp_path, monkeypatch
):
    monkeypatch.setattr(memory, "available_memory", lambda mesh: (10**8, 8))
    found = results(tmp_path / "run", **changes)
    assert wrong in marks(found, "wrong")
    flags = [
        f"--config.{name}={','.join(v) if isinstance(v, tuple) else v}"
        for name, v in changes.items()
    ]
    assert child_runs.refused(tmp_path / "run", *flags) == f"error: {found[wrong].words}"


def test_one_thing_wrong_does_not_hide_another(tmp_path):
    """What could not be looked at says what comes first."""
    nowhere = {"model.pretrained": "/no/such/model", "problems.tokenizer": "/no/such/tokenizer"}
    found = results(tmp_path / "run", **nowhere, **{"mesh.tensor": 3})
    assert marks(found, "wrong") == ["mesh and devices", "model files", "problems and tokenizer"]
    assert "problems and tokenizer" in found["training prompts"].words
    assert "training prompts" in marks(found, "-")


def test_the_directory_is_looked_at_as_train_does(tmp_path, finished_run):
    workdir = tmp_path / "run"
    shutil.copytree(finished_run[0], workdir)
    assert "has taken 6 of 6 steps" in results(workdir)["directory"].words
    wrong = results(workdir, seed=7)["directory"]
    assert wrong.mark == "wrong"
    assert child_runs.refused(workdir, "--config.seed=7") == f"error: {wrong.words}"
    with DirectoryLock(workdir) as other:
        other.hold()
        busy = results(workdir)["directory"]
    assert busy.mark == "wrong"
    assert "being written to" in busy.words


def test_checkpoints_that_do_not_fit_the_disk_are_refused_by_both(tmp_path, monkeypatch):
    usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda place: usage(10**9, 10**9, 30_000))
    wrong = results(tmp_path / "run")["disk"]
    assert wrong.mark == "wrong"
    assert "checkpoint.keep + 1 = 3 of " in wrong.words
    assert child_runs.refused(tmp_path / "run") == f"error: {wrong.words}"
    assert list(tmp_path.iterdir()) == []  # nothing was begun


def test_checkpoints_that_are_there_and_copies_count(tmp_path, finished_run):
    workdir = tmp_path / "run"
    shutil.copytree(finished_run[0], workdir)
    assert "2 are there" in results(workdir)["disk"].words
    more = {"steering.guard.rollback": True, "steering.guard.floor": 0.1, "loss.kl_place": "loss"}
    words = results(tmp_path / "other", **more)["disk"].words
    assert "3 for rollbacks, the reference policy" in words


@pytest.mark.parametrize(("flag", "code"), [("--config.seed=1", 0), ("--config.mesh.tensor=3", 1)])
def test_the_command_lists_every_check_and_says_by_its_exit_code_whether_all_passed(
    flag, code, tmp_path, capsys
):
    if code:
        line = child_runs.refused(tmp_path / "run", flag, command="check")
        assert line.startswith("error: 1 of the checks")
    else:
        with child_runs.in_this_process("check", tmp_path / "run", flag):
            child_runs.command_line.run("check", check.main)
    printed = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("ok") for line in printed) >= 8
    assert sum(line.startswith("wrong  mesh and devices: ") for line in printed) == code
