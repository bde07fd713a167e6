"""The picture of a run: what it is drawn from, and that it shows it."""

import json
import math
import subprocess
import sys

import matplotlib.image
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
        writer.write("supervised", 0, {"supervised/loss": 2.0, "supervised/entropy": 0.5})
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


def pixels(workdir):
    return matplotlib.image.imread(report.draw_run(workdir))


def test_picture_has_ink_and_is_repeatable(tmp_path):
    write_run(tmp_path)
    path = report.draw_run(tmp_path)
    assert path == tmp_path / "report.png"
    first = path.read_bytes()
    image = matplotlib.image.imread(path)[..., :3]
    rows = math.ceil(len(report.PANELS[Phase.RL]) / 3)
    assert image.shape == (135 + 435 * rows, 1980, 3)  # the title, then rows of three panels
    assert 0.01 < np.mean(image.min(axis=-1) < 0.9) < 0.2  # lines and words on white
    assert report.draw_run(tmp_path).read_bytes() == first
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("others", [{"accuracy": 0.55}, {"low": 0.3}, {"high": 0.7}], ids="-".join)
def test_held_out_accuracy_and_its_interval_change_their_panel_alone(tmp_path, monkeypatch, others):
    monkeypatch.setattr(report, "_summary", lambda *_: "")  # the title names the accuracy too
    monkeypatch.setattr(report, "_method", lambda *_: "")
    images = []
    for options in ({}, others):
        monkeypatch.chdir(tmp_path)
        write_run("run", **options)
        images.append(pixels("run"))
    changed = np.argwhere((images[0] != images[1]).any(axis=-1))
    assert len(changed) > 100
    (top, left), (bottom, right) = changed.min(axis=0), changed.max(axis=0)
    assert 0 < top < bottom < 576  # first row
    assert 1980 / 3 < left < right < 1980 * 2 / 3  # second column


@pytest.mark.parametrize("panel", report.PANELS[Phase.RL], ids=lambda panel: panel.title)
def test_every_curve_is_drawn(tmp_path, monkeypatch, panel):
    """One number of a curve changed changes its panel."""
    monkeypatch.setitem(report.PANELS, Phase.RL, (panel,))
    write_run(tmp_path)
    whole = pixels(tmp_path)
    for curve in panel.curves:
        write_run(tmp_path, changed=curve.name)
        assert (pixels(tmp_path) != whole).any(), curve.name


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
    assert pixels(tmp_path).shape[:2] == (570, 1320)  # reward and accuracy: one row of two


def test_warm_start_is_drawn_while_there_is_no_rl(tmp_path):
    write_run(tmp_path, steps=0)
    assert pixels(tmp_path).shape[:2] == (570, 1320)


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
