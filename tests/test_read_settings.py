"""Numbers at the door: every float setting is finite, and float32 can hold it."""

import dataclasses
import math
import typing

import pytest
import tiny_recipe

from cegppo_jax.read_settings import REST, UNLIMITED, check_choice, read_record
from cegppo_jax.run.settings import RunSettings, read_evaluate_settings, read_settings

UNLIMITED_SETTINGS = {
    *("loss.clip_high", "loss.cispo_cap", "loss.aspo_cap", "loss.dppo_cap", "loss.dual_clip"),
    *("loss.divergence_low", "loss.divergence_high", "loss.decay_high", "loss.covariance_high"),
    *("loss.entropy_ratio_low", "loss.entropy_ratio_high", "mismatch.cap", "mismatch.high"),
    *("optimizer.max_grad_norm", "warm_start.optimizer.max_grad_norm", "steering.guard.ceiling"),
    *(
        f"steering.controller.beta_{side}_{end}"
        for side in ("low", "high")
        for end in ("min", "max")
    ),
    "steering.entropy_bonus.coef_max",
}


def float_settings(record, prefix=""):
    """(dotted name, whether it is a tuple of floats, whether infinity is allowed) of every float
    setting, and of every number of a method.
    """
    kinds = typing.get_type_hints(record)
    for field in dataclasses.fields(record):
        kind, name = kinds[field.name], f"{prefix}{field.name}"
        if REST in field.metadata:
            for key, number in field.metadata[REST]().items():
                yield f"{prefix}{key}", False, number.unlimited
        elif dataclasses.is_dataclass(kind):
            yield from float_settings(kind, f"{name}.")
        elif kind is float or kind == tuple[float, ...]:
            yield name, kind is not float, field.metadata.get("unlimited", False)


FLOATS = list(float_settings(RunSettings))
NAMES = [name for name, _, _ in FLOATS]


def tiny(name, value):
    config = tiny_recipe.get_config()
    many = next(many for one, many, _ in FLOATS if one == name)
    config.update_from_flattened_dict({name: (value,) if many else value})
    return config


def test_the_walk_finds_the_settings_and_those_without_a_limit():
    assert len(NAMES) > 60
    assert {"optimizer.learning_rate", "evaluation.sampling.temperature"} < set(NAMES)
    assert {name for name, _, unlimited in FLOATS if unlimited} == UNLIMITED_SETTINGS


@pytest.mark.parametrize("name", NAMES)
def test_a_float_setting_that_is_no_finite_number_is_refused_by_its_name(name):
    """Infinity passes where it means no limit; NaN nowhere, nor what float32 rounds to inf or 0."""
    values = [math.nan, 1e39, -1e39, 1e-40, -1e-46]
    if name not in UNLIMITED_SETTINGS:
        values += [math.inf, -math.inf, 10**400]
    for value in values:
        with pytest.raises(ValueError) as raised:
            read_settings(tiny(name, value) if value != 10**400 else with_value(name, value))
        message = str(raised.value)
        if name.startswith("loss."):  # checked where the method is known
            message = f"config.{message.removeprefix('config.')}"
        many = next(many for one, many, _ in FLOATS if one == name)
        assert message.startswith(f"config.{name}{'[0]' if many else ''} = "), (value, message)
        assert "\n" not in message


def with_value(name, value):
    """The tiny config with a value that a ConfigDict itself would not take."""
    values = tiny_recipe.get_config().to_dict()
    *sections, last = name.split(".")
    place = values
    for section in sections:
        place = place[section]
    place[last] = (value,) if isinstance(place[last], tuple) else value
    return AsConfig(values)


class AsConfig(dict):
    """A dict with the one method of a ConfigDict that is used."""

    def to_dict(self):
        return dict(self)


@pytest.mark.parametrize("name", sorted(UNLIMITED_SETTINGS))
def test_infinity_passes_where_it_means_no_limit(name):
    value = -math.inf if name.endswith("_min") else math.inf
    settings = read_settings(tiny(name, value))
    section, _, last = name.rpartition(".")
    if section == "loss":
        assert settings.loss.numbers[last] == value
        return
    for part in name.split("."):
        settings = getattr(settings, part)
    assert settings == value


def test_evaluate_has_the_same_door():
    for value in (math.nan, math.inf, 1e-40, 1e39):
        with pytest.raises(ValueError, match=r"config\.evaluation\.sampling\.temperature = "):
            read_evaluate_settings(tiny("evaluation.sampling.temperature", value))


@dataclasses.dataclass(frozen=True)
class Pair:
    limited: float
    free: float = dataclasses.field(metadata=UNLIMITED)


def test_read_floats_by_hand():
    assert read_record(Pair, {"limited": 3, "free": -math.inf}, "a") == Pair(3.0, -math.inf)
    assert read_record(Pair, {"limited": 0.0, "free": 1e-37}, "a") == Pair(0.0, 1e-37)
    with pytest.raises(ValueError, match=r"a\.limited = inf: a finite number"):
        read_record(Pair, {"limited": math.inf, "free": 1.0}, "a")
    with pytest.raises(ValueError, match=r"a\.free = nan: a number, or inf for no limit"):
        read_record(Pair, {"limited": 1.0, "free": math.nan}, "a")
    with pytest.raises(ValueError, match=r"a\.limited = 1e-40 does not fit into float32"):
        read_record(Pair, {"limited": 1e-40, "free": 1.0}, "a")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("token_men", "did you mean 'token_mean'? "),
        ("Token-Mean", "did you mean 'token_mean'? "),
        ("GRPO", "set token_mean. "),
        ("Dr. GRPO", "set sum. "),
        ("zzz", ""),
    ],
)
def test_a_wrong_choice_is_told_what_to_take(name, hint):
    others = {"grpo": "set token_mean.", "dr_grpo": "set sum."}
    with pytest.raises(ValueError) as raised:
        check_choice("place", name, ("token_mean", "sum"), others)
    expected = f"place = {name!r} does not exist: {hint}There are ['sum', 'token_mean']"
    assert str(raised.value) == expected
