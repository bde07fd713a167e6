"""The metrics file: its lines, what a resume keeps of it, and the table of names."""

import ast
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from cegppo_jax.reporting import metrics
from cegppo_jax.reporting.metric_names import METRICS
from cegppo_jax.reporting.metrics import MetricsWriter, Phase, open_log, read_metrics, update_lines

ROOT = pathlib.Path(__file__).parents[2]


def write_run(workdir, resume_after=None, first=0, last=4):
    """RL steps first..last, with the reward a function of the step; a warm start before step 0."""
    with MetricsWriter(workdir, resume_after, ()) as writer:
        if first == 0:
            writer.write("supervised", 0, {"supervised/loss": 2.5})
            writer.write("supervised", 1, {"supervised/loss": 1.5})
        for step in range(first, last + 1):
            writer.write("rl", step, {"reward/mean": step / 10})
    return workdir / "metrics.jsonl"


def test_lines_are_exact(tmp_path):
    with MetricsWriter(tmp_path, None, ()) as writer:
        writer.write("supervised", 7, {"supervised/loss": np.float32(0.1)})
        values = {
            "reward/mean": 0.25,
            "policy/clip_count_low": np.int32(3),
            "policy/entropy": float("nan"),
            "policy/ratio_max": np.float32("inf"),
        }
        writer.write("rl", 0, values)
        written = (tmp_path / "metrics.jsonl").read_text()  # flushed: before close
    assert written == (
        '{"phase": "supervised", "step": 7, "supervised/loss": 0.10000000149011612}\n'
        '{"phase": "rl", "step": 0, "reward/mean": 0.25, "policy/clip_count_low": 3, '
        '"policy/entropy": null, "policy/ratio_max": null}\n'
    )
    assert read_metrics(tmp_path)[1] == {
        "phase": "rl",
        "step": 0,
        "reward/mean": 0.25,
        "policy/clip_count_low": 3,
        "policy/entropy": None,
        "policy/ratio_max": None,
    }


@pytest.mark.parametrize("lost", [0, 1, 9])
def test_resumed_equals_uninterrupted(tmp_path, lost):
    """Killed after step 4, `lost` bytes of its line missing; resumed from step 2."""
    whole = write_run(tmp_path / "whole", last=6).read_bytes()
    path = write_run(tmp_path / "killed")
    path.write_bytes(path.read_bytes()[: -lost or None])
    assert write_run(tmp_path / "killed", ("rl", 2), first=3, last=6).read_bytes() == whole
    assert [p.name for p in path.parent.iterdir() if p.is_file()] == ["metrics.jsonl"]


def test_updates_are_lines_and_a_resume_drops_those_beyond_its_checkpoint(tmp_path):
    def write(resume_after, steps):
        with open_log(tmp_path / "updates.jsonl", resume_after) as log:
            for step in steps:
                values = [
                    {"budget/left_tokens": np.int32(n), "budget/left": -0.5 * n} for n in (0, step)
                ]
                log.append(update_lines(step, values))
        return (tmp_path / "updates.jsonl").read_text()

    whole = write(None, [1, 2, 3])
    assert whole.splitlines()[-1] == (
        '{"phase": "rl", "step": 3, "update": 1, "budget/left_tokens": 3, "budget/left": -1.5}'
    )
    assert write(("rl", 1), [2, 3]) == whole
    with (
        open_log(tmp_path / "updates.jsonl", None) as log,
        pytest.raises(ValueError, match="did you mean 'budget/left'"),
    ):
        log.append(update_lines(1, [{"budget/left": 1.0}, {"budget/lef": 1.0}]))
    assert (tmp_path / "updates.jsonl").read_text() == ""


@pytest.mark.parametrize(
    ("resume_after", "kept"),
    [
        (None, []),
        ((Phase.SUPERVISED, 0), [("supervised", 0)]),
        (("supervised", 1), [("supervised", 0), ("supervised", 1)]),
        (("rl", -1), [("supervised", 0), ("supervised", 1)]),
        (("rl", 1), [("supervised", 0), ("supervised", 1), ("rl", 0), ("rl", 1)]),
    ],
)
def test_resume_keeps_what_the_checkpoint_has_seen(tmp_path, resume_after, kept):
    write_run(tmp_path)
    MetricsWriter(tmp_path, resume_after, ()).close()
    assert [(line["phase"], line["step"]) for line in read_metrics(tmp_path)] == kept


def test_whole_last_line_without_its_newline_is_kept(tmp_path):
    path = write_run(tmp_path)
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert read_metrics(tmp_path)[-1] == {"phase": "rl", "step": 4, "reward/mean": 0.4}
    MetricsWriter(tmp_path, ("rl", 4), ()).close()
    assert path.read_bytes().endswith(b'"step": 4, "reward/mean": 0.4}\n')


def test_half_line_is_not_read(tmp_path):
    path = write_run(tmp_path)
    path.write_bytes(path.read_bytes() + b'{"phase": "rl", "step": 5, "rew')
    assert [line["step"] for line in read_metrics(tmp_path)] == [0, 1, 0, 1, 2, 3, 4]


