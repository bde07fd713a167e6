"""Tables of sweeps against numbers computed another way; what is unfinished, single or wrong."""

import csv
import json
import statistics

import pytest

from cegppo_jax.sweeps.experiment import read_experiment
from cegppo_jax.sweeps.table import arm_results, markdown, write_tables

FILE = """
from cegppo_jax.sweeps.arms import over, product, seeds
QUESTION = "Does it?"
PREDICTION = "It does."
METRIC = "evaluation/accuracy"
ALSO = (("policy/entropy", 2),)
base = dict
def arms():
    return product(over("loss.beta_low", 0.5, 0.0), seeds(0, 1, 2))
"""
STUDENT = {2: 12.7062, 3: 4.30265}  # 97.5 % quantiles with n - 1 degrees of freedom
ACCURACY = {0.5: [0.80, 0.84, 0.85], 0.0: [0.70, 0.78, 0.74]}
STEPS = 4


def write_run(folder, beta, seed, accuracy, steps=STEPS, planned=STEPS, **changes):
    """A run's directory: entropies 10 + beta + step, the accuracy at steps 2 and 4."""
    workdir = folder / f"beta_low={beta}" / f"seed{seed}"
    workdir.mkdir(parents=True)
    config = {"seed": seed, "steps": planned, "loss": {"beta_low": beta}, "command": "train"}
    (workdir / "config.json").write_text(json.dumps(config | changes))
    lines = [{"phase": "supervised", "step": 0, "policy/entropy": 99.0}]
    for step in range(steps + 1):
        line = {"phase": "rl", "step": step, "policy/entropy": 10 + beta + seed + step}
        if step % 2 == 0:
            line["evaluation/accuracy"] = accuracy if step == STEPS else 0.1
        lines.append(line)
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    (workdir / "checkpoints" / str(steps)).mkdir(parents=True)
    return workdir


@pytest.fixture
def experiment(tmp_path):
    path = tmp_path / "asked.py"
    path.write_text(FILE)
    return read_experiment(path)


@pytest.fixture
def folder(tmp_path):
    for beta, values in ACCURACY.items():
        for seed, accuracy in enumerate(values):
            write_run(tmp_path / "runs", beta, seed, accuracy)
    return tmp_path / "runs"


def interval(values):
    mean = statistics.mean(values)
    reach = STUDENT[len(values)] * statistics.stdev(values) / len(values) ** 0.5
    return [mean, mean - reach, mean + reach]


def test_means_and_paired_differences(experiment, folder):
    first, second = arm_results(experiment, folder)
    found = second.means["evaluation/accuracy"]
    assert [found.mean, found.low, found.high] == pytest.approx(interval(ACCURACY[0.0]), abs=1e-5)
    changes = [b - a for a, b in zip(ACCURACY[0.5], ACCURACY[0.0], strict=True)]
    found = second.differences["evaluation/accuracy"]
    assert [found.mean, found.low, found.high] == pytest.approx(interval(changes), abs=1e-5)
    assert first.differences["evaluation/accuracy"] is None
    assert first.seeds == "3"
    # The mean of steps 3 and 4, of the RL phase alone; its differences are all equal.
    assert first.means["policy/entropy"].mean == pytest.approx(10.5 + 1 + 3.5)
    difference = second.differences["policy/entropy"]
    assert difference.mean == pytest.approx(-0.5)
    text = markdown(experiment, [first, second])
    assert "| `beta_low=0.0` | 3 | 74.0% [64.1%, 83.9%] | -9.0 [-15.6, -2.4] points | 14.5 " in text
    assert "`evaluation/accuracy`" in text
    assert "Does it?" in text


def test_pairs_are_of_the_same_seed(experiment, tmp_path):
    folder = tmp_path / "runs"
    for seed, accuracy in ((0, 0.8), (1, 0.9)):
        write_run(folder, 0.5, seed, accuracy)
    for seed, accuracy in ((1, 0.95), (2, 0.6)):
        write_run(folder, 0.0, seed, accuracy)
    first, second = arm_results(experiment, folder)
    assert second.pairs["evaluation/accuracy"] == 1
    assert second.differences["evaluation/accuracy"].mean == pytest.approx(0.05)
    assert second.seeds == "2 of 3; seed 0: not begun"
    assert "+5.0 points" in markdown(experiment, [first, second])


