"""Evaluation: hand-made rollouts, intervals that mean something, the command on a finished run."""

import json
import shutil

import child_runs
import numpy as np
import pytest

from cegppo_jax.evaluate import Estimate, bootstrap_mean, summarise
from cegppo_jax.metrics import read_metrics
from cegppo_jax.types import Completion, Outcome, Problem, Prompt, Rollout, Score, StopReason


def rollout(outcomes, lengths):
    """One problem; a completion of 9 tokens was cut off."""
    prompt = Prompt(Problem("p", "", "", "test"), (1,), index=0)
    completions = tuple(
        Completion(
            prompt_index=0,
            sample_index=sample,
            tokens=np.zeros(n, np.int32),
            sampler_logprobs=np.zeros(n, np.float32),
            stop_reason=StopReason.LENGTH if n == 9 else StopReason.EOS,
            policy_version=0,
        )
        for sample, n in enumerate(lengths)
    )
    scores = tuple(Score(0.0, outcome, "0") for outcome in outcomes)
    return Rollout(prompt, completions, ("",) * len(lengths), scores)


def test_summarise_by_hand():
    """Shares of correct samples 2/2, 1/2, 0/2: accuracy 1/2, and 2 of 3 problems solved once.

    The reward plays no part: here it is 0 for all.
    """
    right, wrong, unparsed = Outcome.CORRECT, Outcome.WRONG, Outcome.UNPARSED
    evaluation = summarise(
        [
            rollout([right, right], [3, 4]),
            rollout([wrong, right], [5, 6]),
            rollout([wrong, unparsed], [9, 9]),
        ]
    )
    assert (evaluation.problems, evaluation.samples_per_problem) == (3, 2)
    assert evaluation.accuracy.mean == 0.5
    assert evaluation.pass_at_k.mean == pytest.approx(2 / 3)
    assert evaluation.truncated_fraction == pytest.approx(2 / 6)
    assert evaluation.completion_tokens_mean == 6.0


def test_the_interval_of_equal_values_is_a_point():
    assert bootstrap_mean(np.ones(7)) == Estimate(1.0, 1.0, 1.0)
    assert str(bootstrap_mean(np.ones(7))) == "100.0% [100.0%, 100.0%]"


def test_the_interval_is_the_same_every_time():
    values = np.arange(30) / 30
    assert bootstrap_mean(values) == bootstrap_mean(values)


@pytest.mark.parametrize("n", [50, 200, 800])
def test_the_interval_is_as_wide_as_theory_has_it(n):
    """Half of n problems right: mean +- 1.96 sqrt(0.25 / n), halved by four times the problems."""
    estimate = bootstrap_mean(np.arange(n) % 2)
    half = 1.96 * np.sqrt(0.25 / n)
    assert estimate.mean == 0.5
    assert estimate.low == pytest.approx(0.5 - half, abs=0.15 * half)
    assert estimate.high == pytest.approx(0.5 + half, abs=0.15 * half)


def test_the_interval_resamples_problems_and_not_samples():
    """Two samples that always agree say no more than one: the same interval."""
    right, wrong = Outcome.CORRECT, Outcome.WRONG
    outcomes = [right, wrong, wrong, right, wrong] * 4
    once = summarise([rollout([outcome], [3]) for outcome in outcomes])
    twice = summarise([rollout([outcome] * 2, [3, 3]) for outcome in outcomes])
    assert once.accuracy == twice.accuracy == twice.pass_at_k


@pytest.fixture
def run_copy(finished_run, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished_run[0], workdir)
    return workdir


def evaluate(workdir, cache, *flags):
    printed = child_runs.finish(workdir, *flags, command="evaluate", cache=cache)
    assert f"written to {workdir}/evaluation.json" in printed
    return json.loads((workdir / "evaluation.json").read_text())


def test_the_command_gives_what_the_run_measured_last_whatever_the_slots(run_copy, compile_cache):
    flags = ("--config.sampler.slots=8", "--config.sampler.chunk_steps=3", "--config.steps=99")
    before = {path.name: path.stat().st_mtime_ns for path in run_copy.iterdir()}
    evaluation = evaluate(run_copy, compile_cache, *flags)
    last = read_metrics(run_copy)[-1]
    assert evaluation["step"] == last["step"] == 6
    assert evaluation["accuracy"] == {
        "mean": last["evaluation/accuracy"],
        "low": last["evaluation/accuracy_low"],
        "high": last["evaluation/accuracy_high"],
    }
    assert (evaluation["problems"], evaluation["samples_per_problem"]) == (8, 2)
    assert evaluation["sampling"] == {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
    after = {path.name: path.stat().st_mtime_ns for path in run_copy.iterdir()}
    assert {name: after[name] for name in before} == before


def test_the_command_evaluates_otherwise_than_the_run(run_copy, compile_cache):
    """Greedily, so that the three samples of a problem agree."""
    evaluation = evaluate(
        run_copy,
        compile_cache,
        "--config.evaluation.sampling.temperature=0.0",
        "--config.evaluation.problems=12",
        "--config.evaluation.samples_per_problem=3",
    )
    assert (evaluation["problems"], evaluation["samples_per_problem"]) == (12, 3)
    assert evaluation["sampling"]["temperature"] == 0.0
    assert evaluation["accuracy"] == evaluation["pass_at_k"]
    assert evaluation["accuracy"]["mean"] in [n / 12 for n in range(13)]