@pytest.mark.parametrize("bad", ["{not json}", '{"step": 1}', '{"phase": "rl", "step": "1"}', "[]"])
def test_malformed_line_is_named(tmp_path, bad):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"phase": "rl", "step": 0}}\n{bad}\n{{"phase": "rl", "step": 2}}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2: not an object with a phase"):
        read_metrics(tmp_path)
    with pytest.raises(ValueError, match="line 2"):
        MetricsWriter(tmp_path, ("rl", 1), ())


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("policy/clip_fraction_hi", "policy/clip_fraction_high"),
        ("reward/men", "reward/mean"),
        ("optimizer_of_the_policy/grad_norm", "update/grad_norm"),
    ],
)
def test_unknown_name_suggests_the_nearest(tmp_path, name, nearest):
    with (
        MetricsWriter(tmp_path, None, ()) as writer,
        pytest.raises(ValueError, match=f"unknown metric '{name}': did you mean '{nearest}'"),
    ):
        writer.write("rl", 0, {"reward/mean": 1.0, name: 1.0})
    assert read_metrics(tmp_path) == []  # nothing of the refused step is left


@pytest.mark.parametrize(
    "name",
    ["policy/far_left_count", "policy/A2-far_count", "user/margin", "user/probe/pass@8.mean"],
)
def test_names_of_ones_own_are_written(tmp_path, name):
    with MetricsWriter(tmp_path, None, ("tensorboard",)) as writer:
        writer.write("rl", 1, {"reward/mean": 0.5, name: np.int32(3)})
    assert read_metrics(tmp_path) == [{"phase": "rl", "step": 1, "reward/mean": 0.5, name: 3}]


@pytest.mark.parametrize(
    "name", ["policy/far_left", "policy/_count/x", "users/margin", "user/", "user/a b", "far_count"]
)
def test_other_names_of_ones_own_are_refused(name):
    with pytest.raises(ValueError, match=f"unknown metric '{name}'.*user/<name>"):
        metrics.check_names({name: 1.0})


def test_far_name_has_no_suggestion():
    with pytest.raises(ValueError, match="'xyz': "):
        metrics.check_names({"xyz": 1.0})


@pytest.mark.parametrize(("step", "phase"), [(2, "rl"), (1, "rl"), (3, "supervised"), (-1, "rl")])
def test_positions_only_rise(tmp_path, step, phase):
    with MetricsWriter(tmp_path, None, ()) as writer:
        writer.write("rl", 2, {"reward/mean": 1.0})
        with pytest.raises(ValueError, match=f"cannot write {phase} step {step} after rl step 2"):
            writer.write(phase, step, {"reward/mean": 2.0})


def test_resumed_position_is_taken(tmp_path):
    with (
        MetricsWriter(tmp_path, ("rl", 5), ()) as writer,
        pytest.raises(ValueError, match="rl step 5 after rl step 5"),
    ):
        writer.write("rl", 5, {"reward/mean": 1.0})


def test_arrays_and_unknown_phases_are_refused(tmp_path):
    with MetricsWriter(tmp_path, None, ()) as writer:
        with pytest.raises(ValueError, match=r"'reward/mean' must be one number.*shape \(2,\)"):
            writer.write("rl", 0, {"reward/mean": np.zeros(2)})
        with pytest.raises(ValueError, match="'warmup' is not a valid Phase"):
            writer.write("warmup", 0, {"reward/mean": 1.0})
    assert read_metrics(tmp_path) == []


def test_no_file_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="has a run been started"):
        read_metrics(tmp_path)


def test_without_clock():
    line = {"phase": "rl", "step": 1, "reward/mean": 0.5, "time/step_seconds": 3.0}
    assert metrics.without_clock(line) == {"phase": "rl", "step": 1, "reward/mean": 0.5}
    seconds_and_rates = {name for name in METRICS if "second" in name}
    assert {name for name, metric in METRICS.items() if metric.clock} == seconds_and_rates


def test_table_is_filled_in():
    for name, metric in METRICS.items():
        assert name == name.lower(), name
        assert name.count("/") == 1, name
        assert metric.meaning, name
        assert metric.unit, name
        assert metric.healthy, name


def test_every_name_in_the_package_is_declared():
    """Found before a run meets it: a constant that looks like a metric, wherever it is written."""
    prefixes = "|".join(sorted({name.split("/")[0] for name in METRICS}))
    # Not ending in "_": that is the constant part of an f-string.
    looks_like_a_name = re.compile(rf"(?:{prefixes})/[a-z_0-9]*[a-z0-9]")
    for path in (ROOT / "cegppo_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                name = node.value
                assert not looks_like_a_name.fullmatch(name) or name in METRICS, (path, name)


def test_glossary_page_is_the_table():
    """Made without jax: the processes that write metrics need none."""
    code = (
        "import runpy, sys; sys.modules['jax'] = None; "
        "runpy.run_module('cegppo_jax.reporting.metric_names', run_name='__main__')"
    )
    made = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    page = (ROOT / "experiments" / "METRICS.md").read_text()
    assert made == page, "run: python -m cegppo_jax.reporting.metric_names > experiments/METRICS.md"
    assert page.count("\n| `") == len(METRICS)
