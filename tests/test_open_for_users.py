"""What users bring by import path: methods with numbers, wrappers, advantages, aggregations,
corrections and tasks. Verifiers: rewards/test_rewards_forms.py; writers: reporting/test_writers.py.
"""

import json
import re

import child_runs
import numpy as np
import own_parts
import pytest
import tiny_recipe

from cegppo_jax.data.fields import FIELD_MAPS
from cegppo_jax.data.problem_files import load_problems, named_set
from cegppo_jax.data.problems import open_problems
from cegppo_jax.learner.advantages import compute_advantages
from cegppo_jax.learner.mismatch import correction_weights
from cegppo_jax.losses.aggregation import loss_weights, positive_lm_weights
from cegppo_jax.reporting.metrics import read_metrics
from cegppo_jax.run import command_line
from cegppo_jax.run.settings import read_settings

RECIPE, TINY = "tests/own_recipe.py", "tests/tiny_recipe.py"


def settings(own=None, **changes):
    """Settings of the tiny recipe with changes, "section/name"; own: numbers of config.loss."""
    config = tiny_recipe.get_config()
    config.update_from_flattened_dict(
        {name.replace("/", "."): value for name, value in changes.items()}
    )
    with config.unlocked():
        config.loss.update(own or {})
    return read_settings(config)


def logged(workdir, name):
    """A metric of each RL step; step 0 is an evaluation."""
    lines = [line for line in read_metrics(workdir) if line["phase"] == "rl" and line["step"]]
    return [line[name] for line in lines]


def test_a_method_with_a_number_of_its_own_trains_from_outside_the_package(tmp_path, compile_cache):
    """The recipe names the method and sets its number; the command line adds a wrapper with one."""
    flags = ("--config.loss.wrappers=tests.own_method:scaled", "--config.loss.scale=0.5")
    child_runs.finish(tmp_path / "run", *flags, recipe=RECIPE, cache=compile_cache)
    written = json.loads((tmp_path / "run" / "config.json").read_text())["loss"]
    assert (written["horizon"], written["scale"]) == (0.001, 0.5)
    for name in ("policy/beyond_count", "user/distance"):
        values = logged(tmp_path / "run", name)
        assert len(values) == 2
        assert min(values) > 0


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        (RECIPE, ("loss.horizn=1",), "loss.horizn is not a setting: did you mean --config.loss.h"),
        (TINY, ("loss.surrogate=own_method:METHOD", "loss.horizn=1"), "--config.loss.horizon?"),
        (TINY, ("loss.horizon=1",), "loss.horizon is not a setting"),
        (TINY, ("loss.surrogate=own_method:METHO", "loss.horizon=1"), "horizon is not a setting"),
    ],
)  # fmt: skip
def test_numbers_that_the_method_lacks_are_refused_on_the_command_line(recipe, overrides, message):
    parser = command_line.RecipeParser([f"--config.{one}" for one in overrides])
    with pytest.raises(SystemExit, match=re.escape(message)):
        parser.parse(recipe)


@pytest.mark.parametrize("separator", ["=", " "])
def test_the_command_line_can_name_a_method_and_set_its_number(separator):
    overrides = [
        *("--config.loss.surrogate=gppo", "--config.loss.beta_low=0"),
        *f"-config.loss.surrogate{separator}tests.own_method:METHOD".split(" "),
        *("--config.loss.wrappers=tests.own_method:scaled", "--config.loss.horizon=0.25"),
    ]
    config = command_line.RecipeParser(overrides).parse(TINY)
    assert (config.loss.horizon, config.loss.scale) == (0.5, 1.0)
    assert config.is_locked