def test_unfinished_runs_are_marked_and_do_not_count(experiment, tmp_path):
    folder = tmp_path / "runs"
    for beta in (0.5, 0.0):
        write_run(folder, beta, 0, 0.8)
    write_run(folder, 0.0, 1, 0.1, steps=3)
    killed = write_run(folder, 0.0, 2, 0.1)  # after its last line, before its last checkpoint
    (killed / "checkpoints" / str(STEPS)).rmdir()
    first, second = arm_results(experiment, folder)
    assert second.seeds == "1 of 3; seed 1: step 3 of 4; seed 2: step 4 of 4"
    text = markdown(experiment, [first, second])
    assert "| 80.0% | +0.0 points |" in text
    assert "One finished seed has no interval (`beta_low=0.5`, `beta_low=0.0`)" in text


def test_nothing_to_compare_with_is_said(experiment, tmp_path):
    folder = tmp_path / "runs"
    write_run(folder, 0.5, 0, 0.8)
    write_run(folder, 0.0, 1, 0.9)
    arms = arm_results(experiment, folder)
    assert "No seed is finished in both `beta_low=0.5` and `beta_low=0.0`" in markdown(
        experiment, arms
    )


def test_different_numbers_of_steps_are_said(experiment, tmp_path):
    folder = tmp_path / "runs"
    write_run(folder, 0.5, 0, 0.8)
    write_run(folder, 0.0, 0, 0.9, steps=6, planned=6)
    text = markdown(experiment, arm_results(experiment, folder))
    assert "`beta_low=0.5` 4, `beta_low=0.0` 6" in text


def test_the_files_have_every_digit(experiment, folder):
    markdown_path, arms_path, runs_path = write_tables(
        experiment, arm_results(experiment, folder), folder
    )
    assert markdown_path.read_text().startswith("# asked")
    rows = list(csv.DictReader(arms_path.open()))
    assert [(row["arm"], row["metric"]) for row in rows] == [
        (f"beta_low={beta}", metric)
        for beta in (0.5, 0.0)
        for metric in ("evaluation/accuracy", "policy/entropy")
    ]
    numbers = [float(rows[2][name]) for name in ("mean", "low", "high")]
    assert numbers == pytest.approx(interval(ACCURACY[0.0]), abs=1e-5)
    assert rows[0]["difference_mean"] == rows[0]["difference_low"] == ""
    runs = list(csv.DictReader(runs_path.open()))
    assert [float(row["evaluation/accuracy"]) for row in runs] == [
        *ACCURACY[0.5],
        *ACCURACY[0.0],
    ]
    assert runs[5]["loss.beta_low"] == "0.0"
    assert runs[5]["seed"] == "2"


def test_what_is_no_run_of_this_sweep_is_refused(experiment, tmp_path):
    folder = tmp_path / "runs"
    with pytest.raises(ValueError, match="no run of"):
        arm_results(experiment, folder)
    write_run(folder, 0.5, 0, 0.8, loss={"beta_low": 0.25})
    with pytest.raises(ValueError, match=r"loss\.beta_low = 0\.25, and the experiment has 0\.5"):
        arm_results(experiment, folder)


def test_a_metric_that_a_finished_run_lacks(experiment, tmp_path):
    folder = tmp_path / "runs"
    workdir = write_run(folder, 0.5, 0, 0.8)
    path = workdir / "metrics.jsonl"
    path.write_text(path.read_text().replace("policy/entropy", "policy/old_entropy"))
    with pytest.raises(ValueError, match="no metric 'policy/entropy'"):
        arm_results(experiment, folder)


def test_a_value_that_is_not_finite_is_shown(experiment, folder):
    path = folder / "beta_low=0.5" / "seed1" / "metrics.jsonl"
    path.write_text(path.read_text().replace('"policy/entropy": 15.5', '"policy/entropy": null'))
    first, second = arm_results(experiment, folder)
    assert "| nan |" in markdown(experiment, [first, second])
    assert second.differences["evaluation/accuracy"] is not None
