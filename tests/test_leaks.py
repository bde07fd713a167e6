"""Nothing grows from step to step of a run; and what measures it would notice."""

import os
import threading

import pytest

from cegppo_jax import train as story
from experiments import leaks

# The most that may come in a step. MB of malloc and Python's objects vary by so much; a pool of
# threads may start one late. A step whose rollout and mini-batches are kept breaks all of them.
MOST = {"allocated": 0.01, "objects": 60, "arrays": 0, "handles": 0, "threads": 0.05}
MOST |= {"processes": 0}


@pytest.mark.slow
def test_nothing_grows_from_step_to_step(tmp_path):
    growth = leaks.growth_a_step(leaks.readings_of(150, tmp_path / "run"))
    assert {name: growth[name] for name, most in MOST.items() if growth[name] > most} == {}


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
    missed = {name: growth[name] for name, most in MOST.items() if growth[name] <= most}
    assert missed.keys() == {"processes"}
