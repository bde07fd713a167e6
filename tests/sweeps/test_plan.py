"""Configs of arms: what a command line gives, and what is refused before anything starts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cegppo_jax.run.command_line import default_settings
from cegppo_jax.run.directory import claim
from cegppo_jax.run.settings import read_settings
from cegppo_jax.sweeps.arms import ArmRun
from cegppo_jax.sweeps.experiment import read_experiment
from cegppo_jax.sweeps.plan import config_of, plan

ROOT = Path(__file__).parents[2]
PAPER = [
    f"paper/{path.stem}" for path in sorted((ROOT / "experiments" / "paper").glob("e[0-9]*.py"))
]
FILE = """
from cegppo_jax.sweeps.arms import arm, chain, over, product, seeds
QUESTION = "Does it?"
PREDICTION = "It does."
METRIC = "evaluation/accuracy"
def base():
    from tiny_recipe import get_config
    return get_config()
def arms():
    return product(ARMS, seeds(0, 1))
"""


@pytest.fixture
def experiment(tmp_path):
    def written(arms):
        path = tmp_path / "asked.py"
        path.write_text(FILE.replace("ARMS", arms))
        return read_experiment(path)

    return written


def test_commands_are_those_of_train(experiment, tmp_path):
    asked = experiment('over("loss.beta_low", 0.0, 0.5)')
    planned = plan(asked, tmp_path / "runs", asked.runs)
    assert [str(one.run) for one in planned] == [
        f"beta_low={beta}/seed{seed}" for beta in (0.0, 0.5) for seed in (0, 1)
    ]
    assert planned[3].command == (
        sys.executable,
        *("-m", "cegppo_jax.train"),
        f"--config={tmp_path / 'asked.py'}",
        f"--workdir={tmp_path / 'runs' / 'beta_low=0.5' / 'seed1'}",
        *("--config.loss.beta_low=0.5", "--config.seed=1"),
    )
    assert planned[3].steps == 6
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "overrides",
    [
        {"loss.beta_low": 1},
        {"loss.wrappers": ("dual_clip", "top_entropy")},
        {"loss.wrappers": ()},
        {"trainer.rematerialise": "full"},
        {"steering.guard.ceiling": float("inf")},
        {"problems.fields": (("problem", "question"), ("answer", "gold"))},
        {"problems.train": ({"name": "a.jsonl", "weight": 0.5},)},
        {"loss.surrogate": "own_method:FAR_LEFT"},
    ],
)
def test_values_reach_the_config_as_they_are(experiment, overrides):
    path = experiment('over("loss.beta_low", 0.0)').path
    config = config_of(path, ArmRun("a", 3, overrides))
    for name, value in {**overrides, "seed": 3}.items():
        section, _, last = name.rpartition(".")
        found = config
        for part in section.split(".") if section else ():
            found = found[part]
        assert found[last] == value


@pytest.mark.parametrize(
    ("arms", "says"),
    [
        ('over("loss.beta_lwo", 0.5)', r"did you mean --config\.loss\.beta_low\?"),
        ('over("loss.beta_low", "much")', "could not convert string to float: 'much'"),
        ('over("steps", 2.5)', "2.5"),
        ('over("loss", "x")', "is a section"),
        ('over("loss.clip_low", -1.0)', "clip_low"),
        ('over("loss.surrogate", "ppo")', "loss.surrogate = 'ppo' does not exist"),
        ('over("loss.beta_low", 0.0, 0)', "have the same config"),
        ('chain(arm("a"), arm("b"))', "runs a/seed0 and b/seed0 have the same config"),
        ('arm("a", {"steering.beta_schedule.beta_low": (float("inf"),)})', "beta_low"),
    ],
)
def test_bad_arms_are_refused_with_their_name(experiment, tmp_path, arms, says):
    asked = experiment(arms)
    with pytest.raises(ValueError, match=says) as raised:
        plan(asked, tmp_path / "runs", asked.runs)
    assert "run" in str(raised.value)
    assert not (tmp_path / "runs").exists()


def test_a_directory_of_another_config_is_refused(experiment, tmp_path):
    asked = experiment('over("loss.beta_low", 0.5)')
    config = config_of(asked.path, asked.runs[1]).to_dict() | {"command": "train"}
    config["loss"]["clip_low"] = 0.3
    claim(tmp_path / "runs" / str(asked.runs[1]), config, default_settings())
    with pytest.raises(ValueError, match=r"run beta_low=0\.5/seed1: .*\n.*loss\.clip_low"):
        plan(asked, tmp_path / "runs", asked.runs)
    plan(asked, tmp_path / "runs", asked.runs[:1])


@pytest.mark.parametrize("name", ["beta_ablation", "sweep_example", *PAPER])
def test_experiments_of_the_repository_are_valid(name):
    asked = read_experiment(ROOT / "experiments" / f"{name}.py")
    for runs in asked.arms.values():
        read_settings(config_of(asked.path, runs[0]))


def test_planning_touches_no_device():
    script = f"""
import json, pathlib, sys
from cegppo_jax.sweeps.experiment import read_experiment
from cegppo_jax.sweeps.plan import plan
asked = read_experiment(pathlib.Path({str(ROOT)!r}) / "experiments" / "sweep_example.py")
planned = plan(asked, pathlib.Path("/nowhere"), asked.runs)
from jax._src import xla_bridge
print(json.dumps([len(planned), xla_bridge.backends_are_initialized()]))
"""
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert json.loads(child.stdout) == [6, False], child.stderr
