"""What users bring by import path: methods with numbers, wrappers, advantages, aggregations,
corrections and tasks. Verifiers: rewards/test_rewards_forms.py; writers: reporting/test_writers.py.
"""

import json
import random
import re

import child_runs
import numpy as np
import own_parts
import pytest
import tiny_recipe

from cegppo_jax.data.fields import FIELD_MAPS
from cegppo_jax.data.problem_files import load_problems, parse_task_name
from cegppo_jax.data.problems import open_problems
from cegppo_jax.learner.advantages import compute_advantages
from cegppo_jax.learner.mismatch import correction_weights
from cegppo_jax.losses.aggregation import loss_weights, positive_lm_weights
from cegppo_jax.reporting.metrics import read_metrics
from cegppo_jax.run.settings import read_settings

RECIPE = "tests/own_recipe.py"


def settings(own=(), **changes):
    """-> settings of the tiny recipe with changes, "section/name"; own: numbers of config.loss."""
    config = tiny_recipe.get_config()
    config.update_from_flattened_dict(
        {name.replace("/", "."): value for name, value in changes.items()}
    )
    with config.unlocked():
        config.loss.update(own)
    return read_settings(config)


def logged(workdir, name):
    return [line["values"].get(name) for line in read_metrics(workdir) if line["phase"] == "rl"]


def test_a_method_with_a_number_of_its_own_trains_from_outside_the_package(tmp_path, compile_cache):
    workdir = tmp_path / "run"
    child_runs.finish(workdir, recipe=RECIPE, cache=compile_cache)
    assert json.loads((workdir / "config.json").read_text())["loss"]["horizon"] == 0.001
    beyond, distance = (logged(workdir, name) for name in ("policy/beyond_count", "user/distance"))
    assert len(beyond) == 2
    assert all(count > 0 for count in beyond)
    assert all(value > 0 for value in distance)
