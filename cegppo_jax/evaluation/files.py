"""The files of an evaluation's folder.

completions.jsonl   every attempt, one a line, in the order in which they ended
problems.csv        one row a problem
evaluation.json     estimates with their intervals
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cegppo_jax import strict_json
from cegppo_jax.evaluation.estimates import Attempt, Evaluation, ProblemResult, problem_results
from cegppo_jax.jsonl import JsonlLog, read_jsonl
from cegppo_jax.types import Outcome, StopReason

COMPLETIONS = "completions.jsonl"
RESULT = "evaluation.json"
WHOLE_NUMBERS = ("problem", "sample", "tokens")


def open_completions(folder: Path) -> JsonlLog:
    """Opens a folder's completions.jsonl for appending `attempt_line`s; every complete line
    stays.
    """
    return JsonlLog(folder / COMPLETIONS, lambda line: True, "an attempt")


def attempt_line(attempt: Attempt) -> dict[str, Any]:
    """Returns the line of completions.jsonl that `read_attempts` reads back."""
    return dataclasses.asdict(attempt)


def read_attempts(path: Path) -> list[Attempt]:
    """Reads the attempts of completions.jsonl, in order, without a half-written last one.

    Raises:
      ValueError: the file does not exist, or a line of it (with its number) is malformed or repeats
        an attempt: two commands have written to it at once.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist: is {path.parent} the folder of an evaluation?")
    attempts: dict[tuple[int, int], Attempt] = {}
    for number, attempt in enumerate(read_jsonl(path, _attempt, "an attempt"), start=1):
        place = attempt.problem, attempt.sample
        if place in attempts:
            raise ValueError(
                f"{path}, line {number}: sample {attempt.sample} of problem {attempt.id!r} is "
                "there twice: remove the line"
            )
        attempts[place] = attempt
    return list(attempts.values())


def _attempt(line: dict[str, Any]) -> Attempt:
    if wrong := [name for name in WHOLE_NUMBERS if type(line[name]) is not int]:
        raise ValueError(f"{wrong} are not whole numbers")
    outcome, stop = Outcome(line["outcome"]), StopReason(line["stop_reason"])
    return Attempt(**line | {"outcome": outcome, "stop_reason": stop})


def write_results(
    folder: Path, evaluation: Evaluation, attempts: Sequence[Attempt], seconds: float | None
) -> None:
    """Writes evaluation.json and problems.csv. `seconds` is how long the evaluation took, or None
    if it was resumed.
    """
    fields = dataclasses.asdict(evaluation) | {"seconds": seconds}
    strict_json.write_json(folder / RESULT, fields)
    names = [field.name for field in dataclasses.fields(ProblemResult)]
    with (folder / "problems.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, names)
        table.writeheader()
        table.writerows(dataclasses.asdict(row) for row in problem_results(attempts))