def test_numbers_of_a_user_s_method_have_its_defaults_and_its_bounds():
    own = {"loss/surrogate": "tests.own_method:METHOD"}
    assert settings(**own).loss.numbers["horizon"] == 0.5
    assert settings({"horizon": 2}, **own).loss.numbers["horizon"] == 2.0
    for number, message in (
        ({"horizon": 3.0}, "loss.horizon = 3.0: at most 2"),
        ({"horizn": 1.0}, "config.loss.horizn is not a setting: did you mean 'horizon'?"),
        ({"scale": 1.0}, "config.loss.scale is not a setting"),
        ({"horizon": "far"}, "config.loss.horizon = 'far' is of type str"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            settings(number, **own)
    assert settings(**{"loss/surrogate": "tests.own_method:positive_only"})


@pytest.mark.parametrize(
    ("setting", "name", "message"),
    [
        ("loss/surrogate", "own_method:takes_too_much", "is called with (inputs, knobs)"),
        ("loss/surrogate", "own_method:ANOTHER_DEFAULT", "clip_low with the default 0.3"),
        ("loss/surrogate", "own_method:NAME_TAKEN", "a number 'aggregation'"),
        ("loss/surrogate", "own_method:NOT_A_NUMBER", "horizon = 0.5: it needs a Number"),
        ("loss/surrogate", "own_method:dataclasses", "of type module and cannot be called"),
        ("loss/surrogate", "own_method:nothing", "has no 'nothing'"),
        ("loss/surrogate", "own_method:one_for_all", "value of shape () and type float32"),
        ("loss/surrogate", "own_method:counts_rows", "positive of shape (2,)"),
        ("loss/surrogate", "own_method:whole_numbers", "gradient of shape (2, 4) and type int32"),
        ("loss/surrogate", "own_method:one_array", "it needs SurrogateTerms"),
        ("loss/surrogate", "own_method:undeclared", "was tried and raised AttributeError: no num"),
        ("loss/wrappers", ("own_method:gives_nothing",), "gave a NoneType"),
        ("loss/wrappers", ("own_method:METHOD",), "cannot be called"),
        ("advantage/estimator", "own_parts:one_argument", "called with (rewards, settings)"),
        ("advantage/estimator", "own_parts:one_a_group", "of shape (2,)"),
        ("advantage/estimator", "own_parts:without_epsilon", "4 of them not finite"),
        ("advantage/estimator", "own_parts:raises", "was tried and raised IndexError"),
        ("advantage/estimator", "own_parts:np", "of type module and cannot be called"),
        ("loss/aggregation", "own_parts:one_argument", "called with (lengths, settings)"),
        ("loss/aggregation", "own_parts:one_for_all", "one finite weight of at least 0 for each"),
        ("mismatch/correction", "own_parts:one_argument", "called with (log_rho, settings)"),
        ("mismatch/correction", "own_parts:first_alone", "do not fit 2 completions"),
        ("problems/task", "own_parts:draw_double", "of type function, not a Task"),
        ("problems/task", "own_parts:NOT_REPEATABLE", "two problems from equal generators"),
        ("problems/task", "own_parts:NOT_WORKED", "it needs a Worked"),
        ("problems/task", "own_parts:DOUBLINGS", "has no 'DOUBLINGS'"),
    ],
)
def test_what_cannot_be_used_is_refused_at_the_door_by_the_setting_that_names_it(
    setting, name, message
):
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        settings(**{setting: name})
    assert setting.replace("/", ".") in str(raised.value)


def test_a_user_s_advantages():
    own = settings(**{"advantage/estimator": "own_parts:best_only"}).advantage
    rewards = np.array([[1.0, 0.0, 1.0], [0.0, 0.5, 0.25]])
    assert compute_advantages(rewards, own).tolist() == [[1, 0, 1], [0, 1, 0]]


def test_a_user_s_aggregation():
    own = settings(**{"loss/aggregation": "own_parts:by_root"}).aggregation
    lengths = np.array([1, 4, 9])
    np.testing.assert_allclose(loss_weights(lengths, own), [1 / 3, 1 / 6, 1 / 9], rtol=1e-6)
    positive = positive_lm_weights(lengths, np.array([True, False, True]), own)
    np.testing.assert_allclose(positive, [0.1, 0, 0.1], rtol=1e-6)


def test_a_user_s_correction():
    own = settings(**{"mismatch/correction": "own_parts:half"}).mismatch
    [one, other] = correction_weights([np.log([4.0]), np.log([0.25, 1.0])], own)
    np.testing.assert_allclose(one, [2.0], rtol=1e-6)
    np.testing.assert_allclose(other, [0.5, 1.0], rtol=1e-6)


def test_a_user_s_task_gives_problems_and_their_tokenizer():
    own = {"problems/task": "own_parts:DOUBLING", "problems/min_steps": 2, "problems/max_steps": 3}
    problems = open_problems(settings(**own).problems, "", held_out=5, held_out_seed=0)
    held_out = {one.problem for one in problems.held_out}
    drawn = [problems.train.problem_at(0, position) for position in range(20)]
    assert len(held_out) == 5
    for one in (*drawn, *problems.held_out):
        assert one.source == "doubling"
        assert int(one.answer) == 2 * int(one.problem.removesuffix("*2"))
    assert not held_out & {one.problem for one in drawn}
    assert len(problems.tokenizer) == 5 + len(own_parts.DOUBLING.alphabet)


def test_a_user_s_task_is_a_problem_set():
    named = named_set("task:own_parts:DOUBLING:1-2:7")
    assert named.generated == (own_parts.DOUBLING, 1, 2)
    assert named_set("task:own_parts:DOUBLING").generated == (own_parts.DOUBLING, 2, 3)
    assert len(load_problems(named, FIELD_MAPS["plain"])) == 7
    with pytest.raises(ValueError, match="module 'no_parts' cannot be imported"):
        named_set("task:no_parts:DOUBLING")


def test_a_user_s_task_needs_the_verifier_that_it_names():
    own = {"problems/task": "own_parts:DOUBLING", "reward/verifier": "math"}
    with pytest.raises(ValueError, match=r"'math' cannot read .* 'doubling': that is 'final_answ"):
        settings(**own)
