"""The directory of a run: claimed for one config, described, and never taken over by another."""

from __future__ import annotations

import difflib
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from flax.traverse_util import flatten_dict

from cegppo_jax import strict_json
from cegppo_jax.read_settings import read_setting
from cegppo_jax.run.settings import RunSettings

# What may differ between the start of a run and its resumption: how long and on what it runs, what
# it keeps and shows.
RESUMABLE = ("steps", "mesh.", "checkpoint.", "logging.", "evaluation.every_steps")

ABSENT = "nothing"  # of a name that one of two configs does not have

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


def check_claimable(
    workdir: Path, config: Mapping[str, Any], defaults: Mapping[str, Any]
) -> list[str]:
    """Returns the lines to print before a directory is claimed for a config, as check_same gives
    them. Changes nothing.

    Raises:
      ValueError: the directory holds a run whose config differs in more than RESUMABLE, damaged
        files of a run, or files that do not belong to a run.
    """
    if (workdir / "config.json").exists():
        longer = ("warm_start.steps",) if config.get("command") == "supervised" else ()
        lines = check_same(load_config(workdir), config, defaults, workdir, RESUMABLE + longer)
        read_versions(workdir / "versions.json")
        return lines
    if is_occupied(workdir):
        raise ValueError(
            f"{workdir} is not empty and holds no run (no config.json): choose another --workdir"
        )
    return []


def is_occupied(folder: Path) -> bool:
    """Whether a folder holds anything except a half-written config.json, left when a process was
    killed.

    Raises:
      NotADirectoryError: the path, or a part of it, is a file.
    """
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise NotADirectoryError(f"{place} is a file: choose another folder than {folder}")
    left = strict_json.partial(folder / "config.json").name
    return folder.exists() and any(file.name != left for file in folder.iterdir())


def claim(workdir: Path, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Creates the directory for this config, with config.json and versions.json, or recognises it
    as this config's. Raises ValueError as check_claimable does.
    """
    check_claimable(workdir, config, defaults)
    workdir.mkdir(parents=True, exist_ok=True)
    strict_json.write_json(workdir / "config.json", config)
    record_versions(workdir / "versions.json")


def record_versions(path: Path) -> None:
    """Appends what this start runs on to a list, oldest first, if it differs from the start
    before.
    """
    starts, present = read_versions(path), versions()
    if starts[-1:] != [present]:
        strict_json.write_json(path, [*starts, present])


def read_versions(path: Path) -> list[Any]:
    """Reads from versions.json what each start ran on; [] if there is no such file.

    Raises:
      ValueError: it is damaged.
    """
    try:
        starts = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        if not isinstance(starts, list):
            raise ValueError(f"a {type(starts).__name__}, not a list")
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}): remove it, nothing but its record of versions is lost"
        ) from error
    return starts


def check_same(
    saved: Mapping[str, Any],
    config: Mapping[str, Any],
    defaults: Mapping[str, Any],
    workdir: Path,
    may_change: tuple[str, ...],
) -> list[str]:
    """Returns a line for each setting that the saved config, of an older version, lacks: it takes
    its default.

    Raises:
      ValueError: the configs differ in another setting whose name does not begin with a name in
        `may_change`. Each difference is named.
    """
    default_of = flat(defaults)
    lines, different = [], []
    for name, old, new in differences(saved, config):
        if name.startswith(may_change) or _mean_the_same(name, old, new):
            continue
        if old == ABSENT and name in default_of:
            default = default_of[name]
            if _plain(default) == _plain(new):
                lines.append(
                    f"{workdir} was started before the setting {name} existed: it takes the "
                    f"default, {default!r}"
                )
            else:
                different.append(
                    f"{name}: the run was started before this setting existed and has its default "
                    f"{default!r}, this command {new!r}"
                )
        elif new == ABSENT:
            near = difflib.get_close_matches(name, default_of, n=1)
            hint = f", whose nearest setting is {near[0]}" if near else ""
            different.append(
                f"{name}: the run has {old!r}, and this version has no such setting{hint}: go on "
                "with the version that wrote it (versions.json)"
            )
        else:
            different.append(f"{name}: the run has {old!r}, this command {new!r}")
    if different:
        raise ValueError(
            f"{workdir} holds a run of another config:\n  "
            + "\n  ".join(different)
            + "\nChoose another directory, or give the options of that run."
        )
    return lines


def _mean_the_same(name: str, one: Any, other: Any) -> bool:
    """Whether two ways of writing a setting are read as the same value."""
    try:
        read = [read_setting(RunSettings, name, value) for value in (one, other)]
    except ValueError:
        return False
    return bool(read[0] == read[1])


def load_config(workdir: Path) -> dict[str, Any]:
    """Reads the resolved config of the run in a directory, or the description of its evaluation.

    Raises:
      ValueError: there is none, or it is damaged.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise ValueError(f"{workdir} holds no run: {path} does not exist")
    try:
        saved = strict_json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(saved, dict):
            raise ValueError(f"a {type(saved).__name__}, not an object")
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): choose another directory") from error
    return saved


def differences(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """Yields (dotted name, first value, second value) where two nested dicts differ."""
    one, other = flat(first), flat(second)
    for name in sorted(one.keys() | other.keys()):
        old, new = one.get(name, ABSENT), other.get(name, ABSENT)
        if _plain(old) != _plain(new):
            yield name, old, new


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Flattens a nested dict to one with dotted names."""
    return flatten_dict(values, sep=".")


def _plain(value: Any) -> Any:
    """What JSON makes of a value: tuples are lists, infinity is "inf"."""
    return strict_json.encodable(value)


def versions() -> dict[str, Any]:
    """Returns package versions, git commit and devices: what one needs to run this again."""
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
    """Returns the commit of this package's checkout, with "+changes" if the working tree differs;
    "unknown" without git.
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
