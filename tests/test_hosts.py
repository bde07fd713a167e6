"""Several hosts without several processes: threads that exchange what processes would."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import child_runs
import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from cegppo_jax import distributed
from cegppo_jax.distributed import HostsDifferError
from cegppo_jax.rewards.workers.scorer import Scorer, ScorerCounts
from cegppo_jax.rollout import verdicts
from cegppo_jax.rollout.verdicts import Verdicts
from cegppo_jax.sharding import MeshShape, Placing, make_mesh, named_sharding, place
from cegppo_jax.types import Outcome, Problem, Score
from cegppo_jax.watchdog import HostState, WatchSettings, verdict

HOSTS = 3
PROBLEM = Problem(id="p", problem="", answer="", source="test")


@pytest.fixture
def on_hosts(monkeypatch):
    """Calls a function of the host's number on HOSTS hosts -> what each returned or raised."""
    own, barrier, sent = threading.local(), threading.Barrier(HOSTS), [None] * HOSTS

    def exchange(value):
        sent[own.host] = value
        barrier.wait(10)
        found = list(sent)
        barrier.wait(10)
        return found

    monkeypatch.setattr(distributed, "hosts", lambda: HOSTS)
    monkeypatch.setattr(distributed, "this_host", lambda: own.host)
    monkeypatch.setattr(distributed, "is_main", lambda: own.host == 0)
    monkeypatch.setattr(distributed, "exchange", exchange)

    def call(work):
        def alone(host):
            own.host = host
            try:
                return work(host)
            except HostsDifferError as error:
                return error

        with ThreadPoolExecutor(HOSTS) as pool:
            return list(pool.map(alone, range(HOSTS)))

    return call


def test_hosts_that_have_equal_values_agree(on_hosts):
    values = {"tokens": [np.arange(3)], "scores": (0.5, "wrong")}
    assert on_hosts(lambda host: distributed.agree("step 1", values)) == [None] * HOSTS


def test_one_bit_on_one_host_stops_all_and_is_named(on_hosts):
    one, other = np.zeros(3, np.float32), np.zeros(3, np.float32)
    other[1] = -0.0

    def work(host):
        distributed.agree("step 7", {"tokens": [1, 2], "advantages": other if host == 2 else one})

    for error in on_hosts(work):
        assert isinstance(error, HostsDifferError)
        assert "step 7" in str(error)
        assert "advantages (hosts [2] against host 0)" in str(error)
        assert "tokens" not in str(error)


def test_the_digest_does_not_depend_on_who_made_equal_objects():
    shared = "".join(["a", "b"])
    apart = ["".join(["a", "b"]), "".join(["a", "b"])]
    assert distributed.digest([shared, shared]) == distributed.digest(apart)
    assert distributed.digest([1]) != distributed.digest([1.0])


def test_the_digest_has_every_bit_of_an_array_and_its_shape():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    other = array.copy()
    assert distributed.digest(array) == distributed.digest(other)
    assert distributed.digest(array) != distributed.digest(array.reshape(3, 2))
    other[1, 2] = np.nextafter(other[1, 2], 9)
    assert distributed.digest([array, 1]) != distributed.digest([other, 1])


def test_what_the_main_host_read_is_what_all_use(on_hosts):
    asked = []

    def read(host):
        asked.append(host)
        return host

    assert on_hosts(lambda host: distributed.of_main(lambda: read(host))) == [0] * HOSTS
    assert asked == [0]


class FakeScorer(Scorer):
    """Finds everything right, or on one host that everything timed out."""

    def __init__(self, times_out):
        super().__init__(None)
        self.outcome = Outcome.TIMED_OUT if times_out else Outcome.CORRECT
        self.asked = []

    def submit(self, text, problem):
        self.asked.append(text)
        future = Future()
        future.set_result(Score(float(len(self.asked)), self.outcome, text))
        return future

    def counts(self):
        timed_out = self.outcome is Outcome.TIMED_OUT
        return ScorerCounts(retries=0, restarts=len(self.asked) if timed_out else 0)

    def close(self):
        pass


