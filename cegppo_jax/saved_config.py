"""What a run or an evaluation says of itself, read back: config.json and versions.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cegppo_jax.storage import strict_json

CONFIG_FILE_NAME = "config.json"
VERSIONS_FILE_NAME = "versions.json"
ABSENT = "nothing"  # of a name that one of two configs does not have


def load_config(workdir: Path) -> dict[str, Any]:
    """Reads the resolved config of the run in a directory, or the description of its evaluation.

    Raises:
      ValueError: there is none, or it is damaged.
    """
    path = workdir / CONFIG_FILE_NAME
    if not path.exists():
        raise ValueError(f"{workdir} holds no run: {path} does not exist")
    try:
        saved = strict_json.loads(path.read_bytes())
        if not isinstance(saved, dict):
            raise ValueError(f"a {type(saved).__name__}, not an object")
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): choose another directory") from error
    return saved


def read_versions(path: Path) -> list[Any]:
    """Reads from versions.json what each start ran on; [] if there is no such file.

    Raises:
      ValueError: it is damaged.
    """
    try:
        starts = strict_json.parse(path.read_bytes()) if path.exists() else []
        if not isinstance(starts, list):
            raise ValueError(f"a {type(starts).__name__}, not a list")
        if not all(isinstance(one, dict) and type(one.get("git", "")) is str for one in starts):
            raise ValueError("a start is no object, or its git no text")
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}): remove it, nothing but its record of versions is lost"
        ) from error
    return starts


def differences(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """Yields (dotted name, first value, second value) where two nested dicts differ."""
    one, other = flat(first), flat(second)
    for name in sorted(one.keys() | other.keys()):
        old, new = one.get(name, ABSENT), other.get(name, ABSENT)
        if json_value(old) != json_value(new):
            yield name, old, new


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Flattens a nested dict to one with dotted names; an empty dict in it disappears."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{inner}": one for inner, one in flat(value).items()}
        else:
            found[name] = value
    return found


def empty_sections(values: Mapping[str, Any]) -> Iterator[str]:
    """Yields the dotted names of the empty dicts in a nested one, which `flat` leaves out."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from [f"{name}.{inner}" for inner in empty_sections(value)] if value else [name]


def json_value(value: Any) -> Any:
    """What JSON makes of a value: tuples are lists, infinity is "inf"."""
    return strict_json.encodable(value)
