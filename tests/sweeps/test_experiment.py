"""Experiment files: what one needs, and what is refused."""

import subprocess
import sys
from pathlib import Path

import pytest

from cegppo_jax.sweeps.experiment import Measure, read_experiment

ROOT = Path(__file__).parents[2]
FILE = """
from cegppo_jax.sweeps.arms import over, product, seeds
QUESTION = "Does it?"
PREDICTION = "It does."
METRIC = "evaluation/accuracy"
ALSO = (("policy/entropy", 5), "reward/mean")
def base():
    raise RuntimeError("not called")
def arms():
    return product(over("loss.beta_low", 0.0, 0.5), seeds(0, 1))
"""


@pytest.fixture
def write(tmp_path):
    def written(*changes):
        text = FILE
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "asked.py"
        path.write_text(text)
        return path

    return written


def test_an_experiment_is_read_without_its_base(write):
    experiment = read_experiment(write())
    assert experiment.name == "asked"
    assert experiment.question == "Does it?"
    assert experiment.measures == (
        Measure("evaluation/accuracy"),
        Measure("policy/entropy", 5),
        Measure("reward/mean"),
    )
    assert list(experiment.arms) == ["beta_low=0.0", "beta_low=0.5"]
    assert [str(run) for run in experiment.runs_named("beta_low=0.5")] == [
        "beta_low=0.5/seed0",
        "beta_low=0.5/seed1",
    ]
    [run] = experiment.runs_named("beta_low=0.5/seed1")
    assert run.seed == 1
    with pytest.raises(ValueError, match=r"did you mean 'beta_low=0\.5'"):
        experiment.runs_named("beta_low=0.55")
    with pytest.raises(ValueError, match="seed1"):
        experiment.runs_named("beta_low=0.5/seed11")


def test_shares_are_known_from_the_glossary():
    assert Measure("evaluation/accuracy").is_share
    assert not Measure("policy/entropy").is_share
    assert not Measure("user/mine").is_share


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('QUESTION = "Does it?"', ""), "no QUESTION"),
        (('"It does."', '" "'), "no PREDICTION"),
        (("def base", "def bases"), r"no function base\(\)"),
        (("def arms", "def arm"), r"no function arms\(\)"),
        (("evaluation/accuracy", "evaluation/accuracyy"), "did you mean 'evaluation/accuracy'"),
        (('"evaluation/accuracy"', "None"), "METRIC or ALSO has None"),
        (("5)", "0)"), "METRIC or ALSO"),
        (('"reward/mean"', '"policy/entropy"'), "twice"),
        (("over(", "ovr("), "asked.py, line 10: NameError"),
        (("return product", "return product("), "SyntaxError"),
        (("0.0, 0.5", "0.5, 0.5"), "there twice"),
        (("return", "yield"), "no arms"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(write, change, says):
    with pytest.raises(ValueError, match=says) as raised:
        read_experiment(write(change))
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there(write):
    path = write()
    with pytest.raises(ValueError, match=r"did you mean .*asked\.py"):
        read_experiment(path.with_name("askd.py"))


def test_experiments_of_the_repository_are_read_without_jax():
    script = f"""
import sys
from pathlib import Path
from cegppo_jax.sweeps.experiment import read_experiment
for name in ("beta_ablation", "sweep_example", "paper/e1_methods", "paper/e2_betas"):
    print(len(read_experiment(Path({str(ROOT)!r}) / "experiments" / (name + ".py")).runs))
print("jax" in sys.modules)
"""
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert child.stdout.splitlines()[-1] == "False", child.stderr
