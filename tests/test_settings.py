"""Settings: each knob of configs/base.py is a field and each field a knob; bad values are named."""

import ast
import dataclasses
import importlib
from pathlib import Path

import pytest
import tiny_recipe

import cegppo_jax
import configs
from cegppo_jax.sampling.filters import SamplingFilter
from cegppo_jax.settings import RunSettings, read_settings, setting_names
from cegppo_jax.sharding import MeshShape
from configs import base

RECIPES = sorted(
    path.stem for path in Path(configs.__file__).parent.glob("*.py") if path.stem != "__init__"
)


def flat_names(values, prefix=""):
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat_names(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def tiny(**changes):
    """The tiny recipe's config with values changed by dotted name, "/" for the dot."""
    config = tiny_recipe.get_config()
    config.update_from_flattened_dict({n.replace("/", "."): v for n, v in changes.items()})
    return config


def test_every_knob_is_a_field_and_every_field_a_knob():
    assert sorted(flat_names(base.get_config().to_dict())) == sorted(setting_names(RunSettings))


def test_every_knob_is_read():
    """Its name occurs as an attribute that some code reads: a knob that nothing reads lies."""
    modules = [
        ast.parse(path.read_text()) for path in Path(cegppo_jax.__file__).parent.rglob("*.py")
    ]
    read = {
        node.attr
        for module in modules
        for node in ast.walk(module)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    knobs = {name.split(".")[-1] for name in setting_names(RunSettings)}
    assert knobs - read == {"data", "fsdp", "tensor"}  # sharding.py reads the three as one tuple


def test_settings_hold_the_config_s_values():
    config = tiny_recipe.get_config()
    settings = read_settings(config)
    assert dataclasses.asdict(settings) == config.to_dict()
    assert settings.mesh == MeshShape(-1, 1, 1)
    assert settings.sampler.cache_read_ladder == (10,)
    assert settings.evaluation.sampling == SamplingFilter(temperature=1.0, top_k=0, top_p=1.0)
    assert hash(settings) == hash(read_settings(tiny_recipe.get_config()))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_loads_in_every_variant_and_stays_locked(name):
    recipe = importlib.import_module(f"configs.{name}")
    variants = [(name,) for name in getattr(recipe, "VARIANTS", {})]
    for arguments in [(), *variants]:
        config = recipe.get_config(*arguments)
        assert config.is_locked
        assert read_settings(config).steps > 0


def test_variants_of_the_quickstart_change_the_method_alone():
    quickstart = importlib.import_module("configs.quickstart")
    own = read_settings(quickstart.get_config())
    grpo = read_settings(quickstart.get_config("grpo"))
    gppo = read_settings(quickstart.get_config("gppo"))
    assert grpo == dataclasses.replace(
        own, loss=dataclasses.replace(own.loss, surrogate="ppo_clip")
    )
    assert gppo == dataclasses.replace(
        own, loss=dataclasses.replace(own.loss, beta_low=1.0, beta_high=1.0)
    )


def test_an_unknown_variant_is_an_error():
    quickstart = importlib.import_module("configs.quickstart")
    message = r"no variant 'grop' in this recipe; it has \['gppo', 'grpo'\]"
    with pytest.raises(ValueError, match=message):
        quickstart.get_config("grop")


def test_arithmetic_in_words():
    assert read_settings(tiny(steps=200)).arithmetic() == (
        "8 prompts x 4 samples = 32 completions a step, "
        "2 updates of 4 x 4 = 16 completions each; "
        "200 steps = 6,400 completions and 400 updates"
    )


def test_a_whole_number_is_read_as_a_float_where_one_is_asked_for():
    config = tiny_recipe.get_config().unlock()
    config.loss = config.loss.to_dict() | {"beta_low": 1}
    value = read_settings(config).loss.beta_low
    assert (value, type(value)) == (1.0, float)


@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        ("seed", 1.5, "config.seed = 1.5 is of type float, not int"),
        ("steps", "6", "config.steps = '6' is of type str, not int"),
        ("steps", True, "config.steps = True is of type bool, not int"),
        ("model.rope_theta", True, "config.model.rope_theta = True is of type bool, not float"),
        ("model.tied_embeddings", 1, "config.model.tied_embeddings = 1 is of type int, not bool"),
        ("loss.surrogate", 3, "config.loss.surrogate = 3 is of type int, not str"),
        ("mesh", 8, "config.mesh = 8 is not a section of settings"),
        (
            "sampler.cache_read_ladder",
            (7, 13.0),
            "config.sampler.cache_read_ladder[1] = 13.0 is of type float, not int",
        ),
        ("optimizer.betas", (0.9, 0.95), "config.optimizer.betas is not a setting: did you mean"),
        ("loss.beta_lo", 1.0, "config.loss.beta_lo is not a setting: did you mean 'beta_low'?"),
        ("loss.zzz", 1.0, "config.loss.zzz is not a setting; it has ['beta_high', 'beta_low',"),
    ],
)
def test_a_value_of_another_type_and_an_unknown_name_are_errors(section, value, message):
    """In a ConfigDict that was unlocked, or was not made by configs/base.py."""
    values = tiny_recipe.get_config().to_dict()
    *folders, name = section.split(".")
    place = values
    for folder in folders:
        place = place[folder]
    place[name] = value
    with pytest.raises(ValueError) as raised:
        read_settings(AsConfig(values))
    assert str(raised.value).startswith(message)


