"""Resolved config -> a run's directory: claimed for one config, described, never taken over by
another.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

# What may differ between the start of a run and its resumption: how long and on what it runs, what
# it keeps and shows.
RESUMABLE = ("steps", "mesh.", "checkpoint.", "logging.", "evaluation.every_steps")

PACKAGES = (
    "cegppo_jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "transformers",
    "tokenizers",
    "numpy",
    "libtpu",
)


def check_claimable(workdir: Path, config: Mapping[str, Any]) -> None:
    """Raises ValueError when the directory holds the run of a config that differs in more than
    RESUMABLE, or files that are no run's. Changes nothing.
    """
    path = workdir / "config.json"
    if path.exists():
        longer = ("warm_start.steps",) if config.get("command") == "supervised" else ()
        check_same(load_config(workdir), config, workdir, RESUMABLE + longer)
    elif is_occupied(workdir):
        raise ValueError(
            f"{workdir} is not empty and holds no run (no config.json): choose another --workdir"
        )


def is_occupied(folder: Path) -> bool:
    """Whether a folder holds anything but what a kill left of a half-written config.json.

    Raises:
      NotADirectoryError: the path, or a part of it, is a file.
    """
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise NotADirectoryError(f"{place} is a file: choose another folder than {folder}")
    left = _partial(folder / "config.json").name
    return folder.exists() and any(file.name != left for file in folder.iterdir())


def claim(workdir: Path, config: Mapping[str, Any]) -> None:
    """Directory and resolved config -> the directory, made or recognised as this config's, with
    config.json and versions.json. Raises ValueError as check_claimable does.
    """
    check_claimable(workdir, config)
    workdir.mkdir(parents=True, exist_ok=True)
    write_json(workdir / "config.json", config)
    record_versions(workdir / "versions.json")


def record_versions(path: Path) -> None:
    """Appends what this start runs on, where it differs from the start before it: a list, oldest
    first.
    """
    starts = json.loads(path.read_text()) if path.exists() else []
    present = versions()
    if starts[-1:] != [present]:
        write_json(path, [*starts, present])


def check_same(
    saved: Mapping[str, Any],
    config: Mapping[str, Any],
    workdir: Path,
    may_change: tuple[str, ...],
) -> None:
    """Raises ValueError, naming each difference, unless two configs agree but for the names
    `may_change` begins.
    """
    different = [
        f"{name}: the run has {old!r}, this command {new!r}"
        for name, old, new in differences(saved, config)
        if not name.startswith(may_change)
    ]
    if different:
        raise ValueError(
            f"{workdir} holds a run of another config:\n  "
            + "\n  ".join(different)
            + "\nChoose another --workdir, or give the options of that run."
        )


def load_config(workdir: Path) -> dict[str, Any]:
    """Directory -> the resolved config of its run. Raises ValueError when there is none."""
    path = workdir / "config.json"
    if not path.exists():
        raise ValueError(f"{workdir} holds no run: {path} does not exist")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): choose another --workdir") from error


def differences(
    first: Mapping[str, Any], second: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Two nested dicts -> (dotted name, first value, second value) where they differ."""
    absent = "nothing"
    for name in sorted(first.keys() | second.keys()):
        old, new = first.get(name, absent), second.get(name, absent)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from differences(old, new, f"{prefix}{name}.")
        elif _plain(old) != _plain(new):
            yield f"{prefix}{name}", old, new


def _plain(value: Any) -> Any:
    """JSON turns tuples into lists."""
    return list(value) if isinstance(value, tuple) else value


def write_json(path: Path, content: Any) -> None:
    """Writes a whole file or none, by a rename."""
    _partial(path).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    os.replace(_partial(path), path)


def _partial(path: Path) -> Path:
    """The name of a file while it is written, left behind by a kill at that moment."""
    return path.with_suffix(".partial")


def versions() -> dict[str, Any]:
    """-> package versions, git commit and devices: what is needed to run this again."""
    installed = {}
    for package in PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            installed[package] = "not installed"
    return {
        "packages": installed,
        "python": platform.python_version(),
        "git": git_revision(),
        "devices": [f"{device.platform}: {device.device_kind}" for device in jax.devices()],
    }


def git_revision() -> str:
    """-> commit of this package's checkout, "+changes" where the working tree differs; "unknown"
    without git.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(
            ("git", *arguments),
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()

    try:
        changes = "+changes" if git("status", "--porcelain", "--untracked-files=no") else ""
        return git("rev-parse", "HEAD") + changes
    except (OSError, subprocess.SubprocessError):
        return "unknown"
