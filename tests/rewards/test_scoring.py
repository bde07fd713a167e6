"""Each outcome has its own reward, and no reward is unclear."""

import dataclasses
import pickle

import pytest

from cegppo_jax.rewards.scoring import (
    Bonus,
    RewardValues,
    Scoring,
    check_answers,
    check_sources,
    reward_of,
    score_completion,
)
from cegppo_jax.types import Outcome, Problem, Score

VALUES = RewardValues(correct=1.0, wrong=-0.5, unparsed=-1.0, timed_out=0.25, crashed=0.125)
FORMAT = Bonus("format", 0.25)
SCORING = Scoring("final_answer", by_source=(), scope="full", bonuses=(), values=VALUES)


def test_every_outcome_has_a_value():
    assert {field.name for field in dataclasses.fields(RewardValues)} == set(Outcome)
    rewards = {outcome: reward_of(outcome, VALUES) for outcome in Outcome}
    judged = {Outcome.CORRECT: 1.0, Outcome.WRONG: -0.5, Outcome.UNPARSED: -1.0}
    assert rewards == judged | {Outcome.TIMED_OUT: 0.25, Outcome.CRASHED: 0.125}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1+1=2;#2", Score(reward=1.0, outcome=Outcome.CORRECT, answer="2")),
        ("1+1=3;#3", Score(reward=-0.5, outcome=Outcome.WRONG, answer="3")),
        ("1+1=2;", Score(reward=-1.0, outcome=Outcome.UNPARSED, answer=None)),
    ],
)
def test_score_by_hand(text, expected):
    assert score_completion(text, Problem("p", "1+1", "2", "s"), SCORING) == expected


@pytest.mark.parametrize(
    ("text", "reward", "outcome"),
    [
        ("<think>1+1</think>\n#2", 1.25, Outcome.CORRECT),
        ("<think>1+1</think>\n#3", -0.25, Outcome.WRONG),
        ("<think>1+1</think>\ntwo", -0.75, Outcome.UNPARSED),
        ("#2", 1.0, Outcome.CORRECT),
        ("#3", -0.5, Outcome.WRONG),
        ("<think>1+1 #2", -1.0, Outcome.UNPARSED),  # the thinking never ended: out of scope
    ],
)
def test_a_bonus_adds_to_the_reward_and_changes_no_outcome(text, reward, outcome):
    """Bonuses read the whole completion, also where the verifier may not."""
    scope = "full" if text[0] == "#" else "after_think"
    scoring = dataclasses.replace(SCORING, bonuses=(FORMAT,), scope=scope)
    found = score_completion(text, Problem("p", "1+1", "2", "s"), scoring)
    assert (found.reward, found.outcome) == (reward, outcome)


def test_every_bonus_counts():
    scoring = dataclasses.replace(SCORING, bonuses=(FORMAT, Bonus("gsm8k", 0.5)))
    found = score_completion("<think>1+1</think>\n#2", Problem("p", "1+1", "2", "s"), scoring)
    assert found.reward == 1.75


def test_a_source_may_have_its_own_verifier():
    scoring = dataclasses.replace(SCORING, by_source=(("letters", "choice"),))
    assert scoring.verifier_of(Problem("p", "?", "B", "letters")) == "choice"
    assert scoring.verifier_of(Problem("p", "?", "B", "letters2")) == "final_answer"
    text = "The answer is (B)."
    assert (
        score_completion(text, Problem("p", "?", "B", "letters"), scoring).outcome
        is Outcome.CORRECT
    )
    assert (
        score_completion(text, Problem("p", "?", "B", "else"), scoring).outcome is Outcome.UNPARSED
    )


def test_answers_are_checked_with_the_verifier_of_their_source():
    scoring = dataclasses.replace(SCORING, by_source=(("letters", "choice"),))
    good = Problem("good", "?", "forty", "else"), Problem("letter", "?", "B", "letters")
    check_answers(good, scoring)
    with pytest.raises(ValueError, match=r"'choice' cannot read 'forty', .* problem 'bad'"):
        check_answers((*good, Problem("bad", "?", "forty", "letters")), scoring)


def test_answers_are_checked_with_the_verifiers_of_bonuses():
    scoring = dataclasses.replace(SCORING, bonuses=(FORMAT, Bonus("gsm8k", 0.5)))
    check_answers([Problem("good", "?", "40", "s")], scoring)
    with pytest.raises(ValueError, match=r"'gsm8k' cannot read 'forty', .* problem 'bad'"):
        check_answers([Problem("bad", "?", "forty", "s")], scoring)


@pytest.mark.parametrize("function", ["raises", "dies", "hangs"])
def test_no_verifier_of_a_users_own_runs_in_the_main_process(function):
    name = f"tests.rewards.own_verifiers:{function}"
    scoring = dataclasses.replace(SCORING, verifier=name, bonuses=(Bonus(name, 0.5),))
    check_answers([Problem("p", "?", "40", "s")], scoring)


def test_a_source_that_no_problem_has_is_an_error():
    scoring = dataclasses.replace(SCORING, by_source=(("gsmk8", "gsm8k"), ("letters", "choice")))
    check_sources({"gsmk8", "letters", "else"}, scoring)
    with pytest.raises(ValueError, match=r"names \['gsmk8'\], .* sources \['gsm8k', 'letters'"):
        check_sources({"gsm8k", "letters"}, scoring)


def test_scoring_can_be_sent_to_another_process():
    scoring = dataclasses.replace(SCORING, bonuses=(FORMAT,))
    assert pickle.loads(pickle.dumps(scoring)) == scoring


def test_whole_numbers_become_floats():
    reward = reward_of(Outcome.WRONG, dataclasses.replace(VALUES, wrong=0))
    assert type(reward) is float


def test_values_have_no_defaults():
    with pytest.raises(TypeError, match=r"unparsed.*timed_out.*crashed"):
        RewardValues(correct=1.0, wrong=0.0)


@pytest.mark.parametrize("other", sorted(set(Outcome) - {Outcome.CORRECT}))
@pytest.mark.parametrize("reward", [1.0, 2.0])
def test_correct_must_pay_most(other, reward):
    with pytest.raises(ValueError, match="correct answer must earn more"):
        dataclasses.replace(VALUES, **{other: reward})


@pytest.mark.parametrize("reward", [1.1e6, -1.1e6, float("nan"), float("inf")])
def test_rewards_beyond_what_float32_can_compare_are_refused(reward):
    values = {"correct": 1e6, "wrong": -1e6, "unparsed": 0.0, "timed_out": 0.0, "crashed": 0.0}
    RewardValues(**values)
    with pytest.raises(ValueError, match=r"reward\.outcomes\.wrong = .* to 1e\+06"):
        RewardValues(**values | {"wrong": reward})
    with pytest.raises(ValueError, match=r"weight = .* at most 1e\+06"):
        Bonus("format", abs(reward))
