"""Runs that differ in their seed alone become one arm."""

import numpy as np
import pytest

from cegppo_jax.page.arms import Arm, ArmCurve, find_runs, group_runs, open_arms
from cegppo_jax.reporting.run_log import RunLog


def test_runs_are_grouped_by_all_but_the_seed(made_up):
    runs = [
        made_up({}, "a0"),
        made_up({}, "a1", seed=1, steps=3),
        made_up({}, "b0", **{"loss/beta_low": 0.0}),
        made_up({}, "b1", **{"loss/beta_low": 0.0, "seed": 1}),
    ]
    assert group_runs(runs) == {"beta_low=0.5": runs[:2], "beta_low=0": runs[2:]}
    assert group_runs(runs[:2]) == {"a0": runs[:2]}


def test_arms_that_differ_in_much_have_their_directories_names(made_up):
    numbers = ("beta_low", "beta_high", "clip_low")
    other = {f"loss/{name}": 0.1 for name in numbers} | {"optimizer/max_grad_norm": 2.0}
    runs = [
        made_up({}, "first"),
        made_up({}, "second", **other, **{"optimizer/learning_rate": 1.0}),
    ]
    assert group_runs(runs) == {"first": runs[:1], "second": runs[1:]}


def test_runs_are_found_below_a_folder(made_up, tmp_path):
    runs = [made_up({}, name) for name in ("b", "a")]
    (runs[0] / "model").mkdir()
    (runs[0] / "model" / "config.json").write_text("{}")  # the run's own
    (tmp_path / "seed0.log").write_text("")
    assert find_runs(tmp_path) == runs[::-1]
    assert find_runs(runs[0]) == [runs[0]]
    for name in ("evaluation", "exported"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"step": 6, "architectures": []}')
    assert find_runs(tmp_path) == runs[::-1]
    for nothing in (
        tmp_path / "exported",
        tmp_path / "nothing",
        tmp_path / "seed0.log",
        runs[1] / "metrics.jsonl",
    ):
        with pytest.raises(ValueError, match="holds no run"):
            find_runs(nothing)


def test_a_damaged_config_is_not_passed_over(made_up, tmp_path):
    run = made_up({})
    (run / "config.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        group_runs(find_runs(tmp_path))


def test_what_cannot_be_reported_is_refused(made_up, tmp_path):
    run = made_up({})
    with pytest.raises(ValueError, match="named more than once"):
        group_runs([run, run.parent / "." / "run"])
    with pytest.raises(ValueError, match="holds no run"):
        group_runs([run, tmp_path])
    with pytest.raises(ValueError, match="no run to report"):
        open_arms({})
    with pytest.raises(ValueError, match="no run to report"):
        open_arms({"arm": []})


def test_a_curve_is_the_mean_of_the_seeds_that_have_the_step(made_up):
    runs = [
        made_up({"x": [1.0, 2.0, None]}, "long", steps=3),
        made_up({"x": [3.0, 6.0]}, "short", steps=2, seed=1),
    ]
    arm = Arm("arm", tuple(map(RunLog, runs)))
    curve = arm.curve("x")
    assert curve.steps.tolist() == [1, 2]  # the third was not finite
    assert curve.mean.tolist() == [2, 4]
    assert curve.low.tolist() == [1, 2]
    assert curve.high.tolist() == [3, 6]
    assert len(arm.curve("nothing")) == 0
    assert [arm.run_name(run) for run in arm.runs] == ["arm, seed 0", "arm, seed 1"]


def test_long_curves_are_smoothed():
    noise = np.resize([0.0, 1.0], 80)
    curve = ArmCurve(np.arange(80), noise, noise, noise)
    assert np.ptp(curve.smooth().mean) < 0.4
    short = ArmCurve(*(one[:30] for one in (curve.steps, noise, noise, noise)))
    assert short.smooth() is short
