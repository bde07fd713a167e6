"""Paths on this machine, from the text of a flag or setting."""

from __future__ import annotations

import os
from pathlib import Path


def local_path(place: str, text: str) -> Path:
    """Returns the path that a text names, with `~` expanded.

    Args:
      place: where the text was given, for messages: "--workdir".

    Raises:
      ValueError: the text is empty, a URL (gs://, s3://, hf://, file://), or begins with `~` and
        the name of no user.
    """
    if not text:
        raise ValueError(f"{place} is empty: give a path")
    refuse_url(place, text)
    try:
        return Path(text).expanduser()
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
