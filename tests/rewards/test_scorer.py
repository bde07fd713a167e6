"""Where verifiers run is told by the settings, and changes no score; no scorer is opened that does
not know a right answer from a wrong one.
"""

import dataclasses

import own_verifiers
import pytest

from cegppo_jax.rewards import settings as reward_settings
from cegppo_jax.rewards.scoring import Bonus, RewardValues
from cegppo_jax.rewards.settings import CANNOT_HANG, PoolSettings, RewardSettings, usable_cores
from cegppo_jax.rewards.verifiers import EXAMPLES, VERIFIERS, VerifierExample, resolve_verifier
from cegppo_jax.rewards.workers.open_scorer import judge_of, open_scorer
from cegppo_jax.rewards.workers.pool import PoolScorer
from cegppo_jax.rewards.workers.scorer import InProcessScorer, ScorerCounts
from cegppo_jax.rewards.workers.self_test import check_kills
from cegppo_jax.types import Outcome, Problem, Score

VALUES = RewardValues(correct=1.0, wrong=-1.0, unparsed=-0.75, timed_out=-0.5, crashed=-0.25)
POOL = PoolSettings(workers=1, timeout_seconds=3.0, memory_megabytes=256, retries=0, network=False)
SETTINGS = RewardSettings(
    verifier="final_answer",
    by_source=(),
    scope="full",
    bonuses=(),
    outcomes=VALUES,
    pool=POOL,
    overlong_policy="keep",
    overlong_buffer_tokens=1,
    overlong_penalty=1.0,
)
PROBLEM = Problem("p", "6*7", "42", "test")


def with_verifier(verifier, workers=1):
    pool = dataclasses.replace(POOL, workers=workers)
    return dataclasses.replace(SETTINGS, verifier=verifier, pool=pool)


@pytest.mark.parametrize("workers", [0, 1])
def test_every_place_gives_the_same_scores(workers):
    with open_scorer(with_verifier("final_answer", workers), [PROBLEM]) as scorer:
        assert isinstance(scorer, PoolScorer if workers else InProcessScorer)
        texts = ["#42", "#41", "no answer", "#042.", ""]
        scores = [scorer.submit(text, PROBLEM) for text in texts]
        assert [future.result() for future in scores] == [
            Score(1.0, Outcome.CORRECT, "42"),
            Score(-1.0, Outcome.WRONG, "41"),
            Score(-0.75, Outcome.UNPARSED, None),
            Score(1.0, Outcome.CORRECT, "42"),
            Score(-0.75, Outcome.UNPARSED, None),
        ]
        assert scorer.counts() == ScorerCounts(0, 0)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_verifier_that_raises_costs_its_completion_alone(workers, caplog):
    """digit_sum cannot read this problem's answer: that is no wrong answer."""
    with open_scorer(with_verifier("digit_sum", workers), []) as scorer:
        bad = scorer.submit("3+4", PROBLEM).result()
        good = scorer.submit("3+4", dataclasses.replace(PROBLEM, answer="2:7=")).result()
        assert bad == Score(-0.25, Outcome.CRASHED, None)
        assert good == Score(1.0, Outcome.CORRECT, "3+4")
        assert scorer.last_crash.startswith("ValueError: verifier 'digit_sum' cannot read '42'")
    assert "a verifier crashed (outcome 'crashed'): ValueError: verifier 'digit_sum'" in caplog.text


def test_only_what_cannot_hang_runs_in_the_main_process_by_itself(monkeypatch):
    """One worker for every two cores, from 1 to 8."""
    assert VERIFIERS.keys() >= CANNOT_HANG
    assert with_verifier("final_answer", workers=-1).workers == 0
    assert with_verifier("final_answer", workers=3).workers == 3
    for cores, workers in ((1, 1), (2, 1), (3, 1), (8, 4), (200, 8)):
        monkeypatch.setattr(reward_settings, "usable_cores", lambda cores=cores: cores)
        assert with_verifier("own_verifiers:right", workers=-1).workers == workers


def test_usable_cores_are_some():
    assert usable_cores() >= 1


@pytest.mark.parametrize("name", sorted(VERIFIERS))
def test_every_verifier_passes_its_self_test_in_a_process(name):
    assert EXAMPLES.keys() == VERIFIERS.keys()
    open_scorer(with_verifier(name), []).close()


