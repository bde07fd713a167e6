"""Rewards that are equal for many steps are spoken of once, with the reason that numbers give."""

import pytest

from cegppo_jax.reporting.equal_rewards import STEPS_IN_A_ROW, EqualRewards


def step_values(truncated=0.0, equal=1.0, **shares):
    outcomes = dict.fromkeys(("correct", "wrong", "unparsed", "timed_out", "crashed"), 0.0)
    values = {f"reward/{name}_fraction": share for name, share in (outcomes | shares).items()}
    return values | {
        "reward/uniform_group_fraction": equal,
        "rollout/truncated_fraction": truncated,
    }


def messages(steps):
    watch = EqualRewards(max_completion_tokens=48)
    return [watch.message(number, values) for number, values in enumerate(steps, start=1)]


def test_it_speaks_once_after_as_many_steps_in_a_row():
    same, differs = step_values(wrong=1.0), step_values(wrong=1.0, equal=0.99)
    many = STEPS_IN_A_ROW
    said = messages([*[same] * (many - 1), differs, *[same] * 3 * many])
    assert [number for number, one in enumerate(said, start=1) if one] == [2 * many]
    assert f"steps {many + 1} to {2 * many}: " in said[2 * many - 1]


def test_a_step_that_drew_nothing_counts_for_nothing():
    same = step_values(correct=1.0)
    assert not any(messages([*[same] * (STEPS_IN_A_ROW - 1), {}, same]))


@pytest.mark.parametrize(
    ("values", "numbers", "knob"),
    [
        ({"correct": 1.0}, "100% correct; 0% truncated", "too easy"),
        ({"correct": 0.75, "wrong": 0.25}, "75% correct, 25% wrong", "too easy"),
        (
            {"unparsed": 1.0, "truncated": 0.9},
            "90% truncated",
            "sampler.max_completion_tokens = 48",
        ),
        ({"wrong": 1.0, "truncated": 1.0}, "100% wrong; 100% tr", "problems.ending_tokens"),
        (
            {"unparsed": 0.9, "wrong": 0.1},
            "10% wrong, 90% unparsed; 0% tr",
            "reward.verifier reads",
        ),
        ({"wrong": 1.0, "truncated": 0.1}, "100% wrong; 10% truncated", "too hard"),
        ({"crashed": 0.4, "timed_out": 0.6}, "60% timed_out, 40% crashed", "reward.pool"),
    ],
)
def test_the_likely_reason_is_named_with_its_numbers(values, numbers, knob):
    said = messages([step_values(**values)] * STEPS_IN_A_ROW)[-1]
    assert numbers in said
    assert knob in said
