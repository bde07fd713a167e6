"""Reads a dict as a typed record, strictly: the machinery behind the settings.

A key that the record does not have, or a field without a default that the dict lacks, is an error
that names the dotted path. Numbers must be finite and fit into float32, unless the field's
metadata is UNLIMITED. An entry with a short form (SHORT_ENTRY) may also be written as a string, or
as a tuple of its fields' values in order.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping
from fractions import Fraction
from typing import Any, TypeVar

Record = TypeVar("Record")
Named = TypeVar("Named")
Result = TypeVar("Result")

# Metadata of a float field in which infinity means that there is no limit:
#     clip_high: float = dataclasses.field(metadata=UNLIMITED)
UNLIMITED = {"unlimited": True}

# Key of a field's metadata whose Mapping[str, float] takes the keys that no other field has; its
# value is a function that returns their names. The record itself checks them.
REST = "rest"

# Keys of a field's metadata: a function (short_forms.py) from a string to the value that it stands
# for, where the setting, or an entry of a tuple, may be written as a string.
SHORT = "short"
SHORT_ENTRY = "short_entry"

FLOAT32_SMALLEST = 2.0**-126  # devices round what is smaller to 0
FLOAT32_LARGEST = (2 - 2.0**-23) * 2.0**127

NO_OTHER_NAMES: Mapping[str, str] = types.MappingProxyType({})


def read_record(record: type[Record], values: dict[str, Any], place: str) -> Record:
    """Reads a nested dict as a dataclass, field by field; `place` is the dotted path for
    messages.
    """
    fields = {field.name: field for field in dataclasses.fields(record)}  # type: ignore[arg-type]
    kinds = typing.get_type_hints(record)
    rest = next((name for name, field in fields.items() if REST in field.metadata), None)
    if rest is not None:
        own = {name: value for name, value in values.items() if name in fields}
        values = own | {rest: {name: values[name] for name in values.keys() - fields.keys()}}
    for name in values.keys() - fields.keys():
        near = difflib.get_close_matches(name, fields, n=1)
        hint = f": did you mean {near[0]!r}?" if near else f"; it has {sorted(fields)}"
        raise ValueError(f"{place}.{name} is not a setting{hint}")
    missing = sorted(
        name
        for name in fields.keys() - values.keys()
        if fields[name].default is dataclasses.MISSING
    )
    if missing:
        raise ValueError(f"{place} lacks {missing}: start recipes from configs/base.py")
    read = {}
    for name, field in fields.items():
        if name not in values:
            continue
        if name == rest:
            places = {key: f"{place}.{key}" for key in values[rest]}
            read[name] = {
                key: _read_value(float, values[rest][key], where, unlimited=True)
                for key, where in places.items()
            }
            continue
        read[name] = _read_field(field, kinds[name], values[name], f"{place}.{name}")
    return record(**read)


def read_setting(record: type[Any], name: str, value: Any) -> Any:
    """Dotted name of a setting and its value -> what the record would hold; the value itself where
    the record has no setting of that name. Raises ValueError as read_record does.
    """
    first, _, rest = name.partition(".")
    field = {field.name: field for field in dataclasses.fields(record)}.get(first)
    if field is None:
        return value
    kind = typing.get_type_hints(record)[first]
    if rest:
        own = dataclasses.is_dataclass(kind)
        return read_setting(kind, rest, value) if own else value
    return _read_field(field, kind, value, name)


def setting_names(record: type[Any], prefix: str = "") -> list[str]:
    """Returns the dotted names of all settings of a dataclass, including those of its sections."""
    names = []
    kinds = typing.get_type_hints(record)
    for field in dataclasses.fields(record):
        name, kind = field.name, kinds[field.name]
        if REST in field.metadata:
            names += [f"{prefix}{one}" for one in field.metadata[REST]()]
        elif dataclasses.is_dataclass(kind):
            names += setting_names(kind, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            names.append(f"{prefix}{name}")
    return names


def _read_field(field: dataclasses.Field[Any], kind: Any, value: Any, place: str) -> Any:
    if SHORT in field.metadata:
        return _read_entry(kind, value, place, field.metadata[SHORT])
    if SHORT_ENTRY in field.metadata and isinstance(value, tuple | list):
        (member, _) = typing.get_args(kind)  # tuple[member, ...]
        short = field.metadata[SHORT_ENTRY]
        return tuple(
            _read_entry(member, one, f"{place}[{i}]", short) for i, one in enumerate(value)
        )
    return _read_value(kind, value, place, field.metadata.get("unlimited", False))


def _read_entry(kind: Any, written: Any, place: str, short: Callable[[str], Any]) -> Any:
    """Reads a value that may be written as a string. Raises ValueError with what was written."""
    try:
        value = short(written) if isinstance(written, str) else written
        if dataclasses.is_dataclass(kind) and isinstance(value, tuple | list):
            names = [field.name for field in dataclasses.fields(kind)]
            if len(value) != len(names):
                raise ValueError(f"expected {len(names)} values, ({', '.join(names)})")
            value = dict(zip(names, value, strict=True))
        return _read_value(kind, value, "entry", unlimited=False)
    except ValueError as error:
        raise ValueError(f"{place} = {written!r}: {error}") from error


def _read_value(kind: Any, value: Any, place: str, unlimited: bool) -> Any:
    if kind is Any:
        return tuple(value) if isinstance(value, list) else value
    if kind is Fraction:
        return _read_fraction(value, place)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if isinstance(value, dict):
            return read_record(kind, value, place)
        raise ValueError(f"{place} = {value!r} is not a section of settings")
    if typing.get_origin(kind) is tuple:
        return _read_tuple(kind, value, place, unlimited)
    is_bool = isinstance(value, bool)  # and, to Python, a whole number as well
    if kind is float and isinstance(value, int | float) and not is_bool:
        return _read_float(value, place, unlimited)
    allowed = typing.get_args(kind) or (kind,)
    if not isinstance(value, allowed) or (is_bool and bool not in allowed):
        expected = getattr(kind, "__name__", kind)
        raise ValueError(f"{place} = {value!r} is of type {type(value).__name__}, not {expected}")
    return value


def _read_tuple(kind: Any, value: Any, place: str, unlimited: bool) -> tuple[Any, ...]:
    """Reads tuple[member, ...], or tuple[one, other] of that length. A dict is its pairs,
    sorted.
    """
    values = tuple(sorted(value.items())) if isinstance(value, dict) else value
    if not isinstance(values, tuple | list):
        raise ValueError(f"{place} = {value!r} is of type {type(value).__name__}, not tuple")
    members = typing.get_args(kind)
    if members[-1] is Ellipsis:
        members = members[:1] * len(values)
    if len(members) != len(values):
        raise ValueError(f"{place} = {value!r} has {len(values)} values: expected {len(members)}")
    return tuple(
        _read_value(member, one, f"{place}[{i}]", unlimited)
        for i, (member, one) in enumerate(zip(members, values, strict=True))
    )


def _read_fraction(value: Any, place: str) -> Fraction:
    """Number, or text as "1/3" -> the number that is written: 0.1 is 1/10."""
    try:
        return Fraction(str(value))
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{place} = {value!r}: a finite number") from error


def _read_float(value: float, place: str, unlimited: bool) -> float:
    """Returns a number as a float. Raises ValueError for NaN, an infinity that has no meaning
    here, or a number that would become infinite or 0 in float32, in which devices compute.
    """
    try:
        value = float(value)
    except OverflowError:  # a whole number beyond float64
        value = math.inf if value > 0 else -math.inf
    if unlimited and math.isinf(value):
        return value
    if not math.isfinite(value):
        expected = "a number, or inf for no limit" if unlimited else "a finite number"
        raise ValueError(f"{place} = {value}: {expected}")
    if value and not FLOAT32_SMALLEST <= abs(value) <= FLOAT32_LARGEST:
        raise ValueError(
            f"{place} = {value:g} does not fit into float32, which holds 0 and sizes from "
            f"{FLOAT32_SMALLEST:.1e} to {FLOAT32_LARGEST:.1e}"
        )
    return value


def check_choice(
    place: str, name: str, choices: Collection[str], other_names: Mapping[str, str] = NO_OTHER_NAMES
) -> None:
    """Raises ValueError when `name` is not one of `choices`, suggesting the nearest.

    Args:
      other_names: other names that people type, each with a sentence that says what to set.
    """
    if name in choices:
        return
    alike = [choice for choice in choices if _letters(choice) == _letters(name)]
    near = alike or difflib.get_close_matches(name.lower(), choices, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    for other, instead in other_names.items():
        if _letters(other) == _letters(name):
            hint = f"{instead} "
    raise ValueError(f"{place} = {name!r} does not exist: {hint}There are {sorted(choices)}")


def _letters(name: str) -> str:
    """Keeps only letters and digits, "Dr. GRPO" -> "drgrpo", so that names that differ only in
    spelling are equal.
    """
    return re.sub(r"[^a-z0-9]", "", name.lower())


def check_at_least(minimum: int, section: str, record: Any, *names: str) -> None:
    """Raises ValueError for the first of the record's numbers that is below `minimum`, or NaN."""
    for name in names:
        if not getattr(record, name) >= minimum:
            raise ValueError(f"{section}.{name} = {getattr(record, name)}: at least {minimum}")


def check_fields(section: str, record: Any, names: str, holds: bool, rule: str) -> None:
    """Raises ValueError with the values of some fields and the rule that they break, unless it
    `holds`. `names` are those of the fields, separated by spaces.
    """
    if not holds:
        values = ", ".join(f"{name} = {getattr(record, name)!r}" for name in names.split())
        raise ValueError(f"{section}.{values}: {rule}")