@pytest.mark.parametrize(
    ("verifier", "message"),
    [
        ("finds_all_wrong", r"completion 'forty-two', problem 'own' with the answer '42', .* "
         r"correct, .* wrong\."),
        ("finds_all_right", r"completion 'forty-one', .* wrong, .* correct\."),
        ("raises", r"completion '\\\\boxed\{42\}', problem 'p' .* correct or wrong "
         r"or unparsed, .* crashed \(ZeroDivisionError: division by zero \(line \d+ of .*own_"),
        ("returns_nothing", r"crashed \(ValueError: a verifier returned None of type NoneType"),
        ("hangs", r"correct or wrong or unparsed, .* timed_out\."),
        ("dies", r"crashed \(its process died\)"),
    ],
)  # fmt: skip
def test_a_verifier_that_fails_its_self_test_opens_nothing(verifier, message):
    own = with_verifier(f"own_verifiers:{verifier}")
    with pytest.raises(ValueError, match=r"self-test of the verifier 'own_ver.*" + message):
        open_scorer(own, [PROBLEM])


def test_problems_that_a_verifier_cannot_read_are_found_before_the_run():
    with pytest.raises(ValueError, match=r"is crashed \(ValueError: verifier 'digit_sum' cannot"):
        open_scorer(with_verifier("digit_sum", workers=0), [PROBLEM])


def test_a_memory_limit_that_is_too_low_for_the_verifier_is_found_before_the_run():
    own = with_verifier("own_verifiers:needs_100_megabytes")
    open_scorer(own, [PROBLEM]).close()
    low = dataclasses.replace(own, pool=dataclasses.replace(POOL, memory_megabytes=50))
    with pytest.raises(ValueError, match=r"is crashed \(MemoryError .*limits are in reward.pool"):
        open_scorer(low, [PROBLEM])


def test_a_user_s_verifier_is_opened_with_its_own_examples():
    with open_scorer(with_verifier("own_verifiers:right"), [PROBLEM]) as scorer:
        assert scorer.submit("anything", PROBLEM).result() == Score(
            1.0, Outcome.CORRECT, "anything"
        )
    assert resolve_verifier("own_verifiers:right").__wrapped__ is own_verifiers.right


@pytest.mark.parametrize(("verifier", "spoken_of"), [("right", False), ("all_wrong", True)])
def test_a_verifier_that_finds_no_known_answer_right_is_spoken_of(verifier, spoken_of, capsys):
    """It may want another form; but nothing has shown that it finds anything right."""
    open_scorer(with_verifier(f"own_verifiers:{verifier}"), [PROBLEM]).close()
    printed = capsys.readouterr().out
    assert ("none of the problems' own answers right" in printed) == spoken_of
    assert (f"'own_verifiers:{verifier}'" in printed) == spoken_of


def test_a_pool_that_does_not_kill_is_found_before_the_run(monkeypatch):
    """As if the machine let no process be killed: the hanging completion comes back right."""
    monkeypatch.setattr("cegppo_jax.rewards.workers.self_test.hanging_judge", own_verifiers.no_hang)
    with pytest.raises(ValueError, match=r"reward\.pool: .*timed_out.*correct"):
        check_kills(POOL, VALUES)


def test_judges_have_the_rewards_of_the_settings():
    judge = judge_of(SETTINGS)
    assert judge("#42", PROBLEM).reward == 1.0
    assert judge("?", PROBLEM).reward == -0.75


def test_every_verifier_of_a_mixture_is_tried_in_its_scope():
    mixture = dataclasses.replace(
        with_verifier("gsm8k"),
        by_source=(("contest", "math"), ("letters", "choice")),
        bonuses=(Bonus("format", 0.5),),
    )
    for scope in ("full", "after_think", "boxed_only"):
        open_scorer(dataclasses.replace(mixture, scope=scope), []).close()
    spoiled = dataclasses.replace(mixture, by_source=(("own", "own_verifiers:finds_all_wrong"),))
    with pytest.raises(ValueError, match="self-test of the verifier 'own_verifiers:finds_all_w"):
        open_scorer(spoiled, [])


def test_examples_are_problems_with_both_answers():
    assert {type(example) for example in EXAMPLES.values()} == {VerifierExample}
