"""What a run says it is doing."""

import contextlib

import numpy as np
import pytest

from cegppo_jax.activity import Activity, minutes


class Clock:
    """Seconds that a test sets."""

    seconds = 0.0

    def __call__(self):
        return self.seconds


def test_stages_lie_inside_one_another():
    clock = Clock()
    activity = Activity(clock)
    assert activity.words() == ""
    activity.at("nobody asked")
    assert activity.words() == ""
    with activity.during("rollout"):
        activity.at("3 of 8")
        clock.seconds = 75.5
        assert activity.words() == "rollout: 3 of 8 (1:15)"
        with activity.during("scoring"):
            activity.at("2 verdicts to come")
            assert activity.words() == "rollout, scoring: 3 of 8, 2 verdicts to come (1:15)"
        assert activity.words() == "rollout: 3 of 8 (1:15)"
    assert activity.words() == ""


def test_an_error_ends_a_stage():
    activity = Activity(Clock())
    with activity.during("evaluation"):
        with contextlib.suppress(ZeroDivisionError), activity.during("scoring"):
            raise ZeroDivisionError
        assert activity.words() == "evaluation (0:00)"


def test_a_program_compiles_in_its_first_call_only():
    lines, activity = [], Activity(Clock())
    with activity.compiling("prefill", "the prefill"):
        assert activity.words() == "compiling the prefill (0:00)"
    with activity.said_by(lines.append):
        for program in ("prefill", "decode", "decode"):
            with activity.compiling(program, f"the {program}"):
                pass
            with activity.during("rollout"):
                pass
    with activity.compiling("update", "the update"):
        pass
    assert lines == ["compiling the decode"]


def test_loading_says_how_much_of_the_weights_is_there():
    lines, seen, activity = [], [], Activity(Clock())
    leaves = [("a", np.zeros(10**6)), ("b", np.zeros(10**6))]
    with activity.said_by(lines.append):
        for path, _ in activity.loading(iter(leaves), 16 * 10**6):
            seen.append((path, activity.words()))
    assert lines == ["loading 0.016 GB of weights"]
    assert seen == [
        ("a", "loading 0.016 GB of weights (0:00)"),
        ("b", "loading 0.016 GB of weights: 0.008 GB loaded (0:00)"),
    ]
    assert activity.words() == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.9, "0:00"), (67, "1:07"), (3599.9, "59:59"), (3661, "1:01:01")]
)
def test_minutes(seconds, text):
    assert minutes(seconds) == text
