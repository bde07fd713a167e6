"""Writes JSON that every parser reads.

Python's json module writes Infinity and NaN, which are not JSON: `node` and `jq` refuse the file.
Here they are the strings "inf", "-inf" and "nan". metrics.jsonl has null in their place.
"""

from __future__ import annotations

import json
import math
from typing import Any

NUMBERS = {str(number): number for number in (math.inf, -math.inf, math.nan)}


def dumps(value: Any, **options: Any) -> str:
    """Returns the JSON of a value. `options` are those of json.dumps."""
    return json.dumps(spelled(value), allow_nan=False, **options)


def spelled(value: Any) -> Any:
    """Returns a nested value with tuples as lists, and infinities and NaN as strings."""
    if isinstance(value, dict):
        return {key: spelled(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [spelled(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def numbers(value: Any) -> Any:
    """Reverses `spelled` for numbers: infinities and NaN become numbers again."""
    if isinstance(value, dict):
        return {key: numbers(one) for key, one in value.items()}
    if isinstance(value, list):
        return [numbers(one) for one in value]
    return NUMBERS.get(value, value) if isinstance(value, str) else value
