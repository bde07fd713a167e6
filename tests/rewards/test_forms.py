"""What a user's verifier may take and return, and what training and metrics see of it."""

import dataclasses
import re

import own_verifiers
import pytest
from test_scorer import PROBLEM, with_verifier

import cegppo_jax as cg
from cegppo_jax.rewards.finding import MAX_CREDIT, Finding
from cegppo_jax.rewards.forms import finding_of
from cegppo_jax.rewards.scoring import Bonus, RewardValues, Scoring, score_completion
from cegppo_jax.rewards.verifiers import resolve_verifier
from cegppo_jax.rewards.workers.open_scorer import open_scorer
from cegppo_jax.sampling.filters import SamplingFilter
from cegppo_jax.types import Outcome, Problem, Prompt, Score

# The right answer is worth 1, a wrong one -0.5, so that half the credit is worth 0.25.
VALUES = RewardValues(correct=1.0, wrong=-0.5, unparsed=-2, timed_out=-2, crashed=-2)
FORMS = [
    *("is_it", "numpy_is_it", "digits_right", "finding_with_credit"),
    *("trl", "trl_chat", "verl", "verl_dict", "an_object"),
]


def scoring(verifier, bonuses=()):
    return Scoring(f"own_verifiers:{verifier}", (), "full", tuple(bonuses), VALUES)


@pytest.mark.parametrize("verifier", FORMS)
def test_every_form_is_scored_alike(verifier):
    right, wrong = (score_completion(text, PROBLEM, scoring(verifier)) for text in ("42", "51"))
    assert (right.reward, right.outcome, right.answer) == (1.0, Outcome.CORRECT, "42")
    worst = -2.0 if verifier == "verl_dict" else -0.5  # its score of a wrong answer is -1
    assert (wrong.reward, wrong.outcome, wrong.answer) == (worst, Outcome.WRONG, "51")


@pytest.mark.parametrize("verifier", ["trl", "verl_dict", "digits_right"])
def test_every_form_runs_in_worker_processes_behind_its_self_test(verifier):
    settings = with_verifier(f"own_verifiers:{verifier}")
    with open_scorer(dataclasses.replace(settings, outcomes=VALUES), [PROBLEM]) as scorer:
        assert scorer.submit("42", PROBLEM).result() == Score(1.0, Outcome.CORRECT, "42")


@pytest.mark.parametrize("verifier", ["digits_right", "finding_with_credit"])
def test_partial_credit_lies_between_the_rewards_of_wrong_and_right(verifier):
    half = score_completion("43", PROBLEM, scoring(verifier))
    assert half == Score(0.25, Outcome.WRONG, "43")


@pytest.mark.parametrize(
    ("number", "reward", "outcome"),
    [
        (0, -0.5, Outcome.WRONG),
        (1, 1.0, Outcome.CORRECT),
        (0.999, 0.9985, Outcome.WRONG),
        (2.0, 2.5, Outcome.CORRECT),
        (-1.0, -2.0, Outcome.WRONG),
        (MAX_CREDIT, 1.5 * MAX_CREDIT - 0.5, Outcome.CORRECT),
    ],
)
def test_numbers_lie_on_the_line_through_wrong_and_right(number, reward, outcome, monkeypatch):
    monkeypatch.setattr(own_verifiers, "anything", lambda text, problem: number, raising=False)
    resolve_verifier.cache_clear()
    found = score_completion("", PROBLEM, scoring("anything"))
    assert found.outcome is outcome
    assert found.reward == pytest.approx(reward, rel=1e-12)


def test_with_rewards_of_0_and_1_a_number_is_the_reward():
    plain = RewardValues(correct=1.0, wrong=0.0, unparsed=0, timed_out=0, crashed=0)
    unit = dataclasses.replace(scoring("verl_dict"), values=plain)
    assert [score_completion(text, PROBLEM, unit).reward for text in ("42", "51")] == [1.0, -1.0]


def test_a_bonus_adds_the_share_of_its_weight():
    bonuses = [Bonus("own_verifiers:digits_right", 0.1)]
    rewards = [
        score_completion(text, PROBLEM, scoring("is_it", bonuses)).reward for text in ("42", "43")
    ]
    assert rewards == pytest.approx([1.1, -0.45])
    with pytest.raises(ValueError, match=r"bonus 'own_verifiers:double' gave 2"):
        score_completion("42", PROBLEM, scoring("is_it", [Bonus("own_verifiers:double", 0.1)]))


@pytest.mark.parametrize(
    ("verifier", "message"),
    [
        ("not_a_number", "the number nan"),
        ("two_million", r"the number 2000000\.0"),
        ("trl_two", r"returned \[1\.0, 0\.0\] for 1 completion"),
        ("trl_none", "returned None of type NoneType"),
        ("returns_nothing", "returned None of type NoneType"),
    ],
)
def test_what_is_no_reward_is_refused_before_the_run(verifier, message):
    with pytest.raises(ValueError, match=rf"is crashed \(ValueError: .*{message}"):
        open_scorer(with_verifier(f"own_verifiers:{verifier}"), [PROBLEM])


@pytest.mark.parametrize("found", ["1.0", [1.0], object(), 1j, {"acc": True}])
def test_other_types_are_no_finding(found):
    with pytest.raises(ValueError, match=re.escape(f"of type {type(found).__name__}")):
        finding_of(found, "text")


def test_a_credit_is_a_number_that_training_can_bear():
    for credit in (float("inf"), float("nan"), -1.1 * MAX_CREDIT):
        with pytest.raises(ValueError, match="finite"):
            Finding(Outcome.WRONG, "41", credit=credit)


@pytest.mark.parametrize(
    ("verifier", "message"),
    [
        ("one_argument", r"takes \(text\) and is called with \(text, problem\)"),
        ("trl_ids", r"asks for \['completion_ids'\]"),
        ("OWN", "is of type VerifierExample and cannot be called"),
    ],
)
def test_a_function_of_no_form_is_refused_by_its_parameters(verifier, message):
    with pytest.raises(
        ValueError, match=rf"reward.verifier = 'own_verifiers:{verifier}' {message}"
    ):
        with_verifier(f"own_verifiers:{verifier}")


def test_examples_stay_with_a_function_of_any_form(monkeypatch):
    monkeypatch.setattr(own_verifiers.trl, "examples", [own_verifiers.OWN], raising=False)
    resolve_verifier.cache_clear()
    with pytest.raises(ValueError, match="completion 'forty-two', problem 'own'"):
        open_scorer(with_verifier("own_verifiers:trl"), [PROBLEM])
    resolve_verifier.cache_clear()


def test_by_hand_the_same_forms_are_read():
    prompt = Prompt(Problem("p", "6*7", "", "test"), (), 0)
    samples = cg.Samples((prompt,), ((),), (("42", "43"),), SamplingFilter(1.0, 0, 1.0), 2)
    forms = {
        "math": [1.0, 0.0],
        "own_verifiers:digits_right": [1.0, 0.5],
        own_verifiers.trl: [1.0, 0.0],
        own_verifiers.verl_dict: [1.0, -1.0],
        (lambda text, answer: text == answer): [1.0, 0.0],
    }
    for verifier, rewards in forms.items():
        assert cg.score(samples, ["42"], verifier, wrong=0.0).tolist() == [rewards]
