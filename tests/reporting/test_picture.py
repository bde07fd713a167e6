"""The picture of a run: what it is drawn from, and that it shows it."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest

from cegppo_jax.reporting import picture as report
from cegppo_jax.reporting.metric_names import METRICS
from cegppo_jax.reporting.metrics import MetricsWriter, Phase

NAMES = tuple(name for name in METRICS if not name.startswith("evaluation/"))


def write_run(workdir, steps=12, accuracy=0.5, low=0.4, high=0.6, names=NAMES, changed=None):
    """A run with every name: straight lines, a gap in the entropy, evaluations at steps 4, 8, ...

    `changed` names a metric whose value at step 7 is another one.
    """
    with MetricsWriter(workdir, None, ()) as writer:
        warm_start = {"supervised/loss": 2.0, "supervised/entropy": 0.5, "update/grad_norm": 1.0}
        writer.write("supervised", 0, warm_start)
        for step in range(1, steps + 1):
            values = {name: 0.25 + step / (8 * steps) for name in names}
            if "policy/entropy" in names and step == 5:
                values["policy/entropy"] = math.nan
            if changed is not None and step == 7:
                values[changed] += 0.1
            if step % 4 == 0:
                values |= {"evaluation/accuracy": accuracy}
                values |= {"evaluation/accuracy_low": low, "evaluation/accuracy_high": high}
            writer.write("rl", step, values)


def panels_of(workdir):
    """The axes of each panel that is drawn, by the panel's title."""
    drawn = [axes for axes in report.figure_of(workdir).axes if axes.axison]
    return {axes.get_title(loc="left"): axes for axes in drawn}


def test_a_picture_is_written_whole_and_is_repeatable(tmp_path):
    write_run(tmp_path)
    path = report.draw_run(tmp_path)
    assert path == tmp_path / "report.png"
    first = path.read_bytes()
    assert first.startswith(b"\x89PNG")
    assert report.draw_run(tmp_path).read_bytes() == first
    assert not list(tmp_path.glob("*.partial"))


def test_held_out_accuracy_is_drawn_with_its_interval(tmp_path):
    write_run(tmp_path, accuracy=0.55, low=0.3, high=0.6)
    panels = panels_of(tmp_path)
    [title] = [panel.title for panel in report.PANELS[Phase.RL] if panel.evaluated]
    [container] = panels[title].containers
    line, _, [bars] = container
    np.testing.assert_allclose(line.get_xydata(), [[4, 0.55], [8, 0.55], [12, 0.55]])
    expected = [[[step, 0.3], [step, 0.6]] for step in (4, 8, 12)]
    np.testing.assert_allclose(bars.get_segments(), expected)
    assert not any(axes.containers for name, axes in panels.items() if name != title)


@pytest.mark.parametrize("panel", report.PANELS[Phase.RL], ids=lambda panel: panel.title)
def test_every_curve_is_drawn(tmp_path, panel):
    """With the values of its own metric: one number of it is changed."""
    for curve in panel.curves:
        write_run(tmp_path, changed=curve.name)
        axes = panels_of(tmp_path)[panel.title]
        [line] = [line for line in axes.get_lines() if line.get_color() == curve.color]
        steps, values = line.get_data()
        assert list(steps) == list(range(1, 13))
        expected = 0.25 + steps / 96 + 0.1 * (steps == 7)
        known = np.isfinite(values)
        np.testing.assert_allclose(values[known], expected[known])
        assert list(steps[~known]) == [5] * (curve.name == "policy/entropy")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0.0, 1.0, math.nan, 1e30])
@pytest.mark.parametrize("steps", [1, 50])
def test_degenerate_values_are_drawn(tmp_path, steps, value):
    with MetricsWriter(tmp_path, None, ()) as writer:
        for step in range(steps):
            others = {name: value for name in METRICS if name != "reward/mean"}
            writer.write("rl", step, {"reward/mean": -0.5, **others})
    assert report.draw_run(tmp_path).stat().st_size > 20_000


def test_only_panels_with_values_are_drawn(tmp_path):
    write_run(tmp_path, names=["reward/mean"])
    expected = [
        panel.title
        for panel in report.PANELS[Phase.RL]
        if panel.evaluated or any(curve.name == "reward/mean" for curve in panel.curves)
    ]
    assert list(panels_of(tmp_path)) == expected
    assert len(expected) == 2


def test_warm_start_is_drawn_while_there_is_no_rl(tmp_path):
    write_run(tmp_path, steps=0)
    assert list(panels_of(tmp_path)) == [panel.title for panel in report.PANELS[Phase.SUPERVISED]]


@pytest.mark.parametrize("values", [{}, {"update/loss": 1.0}, {"reward/mean": math.nan}])
def test_nothing_to_draw_is_said(tmp_path, values):
    with MetricsWriter(tmp_path, None, ()) as writer:
        writer.write("rl", 0, values)
    with pytest.raises(ValueError, match="has no number to draw yet"):
        report.draw_run(tmp_path)


def test_title_has_method_and_result(tmp_path):
    write_run(tmp_path)
    assert report._method(tmp_path) == ""
    loss = {"surrogate": "ce_gppo", "beta_low": 0.5, "beta_high": 1.0, "clip_low": 0.2}
    (tmp_path / "config.json").write_text(json.dumps({"loss": loss}))
    assert report._method(tmp_path) == "ce_gppo  beta_low 0.5  beta_high 1"
    lines = report.read_metrics(tmp_path)
    assert report._summary(lines, Phase.RL) == "to step 12; held-out accuracy 50.0% to 50.0%"


def test_smoothed():
    """The example of its docstring, and a gap wider than the window."""
    values = np.array([1.0, 2.0, 6.0, np.nan])
    np.testing.assert_array_equal(report.smoothed(values, 3), [1.5, 3.0, 4.0, 6.0])
    gap = report.smoothed(np.array([1.0, np.nan, np.nan, np.nan, 5.0]), 3)
    np.testing.assert_array_equal(gap, [1.0, 1.0, np.nan, 5.0, 5.0])


def test_command(tmp_path):
    command = [sys.executable, "-m", "cegppo_jax.reporting.picture", f"--workdir={tmp_path}"]
    missing = subprocess.run(command, capture_output=True, text=True)
    assert missing.returncode == 1
    assert missing.stderr == (
        f"no report: {tmp_path}/metrics.jsonl does not exist: "
        f"has a run been started in {tmp_path}?\n"
    )
    write_run(tmp_path)
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    assert made.stdout == f"wrote {tmp_path}/report.png\n"
