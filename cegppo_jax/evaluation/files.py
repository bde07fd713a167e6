"""The files of an evaluation's folder.

completions.jsonl   every attempt, one a line, in the order in which they ended
problems.csv        one row a problem
evaluation.json     estimates with their intervals
config.json         what was evaluated, and the settings that the result depends on
versions.json       what each start ran on: packages, devices, attention, layout of the cache
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cegppo_jax.console.table import how_to_run
from cegppo_jax.evaluation.estimates import Attempt, Evaluation, ProblemResult, problem_results
from cegppo_jax.storage import strict_json
from cegppo_jax.storage.jsonl import JsonlLog, read_jsonl
from cegppo_jax.storage.writing import writing
from cegppo_jax.types import Outcome, StopReason

COMPLETIONS = "completions.jsonl"
RESULT = "evaluation.json"
MEASUREMENT = "config.json"
PROBLEMS = "problems.csv"
EVALUATIONS = "evaluations"  # in the directory of a run: a folder for each
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
WHOLE_NUMBERS = ("problem", "sample", "tokens")
# Settings that change what accuracy means; two evaluations that differ in them measure different
# things
HOW_IT_IS_MEASURED = (
    *("evaluation.sampling.temperature", "evaluation.sampling.top_k", "evaluation.sampling.top_p"),
    *("sampler.max_completion_tokens", "reward.verifier", "reward.by_source", "reward.scope"),
    *("problems.system_prompt", "problems.instruction", "problems.template_options"),
)


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


def read_finished_attempts(folder: Path) -> list[Attempt]:
    """Reads the attempts of an evaluation that has its evaluation.json.

    Raises:
      ValueError: as read_attempts; or they are not as many as that says.
    """
    path = folder / COMPLETIONS
    attempts, result = read_attempts(path), strict_json.read_json_file(folder / RESULT)
    try:
        expected = int(result["problems"]) * int(result["samples_per_problem"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / RESULT} is damaged ({error!r})") from error
    if len(attempts) != expected:
        raise ValueError(
            f"{path} has {len(attempts)} completions, and the result was of {expected}: lines were "
            "lost. Restore the file, or repeat the evaluation, which draws what is missing"
        )
    return attempts


def _attempt(line: dict[str, Any]) -> Attempt:
    texts = [line[name] for name in ("id", "completion", "gold")]
    texts += [one for one in (line["answer"], line.get("rule")) if one is not None]
    if not all(isinstance(one, str) for one in texts):
        raise ValueError("id, completion, gold, answer and rule are texts")
    if type(line["reward"]) not in (int, float):
        raise ValueError(f"reward = {line['reward']!r:.60} is no number")
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
    path = folder / PROBLEMS
    with writing(path), path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, names)
        table.writeheader()
        for row in problem_results(attempts):
            table.writerow({n: as_text(one) for n, one in dataclasses.asdict(row).items()})


def as_text(value: Any) -> Any:
    """Returns the value of a cell of problems.csv. Spreadsheets compute a text that begins like a
    formula, which a problem or a completion may hold: an apostrophe makes it a text.
    """
    if not isinstance(value, str) or not value.startswith(FORMULA_STARTS):
        return value
    try:
        float(value)  # "-5" computes nothing
    except ValueError:
        return f"'{value}"
    return value


def newest_evaluation(folder: Path) -> Path:
    """Returns the folder of an evaluation: the given one, or the newest finished one of a run.

    Raises:
      ValueError: there is no such folder, or no evaluation in it.
    """
    if (folder / COMPLETIONS).is_file():
        return folder
    if not folder.is_dir():
        raise ValueError(f"{folder} does not exist: give the folder of an evaluation, or a run")
    results = list((folder / EVALUATIONS).glob(f"*/{RESULT}"))
    if not results:
        raise ValueError(
            f"{folder} holds no finished evaluation; if it is a run, this makes one: "
            f"{how_to_run('evaluate', f'--run={folder}')}"
        )
    return max(results, key=lambda path: path.stat().st_mtime_ns).parent


def measured_otherwise(first: Path, second: Path) -> list[str]:
    """Returns a line for each setting of HOW_IT_IS_MEASURED in which two evaluations differ; []
    where one of the folders does not have its settings.

    Raises:
      ValueError: the settings of one are not JSON.
    """
    paths = [folder / MEASUREMENT for folder in (first, second)]
    if not all(path.is_file() for path in paths):
        return []
    settings = [strict_json.numbers(strict_json.read_json_file(path)) for path in paths]
    lines = []
    for name in HOW_IT_IS_MEASURED:
        one, other = (_setting(values, name) for values in settings)
        if one != other:
            lines.append(f"{name} is {one!r} in the first and {other!r} in the second")
    return lines


def _setting(values: dict[str, Any], name: str) -> Any:
    """Returns the setting of a dotted name; None: it is not there."""
    try:
        return functools.reduce(operator.getitem, name.split("."), values)
    except KeyError:
        return None
