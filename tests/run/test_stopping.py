"""What asks a run to stop, when it is heeded, and how the process ends."""

import os
import signal

import jax
import pytest

from cegppo_jax import distributed
from cegppo_jax.activity import EVALUATION, LOGPROBS, ROLLOUT, UPDATE, Activity
from cegppo_jax.run.stopping import (
    EXIT_CODE,
    StopAskedError,
    StoppedError,
    counted_when_stopped,
    ends_with_a_line,
    saves_when_stopped,
    stop_requests,
)

SIGNALS = [signal.SIGTERM, signal.SIGHUP, signal.SIGINT]


@pytest.fixture(autouse=True)
def handlers():
    """As a shell leaves them, whatever runs the tests."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where the tests run under nohup
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("stage", [UPDATE, EVALUATION])
def test_a_signal_waits_for_the_end_of_the_step(number, stage):
    activity = Activity()
    with stop_requests(activity) as stop:
        stop.check(2)
        with activity.during(stage):
            signal.raise_signal(number)
        with pytest.raises(StopAskedError, match=number.name):
            stop.check(3)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("stage", [ROLLOUT, LOGPROBS])
def test_before_the_updates_a_signal_leaves_the_step_at_once(number, stage):
    activity = Activity()
    with (
        stop_requests(activity),
        pytest.raises(StopAskedError, match=number.name),
        activity.during(stage),
    ):
        signal.raise_signal(number)


def test_a_second_interrupt_comes_at_once_and_a_second_notice_changes_nothing():
    with stop_requests(Activity()) as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert stop.asked(1) == "SIGINT"


def test_what_is_ignored_stays_ignored_and_all_is_as_before_at_the_end():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    before = [signal.getsignal(number) for number in SIGNALS]
    with stop_requests(Activity()) as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        stop.check(1)
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_the_notice_that_all_hosts_agree_on_stops_after_that_step(monkeypatch):
    asked = []

    def reached(step):
        asked.append(step)
        return step == 3

    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed.multihost_utils, "reached_preemption_sync_point", reached)
    with stop_requests(Activity()) as stop:
        stop.check(2)
        with pytest.raises(StopAskedError, match="notice of preemption"):
            stop.check(3)
    assert asked == [2, 3]


def test_the_process_ends_with_the_documented_code_and_says_what_is_saved(capsys):
    with (
        pytest.raises(SystemExit) as ended,
        ends_with_a_line(),
        saves_when_stopped(lambda: 12, 50),
    ):
        raise StopAskedError("SIGTERM")
    assert ended.value.code == EXIT_CODE == 75
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("stopped by SIGTERM: step 12 of 50 is saved")
    assert f"exit code {EXIT_CODE}" in line


def test_nothing_is_saved_when_nothing_asked():
    with pytest.raises(StoppedError, match="other"), saves_when_stopped(lambda: 1 / 0, 50):
        raise StoppedError("other")


@pytest.mark.parametrize("number", SIGNALS)
def test_an_evaluation_is_left_at_once_and_says_how_many_completions_are_saved(number, capsys):
    activity, saved = Activity(), list(range(5))

    def evaluate():
        with ends_with_a_line(), counted_when_stopped(activity, saved, 1600):
            saved.append(5)
            os.kill(os.getpid(), number)
            saved.append("after the signal")

    with pytest.raises(SystemExit) as raised, activity.during(EVALUATION):
        evaluate()
    assert raised.value.code == EXIT_CODE
    words = f"stopped by {signal.Signals(number).name}: 6 of 1,600 completions are saved"
    assert words in capsys.readouterr().err
    assert saved[-1] == 5
