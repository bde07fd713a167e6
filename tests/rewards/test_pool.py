"""The killable pool, against verifiers that do their worst: the good keep their scores, time is
bounded, nothing is left over.
"""

import contextlib
import errno
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path

import faulty_judges
import psutil
import pytest

from cegppo_jax.rewards.scoring import RewardValues
from cegppo_jax.rewards.settings import PoolSettings
from cegppo_jax.rewards.workers.pool import PoolScorer, WorkerFailed
from cegppo_jax.rewards.workers.replies import read_reply
from cegppo_jax.rewards.workers.scorer import ScorerCounts
from cegppo_jax.types import Outcome, Problem, Score

VALUES = RewardValues(correct=1.0, wrong=-1.0, unparsed=-1.0, timed_out=-0.5, crashed=-0.25)
PROBLEM = Problem("p", "3+4", "7", "test")
RIGHT, WRONG = Score(1.0, Outcome.CORRECT, None), Score(-1.0, Outcome.WRONG, None)
TIMED_OUT, CRASHED = Score(-0.5, Outcome.TIMED_OUT, None), Score(-0.25, Outcome.CRASHED, None)
WORKER = "cegppo_jax.rewards.workers.worker"

# What each fault of faulty_judges.py comes to. `stops_its_guard` costs END_SECONDS, and has a test.
SCORES = {
    **dict.fromkeys(("sleeps", "ignores_signals", "hangs_in_c"), TIMED_OUT),
    "answers_by_half": TIMED_OUT,
    **dict.fromkeys(("eats_memory", "leaks_memory", "raises", "leaves", "segfaults"), CRASHED),
    **dict.fromkeys(("exits_as_if_well", "is_killed", "kills_its_group"), CRASHED),
    **dict.fromkeys(("kills_its_guard", "closes_everything", "leaves_daemons_behind"), CRASHED),
    **dict.fromkeys(("prints_a_flood", "reads_the_terminal", "forks_and_sleeps"), RIGHT),
    "forks_and_returns_twice": RIGHT,
}


def settings(workers=1, timeout_seconds=3.0, memory_megabytes=128, retries=1, network=False):
    return PoolSettings(workers, timeout_seconds, memory_megabytes, retries, network)


def pool(**changes):
    return PoolScorer(faulty_judges.make, settings(**changes), VALUES)


def running(parent):
    """-> a process's workers, and all that these started."""
    below = psutil.Process(parent).children(recursive=True)
    alive = []
    for child in below:
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended since
            alive += [child] * (child.status() != psutil.STATUS_ZOMBIE)
    return alive


def strays():
    """-> processes of this file's verifiers whose parents have gone."""
    return {
        process
        for process in psutil.process_iter(["cmdline", "ppid", "status"])
        if WORKER in (process.info["cmdline"] or ()) and process.info["ppid"] == 1
    }


@pytest.fixture(autouse=True)
def nothing_is_left():
    """Around each test: as many processes after it as before."""
    before, stray = set(running(os.getpid())), strays()
    yield
    # What was killed may still be ending, for as long as the machine is busy with other things.
    until = time.monotonic() + 30
    while left := (set(running(os.getpid())) - before) | (strays() - stray):
        assert time.monotonic() < until, left
        time.sleep(0.05)


@pytest.mark.slow
def test_a_thousand_completions_and_every_fault_among_them():
    """Two of each fault, at random places: 38 of 1,000. Every other has its right score.

    Time is bounded by what eight that hang may take, and by the starts of some forty processes: 2 s
    each is a machine with other work. Unbounded is 1,000 s, for one that sleeps.
    """
    good = [(f"{n} + 4 = {n + 4 + n % 2}", WRONG if n % 2 else RIGHT) for n in range(962)]
    bad = [(f"{fault}: 3 + 4 = 7", score) for fault, score in SCORES.items()] * 2
    batch = good + bad
    assert len(batch) == 1000
    random.Random(0).shuffle(batch)
    began = time.perf_counter()
    with pool(workers=2) as scorer:
        futures = [scorer.submit(text, PROBLEM) for text, _ in batch]
        scores = [future.result() for future in futures]
        counts = scorer.counts()
    seconds = time.perf_counter() - began
    found = {text: (score, expected) for (text, expected), score in zip(batch, scores, strict=True)}
    assert {text: pair for text, pair in found.items() if pair[0] != pair[1]} == {}
    dying = len([score for score in SCORES.values() if score == CRASHED]) - 2  # not raises, leaves
    assert counts == ScorerCounts(retries=2 * dying, restarts=2 * (4 + 2 * dying))
    assert seconds < 8 * 3.0 + 2.0 * counts.restarts, f"{seconds:.0f} s"


