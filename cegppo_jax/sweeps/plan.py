"""What the runs of an experiment will do: each one's config, read and checked before any starts."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from cegppo_jax.run import directory as run_directory
from cegppo_jax.run.command_line import RecipeError, RecipeParser, TupleParser, default_settings
from cegppo_jax.run.settings import read_settings
from cegppo_jax.storage import strict_json
from cegppo_jax.sweeps.arms import SEED_SETTING, ArmRun
from cegppo_jax.sweeps.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """A run whose config is valid and whose directory is free, or its own."""

    run: ArmRun
    workdir: Path
    command: tuple[str, ...]  # the ordinary train command
    steps: int


def plan(experiment: Experiment, folder: Path, runs: Sequence[ArmRun]) -> list[PlannedRun]:
    """Reads and checks the configs of all the experiment's runs, and the directories of `runs`.
    Changes nothing, and touches no device.

    Raises:
      ValueError: an override is not a setting or not allowed, two runs have the same config, or a
        directory holds another run. The message names the run.
    """
    configs = _distinct_configs(experiment)
    defaults, planned = default_settings(), []
    for run in runs:
        config, workdir = configs[str(run)], folder / str(run)
        try:
            run_directory.check_claimable(
                workdir, config.to_dict() | {"command": "train"}, defaults
            )
        except (OSError, ValueError) as error:
            raise ValueError(f"run {run}: {error}") from error
        command = train_command(experiment, run, workdir)
        planned.append(PlannedRun(run, workdir, command, config.steps))
    return planned


def train_command(experiment: Experiment, run: ArmRun, workdir: Path) -> tuple[str, ...]:
    """Returns the ordinary command that starts or resumes a run."""
    files = (f"--config={experiment.path}", f"--workdir={workdir}")
    return (sys.executable, "-m", "cegppo_jax.train", *files, *run.options())


def _distinct_configs(experiment: Experiment) -> dict[str, ConfigDict]:
    configs: dict[str, ConfigDict] = {}
    seen: dict[str, ArmRun] = {}
    for run in experiment.runs:
        try:
            config = config_of(experiment.path, run)
            read_settings(config)
        except (TypeError, ValueError) as error:
            raise ValueError(f"run {run}: {error}") from error
        content = strict_json.dumps(config.to_dict(), sort_keys=True)
        if content in seen:
            raise ValueError(f"runs {seen[content]} and {run} have the same config: keep one")
        seen[content], configs[str(run)] = run, config
    return configs


def config_of(path: Path, run: ArmRun) -> ConfigDict:
    """Returns the config of a run: what its command line gives.

    Raises:
      ValueError: an override is not a setting, has another type, or cannot be written on a command
        line.
    """
    argv = ["train", f"--config={path}", *run.options()]
    values = flags.FlagValues()
    config_flags.register_flag_parser_for_type(tuple, TupleParser())
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    values["config"].parser = RecipeParser(argv[1:])
    try:
        values(argv)
    except SystemExit as error:  # of check_override
        raise ValueError(str(error).removeprefix("error: ")) from error
    except (flags.Error, RecipeError, AttributeError, LookupError, TypeError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    config: ConfigDict = values["config"].value
    for name, value in {**run.overrides, SEED_SETTING: run.seed}.items():
        found: Any = config
        for part in name.split("."):
            found = found[part]
        if strict_json.encodable(found) != strict_json.encodable(value):
            raise ValueError(
                f"{name} = {value!r} is read from a command line as {found!r}: set such a value in "
                "base(), or by a variant of it"
            )
    return config
