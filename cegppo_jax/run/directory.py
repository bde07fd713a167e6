"""The directory of a run: claimed for one config, described, and never taken over by another."""

from __future__ import annotations

import difflib
import importlib.metadata
import platform
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax

from cegppo_jax.models.attention.choose import choose_attention
from cegppo_jax.read_settings import read_setting
from cegppo_jax.run.one_writer import LOCK_FILE_NAME
from cegppo_jax.run.settings import RunSettings
from cegppo_jax.saved_config import (
    ABSENT,
    CONFIG_FILE_NAME,
    VERSIONS_FILE_NAME,
    differences,
    empty_sections,
    flat,
    json_value,
    load_config,
    read_versions,
)
from cegppo_jax.storage import strict_json

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


def check_claimable(
    workdir: Path, config: Mapping[str, Any], defaults: Mapping[str, Any]
) -> list[str]:
    """Returns the lines to print before a directory is claimed for a config, as check_same gives
    them. Changes nothing.

    Raises:
      ValueError: the directory holds a run whose config differs in more than RESUMABLE, damaged
        files of a run, or files that do not belong to a run.
    """
    if (workdir / CONFIG_FILE_NAME).exists():
        longer = ("warm_start.steps",) if config.get("command") == "supervised" else ()
        saved = load_config(workdir)
        if "steps" not in saved:  # of a model, or of an evaluation
            raise ValueError(
                f"{workdir} holds no run (its config.json has no steps): choose another --workdir"
            )
        lines = check_same(saved, config, defaults, workdir, RESUMABLE + longer)
        read_versions(workdir / VERSIONS_FILE_NAME)
        return lines
    if is_occupied(workdir):
        raise ValueError(
            f"{workdir} is not empty and holds no run (no config.json): choose another --workdir"
        )
    return []


def is_occupied(folder: Path) -> bool:
    """Whether a folder holds anything except the lock of its writer and a half-written config.json,
    left when a process was killed.

    Raises:
      NotADirectoryError: the path, or a part of it, is a file.
    """
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise NotADirectoryError(f"{place} is a file: choose another folder than {folder}")
    left = (LOCK_FILE_NAME, strict_json.partial(folder / CONFIG_FILE_NAME).name)
    return folder.exists() and any(file.name not in left for file in folder.iterdir())


def claim(
    workdir: Path,
    config: Mapping[str, Any],
    defaults: Mapping[str, Any],
    built: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Creates the directory for this config, with config.json and versions.json, or recognises it
    as this config's. Raises ValueError as check_claimable does.

    Args:
      built: what else versions.json says that this start became.
    """
    check_claimable(workdir, config, defaults)
    workdir.mkdir(parents=True, exist_ok=True)
    strict_json.write_json(workdir / CONFIG_FILE_NAME, config)
    record_versions(workdir / VERSIONS_FILE_NAME, config, built)


def record_versions(
    path: Path, config: Mapping[str, Any], built: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Appends what this start runs on to a list, oldest first, if it differs from the start
    before.
    """
    starts = read_versions(path)
    present = versions() | {"attention": chosen_attention(config), **built}
    if starts[-1:] != [present]:
        strict_json.write_json(path, [*starts, present])


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
        `may_change`, each of which is named; or one of these is not what a setting can be.
    """
    default_of = flat(defaults)
    if emptied := sorted(name for name in empty_sections(saved) if name in default_of):
        raise ValueError(f"{workdir / CONFIG_FILE_NAME} is damaged ({emptied} hold nothing)")
    lines, different = [], []
    for name, old, new in differences(saved, config):
        if name.startswith(may_change):
            _check_readable(name, old, default_of, workdir)
            continue
        if _mean_the_same(name, old, new):
            continue
        if old == ABSENT and name in default_of:
            default = default_of[name]
            if json_value(default) == json_value(new):
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


def _check_readable(name: str, saved: Any, known: Collection[str], workdir: Path) -> None:
    """Raises ValueError for a saved setting that no version can have written."""
    if saved == ABSENT:
        return
    try:
        if name not in known and name.rpartition(".")[0] in known:
            raise ValueError(f"{name.rpartition('.')[0]} is no section")
        read_setting(RunSettings, name, saved)
    except ValueError as error:
        raise ValueError(f"{workdir / CONFIG_FILE_NAME} is damaged ({error})") from error


def _mean_the_same(name: str, one: Any, other: Any) -> bool:
    """Whether two ways of writing a setting are read as the same value."""
    try:
        read = [read_setting(RunSettings, name, value) for value in (one, other)]
    except ValueError:
        return False
    return bool(read[0] == read[1])


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


def chosen_attention(config: Mapping[str, Any]) -> dict[str, str]:
    """Returns which implementation of attention the devices here get, in each part of a config that
    says which it wants.
    """
    platform = jax.devices()[0].platform
    settings = {part: config.get(part, {}).get("attention") for part in ("sampler", "trainer")}
    return {part: choose_attention(one, platform) for part, one in settings.items() if one}


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