def test_every_fault_has_a_score():
    alone = {
        "stops_its_guard",
        "stops_after_its_answer",
        "dies_the_first_time",
        "takes",
        "takes_megabytes",
        "needs",
    }
    assert SCORES.keys() | alone == faulty_judges.FAULTS.keys()


def test_the_limit_begins_when_the_verification_does():
    """Eight completions of 0.5 s in a queue for one process with a limit of 3 s."""
    with pool() as scorer:
        futures = [scorer.submit("takes 0.5: 3 + 4 = 7", PROBLEM) for _ in range(8)]
        assert [future.result() for future in futures] == [RIGHT] * 8


def test_a_completion_whose_process_died_is_tried_again(tmp_path):
    text = f"dies_the_first_time {tmp_path / 'marker'}: 3 + 4 = 7"
    with pool(retries=1) as scorer:
        assert scorer.submit(text, PROBLEM).result() == RIGHT
        assert scorer.counts() == ScorerCounts(retries=1, restarts=1)


def test_it_is_not_without_retries(tmp_path):
    text = f"dies_the_first_time {tmp_path / 'marker'}: 3 + 4 = 7"
    with pool(retries=0) as scorer:
        assert scorer.submit(text, PROBLEM).result() == CRASHED
        assert scorer.submit(text, PROBLEM).result() == RIGHT
        assert scorer.counts() == ScorerCounts(retries=0, restarts=1)


def test_a_raised_error_is_told_and_costs_no_process(caplog):
    with pool() as scorer:
        scores = [scorer.submit("raises: 3 + 4 = 7", PROBLEM) for _ in range(5)]
        assert [score.result() for score in scores] == [CRASHED] * 5
        assert scorer.counts() == ScorerCounts(0, 0)
        assert scorer.last_crash.startswith("RuntimeError: no such answer (line ")
    assert len(caplog.messages) == 3  # of five: a run may have thousands
    assert "RuntimeError: no such answer" in caplog.text


def test_memory_beyond_the_limit_is_a_crash_and_below_it_is_not():
    with pool(memory_megabytes=256) as scorer:
        assert scorer.submit("takes_megabytes 128: 3 + 4 = 7", PROBLEM).result() == RIGHT
        assert scorer.submit("takes_megabytes 512: 3 + 4 = 7", PROBLEM).result() == CRASHED
        assert "MemoryError" in scorer.last_crash


def test_workers_killed_from_outside_cost_no_score():
    """After every thirtieth of 300 scores a judge or a guard is killed, whatever it is doing."""
    with pool(workers=2, retries=20) as scorer:
        futures = [scorer.submit(f"takes 0.02: 3 + {n} = {n + 3}", PROBLEM) for n in range(300)]
        for n, future in enumerate(futures):
            assert future.result() == RIGHT
            if n % 30 == 0:
                random.Random(n).choice(running(os.getpid())).kill()
        counts = scorer.counts()
    assert counts.restarts >= 5  # others were killed before they were ready
    assert counts.retries <= counts.restarts


def test_a_stopped_guard_is_waited_for_and_then_killed():
    with pool() as scorer:
        assert scorer.submit("stops_its_guard: 3 + 4 = 7", PROBLEM).result() == TIMED_OUT
        assert scorer.submit("3 + 4 = 7", PROBLEM).result() == RIGHT


def test_a_process_that_does_not_read_is_timed_out_however_long_the_completion():
    """A message of 3 MB is more than the socket's buffer holds, so that sending it waits."""
    with pool(timeout_seconds=1.0) as scorer:
        assert scorer.submit("stops_after_its_answer: 3 + 4 = 7", PROBLEM).result() == RIGHT
        time.sleep(1.0)
        long = scorer.submit(f"3 + 4 = {' ' * 3_000_000}7", PROBLEM)
        assert long.result(timeout=30.0) == TIMED_OUT
        assert scorer.submit(f"3 + 4 = {' ' * 3_000_000}7", PROBLEM).result() == RIGHT