class AsConfig(dict):
    """A dict with the one method of a ConfigDict that is used."""

    def to_dict(self):
        return dict(self)


def test_a_missing_knob_is_an_error():
    values = tiny_recipe.get_config().to_dict()
    del values["loss"]["beta_low"], values["loss"]["clip_low"]
    message = r"config\.loss lacks \['beta_low', 'clip_low'\]: start recipes from configs/base.py"
    with pytest.raises(ValueError, match=message):
        read_settings(AsConfig(values))


AT_LEAST = {
    0: (
        *("steps", "loss/clip_low", "loss/clip_high", "loss/beta_low", "loss/beta_high"),
        *("warm_start/steps", "evaluation/every_steps"),
        *("logging/samples_every_steps", "logging/samples_groups"),
    ),
    1: (
        *("model/width", "model/layers", "model/heads", "model/kv_heads", "model/head_size"),
        *("model/mlp_width", "batch/prompts", "batch/samples_per_prompt"),
        *("batch/minibatch_prompts", "batch/row_tokens", "batch/rows_per_microbatch"),
        *("sampler/max_prompt_tokens", "sampler/max_completion_tokens", "sampler/chunk_steps"),
        *("trainer/scan_unroll", "trainer/logprob_chunk_tokens"),
        *("warm_start/sequences", "warm_start/rows_per_microbatch"),
        *("evaluation/problems", "evaluation/samples_per_problem"),
        *("checkpoint/every_steps", "checkpoint/keep"),
    ),
}


@pytest.mark.parametrize(
    ("minimum", "name"), [(minimum, name) for minimum, names in AT_LEAST.items() for name in names]
)
def test_numbers_below_their_minimum_are_errors(minimum, name):
    field = name.split("/")[-1]
    with pytest.raises(ValueError, match=rf"{field} = {minimum - 1}(\.0)?\b.*at least {minimum}"):
        read_settings(tiny(**{name: minimum - 1}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch/prompts": 6}, "batch.prompts = 6 is not a multiple of batch.minibatch_prompts = "
         "4: 2 prompts would be left over"),
        ({"batch/samples_per_prompt": 1}, "a group of one has no advantage over itself"),
        ({"batch/row_tokens": 13, "trainer/logprob_chunk_tokens": 13}, "batch.row_tokens = 13 "
         "cannot hold the longest prompt + completion, 5 + 9 = 14 tokens"),
        ({"trainer/logprob_chunk_tokens": 12}, "trainer.logprob_chunk_tokens = 12 does not divide "
         "batch.row_tokens = 32"),
        ({"trainer/scan_unroll": 2}, "trainer.scan_unroll = 2 does not divide model.layers = 1"),
        ({"sampling/top_p": 0.9}, "policy gradients need every token to keep its softmax"),
        ({"sampling/top_k": 5}, "policy gradients need every token to keep its softmax"),
        ({"sampling/temperature": 0.0}, "policy gradients need every token to keep its softmax"),
        ({"loss/surrogate": "ce_gpo"}, "loss.surrogate = 'ce_gpo' does not exist: did you mean "
         "'ce_gppo'? There are ["),
        ({"reward/verifier": "final"}, "reward.verifier = 'final' does not exist: "),
        ({"problems/task": "chess"}, "problems.task = 'chess' is none of ['chained_arithmetic']"),
        ({"trainer/dtype": "float23"}, "trainer.dtype = 'float23' does not exist: did you mean "
         "'float32'? There are ['bfloat16', 'float32']"),
        ({"sampler/dtype": "half"}, "sampler.dtype = 'half' does not exist: There are ["),
        ({"optimizer/schedule": "step"}, "optimizer.schedule = 'step' is none of ["),
        ({"loss/beta_low": float("nan")}, "loss.beta_low = nan: at least 0"),
    ],
)  # fmt: skip
def test_contradictory_values_are_errors_with_their_numbers(changes, message):
    with pytest.raises(ValueError) as raised:
        read_settings(tiny(**changes))
    assert message in str(raised.value)
