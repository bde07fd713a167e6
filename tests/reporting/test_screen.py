"""The lines and the live part of a screen, on a clock and a terminal of the test's own."""

import contextlib
import io
import sys
import threading
import time

import pytest

from cegppo_jax.activity import Activity
from cegppo_jax.reporting import screen as screen_module
from cegppo_jax.reporting.progress import Progress
from cegppo_jax.reporting.screen import Display


class Clock:
    """Seconds that a test sets."""

    seconds = 0.0

    def __call__(self):
        return self.seconds


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    return Terminal()


def screen_threads():
    return [thread for thread in threading.enumerate() if thread.name == "screen"]


def test_a_log_gets_a_line_after_each_half_minute_of_silence_and_no_other():
    clock, stream = Clock(), io.StringIO()
    activity = Activity(clock)
    with Display(activity, stream, clock, watches=False) as screen:
        with Progress(200, "CE-GPPO", screen), activity.during("rollout"):
            for second in range(100):
                clock.seconds = float(second)
                activity.at(f"{second} of 512 completions, {7 * second} tokens")
                screen.look()
            with activity.compiling("decode", "the decode step"):
                clock.seconds = 125.0
                screen.look()
        clock.seconds = 500.0
        screen.look()  # nothing goes on
    assert stream.getvalue().splitlines() == [
        "CE-GPPO: 200 steps",
        "step 1/200, rollout: 30 of 512 completions, 210 tokens (0:30)",
        "step 1/200, rollout: 60 of 512 completions, 420 tokens (1:00)",
        "step 1/200, rollout: 90 of 512 completions, 630 tokens (1:30)",
        "compiling the decode step",
    ]


def test_a_long_compilation_is_not_silent():
    clock, stream = Clock(), io.StringIO()
    activity = Activity(clock)
    with (
        Display(activity, stream, clock, watches=False) as screen,
        activity.during("update"),
        activity.compiling("update", "the update"),
    ):
        for second in range(100):
            clock.seconds = float(second)
            screen.look()
    assert stream.getvalue().splitlines() == [
        "compiling the update",
        "update, compiling the update (0:30)",
        "update, compiling the update (1:00)",
        "update, compiling the update (1:30)",
    ]


def test_a_log_is_watched_by_a_thread_that_ends_at_once(monkeypatch):
    monkeypatch.setattr(screen_module, "SECONDS_BETWEEN_LOOKS", 0.005)
    monkeypatch.setattr(screen_module, "SECONDS_OF_SILENCE", 0.01)
    activity, stream = Activity(), io.StringIO()
    with contextlib.suppress(KeyboardInterrupt), Display(activity, stream):
        assert len(screen_threads()) == 1
        with activity.during("update"):
            until = time.monotonic() + 5
            while stream.getvalue().count("update (0:00)") < 2 and time.monotonic() < until:
                time.sleep(0.005)
            raise KeyboardInterrupt
    assert stream.getvalue().count("update (0:00)") >= 2
    assert screen_threads() == []


def test_leaving_does_not_wait_for_the_next_look(monkeypatch):
    monkeypatch.setattr(screen_module, "SECONDS_BETWEEN_LOOKS", 60.0)
    began = time.monotonic()
    with Display(Activity(), io.StringIO()):
        pass
    assert time.monotonic() - began < 5
    assert screen_threads() == []


def test_a_terminal_shows_what_goes_on_and_for_how_long(terminal):
    clock = Clock()
    activity = Activity(clock)
    written = sys.stdout
    with Display(activity, terminal, clock, watches=False) as screen:
        with activity.during("rollout"):
            for second, tokens in ((1, 10), (2, 20)):
                clock.seconds = float(second)
                activity.at(f"0 of 64 completions, {tokens} tokens")
                screen.refresh()
            clock.seconds = 4.0  # nothing is said, and the time still goes on
            screen.refresh()
        screen.line("a line that stays")
    drawn = terminal.getvalue()
    for text in ("10 tokens (0:01)", "20 tokens (0:02)", "20 tokens (0:04)", "a line that stays"):
        assert text in drawn
    assert "\x1b[" in drawn
    assert sys.stdout is written


def test_a_terminal_draws_by_itself(terminal):
    activity = Activity()
    with Display(activity, terminal), activity.during("update"):
        until = time.monotonic() + 10
        while "update (0:01)" not in terminal.getvalue() and time.monotonic() < until:
            time.sleep(0.02)
    assert "update (0:01)" in terminal.getvalue()
    assert screen_threads() == []


def test_a_long_line_is_cut_to_the_terminal_and_keeps_its_time(terminal):
    clock = Clock()
    activity = Activity(clock)
    with Display(activity, terminal, clock, watches=False) as screen, activity.during("x" * 300):
        for clock.seconds in (0.0, 7.0):
            screen.refresh()
    for taken in ("(0:00)", "(0:07)"):
        assert f"{'x' * 92}… {taken}" in terminal.getvalue()
    assert "x" * 93 not in terminal.getvalue()


def test_a_dumb_terminal_gets_lines_only(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    activity = Activity(Clock())
    with Display(activity, terminal, Clock(), watches=False) as screen, activity.during("update"):
        screen.refresh()
        screen.line("a line")
    assert terminal.getvalue() == "a line\n"
