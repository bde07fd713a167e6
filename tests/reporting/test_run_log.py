"""A run's directory is read as columns, also while the run goes on."""

import json
import shutil

import numpy as np
import pytest

from cegppo_jax.reporting.run_log import Columns, RunLog, open_run_log


def write_run(folder, lines, config=None):
    folder.mkdir(exist_ok=True)
    config = {"steps": 4, "loss": {"beta_low": 0.5, "wrappers": []}} if config is None else config
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.jsonl").write_text("".join(lines))
    return folder


def line(phase, step, **values):
    return json.dumps({"phase": phase, "step": step, **values}) + "\n"


def test_lines_become_columns():
    columns = Columns([{"phase": "rl", "step": 0, "b": 1}, {"phase": "rl", "step": 2, "a": None}])
    assert [*columns] == ["b", "a"]
    np.testing.assert_array_equal(columns["b"], [1, np.nan])
    np.testing.assert_array_equal(columns["a"], [np.nan, np.nan])
    assert columns.steps.tolist() == [0, 2]
    assert [one.tolist() for one in columns.curve("b")] == [[0], [1.0]]
    assert [len(one) for one in columns.curve("nothing")] == [0, 0]
    assert "phase" not in columns
    with pytest.raises(KeyError):
        columns["step"]


def test_a_run_that_goes_on(tmp_path):
    lines = [line("supervised", 0, x=3.0), line("rl", 0, y=1), line("rl", 1, y=2), '{"phase": "r']
    log = open_run_log(write_run(tmp_path / "run", lines))
    assert log.warm_start["x"].tolist() == [3.0]
    assert log.rl["y"].tolist() == [1, 2]
    assert (log.step, log.planned_steps, log.is_finished) == (1, 4, False)
    assert log.settings == {"steps": 4, "loss.beta_low": 0.5, "loss.wrappers": []}
    assert (log.samples, log.versions, log.evaluations, len(log.updates)) == ([], [], [], 0)


def test_a_directory_without_metrics_yet(tmp_path):
    log = open_run_log(write_run(tmp_path / "run", []))
    (tmp_path / "run" / "metrics.jsonl").unlink()
    assert (log.step, len(log.rl), len(log.rl.steps)) == (0, 0, 0)


def test_a_supervised_run_counts_its_own_steps(tmp_path):
    config = {"command": "supervised", "warm_start": {"steps": 2}}
    lines = [line("supervised", step, x=1.0) for step in range(2)]
    log = open_run_log(write_run(tmp_path / "run", lines, config))
    assert log.is_supervised
    assert log.is_finished
    assert "command" not in log.config


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no run"):
        open_run_log(tmp_path)
    write_run(tmp_path / "run", ['{"phase": "rl", "step": "one"}\n'])
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 1"):
        len(open_run_log(tmp_path / "run").rl)


def test_a_whole_run(finished_run, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished_run[0], workdir, ignore=shutil.ignore_patterns("checkpoints"))
    folder = workdir / "evaluations" / "step6-0123"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"step": 6}')
    (workdir / "evaluations" / "unfinished").mkdir()
    result = {"accuracy": {"mean": 0.5, "low": 0.4, "high": 0.6}, "pass_at": {}, "majority_at": {}}
    result |= {"problems": 8, "samples_per_problem": 2, "truncated_fraction": 0.0}
    (folder / "evaluation.json").write_text(json.dumps(result))
    log = RunLog(workdir)
    assert log.rl.steps.tolist() == list(range(7))
    assert np.isnan(log.rl["policy/entropy"]).tolist() == [True] + [False] * 6
    assert log.rl.curve("evaluation/accuracy")[0].tolist() == [0, 2, 4, 6]
    assert len(log.warm_start.steps) == 40
    assert len(log.updates.steps) == 12
    assert log.versions[0]["devices"] == ["cpu: cpu"]
    assert log.samples[0]["step"] == 2
    assert [(one.step, one.result["accuracy"]["mean"]) for one in log.evaluations] == [(6, 0.5)]
    (folder / "evaluation.json").write_text("{")
    with pytest.raises(ValueError, match="step6-0123 is damaged"):
        _ = RunLog(workdir).evaluations
