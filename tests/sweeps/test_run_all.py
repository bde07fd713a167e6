"""Skips, resumes, outlives and stops runs, with a stand-in for the train command."""

import io
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from stand_in import planned

from cegppo_jax.sweeps import children
from cegppo_jax.sweeps.children import Child, open_locked, shares_of, stop_all
from cegppo_jax.sweeps.experiment import Measure
from cegppo_jax.sweeps.run_all import initial_state, log_of, run_all
from cegppo_jax.sweeps.screen import SweepScreen
from cegppo_jax.sweeps.state import RunStatus

ENTROPY = Measure("policy/entropy")


def finish(runs, jobs=2):
    """-> states by name, and what was printed."""
    states, stream = [initial_state(one) for one in runs], io.StringIO()
    with SweepScreen(states, ENTROPY, stream) as screen:
        run_all(states, jobs, screen, {})
    return {one.planned.run.arm: one for one in states}, stream.getvalue()


def starts(run):
    """Process ids and cores of each start."""
    return (run.workdir / "pids").read_text().splitlines()


def test_runs_all_and_then_skips_all(tmp_path):
    runs = [planned(tmp_path, name) for name in ("a", "b", "c")]
    states, printed = finish(runs)
    assert {one.status for one in states.values()} == {RunStatus.FINISHED}
    assert printed.count("running") == printed.count("finished") == 3
    assert "policy/entropy 0.3333" in printed
    assert "step 2" in log_of(runs[0].workdir).read_text()
    assert "stand_in.py" in log_of(runs[0].workdir).read_text()
    finish(runs)
    assert [len(starts(run)) for run in runs] == [1, 1, 1]


def test_a_failure_stops_nobody_and_is_tried_again(tmp_path):
    runs = [planned(tmp_path, how or "fine", how) for how in ("fails", "", "dies")]
    states, printed = finish(runs)
    assert [one.status for one in states.values()] == [
        RunStatus.FAILED,
        RunStatus.FINISHED,
        RunStatus.FAILED,
    ]
    assert states["fails"].reason == "error: reward.verifier = 'x' does not exist"
    assert "SIGKILL" in states["dies"].reason
    assert str(log_of(runs[0].workdir)) in printed
    states, _ = finish(runs)
    assert {one.status for one in states.values()} == {RunStatus.FINISHED}
    assert [len(starts(run)) for run in runs] == [2, 1, 2]
    # Resumed, not repeated: step 1 was taken once.
    assert (runs[0].workdir / "metrics.jsonl").read_text().count('"step": 1,') == 1


def test_a_command_that_does_not_exist_is_a_failure(tmp_path):
    run = planned(tmp_path, "a")
    run.command = (str(tmp_path / "nothing"),)
    states, _ = finish([run, planned(tmp_path, "b")], jobs=1)
    assert "nothing" in states["a"].reason
    assert states["b"].status is RunStatus.FINISHED


def test_more_steps_than_before_are_not_finished(tmp_path):
    finish([planned(tmp_path, "a", steps=2)])
    assert initial_state(planned(tmp_path, "a", steps=2)).status is RunStatus.FINISHED
    assert initial_state(planned(tmp_path, "a", steps=3)).status is RunStatus.CUT


def test_a_run_of_another_process_is_waited_for(tmp_path):
    run = planned(tmp_path, "a", steps=5)
    log = open_locked(log_of(run.workdir))
    other = Child(run.command, log, [0], {})
    assert open_locked(log_of(run.workdir)) is None
    assert initial_state(run).status is RunStatus.ELSEWHERE
    states, _ = finish([run, planned(tmp_path, "b", steps=1)], jobs=2)
    assert {one.status for one in states.values()} == {RunStatus.FINISHED}
    assert other.exit_code() == 0
    assert len(starts(run)) == 1


def test_a_run_whose_other_process_was_killed_is_resumed(tmp_path):
    run = planned(tmp_path, "a", "dies")
    Child(run.command, open_locked(log_of(run.workdir)), [0], {})
    states, _ = finish([run], jobs=1)
    assert states["a"].status is RunStatus.FINISHED
    assert len(starts(run)) == 2


@pytest.mark.parametrize(
    ("cores", "number", "shares"),
    [
        ([0, 1, 2, 3], 2, [[0, 1], [2, 3]]),
        ([0, 1, 2, 3, 4], 2, [[0, 1, 2], [3, 4]]),
        ([2, 5], 1, [[2, 5]]),
        ([2, 5], 2, [[2], [5]]),
        ([2, 5], 3, [[2], [5], [2]]),
    ],
)
def test_cores_are_dealt_out(cores, number, shares):
    assert shares_of(cores, number) == shares


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores are bound on Linux only")
def test_children_run_on_their_cores(tmp_path):
    here = os.sched_getaffinity(0)
    shares = shares_of(sorted(here), 2)
    runs = [planned(tmp_path, name, seconds=0.3) for name in ("a", "b")]
    finish(runs, jobs=2)
    bound = [line.partition(" ")[2] for run in runs for line in starts(run)]
    assert bound == [str(share) for share in shares]
    assert os.sched_getaffinity(0) == here


SWEEP = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from stand_in import planned
from cegppo_jax.sweeps.experiment import Measure
from cegppo_jax.sweeps.run_all import initial_state, run_all
from cegppo_jax.sweeps.screen import SweepScreen
states = [initial_state(planned(Path({folder!r}), n, seconds=0.2, steps=50)) for n in "ab"]
try:
    with SweepScreen(states, Measure('policy/entropy')) as screen:
        run_all(states, 2, screen, {{}})
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def alive(run):
    pid = int(starts(run)[-1].split()[0])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in re.sub(r"\(.*\)", "", Path(f"/proc/{pid}/stat").read_text()).split()[1]


# As a script's shell does for what it starts in the background.
IGNORING_INTERRUPTS = ["bash", "-c", 'trap \'\' INT; exec "$0" "$@"']


@pytest.mark.parametrize(
    ("number", "before"),
    [
        (signal.SIGINT, []),
        (signal.SIGTERM, []),
        (signal.SIGHUP, ["env", "--default-signal=HUP"]),  # the tests may run under nohup
        (signal.SIGTERM, IGNORING_INTERRUPTS),
    ],
)
def test_signals_end_the_children_cleanly(tmp_path, number, before):
    script = textwrap.dedent(SWEEP).format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    command = [*before, sys.executable, "-c", script]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    runs = [planned(tmp_path, name) for name in "ab"]
    while not all((run.workdir / "checkpoints" / "1").exists() for run in runs):
        assert child.poll() is None
        time.sleep(0.05)
    child.send_signal(number)
    printed, _ = child.communicate(timeout=30)
    assert "interrupted" in printed
    assert not any(alive(run) for run in runs)
    assert "goes on from what is saved" in log_of(runs[0].workdir).read_text()


def test_a_child_that_heeds_no_signal_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(children, "GRACE_SECONDS", 0.3)
    run = planned(tmp_path, "a", "stubborn", seconds=0.2, steps=100)
    child = Child(run.command, open_locked(log_of(run.workdir)), [0], {})
    while not (run.workdir / "checkpoints" / "1").exists():
        time.sleep(0.05)
    stop_all([child])
    assert child.exit_code() == -signal.SIGKILL
