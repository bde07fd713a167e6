"""The smallest run with a method from outside the package, whose number the recipe sets."""

from ml_collections import ConfigDict

from tests import tiny_recipe


def get_config() -> ConfigDict:
    config = tiny_recipe.get_config()
    config.steps = 2
    config.warm_start.steps = 5
    config.evaluation.every_steps = 0
    config.loss.surrogate = "tests.own_method:METHOD"
    with config.unlocked():
        config.loss.horizon = 0.001
    return config
