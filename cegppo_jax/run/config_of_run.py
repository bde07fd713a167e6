"""The config of a run as it was resolved, read back from the run's config.json."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cegppo_jax.run.directory import load_config

RUN_CONFIG = "config.json"  # in the directory of a run


def config_of_run(path: Path, config: ConfigDict) -> ConfigDict:
    """Returns the config that a run's config.json holds.

    Args:
      config: the defaults of this version, changed to the saved values: a setting that an older
        run lacks keeps its default.

    Raises:
      ValueError: there is no such file, it is damaged, or it has a setting that this version lacks.
      TypeError: a setting is of another type than in this version.
    """
    saved = load_config(path.parent)
    saved.pop("command", None)
    if "steps" not in saved:  # of a model, or of an evaluation
        raise ValueError(
            f"{path} is not the config of a run: it has no steps (a model's folder is the value of "
            "--config.model.pretrained)"
        )
    with config.unlocked():
        _fill(config, saved, path, "")
    return config


def _fill(config: ConfigDict, saved: dict[str, Any], path: Path, section: str) -> None:
    for name, value in saved.items():
        is_own_number = section == "loss."  # of a method outside the package
        if name not in config and not is_own_number:
            near = difflib.get_close_matches(name, list(config), n=1)
            hint = f" (the nearest is {section}{near[0]})" if near else ""
            raise ValueError(
                f"{path} has {section}{name}, which is no setting of this version{hint}: use the "
                "version that wrote it (versions.json), or give a recipe by --config"
            )
        if isinstance(config.get(name), ConfigDict) and isinstance(value, dict):
            _fill(config[name], value, path, f"{section}{name}.")
        else:
            config[name] = _tuples(value)


def _tuples(value: Any) -> Any:
    """Nested value -> the same with tuples for lists, which JSON has in their place."""
    if isinstance(value, dict):
        return {name: _tuples(one) for name, one in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
