"""Paths on this machine, from the text of a flag or setting."""

from __future__ import annotations

import os
import re
from pathlib import Path

VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})", re.ASCII)


def local_path(place: str, text: str) -> Path:
    """Returns the path that a text names, with `~`, `$NAME` and `${NAME}` expanded: a config or a
    job file that no shell has read may have them.

    Args:
      place: where the text was given, for messages: "--workdir".

    Raises:
      ValueError: the text is empty, a URL (gs://, s3://, hf://, file://), begins with `~` and the
        name of no user, or names a variable that is not set.
    """
    if not text:
        raise ValueError(f"{place} is empty: give a path")
    refuse_url(place, text)
    names = [found[1] or found[2] for found in VARIABLE.finditer(text)]
    if unset := [name for name in names if not os.environ.get(name)]:
        raise ValueError(f"{place} = {text!r}: the variable {unset[0]} is not set, or empty")
    try:
        return Path(os.path.expandvars(text)).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{place} = {text!r}: {error}") from error


def refuse_url(place: str, text: str) -> None:
    """Raises ValueError when a text that should name something on this machine is a URL."""
    if "://" in text:
        raise ValueError(
            f"{place} = {text!r} is a URL, and only local files and folders can be read and "
            "written: give a path on this machine (copy it here, or mount the bucket)"
        )


def users_cache() -> Path:
    """Returns this package's folder among the user's caches."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "cegppo_jax"
