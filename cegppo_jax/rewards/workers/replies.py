"""Bytes of a worker process -> what it says, which is not trusted: (kind, content)."""

from __future__ import annotations

from cegppo_jax.storage import strict_json
from cegppo_jax.types import Outcome, Score

MOST_REPLY_BYTES = 2**24  # of a reply


def read_reply(content: bytes) -> tuple[str, Score | str | bool]:
    """Reads a reply of worker.py.

    Raises:
      ValueError: it is none.
    """
    kind, told = _pair(strict_json.parse(content))
    if kind == "scored":
        return kind, _score(told)
    if kind == "ready" and isinstance(told, bool):
        return kind, told
    if kind in ("memory", "raised") and isinstance(told, str):
        return kind, told
    raise ValueError(f"{kind!r:.60} with {told!r:.60}")


def _pair(value: object) -> tuple[str, object]:
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str):
        return value[0], value[1]
    raise ValueError(f"{value!r:.60} is no pair")


def _score(told: object) -> Score:
    if not isinstance(told, list) or len(told) != 4 or type(told[0]) not in (int, float):
        raise ValueError(f"{told!r:.60} is no score")
    reward, outcome, answer, rule = told
    if any(one is not None and not isinstance(one, str) for one in (answer, rule)):
        raise ValueError(f"{told!r:.60} is no score")
    return Score(float(reward), Outcome(outcome), answer, rule)
