"""Attempts and Evaluation <-> the files of an evaluation's folder.

completions.jsonl   every attempt, one a line, in the order in which they ended
problems.csv        a row a problem
evaluation.json     estimates with their intervals
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from cegppo_jax import strict_json
from cegppo_jax.evaluation.estimates import Attempt, Evaluation, ProblemResult, problem_results
from cegppo_jax.run import directory as run_directory
from cegppo_jax.types import Outcome, StopReason

COMPLETIONS = "completions.jsonl"
RESULT = "evaluation.json"
WHOLE_NUMBERS = ("problem", "sample", "tokens")


class CompletionsFile:
    """Appends attempts to completions.jsonl; what a kill left of the last line goes first."""

    def __init__(self, folder: Path):
        self._path = folder / COMPLETIONS
        if self._path.exists():
            whole = self._path.read_bytes()
            kept = whole.rfind(b"\n") + 1
            if kept < len(whole):
                with self._path.open("r+b") as file:
                    file.truncate(kept)
        self._file = self._path.open("a", encoding="utf-8")

    def read(self) -> list[Attempt]:
        """-> the attempts that are there."""
        return read_attempts(self._path)

    def write(self, attempt: Attempt) -> None:
        """Appends one attempt."""
        line = strict_json.dumps(dataclasses.asdict(attempt), ensure_ascii=False)
        self._file.write(line + "\n")
        self._file.flush()

    def __enter__(self) -> CompletionsFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


def read_attempts(path: Path) -> list[Attempt]:
    """completions.jsonl -> its attempts. What a kill left of the last line is none.

    Raises:
      ValueError: the file is not there, or a line of it, whose number is told, is malformed or
        repeats an attempt: two commands have written to it at once.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist: is {path.parent} the folder of an evaluation?")
    attempts: dict[tuple[int, int], Attempt] = {}
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                fields = json.loads(line.decode("utf-8"))
                if wrong := [n for n in WHOLE_NUMBERS if type(fields[n]) is not int]:
                    raise ValueError(f"{wrong} are no whole numbers")
                outcome, stop = Outcome(fields["outcome"]), StopReason(fields["stop_reason"])
                attempt = Attempt(**fields | {"outcome": outcome, "stop_reason": stop})
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path}, line {number}: not an attempt ({error})") from error
            place = attempt.problem, attempt.sample
            if place in attempts:
                raise ValueError(
                    f"{path}, line {number}: sample {attempt.sample} of problem {attempt.id!r} is "
                    "there twice: remove the line"
                )
            attempts[place] = attempt
    return list(attempts.values())


def write_results(
    folder: Path, evaluation: Evaluation, attempts: Sequence[Attempt], seconds: float | None
) -> None:
    """Evaluation, its attempts and the seconds it took (None: not known, it was resumed) ->
    evaluation.json and problems.csv.
    """
    fields = dataclasses.asdict(evaluation) | {"seconds": seconds}
    run_directory.write_json(folder / RESULT, fields)
    names = [field.name for field in dataclasses.fields(ProblemResult)]
    with (folder / "problems.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, names)
        table.writeheader()
        table.writerows(dataclasses.asdict(row) for row in problem_results(attempts))
