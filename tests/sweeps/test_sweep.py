"""The command: what it asks for, what it refuses, and real runs that are killed and resumed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import child_runs
import pytest

from cegppo_jax import sweep
from cegppo_jax.console.start import EXIT_CODE
from cegppo_jax.reporting.metrics import read_metrics, without_clock

FILE = f"""
import runpy
from cegppo_jax.sweeps.arms import arm, chain, over, product, seeds
QUESTION = "Does it?"
PREDICTION = "It does."
METRIC = "evaluation/accuracy"
def base():
    return runpy.run_path({str(child_runs.ROOT / child_runs.RECIPE)!r})["get_config"]()
def arms():
    return product(chain(arm("base"), over("loss.beta_low", 0.0)), seeds(0, 1))
"""


@pytest.fixture
def asked(tmp_path):
    path = tmp_path / "asked.py"
    path.write_text(FILE)
    return path


def act(*words):
    sweep.act(sweep.arguments().parse_args([str(word) for word in words]))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "found none"),
        (["--list", "--table"], "found --list --table"),
        (["--table", "--arm=base"], "found --table --arm"),
        (["--run", "--jobs=0"], "--jobs = 0"),
        (["--list", "--dir=gs://bucket/runs"], "--list --dir=gs://bucket/runs: .*--bucket=NAME"),
        (["--table", "--dir=s3://bucket/runs"], "--dir = 's3://bucket/runs' is a URL"),
        (["--arm=base"], "has 2 seeds: --arm=base/seed0"),
        (["--arm=bas/seed0"], "did you mean 'base/seed0'"),
        (["--run", "--arm=bases"], "did you mean 'base'"),
        (["--table"], "--run begins"),
        (["--report"], "--run begins"),
        (["--emit=wandb"], "by a path within it"),
    ],
)
def test_what_cannot_be_done_is_said(asked, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=says):
        act(asked, *words)
    assert {one.name for one in tmp_path.iterdir()} <= {asked.name, "__pycache__"}


def test_bad_input_ends_with_one_line(tmp_path):
    child = subprocess.run(
        [sys.executable, "-m", "cegppo_jax.sweep", "nothing.py", "--list"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert child.returncode == 1
    assert child.stderr.startswith("error: there is no experiment 'nothing.py'")
    assert child.stderr.count("\n") == 1


def test_list_checks_every_config(asked, tmp_path, capsys):
    act(asked, "--list", f"--dir={tmp_path / 'runs'}")
    printed = capsys.readouterr().out
    assert printed.count("to go") == 4
    assert "2 arms, 4 runs" in printed
    asked.write_text(FILE.replace("loss.beta_low", "loss.beta_lwo"))
    with pytest.raises(ValueError, match=r"run beta_lwo=0\.0/seed0: .*loss\.beta_low\?"):
        act(asked, "--list", f"--dir={tmp_path / 'runs'}")


def test_one_run_becomes_the_train_command(asked, tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(os, "execv", lambda program, words: called.append(words))
    act(asked, "--arm=beta_low=0.0/seed1", f"--dir={tmp_path / 'runs'}")
    [words] = called
    assert words[1:] == (
        *("-m", "cegppo_jax.train", f"--config={asked}"),
        f"--workdir={tmp_path}/runs/beta_low=0.0/seed1",
        *("--config.loss.beta_low=0.0", "--config.seed=1"),
    )


def start(asked, folder, cache, *words):
    return subprocess.Popen(
        [sys.executable, "-m", "cegppo_jax.sweep", str(asked), f"--dir={folder}", *words],
        cwd=child_runs.ROOT,
        env=child_runs.environment(cache),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


FEWER = ("seeds(0, 1)", "seeds(0)")


@pytest.mark.slow
def test_killed_runs_are_resumed_to_the_same_bits(asked, tmp_path, compile_cache, finished_run):
    asked.write_text(FILE.replace(*FEWER))
    folder = tmp_path / "runs"
    workdir, other = (folder / arm / "seed0" for arm in ("base", "beta_low=0.0"))
    child = start(asked, folder, compile_cache, "--run", "--jobs=2")
    while not any((workdir / "checkpoints").glob("[24]")):
        assert child.poll() is None, child.communicate()
        time.sleep(0.05)
    child.kill()
    child.communicate()
    # Its children go on, and the next sweep finds them at it; here they are killed as well.
    for pid in train_processes(folder):
        os.kill(pid, signal.SIGKILL)
    listed = start(asked, folder, compile_cache, "--list").communicate()[0]
    assert "cut" in listed
    shutil.rmtree(other, ignore_errors=True)
    other.mkdir(parents=True)
    (other / "notes.txt").write_text("of somebody else")
    refused = start(asked, folder, compile_cache, "--run")
    assert "holds no run" in refused.communicate()[1]
    assert refused.returncode == 1
    shutil.rmtree(other)

    child = start(asked, folder, compile_cache, "--run", "--jobs=2")
    printed, errors = child.communicate()
    assert child.returncode == 0, errors
    assert "2 of 2 finished" in printed
    first, _ = finished_run
    lines = [[without_clock(one) for one in read_metrics(one)] for one in (first, workdir)]
    assert lines[0] == lines[1]
    again = start(asked, folder, compile_cache, "--run").communicate()[0]
    assert "running" not in again
    table = start(asked, folder, compile_cache, "--table").communicate()[0]
    assert "| `base` | 1 |" in table
    assert json.loads((workdir / "config.json").read_text())["seed"] == 0


@pytest.mark.slow
def test_a_sweep_that_is_stopped_saves_its_runs_and_goes_on(asked, tmp_path, compile_cache):
    asked.write_text(FILE.replace(*FEWER))
    folder = tmp_path / "runs"
    logs = [folder / arm / "seed0.log" for arm in ("base", "beta_low=0.0")]
    child = start(asked, folder, compile_cache, "--run", "--jobs=2")
    while not all(any(log.with_suffix("").glob("warm_start/[1-9]*")) for log in logs):
        assert child.poll() is None, child.communicate()
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    _, errors = child.communicate()
    assert child.returncode == EXIT_CODE, errors
    assert errors.splitlines()[-1].startswith("stopped; 0 of 2 finished;")
    assert list(train_processes(folder)) == []
    assert all("is saved, and the same command goes on" in log.read_text() for log in logs)
    child = start(asked, folder, compile_cache, "--run", "--jobs=2")
    assert "2 of 2 finished" in child.communicate()[0]


def train_processes(folder):
    """Ids of the processes that train in a folder."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "cegppo_jax.train" in words and any(str(folder) in word for word in words):
            yield int(path.parent.name)
