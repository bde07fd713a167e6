"""The settings that help lists are those of configs/base.py, with its defaults and its comments."""

import pytest

from cegppo_jax.console.base_settings import base_settings
from cegppo_jax.console.table import COMMANDS
from cegppo_jax.losses.settings import built_in_numbers
from cegppo_jax.run.directory import flat
from configs import base

SETTINGS = {one.name: one for one in base_settings()}


def test_names_and_defaults_are_those_of_the_config():
    config = flat(base.get_config().to_dict())
    listed = {name: one.value for name, one in SETTINGS.items() if not one.is_section}
    numbers = {f"loss.{name}" for name in built_in_numbers()} - listed.keys()
    assert listed == {name: value for name, value in config.items() if name not in numbers}


def test_sections_are_those_of_the_config():
    config = flat(base.get_config().to_dict())
    parts = [name.split(".")[:-1] for name in config]
    sections = {".".join(part[:end]) for part in parts for end in range(1, len(part) + 1)}
    assert {name for name, one in SETTINGS.items() if one.is_section} == sections


@pytest.mark.parametrize(
    ("name", "default", "meaning"),
    [
        ("steps", "100", "rollout steps"),
        ("loss.surrogate", "ce_gppo", 'your own Method: "package.module:METHOD"'),  # two lines
        ("mesh", "None", "product = number of devices"),
        ("steering.guard.ceiling", "inf", "nats; inf: off"),
        ("warm_start.optimizer.learning_rate", "0.001", "peak"),
        ("problems.fields", "plain", "A layout sets all of them"),
        ("evaluation.sampling.top_p", "0.95", "1: off"),
    ],
)
def test_the_comment_is_the_meaning(name, default, meaning):
    assert SETTINGS[name].default == default
    assert meaning in SETTINGS[name].meaning


def test_the_settings_that_commands_list_exist_and_are_explained():
    for command in COMMANDS.values():
        for name in command.settings:
            assert SETTINGS[name].meaning, name
            assert not SETTINGS[name].is_section
