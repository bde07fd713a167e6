"""Name -> Task: a built-in one, or a user's by its import path, tried before anything reads it."""

from __future__ import annotations

import random

from cegppo_jax.data.tasks.table import TASKS, Task
from cegppo_jax.data.tasks.worked import Worked
from cegppo_jax.import_path import check_takes, named, tried


def task_named(place: str, name: str) -> Task:
    """Returns the task of a name in TASKS, or a user's from "package.module:TASK".

    Args:
      place: the setting that names it, for messages.

    Raises:
      ValueError: there is none, it is not a Task, or its `draw` does not give the same problem for
        the same generator each time.
    """
    task = named(place, name, TASKS)
    if ":" in name:
        _check_own_task(place, name, task)
    return task


def _check_own_task(place: str, name: str, task: object) -> None:
    if not isinstance(task, Task):
        raise ValueError(
            f"{place} = {name!r} is of type {type(task).__name__}, not a Task "
            "(cegppo_jax/data/tasks/table.py)"
        )
    check_takes(f"draw of {place}", name, task.draw, "rng, steps")
    steps = task.least_steps
    one, same = (tried(place, name, lambda: task.draw(random.Random(0), steps)) for _ in range(2))
    if not isinstance(one, Worked) or not (one.problem and one.answer):
        raise ValueError(
            f"{place} = {name!r} drew {one!r} for {steps} steps: it needs a Worked with a problem "
            "and an answer"
        )
    if one != same:
        raise ValueError(
            f"{place} = {name!r} drew two problems from equal generators: draw(rng, steps) must "
            "take everything random from rng, or a resumed run would see other problems"
        )
