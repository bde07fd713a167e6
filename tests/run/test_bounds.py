"""Every number of a config has bounds, in one table; beyond either end it is refused by name."""

import contextlib
import dataclasses
import math
import typing
from functools import partial

import child_runs
import pytest
import tiny_recipe

from cegppo_jax.data.tokenizer import build_character_tokenizer
from cegppo_jax.run.bounds import BOUNDS
from cegppo_jax.run.checks import check_model_fits
from cegppo_jax.run.settings import RunSettings, read_settings

SETTING = tiny_recipe.get_config().to_dict()


def numbers(record, prefix=""):
    """-> dotted names of all numbers of a settings record, and of tuples of them."""
    kinds = typing.get_type_hints(record)
    for field in dataclasses.fields(record):
        kind, name = kinds[field.name], prefix + field.name
        if dataclasses.is_dataclass(kind):
            yield from numbers(kind, f"{name}.")
        elif kind in (int, float) or kind in (tuple[int, ...], tuple[float, ...]):
            yield name, kind


NUMBERS = dict(numbers(RunSettings))


def read(name, value):
    config = tiny_recipe.get_config()
    kind = NUMBERS[name]
    if typing.get_origin(kind) is tuple:
        value = (value,)
    config.update_from_flattened_dict({name: value})
    return read_settings(config)


def test_the_table_has_every_number_of_a_config_and_no_other():
    assert set(BOUNDS) == set(NUMBERS)


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_beyond_either_end_is_refused_by_its_name(name):
    """An end itself may not go with the other settings; no other error comes of it."""
    bounds, whole = BOUNDS[name], NUMBERS[name] in (int, tuple[int, ...])
    step = 1 if whole else 0.5
    short = name.rpartition(".")[2]
    if math.isfinite(bounds.most):
        with pytest.raises(ValueError, match=rf"{name}(\[0\])? = .*: {bounds.words}"):
            read(name, bounds.most + step)
        with pytest.raises(ValueError, match=rf"{name}(\[0\])? = "):
            read(name, 10**30 if whole else 3e38)
    if math.isfinite(bounds.least):
        with pytest.raises(ValueError, match=short):
            read(name, bounds.least if bounds.above else bounds.least - step)
    for end in (bounds.least, bounds.most):
        if math.isfinite(end):
            with contextlib.suppress(ValueError):
                read(name, int(end) if whole else end)


@pytest.mark.parametrize(
    "flag",
    [
        "model.layers=1000000000",
        "model.rope_theta=-1.0",
        *map(
            partial(pytest.param, marks=pytest.mark.slow),
            (
                *("problems.max_steps=2147483648", "sampler.slots=2147483648", "seed=2147483648"),
                *("reward.pool.workers=2147483648", "batch.max_refills=2147483648"),
                *("model.norm_epsilon=0.0", "batch.samples_per_prompt=2147483647"),
            ),
        ),
    ],
)
def test_sizes_are_refused_before_anything_of_them_is_made(flag, tmp_path):
    name, _, value = flag.partition("=")
    line = child_runs.refused(tmp_path / "run", f"--config.{flag}")
    assert line.startswith(f"error: config.{name} = {value}: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moved", ["added", "hole"])
def test_every_id_of_the_tokenizer_is_below_the_model_s_vocabulary(moved, tiny_run, monkeypatch):
    """By the ids themselves: their number says nothing where there is a hole."""
    tokenizer = build_character_tokenizer("0123456789+-*=;#()")
    ids = tokenizer.get_vocab()
    last = max(ids, key=ids.get)
    if moved == "added":
        ids["new"] = tiny_run.model.vocab_size
    else:
        ids[last] = tiny_run.model.vocab_size + 7
    monkeypatch.setattr(type(tokenizer), "get_vocab", lambda self: ids)
    monkeypatch.setattr(type(tokenizer), "__len__", lambda self: 3)
    with pytest.raises(ValueError, match=f"vocabulary of {tiny_run.model.vocab_size}"):
        check_model_fits(tiny_run.settings.sampler, tiny_run.model, tokenizer, tiny_run.mesh)
