"""Loads problem sets by name: the same names for training, held-out problems and evaluation.

data/train.jsonl.gz, data/train.parquet, hf:ORG/NAME:train, tfds:NAME:test ...   see rows.py
task:NAME[:MIN-MAX[:COUNT]]       a built-in task with that many steps: "task:countdown:2-3", or
                                  your own Task: "task:package.module:TASK:2-3"
ANY_OF_THOSE_FILES?CHANGES        with other fields: "hf:openai/gsm8k/main:train?problem=
                                  question", "a.parquet?verl&unanswered=skip" (fields.py)
"""

from __future__ import annotations

import re
from typing import NamedTuple

from cegppo_jax.data.fields import FieldMap, change_fields, read_problem
from cegppo_jax.data.rows import open_rows
from cegppo_jax.data.tasks.named_task import task_named
from cegppo_jax.data.tasks.table import TASKS, Task, held_out_set
from cegppo_jax.types import Problem

TASK = "task:"
_TASK_NAME = re.compile(r"task:(\w+|[\w.]+:[A-Za-z_]\w*)(?::([0-9]+)-([0-9]+)(?::([0-9]+))?)?")
# Of a task whose name says no number, and the seed of that set: every run and evaluation that
# names it reads the same problems.
HELD_OUT_PROBLEMS = 256
HELD_OUT_SEED = 0


class TaskName(NamedTuple):
    """The parts of a generated set's name."""

    task: Task
    min_steps: int
    max_steps: int
    held_out: int  # problems


def parse_task_name(name: str) -> TaskName:
    """Splits "task:countdown:2-3:500" into its parts. Without a range, it takes the task's usual
    one.

    Raises:
      ValueError: a name of another form, or of a task that does not exist.
    """
    found = _TASK_NAME.fullmatch(name)
    if found is None or (":" not in found[1] and found[1] not in TASKS):
        raise ValueError(
            f"{name!r}: expected task:NAME[:MIN-MAX[:COUNT]] with a NAME of {sorted(TASKS)}, or "
            "package.module:TASK"
        )
    task = task_named(f"{name!r}: task", found[1])
    low, high = (int(found[2]), int(found[3])) if found[2] else task.usual_steps
    return TaskName(task, low, high, int(found[4] or HELD_OUT_PROBLEMS))


def load_problems(name: str, fields: FieldMap) -> list[Problem]:
    """Loads the problems of a set in its order. Of a built-in task, these are problems that
    training never sees.

    Rows without an answer are errors, or (fields.unanswered = "skip") left out and counted on
    standard output.

    Args:
      name: of the forms above.
      fields: where a row holds what, unless the name says otherwise.

    Raises:
      ValueError: "place: what is wrong" for a row that lacks a field, has one that is empty or of
        the wrong type, or repeats an id; a set without any problem; a name of no known form.
      FileNotFoundError: there is no such file.
    """
    if name.startswith(TASK):
        task, low, high, count = parse_task_name(name)
        return held_out_set(task, count, HELD_OUT_SEED, low, high)
    name, _, changes = name.partition("?")
    fields = change_fields(fields, changes) if changes else fields
    source, rows = open_rows(name)
    problems: list[Problem] = []
    row_of_id: dict[str, int] = {}
    unanswered: list[int] = []
    for place, number, row in rows:
        problem = read_problem(row, fields, place, number, source)
        if problem is None:
            unanswered.append(number)
            continue
        if problem.id in row_of_id:
            raise ValueError(
                f"{place}: the id {problem.id!r} is already that of row {row_of_id[problem.id]}: "
                "give every problem a different id"
            )
        row_of_id[problem.id] = number
        problems.append(problem)
    if not problems and not unanswered:
        raise ValueError(f"{name}: it has no problem in it")
    if not problems:
        raise ValueError(f"{name}: none of its {len(unanswered)} rows has a {fields.answer!r}")
    if unanswered:
        print(
            f"{name}: {len(unanswered)} of {len(problems) + len(unanswered):,} rows have no "
            f"{fields.answer!r} and are skipped, the first is row {unanswered[0]}",
            flush=True,
        )
    return problems