def test_closing_kills_what_hangs_and_cancels_what_waits():
    scorer = pool(timeout_seconds=1000.0)
    hanging, waiting = (scorer.submit("sleeps: 3 + 4 = 7", PROBLEM) for _ in range(2))
    while not hanging.running():
        time.sleep(0.01)
    time.sleep(0.3)
    began = time.perf_counter()
    scorer.close()
    assert time.perf_counter() - began < 5
    assert waiting.cancelled()
    with pytest.raises(CancelledError):
        hanging.result()
    with pytest.raises(RuntimeError, match="this scorer is closed"):
        scorer.submit("3 + 4 = 7", PROBLEM)
    scorer.close()  # a second time is nothing


def test_closing_at_once_is_possible():
    scorer = pool(workers=2)
    scorer.close()
    with pytest.raises(RuntimeError, match="this scorer is closed"):
        scorer.submit("3 + 4 = 7", PROBLEM)


def test_any_thread_may_submit():
    futures = {}

    def submit(name):
        futures[name] = [scorer.submit(f"{name} + {n} = {name + n}", PROBLEM) for n in range(50)]

    with pool(workers=2) as scorer:
        threads = [threading.Thread(target=submit, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [f.result() for name in range(4) for f in futures[name]] == [RIGHT] * 200


def test_a_judge_that_cannot_be_made_is_an_error_that_says_why():
    with (
        PoolScorer(faulty_judges.cannot_be_made, settings(), VALUES) as scorer,
        pytest.raises(WorkerFailed, match=r"could be started: ImportError: no module 'x' \(line"),
    ):
        scorer.submit("", PROBLEM).result()


def test_a_judge_of_the_main_module_is_an_error_that_says_so():
    """A worker's main module is another: what is defined there cannot be found."""
    make = type(make_in_main)(make_in_main.__code__, {"__name__": "__main__"}, "make_in_main")
    make.__module__ = "__main__"
    sys.modules["__main__"].make_in_main = make
    try:
        with (
            PoolScorer(make, settings(), VALUES) as scorer,
            pytest.raises(
                WorkerFailed, match=r"AttributeError: Can't get attribute 'make_in_main'"
            ),
        ):
            scorer.submit("", PROBLEM).result()
    finally:
        del sys.modules["__main__"].make_in_main


def make_in_main():
    return faulty_judges.judge


def test_workers_import_no_jax_and_nothing_of_the_main_module():
    with pool() as scorer:
        for name, score in (("jax", CRASHED), ("pytest", CRASHED), ("numpy", RIGHT)):
            assert scorer.submit(f"needs {name}: 3 + 4 = 7", PROBLEM).result() == score


PARENT = """
import signal, sys, time
import faulty_judges
from cegppo_jax.rewards.workers.pool import PoolScorer
from cegppo_jax.rewards.scoring import RewardValues
from cegppo_jax.rewards.settings import PoolSettings
from cegppo_jax.types import Problem

if __name__ == "__main__":
    # A shell's background job, and all that it starts, would ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    values = RewardValues(correct=1.0, wrong=0.0, unparsed=0.0, timed_out=0.0, crashed=0.0)
    scorer = PoolScorer(faulty_judges.make, PoolSettings(3, 1000.0, 0, 0, False), values)
    problem = Problem("p", "", "", "s")
    scorer.submit("forks_and_sleeps: 3 + 4 = 7", problem).result()
    scorer.submit("hangs_in_c: 3 + 4 = 7", problem)
    scorer.submit("ignores_signals: 3 + 4 = 7", problem)
    time.sleep(1.0)
    print("busy", flush=True)
    time.sleep(float(sys.argv[1]))
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM, None])
def test_a_parent_that_ends_leaves_no_worker(end):
    """However it ends, without having closed the pool: None is the end of its program."""
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, "1000" if end else "0"],
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert parent.stdout.readline() == b"busy\n"
    workers = running(parent.pid)
    if end:
        assert len(workers) == 2 * 3 + 3  # guards and judges, and three that a judge forked
        parent.send_signal(end)
    parent.communicate(timeout=60)
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert alive == []


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_judge_gains_no_rights_and_sees_nothing_of_the_environment(monkeypatch):
    """PLAIN_NAME was passed on while only names of secrets were left out: any may hold one."""
    monkeypatch.setenv("HF_TOKEN", "hidden")
    monkeypatch.setenv("PLAIN_NAME", "hidden")
    monkeypatch.setenv("CEGPPO_VERIFIER_URL", "seen")
    asked = ("no_new_privileges", "CEGPPO_VERIFIER_URL", "PATH", "HF_TOKEN", "PLAIN_NAME")
    assert rights(settings(), *asked) == [1.0, 1.0, 1.0, 0.0, 0.0]


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")
def test_a_judge_has_a_network_only_if_it_may_or_the_kernel_does_not_let_it_be_taken():
    with pool() as scorer:
        assert scorer.submit("3 + 4 = 7", PROBLEM).result() == RIGHT
        assert rights(settings(), "network") == [0.0 if scorer.offline else 1.0]
    if len(list(Path("/sys/class/net").iterdir())) > 1:
        assert rights(settings(network=True), "network") == [1.0]


# A process of a user without rights (`nobody`, where root runs the tests) leaves the network, and
# says what it has then: None where the kernel lets no such user make a namespace.
WITHOUT_RIGHTS = """
import ctypes, json, os, socket
from pathlib import Path
from cegppo_jax.rewards.workers.worker import control_process, leave_the_network

if os.getuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    control_process(4, 1)  # PR_SET_DUMPABLE, which a program has that this user starts
if os.fork() == 0:
    os._exit(bool(ctypes.CDLL(None).unshare(0x50000000)))  # a network in a user's namespace
told = None
if os.wait()[1] == 0:
    own = os.getuid(), os.getgid()
    offline = leave_the_network()
    status = Path("/proc/self/status").read_text().split()
    told = {
        "offline": offline,
        "the same user": (os.getuid(), os.getgid()) == own,
        "rights": [status[status.index(name) + 1] for name in ("CapPrm:", "CapEff:")],
        "devices": sorted(one.split(":")[0] for one in
                          Path("/proc/self/net/dev").read_text().split() if ":" in one),
        "error": socket.socket().connect_ex(("127.0.0.1", 9)),
    }
print(json.dumps(told))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")
def test_a_user_without_rights_leaves_the_network_and_gains_nothing():
    told = json.loads(subprocess.check_output([sys.executable, "-c", WITHOUT_RIGHTS]))
    if told is None:
        pytest.skip("this kernel lets no user without rights make a namespace")
    assert told == {
        "offline": True,
        "the same user": True,
        "rights": ["0" * 16, "0" * 16],
        "devices": ["lo"],
        "error": errno.ENETUNREACH,
    }


def rights(pool_settings, *asked):
    with PoolScorer(faulty_judges.judge_of_rights, pool_settings, VALUES) as scorer:
        return [scorer.submit(text, Problem("p", "", "", "")).result().reward for text in asked]


class Unpickled:
    """What runs a command in the process that reads its pickle."""

    def __reduce__(self):
        return os.abort, ()


@pytest.mark.parametrize(
    "reply",
    [
        pickle.dumps(("scored", Unpickled())),
        b"",
        b"[" * 100_000,
        b'["scored", [1, "correct", 7, null]]',
        b'["scored", [true, "correct", null, null]]',
        b'["scored", [1, "best", null, null]]',
        b'["ready", 1]',
        b'["timed_out", null]',
        b'{"scored": 1}',
    ],
)
def test_what_is_no_reply_is_refused_and_runs_nothing(reply):
    with pytest.raises(ValueError):
        read_reply(reply)


def test_a_score_comes_back_bit_for_bit():
    for score in (RIGHT, Score(0.1 + 0.2, Outcome.WRONG, "\ud800 \u2028", "boxed"), CRASHED):
        content = [score.reward, score.outcome, score.answer, score.rule]
        assert read_reply(json.dumps(["scored", content]).encode()) == ("scored", score)
