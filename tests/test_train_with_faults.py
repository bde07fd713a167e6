"""A whole run whose verifier hangs and dies: it completes, and counts what happened exactly."""

import json
from collections import Counter

import child_runs
import psutil
import pytest
from rewards import often_hangs

from cegppo_jax.reporting.metrics import read_metrics
from cegppo_jax.types import Outcome

# Its fixtures take a minute: once
pytestmark = pytest.mark.slow

VERIFIER = "tests.rewards.often_hangs:verify"
FAULTS = (Outcome.TIMED_OUT, Outcome.CRASHED)
STEPS = 4
FLAGS = (
    f"--config.steps={STEPS}",
    "--config.evaluation.every_steps=0",
    f"--config.reward.verifier={VERIFIER}",
    "--config.reward.pool.workers=2",
    "--config.reward.pool.timeout_seconds=1.5",
    "--config.reward.outcomes.timed_out=-0.25",
    "--config.reward.outcomes.crashed=0.125",
    "--config.logging.samples_every_steps=1",
    "--config.logging.samples_groups=8",  # all of a step
)


@pytest.fixture(scope="module")
def faulty_run(tmp_path_factory, compile_cache):
    workdir = tmp_path_factory.mktemp("runs") / "faulty"
    return workdir, child_runs.finish(workdir, *FLAGS, cache=compile_cache)


def samples(workdir):
    """-> what was written of each step's completions."""
    steps = {}
    for line in (workdir / "samples.jsonl").read_text().splitlines():
        sample = json.loads(line)
        steps.setdefault(sample["step"], []).append(sample)
    return steps


def test_the_run_completes_and_leaves_no_process(faulty_run):
    workdir, printed = faulty_run
    assert f"in {STEPS} steps" in printed
    assert [p.name for p in sorted((workdir / "checkpoints").iterdir())] == ["2", "4"]
    commands = [p.info["cmdline"] or [] for p in psutil.process_iter(["cmdline", "ppid"])
                if p.info["ppid"] == 1]  # fmt: skip
    assert not [command for command in commands if "cegppo_jax.rewards.workers.worker" in command]


def test_every_fault_has_its_own_outcome_and_every_other_completion_its_own_score(faulty_run):
    """Against final_answer, asked again here."""
    found = Counter()
    for written in samples(faulty_run[0]).values():
        for sample in written:
            expected = often_hangs.fate(sample["completion"], sample["id"])
            if expected is None:
                _, mark, answer = sample["completion"].rpartition("#")
                right = answer.strip() == sample["answer"]
                expected = Outcome.CORRECT if right else Outcome.WRONG
                expected = expected if mark and answer.strip() else Outcome.UNPARSED
            assert sample["outcome"] == expected, sample
            found[expected] += 1
    assert found.total() == STEPS * 8 * 4
    assert min(found[Outcome.TIMED_OUT], found[Outcome.CRASHED], found[Outcome.CORRECT]) > 0


def test_the_metrics_count_them(faulty_run):
    rewards = {"correct": 1.0, "wrong": -0.5, "unparsed": -1.0, "timed_out": -0.25}
    rewards["crashed"] = 0.125
    lines = {line["step"]: line for line in read_metrics(faulty_run[0]) if line["phase"] == "rl"}
    for step, written in samples(faulty_run[0]).items():
        outcomes = Counter(sample["outcome"] for sample in written)
        line = lines[step]
        for outcome in Outcome:
            assert line[f"reward/{outcome}_fraction"] == outcomes[outcome] / 32, (step, outcome)
        mean = sum(rewards[outcome] * n for outcome, n in outcomes.items()) / 32
        assert line["reward/mean"] == pytest.approx(mean)
        died = outcomes["crashed"]
        assert line["reward/pool_retries"] == died  # each was tried twice
        assert line["reward/pool_restarts"] == 2 * died + outcomes["timed_out"]
        assert line["time/score_wait_seconds"] >= 0.0


def test_such_a_verifier_is_not_run_in_the_main_process(tmp_path):
    errors = child_runs.fail(tmp_path / "run", *FLAGS, "--config.reward.pool.workers=0")
    assert f"reward.pool.workers = 0 with the verifiers ['{VERIFIER}']: only" in errors
    assert not (tmp_path / "run").exists()


def test_a_verifier_that_fails_its_self_test_starts_no_run(tmp_path):
    flag = "--config.reward.verifier=tests.rewards.own_verifiers:finds_all_wrong"
    errors = child_runs.fail(tmp_path / "run", flag)
    assert "error: self-test of the verifier 'tests.rewards.own_verifiers:finds_all" in errors
    assert not (tmp_path / "run").exists()
