"""Runs by hand: the trainer is the command's, and saved runs are read back."""

import os
import shutil
import signal
import threading

import numpy as np
import pytest
import tiny_recipe

import cegppo_jax as cg
from cegppo_jax.api import runs
from cegppo_jax.reporting.metrics import without_clock
from cegppo_jax.run.lifecycle import prepare_run
from cegppo_jax.run.settings import read_settings
from cegppo_jax.train import train


@pytest.fixture(scope="module")
def trainer():
    config = tiny_recipe.get_config()
    config.warm_start.steps = 0
    config.logging.entropy_change_every_steps = 0
    with cg.Trainer(config) as trainer:
        yield trainer


@pytest.mark.slow
def test_a_trainer_steps_as_the_command_does(tmp_path):
    """A run of two steps after a warm start, in memory: every metric equal to the last digit."""
    config = tiny_recipe.get_config()
    config.steps = config.warm_start.steps = 2
    train(prepare_run(config, tmp_path), tmp_path)
    saved = {line["step"]: line for line in cg.open_run(tmp_path).metrics if line["phase"] == "rl"}
    with cg.Trainer(config) as trainer:
        for step in trainer:
            line = without_clock(saved[step.position.step])
            compared = [name for name in line if line[name] is not None and name in step.values]
            assert {name: step.values[name] for name in compared} == {n: line[n] for n in compared}
            assert len(compared) > 30
        assert "step 2 of 2" in repr(trainer)


@pytest.fixture
def python_interrupts():
    """Ctrl-C as in a notebook, whatever runs the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_numbers_change_between_steps_and_nothing_is_compiled_again(trainer):
    first = trainer.step()
    trainer.set_numbers(beta_low=0.0, beta_high=0.25)
    second = trainer.step()
    assert (first.values["steering/beta_low"], first.values["steering/beta_high"]) == (0.5, 1.0)
    assert (second.values["steering/beta_low"], second.values["steering/beta_high"]) == (0.0, 0.25)
    assert "beta_low = 0" in repr(trainer)
    assert len(repr(second)) < 100
    trainer.run.check_compiled_once()
    with pytest.raises(ValueError, match="beta_lo"):
        trainer.set_numbers(beta_lo=1.0)
    with pytest.raises(ValueError, match="beta_low = '1' is of type str"):
        trainer.set_numbers(beta_low="1")


def test_a_trainer_needs_a_config_or_its_file():
    with pytest.raises(TypeError, match="config is of type dict"):
        cg.Trainer({"steps": 2})


def test_a_policy_taken_out_survives_the_next_step(trainer):
    policy = trainer.policy()
    evaluation = trainer.evaluate()
    trainer.step()
    assert policy.sample("1+1", 2, max_tokens=4).shape == (1, 2)
    assert evaluation.problems == 8


def test_an_interrupt_comes_after_the_step(trainer, python_interrupts):
    done = trainer.position.step
    timer = threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        trainer.step()
    assert trainer.position.step == done + 1
    trainer.step()  # goes on
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_interrupt_comes_at_once(python_interrupts):
    reached = []

    def interrupted_twice():
        with runs._interrupt_waits():
            signal.raise_signal(signal.SIGINT)
            reached.append("after the first")
            signal.raise_signal(signal.SIGINT)
            reached.append("after the second")

    with pytest.raises(KeyboardInterrupt):
        interrupted_twice()
    assert reached == ["after the first"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_saved_run_is_read_back(finished_run):
    workdir, _ = finished_run
    run = cg.open_run(str(workdir))
    steps, entropy = run["policy/entropy"]
    assert steps.tolist() == list(range(1, 7))
    assert entropy.dtype == np.float64
    assert (entropy > 0).all()
    assert run.config.steps == 6
    assert len(run.samples) > 0
    assert "rl step 6" in repr(run)
    assert "supervised/loss" in run.names()
    with pytest.raises(KeyError, match=r"'policy/entropi' is no metric .* mean 'policy/entropy'"):
        run["policy/entropi"]
    newest, older = run.policy(), run.policy(step=4)
    assert "updates" not in repr(newest)  # how many the run took is not in the parameters
    texts = newest.sample("1+1", 4, max_tokens=8).texts
    assert cg.load(workdir).sample("1+1", 4, max_tokens=8).texts == texts
    assert older.eos_ids == newest.eos_ids
    with pytest.raises(ValueError, match="step 5"):
        run.policy(step=5)


def test_a_run_that_has_just_begun(finished_run, tmp_path):
    workdir, _ = finished_run
    shutil.copy(workdir / "config.json", tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"phase": "rl", "step": 0}\n{"phase": "rl", "st')
    run = cg.open_run(tmp_path)
    assert "rl step 0" in repr(run)
    assert run.samples == []
    with pytest.raises(ValueError, match="holds no run"):
        run.policy()


def test_a_saved_config_is_a_runs(finished_run):
    config = cg.open_run(finished_run[0]).config
    assert read_settings(config) == read_settings(tiny_recipe.get_config())
