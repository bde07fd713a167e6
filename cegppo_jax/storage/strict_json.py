"""Writes JSON that every parser reads, and reads JSON that anyone may have written.

Python's json module writes Infinity and NaN, which are not JSON: `node` and `jq` refuse the file.
Here they are the strings "inf", "-inf" and "nan". metrics.jsonl has null in their place.

Text that is nested more deeply than any file of ours ends Python's parser, or what walks over its
values, with a RecursionError: `parse` refuses it as it refuses other text that is not JSON.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from cegppo_jax.storage.writing import writing

DEEPEST = 100  # lists and objects within one another; a config has 5
NOT_FINITE = {str(number): number for number in (math.inf, -math.inf, math.nan)}


def dumps(value: Any, **options: Any) -> str:
    """Value -> JSON. `options` are those of json.dumps."""
    return json.dumps(encodable(value), allow_nan=False, **options)


def loads(text: str | bytes) -> Any:
    """Reads what `dumps` wrote; tuples come back as lists.

    Raises:
      ValueError: the text is not JSON.
    """
    return numbers(parse(text))


def parse(text: str | bytes) -> Any:
    """JSON (UTF-8) -> value.

    Raises:
      ValueError: the text is not JSON, or is nested more than DEEPEST deep.
    """
    if isinstance(text, bytes):
        text = text.decode()  # json itself would guess at an encoding
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"it is nested more than {DEEPEST} deep") from error
    if text.count("[") + text.count("{") > DEEPEST:  # it may be
        _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level := [one for one in level if isinstance(one, dict | list)]:
        depth += 1
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} deep")
        level = [
            inner for one in level for inner in (one.values() if isinstance(one, dict) else one)
        ]


def read_json_file(path: Path) -> Any:
    """Reads a file of JSON.

    Raises:
      ValueError: it is not JSON, with the file's name.
    """
    try:
        return parse(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def write_json(path: Path, content: Any) -> None:
    """Writes a whole file or none, by a rename."""
    text = dumps(content, indent=2, sort_keys=True)
    with writing(path):
        partial(path).write_text(f"{text}\n", encoding="utf-8")
        os.replace(partial(path), path)


def partial(path: Path) -> Path:
    """Returns the name of a file while it is written, left behind by a kill at that moment."""
    return path.with_suffix(".partial")


def encodable(value: Any) -> Any:
    """Nested value -> the same with tuples as lists and infinities and NaN as strings."""
    if isinstance(value, dict):
        return {key: encodable(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [encodable(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def numbers(value: Any) -> Any:
    """Reverses `spelled` for numbers: infinities and NaN become numbers again."""
    if isinstance(value, dict):
        return {key: numbers(one) for key, one in value.items()}
    if isinstance(value, list):
        return [numbers(one) for one in value]
    return NOT_FINITE.get(value, value) if isinstance(value, str) else value
