"""Nothing grows from step to step of a run; and what measures it would notice."""

import os
import threading

import pytest

from cegppo_jax import train as story
from experiments import leaks

# A step. One whose rollout and mini-batches are kept breaks them: see the second test.
ALLOCATED_MB, OBJECTS = 0.01, 60
COUNTED = ("arrays", "handles", "threads", "processes")


@pytest.mark.slow
def test_nothing_grows_from_step_to_step(tmp_path):
    growth = leaks.growth_a_step(leaks.readings_of(150, tmp_path / "run"))
    assert {name: growth[name] for name in COUNTED} == dict.fromkeys(COUNTED, 0)
    assert growth["allocated"] < ALLOCATED_MB
    assert growth["objects"] < OBJECTS


@pytest.mark.slow
def test_what_leaks_is_noticed(tmp_path, monkeypatch):
    kept, end, train_step = [], threading.Event(), story.train_step

    def leaking(*arguments):
        taken = train_step(*arguments)
        thread = threading.Thread(target=end.wait)
        thread.start()
        kept.append((taken.minibatches, taken.rollouts, os.open(os.devnull, os.O_RDONLY), thread))
        return taken

    monkeypatch.setattr(story, "train_step", leaking)
    try:
        growth = leaks.growth_a_step(leaks.readings_of(50, tmp_path / "run"))
    finally:
        end.set()
    for *_, file, thread in kept:
        os.close(file)
        thread.join()
    assert growth["arrays"] >= 1
    assert growth["handles"] == growth["threads"] == 1
    assert growth["allocated"] > ALLOCATED_MB
    assert growth["objects"] > OBJECTS
