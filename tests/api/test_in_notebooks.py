"""What the by-hand API adds for notebooks: curves, coloured tokens, accuracy, saved policies."""

import json
import types

import IPython
import numpy as np
import pytest
import tiny_recipe

import cegppo_jax as cg
from cegppo_jax.compare import compare
from cegppo_jax.types import Outcome


@pytest.fixture(scope="module")
def policy():
    return cg.random_policy(width=16, layers=1, heads=2)


@pytest.fixture(scope="module")
def out(policy):
    return policy.sample(["1+2=", "12+34="], 4, max_tokens=16)


@pytest.fixture
def cell(monkeypatch):
    """The pictures that a cell shows: [("shown" or "updated", picture), ...]."""
    shown = []

    def display(picture, display_id):
        assert display_id
        shown.append(("shown", picture))
        return types.SimpleNamespace(update=lambda one: shown.append(("updated", one)))

    kernel = types.SimpleNamespace(kernel=True)
    monkeypatch.setattr(IPython, "get_ipython", lambda: kernel)
    monkeypatch.setattr("IPython.display.display", display)
    return shown


def test_curves_are_drawn_in_place_and_again_at_the_end(cell):
    curves = cg.LiveCurves("policy/entropy", "mine", seconds=3600)
    with curves:
        for step in range(3):
            curves.add(step, {"policy/entropy": 1.0 / (1 + step), "mine": step}, "one")
        curves.add(0, {"policy/entropy": 2.0, "mine": None}, "other")
        assert [kind for kind, _ in cell] == ["shown"]
    assert [kind for kind, _ in cell] == ["shown", "updated"]
    with curves:  # of another cell
        curves.add(9, {}, "one")
    assert [kind for kind, _ in cell] == ["shown", "updated"] * 2
    entropy, mine = cell[-1][1].axes
    assert [line.get_xydata().tolist() for line in entropy.lines] == [
        [[0, 1], [1, 0.5], [2, pytest.approx(1 / 3)]],
        [[0, 2]],
    ]
    assert [len(line.get_xydata()) for line in mine.lines] == [3, 0]
    assert (entropy.get_ylabel(), mine.get_ylabel()) == ("nats", "")
    assert [text.get_text() for text in entropy.get_legend().get_texts()] == ["one", "other"]


def test_curves_need_no_notebook_and_one_name():
    curves = cg.LiveCurves("mine")
    with curves:
        curves.add(1, {"mine": 2.0})
    assert curves.draw()._repr_png_().startswith(b"\x89PNG")
    assert "mine" in repr(curves)
    with pytest.raises(ValueError, match="at least one metric"):
        cg.LiveCurves()


@pytest.mark.slow
def test_curves_follow_a_trainer_from_its_warm_start_on():
    config = tiny_recipe.get_config()
    config.warm_start.steps, config.steps = 2, 3
    curves = cg.LiveCurves("supervised/loss", "policy/entropy")
    with cg.Trainer(config, watch=curves.add) as trainer:
        assert [step.position.step for step in curves.follow(trainer, "rl", steps=1)] == [1]
        assert [step.position.step for step in curves.follow(trainer, "rl")] == [2, 3]
    imitated, learned = curves.draw().axes[:2]
    assert [len(line.get_xydata()) for line in imitated.lines] == [2, 0]
    assert learned.lines[1].get_xdata().tolist() == [1, 2, 3]


def test_a_slider_has_two_lines_for_every_value():
    figure = cg.slide_gradient_weights("ce_gppo", "beta_low", [0.0, 0.5], beta_high=1.0)
    assert len(figure.data) == 1 + 2 * 2
    ratio, weights = figure.data[4].x, figure.data[4].y  # beta_low = 0.5, A < 0
    np.testing.assert_allclose(weights[ratio < 0.79], 0.5 * 0.8, rtol=1e-5)
    first, second = figure.layout.sliders[0].steps
    assert (first.label, second.label) == ("0", "0.5")
    assert list(second.args[0]["visible"]) == [True, False, False, True, True]
    assert [line.visible for line in figure.data[1:]] == [True, True, False, False]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("ce_gppo", "beta_lo", [0.5]), "beta_lo"),
        (("ce_gppo", "beta_low", []), "no values"),
        (("ce_gppo", "clip_low", [-1.0]), "clip_low"),
    ],
)
def test_a_slider_refuses_what_would_show_nothing(arguments, part):
    with pytest.raises(ValueError, match=part):
        cg.slide_gradient_weights(*arguments)


@pytest.mark.parametrize("by", ["entropy", "log_ratio", "quadrant"])
def test_completions_are_shown_by_token(policy, out, by):
    batch = cg.batch(out, np.arange(8.0).reshape(2, 4) % 3)
    page = cg.show(policy, batch, by, most=3)._repr_html_()
    assert page.count(f'class="tokens by-{by}"') == 3
    assert page.count("<b>1+2=") == 2  # the first of each prompt, then the second
    shown = [(0, 0), (0, 1), (1, 0)]
    assert page.count("<span") - page.split("</style>")[1].split("</div>")[0].count("<span") == sum(
        out.lengths[place] for place in shown
    )
    assert "reward 2" not in cg.show(policy, out)._repr_html_()


def test_what_cannot_be_shown_is_refused(policy, out):
    with pytest.raises(ValueError, match="quadrant"):
        cg.show(policy, out, "quadrant")
    with pytest.raises(ValueError, match="other samples"):
        cg.show(policy, out, stats=policy.logprobs(policy.read(["1+2="], [["3"]])))
    with pytest.raises(ValueError, match="colour"):
        cg.show(policy, out, "colour")


def test_written_completions_are_shown_without_log_ratios(policy):
    read = policy.read(["1+2="], [["3", "1+2"]])
    assert "--r:" not in cg.show(policy, read)._repr_html_().partition("</style>")[2]


def test_accuracy_counts_problems_and_keeps_the_answers(policy):
    read = policy.read(["1+2=", "2+2="], [["3", "4"], ["4", "4"]])
    found = cg.accuracy(
        read, {"a": 3, "b": 4}.values(), verifier=lambda text, answer: text == answer
    )
    assert (found.problems, found.samples_per_problem) == (2, 2)
    assert found.accuracy.mean == 0.75
    assert found.accuracy.low < 0.75 < found.accuracy.high
    assert found.pass_at[2].mean == 1.0
    attempts = cg.attempts(read, [3, 4], verifier=lambda text, answer: 0.5 * (text == answer))
    assert {one.outcome for one in attempts} == {Outcome.WRONG}
    assert [one.reward for one in attempts] == [0.5, 0.0, 0.5, 0.5]
    assert [one.gold for one in attempts] == ["3", "3", "4", "4"]
    other = cg.attempts(read, ["4", "4"], verifier=lambda text, answer: text == answer)
    with pytest.raises(ValueError, match=r"1\+2="):
        compare(attempts, other)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_saved_policy_is_loaded_back(policy, out, dtype, tmp_path):
    said = cg.save(policy, tmp_path / "saved", dtype=dtype)
    assert str(said.tensors) in str(said)
    again = cg.load(tmp_path / "saved")
    assert (again.model, again.eos_ids) == (policy.model, policy.eos_ids)
    tolerance = 1e-6 if dtype == "float32" else 0.05
    for one, other in zip(policy.logprobs(out).logprobs, again.logprobs(out).logprobs, strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance)
    generation = json.loads((tmp_path / "saved/generation_config.json").read_text())
    assert generation["eos_token_id"] == list(policy.eos_ids)
    with pytest.raises(ValueError, match="already exists"):
        cg.save(policy, tmp_path / "saved")
