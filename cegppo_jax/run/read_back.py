"""What is read from checkpoints, and is not what was saved: told in a line."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from cegppo_jax.run.checksums import changed_since


class UnreadableCheckpointError(ValueError):
    """A checkpoint that another version of this package wrote, or that was damaged since."""


class DamagedCheckpointError(UnreadableCheckpointError):
    """A checkpoint whose files are not what was written."""


@contextlib.contextmanager
def failure_is_told(place: epath.Path) -> Iterator[None]:
    """Turns the errors of a restore into one message: TensorStore's are of any kind, with pages of
    its settings.

    If the tree has other names or shapes, Orbax's ValueError passes through.
    """
    try:
        yield
    except Exception as error:
        reason, settings, _ = str(error).partition("[tensorstore_spec")
        not_text = isinstance(error, json.JSONDecodeError | UnicodeDecodeError)
        if isinstance(error, ValueError) and not settings and not not_text:
            raise
        first = reason.partition("\n")[0]
        raise DamagedCheckpointError(
            f"{place} cannot be read ({type(error).__name__}: {first})"
        ) from error


def check_unchanged(
    place: epath.Path, item: str, expected: Mapping[str, Any], found: Mapping[str, Any]
) -> None:
    """Raises DamagedCheckpointError when arrays are not those that were saved, by checksums."""
    if wrong := changed_since(expected, found):
        raise DamagedCheckpointError(
            f"{place} is damaged: {len(wrong)} of {len(found)} arrays of its {item} are not what "
            f"was saved, first {wrong[0]}"
        )