@pytest.mark.parametrize("every", [1, 64], ids=["exchanged_often", "exchanged_at_the_end"])
def test_each_host_scores_its_share_and_all_use_the_same_scores(on_hosts, monkeypatch, every):
    monkeypatch.setattr(verdicts, "EXCHANGED_EVERY", every)
    scorers = [FakeScorer(times_out=host == 1) for host in range(HOSTS)]
    texts = [f"completion {number}" for number in range(8)]

    def work(host):
        shared, found, early = Verdicts(scorers[host]), {}, 0
        for text in texts:
            shared.submit(text, PROBLEM)
            found |= shared.ready()
        early = len(found)
        while told := shared.next():
            found |= told
        return found, early, shared.happened

    results = on_hosts(work)
    assert results[0] == results[1] == results[2]
    found, early, happened = results[0]
    assert [scorer.asked for scorer in scorers] == [texts[0::3], texts[1::3], texts[2::3]]
    assert early == (6 if every == 1 else 0)
    assert [found[number].answer for number in range(8)] == texts
    timed_out = [number for number in range(8) if found[number].outcome is Outcome.TIMED_OUT]
    assert timed_out == [1, 4, 7]
    assert happened == ScorerCounts(retries=0, restarts=3)


def test_arrays_are_placed_part_by_part_on_a_mesh_of_several_processes(monkeypatch):
    mesh = make_mesh(MeshShape(2, 2, 2))
    layout = named_sharding(mesh, "rows", None)
    array = np.arange(32, dtype=np.float32).reshape(8, 4)
    assert place(array, layout).sharding == layout
    with monkeypatch.context() as elsewhere:  # as if another process drove some of it
        elsewhere.setattr(type(layout), "is_fully_addressable", False)
        placed = place({"x": array}, {"x": layout})["x"]
    assert placed.sharding.spec == PartitionSpec(("data", "fsdp"), None)
    assert {shard.data.shape for shard in placed.addressable_shards} == {(2, 4)}
    np.testing.assert_array_equal(placed, array)
    assert place(placed, layout) is placed
    both = Placing(jax.jit(lambda x, y: x + y, in_shardings=(layout, layout)), layout, layout)
    np.testing.assert_array_equal(both(array, array), 2 * array)


WATCH = WatchSettings(host=0, hosts=2, address=None, heartbeat_seconds=10, stall_seconds=100)


def states(**of_one):
    """Host 0, and host 1 as given, both heard of and getting on at time 0."""
    return {0: HostState(0.0, 0.0, 9, "update"), 1: HostState(0.0, 0.0, **of_one)}


def test_hosts_that_are_heard_of_and_get_on_are_left_alone():
    assert verdict(states(), 10.0, WATCH) is None


@pytest.mark.parametrize(
    ("of_one", "now", "words"),
    [
        ({"died": True, "where": "rollout, after step 3"}, 1.0, "died (last seen: rollout, after"),
        ({"failed": "ValueError: no"}, 1.0, "has stopped (last seen: its start): ValueError: no"),
    ],
    ids=["died", "failed"],
)
def test_the_host_that_stopped_is_named_with_its_place(of_one, now, words):
    host, why = verdict(states(**of_one), now, WATCH)
    assert host == 1
    assert why.startswith("host 1 of 2")
    assert words in why


def test_a_silent_host_is_named_after_the_heartbeat_timeout():
    both = states()
    both[0].heard = 10.5
    assert verdict(both, 10.0, WATCH) is None
    host, why = verdict(both, 10.5, WATCH)
    assert host == 1
    assert "host 1 of 2 has not been heard of for 10 s" in why


def test_of_hosts_that_stand_still_the_one_furthest_behind_is_named():
    both = states(progress=8, where="scoring")
    for state in both.values():
        state.heard = 100.5
    assert verdict(both, 100.0, WATCH) is None
    host, why = verdict(both, 100.5, WATCH)
    assert host == 1
    assert "the furthest behind is host 1 of 2 (last seen: scoring" in why


def test_a_host_that_has_ended_may_be_silent():
    both = states(ended=True)
    both[0].heard = 50.0
    assert verdict(both, 50.0, WATCH) is None


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--num_processes=2"], "--num_processes needs --coordinator_address and --process_id"),
        (["--distributed", "--process_id=1"], "leave out --distributed, or --process_id"),
        (
            ["--coordinator_address=a:1", "--num_processes=2", "--process_id=2"],
            "--process_id=2 --num_processes=2: processes are numbered from 0 to 1",
        ),
    ],
    ids=["incomplete", "both_ways", "number"],
)
def test_flags_of_hosts_that_do_not_go_together_are_refused(flags, words, tmp_path):
    assert words in child_runs.refused(tmp_path / "run", *flags)
