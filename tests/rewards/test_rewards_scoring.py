"""Each outcome has its own reward, and no reward is unclear."""

import dataclasses

import pytest

from cegppo_jax.rewards.scoring import RewardValues, reward_of, score
from cegppo_jax.rewards.verifiers import final_answer
from cegppo_jax.types import Outcome, Problem, Score

VALUES = RewardValues(correct=1.0, wrong=-0.5, unparsed=-1.0)


def test_every_outcome_has_a_value():
    assert {field.name for field in dataclasses.fields(RewardValues)} == set(Outcome)
    rewards = {outcome: reward_of(outcome, VALUES) for outcome in Outcome}
    assert rewards == {Outcome.CORRECT: 1.0, Outcome.WRONG: -0.5, Outcome.UNPARSED: -1.0}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1+1=2;#2", Score(reward=1.0, outcome=Outcome.CORRECT, answer="2")),
        ("1+1=3;#3", Score(reward=-0.5, outcome=Outcome.WRONG, answer="3")),
        ("1+1=2;", Score(reward=-1.0, outcome=Outcome.UNPARSED, answer=None)),
    ],
)
def test_score_by_hand(text, expected):
    assert score(text, Problem("p", "1+1", "2", "s"), final_answer, VALUES) == expected


def test_whole_numbers_become_floats():
    reward = reward_of(Outcome.WRONG, RewardValues(correct=1, wrong=0, unparsed=0))
    assert type(reward) is float


def test_values_have_no_defaults():
    with pytest.raises(TypeError, match="unparsed"):
        RewardValues(correct=1.0, wrong=0.0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_must_be_finite(bad):
    with pytest.raises(ValueError, match=f"rewards must be finite numbers, found .*'wrong': {bad}"):
        RewardValues(correct=1.0, wrong=bad, unparsed=0.0)


@pytest.mark.parametrize(("wrong", "unparsed"), [(1.0, 0.0), (0.0, 1.0), (2.0, 2.0)])
def test_correct_must_pay_most(wrong, unparsed):
    with pytest.raises(ValueError, match="a correct answer must earn more than any other outcome"):
        RewardValues(correct=1.0, wrong=wrong, unparsed=unparsed)
