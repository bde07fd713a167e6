"""Each outcome has its own reward, and no reward is unclear."""

import dataclasses

import pytest

from cegppo_jax.rewards.scoring import RewardValues, reward_of, score
from cegppo_jax.rewards.verifiers import final_answer
from cegppo_jax.types import Outcome, Problem, Score

VALUES = RewardValues(correct=1.0, wrong=-0.5, unparsed=-1.0, timed_out=0.25, crashed=0.125)


def test_every_outcome_has_a_value():
    assert {field.name for field in dataclasses.fields(RewardValues)} == set(Outcome)
    rewards = {outcome: reward_of(outcome, VALUES) for outcome in Outcome}
    judged = {Outcome.CORRECT: 1.0, Outcome.WRONG: -0.5, Outcome.UNPARSED: -1.0}
    assert rewards == judged | {Outcome.TIMED_OUT: 0.25, Outcome.CRASHED: 0.125}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1+1=2;#2", Score(reward=1.0, outcome=Outcome.CORRECT)),
        ("1+1=3;#3", Score(reward=-0.5, outcome=Outcome.WRONG)),
        ("1+1=2;", Score(reward=-1.0, outcome=Outcome.UNPARSED)),
    ],
)
def test_score_by_hand(text, expected):
    assert score(text, Problem("p", "1+1", "2", "s"), final_answer, VALUES) == expected


def test_whole_numbers_become_floats():
    reward = reward_of(Outcome.WRONG, dataclasses.replace(VALUES, wrong=0))
    assert type(reward) is float


def test_values_have_no_defaults():
    with pytest.raises(TypeError, match=r"unparsed.*timed_out.*crashed"):
        RewardValues(correct=1.0, wrong=0.0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_must_be_finite(bad):
    with pytest.raises(ValueError, match=f"rewards must be finite numbers, found .*'wrong': {bad}"):
        dataclasses.replace(VALUES, wrong=bad)


@pytest.mark.parametrize("other", sorted(set(Outcome) - {Outcome.CORRECT}))
@pytest.mark.parametrize("reward", [1.0, 2.0])
def test_correct_must_pay_most(other, reward):
    with pytest.raises(ValueError, match="a correct answer must earn more than any other outcome"):
        dataclasses.replace(VALUES, **{other: reward})
