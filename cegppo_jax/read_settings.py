"""Dict -> typed record, strictly: the machinery behind settings.py.

A key that a record does not have, and a field that the dict lacks, are errors that name the dotted
path; there are no defaults.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import math
import typing
from collections.abc import Collection
from typing import Any, TypeVar

Record = TypeVar("Record")


def read_record(record: type[Record], values: dict[str, Any], place: str) -> Record:
    """Nested dict -> dataclass, field by field; `place` is the dotted path for messages."""
    fields = {field.name for field in dataclasses.fields(record)}  # type: ignore[arg-type]
    kinds = typing.get_type_hints(record)
    for name in values.keys() - fields:
        near = difflib.get_close_matches(name, fields, n=1)
        hint = f": did you mean {near[0]!r}?" if near else f"; it has {sorted(fields)}"
        raise ValueError(f"{place}.{name} is not a setting{hint}")
    missing = sorted(fields - values.keys())
    if missing:
        raise ValueError(f"{place} lacks {missing}: start recipes from configs/base.py")
    return record(
        **{name: _read_value(kinds[name], values[name], f"{place}.{name}") for name in fields}
    )


def setting_names(record: type[Any], prefix: str = "") -> list[str]:
    """Dataclass -> dotted names of all its settings, those of its sections included."""
    names = []
    for name, kind in typing.get_type_hints(record).items():
        if dataclasses.is_dataclass(kind):
            names += setting_names(kind, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            names.append(f"{prefix}{name}")
    return names


def _read_value(kind: Any, value: Any, place: str) -> Any:
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if isinstance(value, dict):
            return read_record(kind, value, place)
        raise ValueError(f"{place} = {value!r} is not a section of settings")
    if typing.get_origin(kind) is tuple and isinstance(value, tuple | list):
        (member, _) = typing.get_args(kind)  # tuple[member, ...]
        return tuple(_read_value(member, one, f"{place}[{i}]") for i, one in enumerate(value))
    is_bool = isinstance(value, bool)  # and, to Python, a whole number as well
    if kind is float and isinstance(value, int) and not is_bool:
        return float(value)
    allowed = typing.get_args(kind) or (kind,)
    if not isinstance(value, allowed) or (is_bool and bool not in allowed):
        expected = getattr(kind, "__name__", kind)
        raise ValueError(f"{place} = {value!r} is of type {type(value).__name__}, not {expected}")
    return value


def check_choice(place: str, name: str, choices: Collection[str]) -> None:
    """Raises ValueError when `name` is not one of `choices`, suggesting the nearest."""
    if name not in choices:
        near = difflib.get_close_matches(name, choices, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"{place} = {name!r} does not exist: {hint}There are {sorted(choices)}")


def check_at_least(minimum: int, section: str, record: Any, *names: str) -> None:
    """Raises ValueError for the first of the record's numbers that is below `minimum`, or NaN."""
    for name in names:
        if not getattr(record, name) >= minimum:
            raise ValueError(f"{section}.{name} = {getattr(record, name)}: at least {minimum}")


def check_finite(section: str, record: Any, *names: str) -> None:
    """Raises ValueError for the first of the record's numbers that is infinite, or NaN."""
    for name in names:
        if not math.isfinite(getattr(record, name)):
            raise ValueError(f"{section}.{name} = {getattr(record, name)}: a finite number")


def import_object(name: str, place: str, hint: str) -> Any:
    """Import what "package.module:attribute" names.

    Args:
      place: the setting that names it, for messages; `hint` says what it should name.

    Raises:
      ValueError: there is no such module, or it has no such attribute.
    """
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError, TypeError) as error:
        raise ValueError(
            f"{place} = {name!r}: module {module_name!r} cannot be imported ({error}): {hint}"
        ) from error
    if not hasattr(module, attribute):
        raise ValueError(f"{place} = {name!r}: module {module_name!r} has no {attribute!r}: {hint}")
    return getattr(module, attribute)
