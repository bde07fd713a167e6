"""The first log-probability that is not finite ends a command with one line."""

import types
from pathlib import Path

import numpy as np
import pytest
import tiny_recipe

import cegppo_jax.evaluate
import cegppo_jax.supervised
import cegppo_jax.train
from cegppo_jax.finite import NonFiniteError, at_step, check_logprobs


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_token_and_how_many_are_named(value):
    logprobs = np.array([-1.0, -0.5, value, -2.0, value], np.float32)
    with pytest.raises(NonFiniteError) as raised:
        check_logprobs(logprobs, "sampler", "aime-7", 3, before=40)
    message = str(raised.value)
    assert "\n" not in message
    for part in ("sampler", "2 of 5 tokens", "'aime-7'", "sample 3", f"{value}", "token 42"):
        assert part in message
    assert "sampler.dtype" in message


@pytest.mark.parametrize("logprobs", [[], [-0.0, -1e-30, -1e30]])
def test_finite_ones_pass(logprobs):
    check_logprobs(np.asarray(logprobs, np.float32), "trainer", "p", 0, before=0)


def test_a_step_of_training_is_named():
    with pytest.raises(NonFiniteError, match="step 12: the trainer's"), at_step(12):
        check_logprobs(np.full(1, np.nan), "trainer", "p", 0, before=0)
    with pytest.raises(ValueError, match=r"^other$"), at_step(12):
        raise ValueError("other")


@pytest.mark.parametrize(
    ("module", "prepare", "verb"),
    [
        (cegppo_jax.train, "prepare_run", "train"),
        (cegppo_jax.supervised, "prepare_run", "supervise"),
        (cegppo_jax.evaluate, "prepare_evaluation", "evaluate"),
    ],
)
def test_the_commands_end_with_that_line(module, prepare, verb, monkeypatch):
    def fails(*arguments):
        check_logprobs(np.full(4, np.nan), "sampler", "p", 1, before=0)

    config = tiny_recipe.get_config()
    none = dict.fromkeys(("run", "out", "step", "profile_steps"))
    values = types.SimpleNamespace(config=config, workdir="w", **none)
    prepared = types.SimpleNamespace(out=Path("w"))
    monkeypatch.setattr(module, prepare, lambda *arguments, **options: prepared)
    monkeypatch.setattr(module, verb, fails)
    monkeypatch.setattr(module, "flags", types.SimpleNamespace(FLAGS=values))
    with pytest.raises(SystemExit) as ended:
        module.main([])
    assert str(ended.value).startswith("error: the sampler's log-probabilities are not finite: 4")
    assert not Path("w").exists()
