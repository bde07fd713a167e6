"""Reads a row of a problem set as a Problem, by a map that says where its fields are."""

from __future__ import annotations

import dataclasses
from typing import Any

from cegppo_jax.read_settings import check_choice
from cegppo_jax.types import Problem

UNANSWERED = ("error", "skip")


@dataclasses.dataclass(frozen=True)
class FieldMap:
    """Where a row holds what a problem needs.

    Each value is the name of a field, or a path into nested ones: "reward_model.ground_truth",
    "prompt.0.content" (lists count from 0). "" for id, source or solution: the row has none.
    """

    problem: str  # the problem's text
    answer: str  # the known answer: text or a whole number
    id: str  # optional in a row; without it the id is "<source>/<row number>"
    source: str  # optional; without it the source is the file's or data set's name
    solution: str  # optional: a worked solution
    unanswered: str = "error"  # rows with an answer that is missing or empty: one of UNANSWERED

    def __post_init__(self) -> None:
        if not (self.problem and self.answer):
            raise ValueError(f"{self}: problem and answer need the name of a field")
        if self.unanswered not in UNANSWERED:
            raise ValueError(f"unanswered is {self.unanswered!r}: choose one of {UNANSWERED}")


FIELD_MAPS = {
    "plain": FieldMap("problem", "answer", "id", "source", "solution"),
    # The rows of verl and of projects that follow it: {data_source, prompt: [{role, content}],
    # reward_model: {style, ground_truth}, ...}
    "verl": FieldMap(
        "prompt.0.content", "reward_model.ground_truth", "id", "data_source", "solution"
    ),
}


# Pairs (role, path), each of which sets one field of a FieldMap. ("layout", a name in FIELD_MAPS)
# says which map the other paths come from.
FieldChanges = tuple[tuple[str, str], ...]


def change_fields(place: str, fields: FieldMap, changes: FieldChanges) -> FieldMap:
    """Returns the field map with changes made.

    Worked example: (("layout", "verl"), ("source", "ability"), ("unanswered", "skip")).

    Args:
      place: the setting that has the changes, for messages.
      fields: what holds if the changes say nothing.

    Raises:
      ValueError: there is no such layout or role.
    """
    roles = ["layout", *(field.name for field in dataclasses.fields(FieldMap))]
    paths = dict(changes)
    for role in paths:
        check_choice(f"{place}: role", role, roles)
    if layout := paths.pop("layout", None):
        check_choice(f"{place}: layout", layout, FIELD_MAPS)
        fields = dataclasses.replace(FIELD_MAPS[layout], unanswered=fields.unanswered)
    return dataclasses.replace(fields, **paths)


def read_problem(
    row: dict[str, Any], fields: FieldMap, place: str, number: int, default_source: str
) -> Problem | None:
    """Reads a row as a Problem. Returns None if it has no answer and such rows are skipped.

    Args:
      place: of the row, for messages: "train.jsonl:12".
      number: of the row, from 1, for an id.
      default_source: the source if the row names none.

    Raises:
      ValueError: "place: what is wrong" for a field that is missing, empty or of the wrong type.
    """
    answer = _text(row, fields.answer, place, (str, int), may_be_empty=True)
    if not (answer and answer.strip()) and fields.unanswered == "skip":
        return None
    problem = _text(row, fields.problem, place, (str,))
    if problem is None:
        raise ValueError(f"{place}: {_why_none(row, fields.problem)}")
    if not (answer and answer.strip()):
        wrong = _why_none(row, fields.answer) if answer is None else _empty(fields.answer)
        raise ValueError(f"{place}: {wrong} (unanswered = 'skip' skips rows without an answer)")
    source = _text(row, fields.source, place, (str,)) or default_source
    return Problem(
        id=_text(row, fields.id, place, (str, int)) or f"{source}/{number}",
        problem=problem,
        answer=answer,
        source=source,
        solution=_text(row, fields.solution, place, (str,)),
    )


def _text(
    row: dict[str, Any],
    path: str,
    place: str,
    kinds: tuple[type, ...],
    may_be_empty: bool = False,
) -> str | None:
    """Returns the text of a field, or None if it is missing or null."""
    value = _find(row, path, place)
    if value is None:
        return None
    if type(value) not in kinds:  # not isinstance: true and false would pass as whole numbers
        expected = " or ".join({str: "text", int: "a whole number"}[kind] for kind in kinds)
        raise ValueError(f"{place}: field {path!r} must be {expected}, found {_described(value)}")
    text = str(value)
    if not text.strip() and not may_be_empty:
        raise ValueError(f"{place}: {_empty(path)}")
    return text


def _empty(path: str) -> str:
    return f"field {path!r} is empty"


def _described(value: Any) -> str:
    """Describes a value of a row by its beginning and its kind: "['1+1'] (a list)"."""
    kinds = {bool: "boolean", int: "number", float: "number", str: "text", dict: "object"}
    shown = repr(value)
    kind = kinds.get(type(value), type(value).__name__)
    return f"{shown if len(shown) <= 60 else shown[:60] + ' ...'} ({kind})"


def _step(value: Any, step: str) -> tuple[Any, bool]:
    """Takes one step of a path from a value. Returns what is there, and whether anything is."""
    if isinstance(value, dict):
        return value.get(step), step in value
    if isinstance(value, list) and step.isdecimal() and int(step) < len(value):
        return value[int(step)], True
    return None, False


def _find(row: dict[str, Any], path: str, place: str) -> Any:
    """Returns the value at a path; None if the path ends before."""
    if path in row:  # a name may itself contain dots
        return row[path]
    value: Any = row
    for step in path.split("."):
        if isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            _check_messages(value, int(step), path, place)
        value, found = _step(value, step)
        if not found:
            return None
    return value


def _why_none(row: dict[str, Any], path: str) -> str:
    """Returns what a row holds in place of the value at a path."""
    if path in row:
        return f"field {path!r} is null"
    value: Any = row
    steps = path.split(".")
    for number, step in enumerate(steps):
        inside, found = _step(value, step)
        if not found:
            if number == 0:
                return f"no field {path!r}; the row has {sorted(row)}"
            above = "null" if value is None else _described(value)
            return (
                f"no field {path!r}; the row has {sorted(row)}, and its "
                f"{'.'.join(steps[:number])!r} is {above}"
            )
        value = inside
    return f"field {path!r} is null"


def _check_messages(values: list[Any], index: int, path: str, place: str) -> None:
    """Raises ValueError if `values` is a conversation with more than one user message, since
    what the others say would be lost silently. System messages may be left out by choice.
    """
    if not all(isinstance(value, dict) and "role" in value for value in values):
        return
    roles = [value["role"] for value in values]
    others = roles[:index] + roles[index + 1 :]
    if roles[index] != "user" or set(others) - {"system"}:
        raise ValueError(
            f"{place}: {path!r} reads message {index} of a conversation with the roles {roles}: it "
            "must be the only message of the user, with no others except system messages"
        )
