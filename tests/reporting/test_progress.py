"""The console display: exact plain text, and a terminal's lines and bar."""

import contextlib
import io
import math
import re

import pytest

from cegppo_jax.activity import Activity
from cegppo_jax.reporting import progress
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


def values(step, **more):
    return {
        "reward/mean": step / 100,
        "reward/correct_fraction": step / 200,
        "policy/entropy": 0.84251,
        "policy/clip_fraction_low": 0.0,
        "policy/clip_fraction_high": 0.00012345,
        "rollout/tokens_per_second": 5377.4,
        "time/step_seconds": 1.0,
    } | {name.replace("__", "/"): value for name, value in more.items()}


@contextlib.contextmanager
def shown_on(stream, clock, total=100, title="CE-GPPO", phase="rl"):
    """(screen, progress) on a stream."""
    with (
        Display(Activity(clock), stream, clock, watches=False) as screen,
        Progress(total, title, screen, phase) as shown,
    ):
        yield screen, shown


def run(stream, clock, steps, total=100, seconds_per_step=2.0):
    with shown_on(stream, clock, total) as (screen, shown):
        for step in steps:
            clock.seconds += seconds_per_step
            evaluation = {"evaluation__accuracy": 0.5} if step in (0, 4) else {}
            shown.update(step, values(step, **evaluation))
            if step == 4:
                screen.line("checkpoint of step 4 saved")


PLAIN = """\
CE-GPPO: 100 steps
   step reward correct held-out entropy clip-low clip-high tokens/s    left
  0/100  0.000    0.0%    50.0%   0.843        0   1.2e-04    5,377       -
  3/100  0.030    1.5%        -   0.843        0   1.2e-04    5,377    3:14
  4/100  0.040    2.0%    50.0%   0.843        0   1.2e-04    5,377    3:12
checkpoint of step 4 saved
  7/100  0.070    3.5%        -   0.843        0   1.2e-04    5,377    3:06
  8/100  0.080    4.0%        -   0.843        0   1.2e-04    5,377    3:04
"""


def test_plain_text_is_exact(monkeypatch):
    """Lines at the first step, after 5 s (3 steps of 2 s), at an evaluation and at the end."""
    monkeypatch.setenv("FORCE_COLOR", "1")  # as CI sets it: no reason to draw into a file
    stream = io.StringIO()
    run(stream, Clock(), range(9))
    assert stream.getvalue() == PLAIN


def test_last_step_is_shown_once_and_at_once():
    stream = io.StringIO()
    with shown_on(stream, Clock()) as (screen, shown):
        for step in (98, 99, 100):
            shown.update(step, values(step))
        screen.line("done")
    lines = stream.getvalue().splitlines()[2:]
    assert [line.split()[0] for line in lines] == ["98/100", "100/100", "done"]
    assert lines[1].endswith("0:00")


def test_interrupted_run_shows_where_it_stopped():
    stream = io.StringIO()
    with contextlib.suppress(KeyboardInterrupt), shown_on(stream, Clock()) as (_, shown):
        shown.update(1, values(1))
        shown.update(2, values(2))
        raise KeyboardInterrupt
    assert stream.getvalue().splitlines()[-1].startswith("  2/100  0.020")


def test_nothing_but_the_title_without_updates():
    stream = io.StringIO()
    run(stream, Clock(), [])
    assert stream.getvalue() == "CE-GPPO: 100 steps\n"


def test_header_comes_again():
    stream = io.StringIO()
    run(stream, Clock(), range(1, 42), seconds_per_step=6.0)
    lines = stream.getvalue().replace("checkpoint of step 4 saved\n", "").splitlines()[1:]
    headers = [i for i, line in enumerate(lines) if "reward" in line]
    assert headers == [0, 21, 42]  # 20 lines between them
    assert {len(line) for line in lines} == {len(lines[0])}


@pytest.mark.parametrize(
    ("seconds_per_step", "left"), [(0.1, "0:10"), (1.0, "1:38"), (100.0, "2:43:20")]
)
def test_time_left(seconds_per_step, left):
    """98 steps to go at the pace since step 1: the time before it, compilation, does not count."""
    clock, stream = Clock(), io.StringIO()
    with shown_on(stream, clock) as (_, shown):
        shown.update(0, values(0))
        clock.seconds += 500
        shown.update(1, values(1))
        clock.seconds += seconds_per_step
        shown.update(2, values(2))
    assert stream.getvalue().splitlines()[-1].split()[-1] == left


def test_missing_and_broken_values():
    stream = io.StringIO()
    with shown_on(stream, Clock(), 5) as (_, shown):
        shown.update(
            1, {"reward/mean": math.nan, "policy/entropy": None, "reward/wrong_fraction": 1}
        )
    assert stream.getvalue().splitlines()[-1].split() == ["1/5", "nan", *"-" * 7]


def test_warm_start_has_its_own_columns():
    stream = io.StringIO()
    with shown_on(stream, Clock(), 5, "warm start", "supervised") as (_, shown):
        shown.update(5, {"supervised/loss": 1.23456, "supervised/entropy": 0.5})
    assert stream.getvalue() == (
        "warm start: 5 steps\n"
        "step    loss entropy grad-norm    left\n"
        " 5/5   1.235   0.500         -       -\n"
    )


def test_line_fits_80_columns():
    stream = io.StringIO()
    run(stream, Clock(), [9999], total=9999)
    assert max(map(len, stream.getvalue().splitlines())) <= 80


def test_terminal_has_the_same_lines_and_a_bar(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()
    run(stream, Clock(), range(9))
    drawn = stream.getvalue()
    assert "\x1b[" in drawn
    assert re.search("CE-GPPO.*━.*8/100 3:04 left", drawn)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn).replace("\r", "")
    position = 0
    for line in PLAIN.splitlines():
        position = text.index(line, position) + len(line)


def test_dumb_terminal_gets_plain_text(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    run(stream, Clock(), range(9))
    assert stream.getvalue() == PLAIN


def test_columns_are_declared_metrics():
    with pytest.raises(ValueError, match=r"'x' .*'reward/meen'"):
        progress.Column("x", "reward/meen", 3, str)


def test_a_step_is_drawn_below_until_its_line_is_printed(monkeypatch):
    """Of steps 1, 2 and 3, a second apart, the first alone gets a line."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    clock, stream = Clock(), Terminal()
    with shown_on(stream, clock) as (screen, shown):
        for step in (1, 2, 3):
            clock.seconds += 1.0
            shown.update(step, values(step))
        before = len(stream.getvalue())
        screen.refresh()
        drawn = stream.getvalue()[before:]
    assert "3/100  0.030" in drawn
    assert "3/100 1:37 left" in drawn
    assert "2/100  0.020" not in stream.getvalue()
