"""Short strings for the command line -> the values that a recipe would write.

Nothing else knows these forms: read_settings.py asks for the value of a string, and then reads the
value as if the recipe had written it.

    problems.train      "a.jsonl"              {"name": "a.jsonl"}
                        "a.jsonl=0.7"          {"name": "a.jsonl", "weight": "0.7"}
                        "a.jsonl?problem=q"    {"name": "a.jsonl", "fields": (("problem", "q"),)}
                        "task:sums:4-8"        {"task": "sums", "steps": (4, 8)}
    problems.held_out   "task:sums:4-8:500"    {"task": "sums", "steps": (4, 8), "problems": 500}
    problems.fields     "verl&source=ability"  (("layout", "verl"), ("source", "ability"))
    problems.template_options
                        "thinking=false"       ("thinking", False)
    reward.by_source    "gsm8k=math"           ("gsm8k", "math")
    reward.bonuses      "format=0.1"           ("format", 0.1)
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from cegppo_jax.storage import strict_json

# A task of the package, or a user's "package.module:attribute"; its steps; how many problems.
_TASK = re.compile(r"task:(\w+|[\w.]+:[A-Za-z_]\w*)(?::([0-9]+)-([0-9]+)(?::([0-9]+))?)?")


def problem_set(text: str) -> dict[str, Any]:
    """Returns the value of "NAME", "NAME?CHANGES" (see field_changes) or
    "task:NAME[:MIN-MAX[:COUNT]]".

    Raises:
      ValueError: it begins with "task:" and goes on in another way.
    """
    if not text.startswith("task:"):
        name, mark, changes = text.partition("?")
        return {"name": name} | ({"fields": field_changes(changes)} if mark and changes else {})
    found = _TASK.fullmatch(text)
    if found is None:
        raise ValueError("expected task:NAME[:MIN-MAX[:COUNT]]")
    task, low, high, count = found.groups()
    steps = {"steps": (int(low), int(high))} if low else {}
    return {"task": task} | steps | ({"problems": int(count)} if count else {})


def weighted_problem_set(text: str) -> dict[str, Any]:
    """Returns the value of "SET" or "SET=WEIGHT", where SET is as in problem_set.

    What follows the last "=" is a weight if it is a number: "a.jsonl?problem=q" has none.
    """
    name, equals, weight = text.rpartition("=")
    try:
        Fraction(weight)
    except (ValueError, ZeroDivisionError):
        return problem_set(text)
    return problem_set(name) | {"weight": weight} if equals else problem_set(text)


def field_changes(text: str) -> tuple[tuple[str, str], ...]:
    """Returns the value of "LAYOUT", "ROLE=PATH" or several of them, joined by "&".

    The later of two changes counts, and a layout changes all paths.
    """
    changes: dict[str, str] = {}
    for change in text.split("&") if text else ():
        role, equals, path = change.partition("=")
        if equals:
            changes[role] = path
        else:
            kept = {role: path for role, path in changes.items() if role == "unanswered"}
            changes = {"layout": change} | kept
    return tuple(sorted(changes.items()))


def pair(text: str) -> tuple[str, str]:
    """Returns ("gsm8k/train", "math") for "gsm8k/train=math".

    Raises:
      ValueError: there is no "=", or nothing on one side of it.
    """
    name, equals, value = text.rpartition("=")
    if not (equals and name.strip() and value.strip()):
        raise ValueError("expected 'name=value'")
    return name.strip(), value.strip()


def number_pair(text: str) -> tuple[str, float]:
    """Returns ("format", 0.1) for "format=0.1". Raises ValueError for another form."""
    name, value = pair(text)
    return name, float(value)


def json_pair(text: str) -> tuple[str, Any]:
    """Returns ("thinking", False) for "thinking=false": the value is JSON.

    Raises:
      ValueError: there is no "=", or what follows it is not JSON.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError("expected 'name=value'")
    try:
        return name, strict_json.parse(value)
    except ValueError as error:
        raise ValueError(f'{value!r} is not JSON, as false, 3 or "text" are: {error}') from error
