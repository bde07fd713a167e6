"""A run's config.json is the config that it was trained by, whatever JSON made of it."""

import math

import pytest
import tiny_recipe

from cegppo_jax.run import command_line
from cegppo_jax.run.config_of_run import config_of_run
from cegppo_jax.run.settings import read_settings
from cegppo_jax.storage.strict_json import write_json
from configs import base


def saved(config, path, **changes):
    write_json(path, config.to_dict() | {"command": "train"} | changes)
    return path


def unusual():
    """Tuples of tuples and of dicts, an infinity, a number of a user's method."""
    config = tiny_recipe.get_config()
    with config.unlocked():
        config.loss.surrogate = "own_method:METHOD"
        config.loss.horizon = 0.25
        config.problems.train = ({"name": "a.jsonl", "weight": 2, "fields": {"problem": "q"}}, "b")
        config.problems.fields = (("problem", "question"), ("answer", "gold"))
        config.reward.by_source = (("gsm8k", "gsm8k"),)
        config.sampler.cache_read_ladder = (4, 8)
    assert math.isinf(config.steering.guard.ceiling)
    return config


@pytest.mark.parametrize("make", [tiny_recipe.get_config, unusual])
def test_it_comes_back_as_it_was(make, tmp_path):
    config = make()
    found = config_of_run(saved(config, tmp_path / "config.json"), base.get_config())
    assert found.to_dict() == config.to_dict()


def test_the_command_line_changes_it(tmp_path):
    path = saved(unusual(), tmp_path / "config.json")
    config = command_line.RecipeParser(["--config.loss.horizon=1"]).parse(str(path))
    assert config.loss.horizon == 0.25  # the flag itself is read by ml_collections, later
    assert config.is_locked
    with pytest.raises(SystemExit, match=r"did you mean --config\.loss\.horizon\?"):
        command_line.RecipeParser(["--config.loss.horizn=1"]).parse(str(path))


def test_a_setting_that_an_older_run_lacks_has_its_default(tmp_path):
    config = tiny_recipe.get_config().to_dict()
    del config["evaluation"]["problems_seed"]
    write_json(tmp_path / "config.json", config)
    found = config_of_run(tmp_path / "config.json", base.get_config())
    assert read_settings(found) == read_settings(tiny_recipe.get_config())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stepz": 3}, "has stepz, which is no setting of this version (the nearest is steps)"),
        ({"mesh": {"dta": 1}}, "has mesh.dta, which is no setting of this version (the nearest"),
        ({"steps": "many"}, "steps"),
        ({"mesh": 3}, "mesh"),
    ],
)
def test_what_this_version_cannot_read_is_named(changes, message, tmp_path):
    path = saved(tiny_recipe.get_config(), tmp_path / "config.json", **changes)
    with pytest.raises(command_line.RecipeError) as raised:
        command_line.RecipeParser().parse(str(path))
    assert message in str(raised.value)


def test_no_run_and_a_damaged_one(tmp_path):
    for content, message in (
        (None, "holds no run"),
        ("{", "is damaged"),
        ("[]", "not an object"),
        ('{"architectures": []}', "not the config of a run"),
    ):
        if content is not None:
            (tmp_path / "config.json").write_text(content)
        with pytest.raises(command_line.RecipeError, match=message):
            command_line.RecipeParser().parse(str(tmp_path / "config.json"))


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        (["--run=a"], ["--config=a/config.json"]),
        (["--step=3", "--workdir", "a"], ["--config=a/config.json"]),
        (["--run=a", "--config=b.py"], []),
        (["--config", "b.py", "--run=a"], []),
        (["--out=o"], []),
    ],
)
def test_a_run_brings_its_config_unless_another_is_named(arguments, first):
    assert command_line.with_config_of_run(["cegppo", *arguments]) == [
        *["cegppo", *first],
        *arguments,
    ]
