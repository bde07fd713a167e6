"""(seed, position) -> Problem: where problems come from and in which order.

A source has no state. Its order is a pure function of (seed, position), so that a run that stops at
position 4,711 goes on with the same problems from that one integer.
"""

from __future__ import annotations

import dataclasses
import functools
import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from cegppo_jax.data.tasks import Split, Task, check_steps, generate_problem
from cegppo_jax.types import Problem


class Source(Protocol):
    """An endless sequence of problems."""

    @property
    def known_problems(self) -> Sequence[Problem]:
        """Every problem, for checks ahead of a run; empty when they are generated without end."""
        ...

    def problem_at(self, seed: int, position: int) -> Problem:
        """(seed, position >= 0) -> Problem, a pure function."""
        ...


@dataclasses.dataclass(frozen=True)
class FiniteSource:
    """A list of problems, each exactly once an epoch, in an order of its own in every epoch."""

    problems: Sequence[Problem]

    def __post_init__(self) -> None:
        if not self.problems:
            raise ValueError("a finite source needs at least 1 problem, and this one has 0")

    @property
    def known_problems(self) -> Sequence[Problem]:
        """All of them."""
        return self.problems

    def problem_at(self, seed: int, position: int) -> Problem:
        """The problem at epoch_order(...)[offset], with epoch, offset = divmod(position, size)."""
        epoch, offset = divmod(position, len(self.problems))
        return self.problems[epoch_order(seed, epoch, len(self.problems))[offset]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratedSource:
    """A built-in task's training or held-out side: the position is the index of the problem."""

    task: Task
    split: Split
    min_steps: int
    max_steps: int
    bare_fraction: float = 0.0  # share of solutions that give the answer without the steps

    def __post_init__(self) -> None:
        check_steps(self.min_steps, self.max_steps)

    @property
    def known_problems(self) -> Sequence[Problem]:
        """None: they never end."""
        return ()

    def problem_at(self, seed: int, position: int) -> Problem:
        """The task's problem of that index."""
        return generate_problem(
            self.task,
            self.split,
            seed,
            position,
            self.min_steps,
            self.max_steps,
            self.bare_fraction,
        )


@functools.lru_cache(maxsize=8)
def epoch_order(seed: int, epoch: int, size: int) -> tuple[int, ...]:
    """(seed, epoch) -> a pseudo-random permutation of range(size).

    Sorts the indices by a digest of (seed, epoch, index). A numpy Generator would be faster, but
    its streams may change between numpy versions, and a run resumed under another version would
    repeat some problems and miss others. The cache only saves time: 30 ms for an epoch
    of 40,000 problems.
    """
    prefix = hashlib.blake2b(f"{seed}/{epoch}/".encode(), digest_size=8)

    def digest(index: int) -> bytes:
        """The sort key of one index."""
        keyed = prefix.copy()
        keyed.update(str(index).encode())
        return keyed.digest()

    return tuple(sorted(range(size), key=digest))


def read_jsonl(
    path: str | Path,
    problem_field: str = "problem",
    answer_field: str = "answer",
    id_field: str = "id",
    source_field: str = "source",
    solution_field: str = "solution",
) -> list[Problem]:
    """File with one JSON object a line -> problems, in the file's order.

    Any malformed line is an error. Blank lines and fields that are not named here are passed over.
    An answer or id may also be a whole number, and becomes its decimal text.

    Args:
      path: of the file, UTF-8; gzip when the name ends in .gz.
      problem_field: name of the field with the problem's text; required in every line.
      answer_field: name of the field with the known answer; required in every line.
      id_field: name of an optional field; without it the id is "<source>/<line number>".
      source_field: name of an optional field; without it the source is the file's name before the
        first dot.
      solution_field: name of an optional field with a worked solution.

    Raises:
      ValueError: "path:line: what is wrong" for a line that is not a JSON object, lacks a required
        field, has one that is empty or of the wrong type, or repeats an id; a file without any
        problem.
      FileNotFoundError: there is no such file.
    """
    path = Path(path)
    problems: list[Problem] = []
    line_of_id: dict[str, int] = {}
    for number, line in _numbered_lines(path):
        place = f"{path}:{number}"
        fields = _parse_object(line, place)
        source = _text_field(fields, source_field, place, (str,)) or path.name.split(".")[0]
        problem = Problem(
            id=_text_field(fields, id_field, place, (str, int)) or f"{source}/{number}",
            problem=_required(fields, problem_field, place, (str,)),
            answer=_required(fields, answer_field, place, (str, int)),
            source=source,
            solution=_text_field(fields, solution_field, place, (str,)),
        )
        if problem.id in line_of_id:
            raise ValueError(
                f"{place}: the id {problem.id!r} is already that of line {line_of_id[problem.id]}: "
                "give every problem an id of its own"
            )
        line_of_id[problem.id] = number
        problems.append(problem)
    if not problems:
        raise ValueError(f"{path}: the file has no problem in it; expected one JSON object a line")
    return problems


def _numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """File -> (line number from 1, text) of every line that is not blank."""
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            for number, raw in enumerate(stream, start=1):
                # utf-8-sig: some editors begin a file with a byte order mark
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                if line.strip():
                    yield number, line
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}:{number}: not UTF-8: {error}") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}:{number + 1}: not a whole gzip file: {error}") from error


def _parse_object(line: str, place: str) -> dict[str, Any]:
    """One line -> its JSON object."""
    try:
        fields = json.loads(line)
    except ValueError as error:  # JSONDecodeError, or a number of too many digits for int()
        raise ValueError(f"{place}: not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError(
            f"{place}: expected a JSON object with named fields, found {type(fields).__name__}"
        )
    return fields


def _required(fields: dict[str, Any], name: str, place: str, kinds: tuple[type, ...]) -> str:
    """The text of a field that must be there."""
    text = _text_field(fields, name, place, kinds)
    if text is None:
        raise ValueError(f"{place}: no field {name!r}; the line has {sorted(fields)}")
    return text


def _text_field(
    fields: dict[str, Any], name: str, place: str, kinds: tuple[type, ...]
) -> str | None:
    """The text of a field, or None where the field is missing or null."""
    value = fields.get(name)
    if value is None:
        return None
    if type(value) not in kinds:  # not isinstance: true and false would pass as whole numbers
        expected = " or ".join({str: "text", int: "a whole number"}[kind] for kind in kinds)
        raise ValueError(f"{place}: field {name!r} must be {expected}, found {value!r}")
    text = str(value)
    if not text.strip():
        raise ValueError(f"{place}: field {name!r} is empty")
    return text
