"""The config of a command: read from a recipe or a run, and changed by --config.NAME=VALUE. Bad
input ends with one line that says what to change.
"""

from __future__ import annotations

import difflib
import importlib.machinery
import importlib.util
import inspect
import itertools
import re
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags
from ml_collections.config_flags import tuple_parser

from cegppo_jax.console.recipe_files import NO_RECIPES, RECIPES
from cegppo_jax.console.start import Main, read_flags, start_command
from cegppo_jax.losses.settings import method_named
from cegppo_jax.losses.wrappers import wrapped
from cegppo_jax.read_settings import setting_names
from cegppo_jax.run.config_of_run import RUN_CONFIG, config_of_run
from cegppo_jax.run.hosts import joined_hosts
from cegppo_jax.run.settings import RunSettings
from cegppo_jax.storage.bucket import in_bucket, local_copy
from cegppo_jax.storage.paths import local_path


def run(name: str, main: Main) -> None:
    """Runs a command of console/table.py that has a config, as start_command runs the others."""
    config_flags.register_flag_parser_for_type(tuple, TupleParser())

    def begin(argv: Sequence[str]) -> None:
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # see cegppo_jax/__init__.py
        with joined_hosts():
            main(argv)

    start_command(name, begin, parse_flags)


class TupleParser(flags.ArgumentParser):
    """Reads an option's text as a tuple, as ml_collections does. If it is given twice, the last one
    counts, as with every other option (ml_collections' parser would join them); an empty text is
    ().
    """

    def parse(self, argument: Any) -> tuple[Any, ...]:
        """Reads "(3, 4)" as (3, 4) and "dual_clip" as ("dual_clip",)."""
        return () if argument == "" else tuple_parser.TupleParser().parse(argument)

    def flag_type(self) -> str:
        return "tuple"


class RecipeError(Exception):
    """A recipe that gives no config. The message is the line to print."""


class RecipeParser(flags.ArgumentParser):
    """Reads "PATH.py[:variant]" as the locked config that the recipe's get_config() returns, or the
    base() of an experiment file, with the numbers of a user's method added to config.loss; or
    "RUN/config.json" as that run's.
    """

    def __init__(self, overrides: Sequence[str] = ()) -> None:
        self._overrides = overrides  # the command line

    def parse(self, argument: str) -> ml_collections.ConfigDict:
        """Returns the config, once every option --config.NAME is known to be one of its settings.

        Raises:
          RecipeError: there is no such recipe, or it returns no config.
          SystemExit: see check_override.
        """
        if Path(argument).name == RUN_CONFIG:
            try:
                config = config_of_run(run_config(argument), base_config())
            except (OSError, TypeError, ValueError) as error:
                raise RecipeError(str(error)) from error
        else:
            config = recipe_config(*find_recipe(argument))
        add_own_numbers(config, self._overrides)
        own = [f"loss.{name}" for name in config.get("loss", ())]
        for override in self._overrides:
            check_override(override, own)
        return config.lock()

    def flag_type(self) -> str:
        return "config object"


def run_config(argument: str) -> Path:
    """Returns the path of a run's config.json, copied here if it is in a bucket."""
    if in_bucket(argument):
        return local_copy("--config", argument, ())
    return local_path("--config", argument)


HOW_TO_START = "see configs/quickstart.py for one that does"


def recipe_config(path: Path, colon: str, variant: str) -> ml_collections.ConfigDict:
    """Returns what get_config() of a recipe, or base() of an experiment, returns. Arguments as
    find_recipe gives them. Raises RecipeError when it is no config.
    """
    try:
        recipe = load_recipe(path)
        get_config = getattr(recipe, "get_config", None) or getattr(recipe, "base", None)
        if not callable(get_config):
            raise RecipeError(f"{path} has no function get_config(): {HOW_TO_START}")
        if colon and not inspect.signature(get_config).parameters:
            raise RecipeError(f"{path} has no variants, and {variant!r} asks for one")
        config = get_config(*[variant] * bool(colon))
    except Exception as error:
        if isinstance(error, RecipeError):
            raise
        raise RecipeError(recipe_error(error, path)) from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise RecipeError(
            f"{get_config.__name__}() of {path} returns a {type(config).__name__}, not a "
            f"ConfigDict (is its last line `return config`?): {HOW_TO_START}"
        )
    return config


def find_recipe(argument: str) -> tuple[Path, str, str]:
    """Splits "PATH.py[:variant]" into its file, ":" or "", and the variant. Raises RecipeError,
    suggesting the nearest recipe, when there is no such file.
    """
    given, colon, variant = argument.partition(":")
    try:
        path = local_path("--config", argument if "://" in argument else given)
    except ValueError as error:
        raise RecipeError(str(error)) from error
    if path.is_file():
        return path, colon, variant
    folders = (RECIPES, path.parent, Path("configs"))  # of two recipes of a name the last
    found = {one.stem: one for folder in folders for one in sorted(folder.glob("*.py"))}
    names = sorted(found.keys() - NO_RECIPES)
    near = difflib.get_close_matches(path.stem, names, n=1)
    hint = f"did you mean {found[near[0]]}?" if near else f"recipes here are {names}"
    raise RecipeError(f"there is no recipe {str(path)!r}: {hint}")


def load_recipe(path: Path) -> Any:
    """Imports a file as a module."""
    loader = importlib.machinery.SourceFileLoader(f"cegppo_jax_recipe_{path.stem}", str(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = sys.modules[loader.name] = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def base_config() -> ml_collections.ConfigDict:
    """Returns the config of configs/base.py, which comes with the package."""
    config: ml_collections.ConfigDict = load_recipe(RECIPES / "base.py").get_config()
    return config


def default_settings() -> dict[str, Any]:
    """Returns the defaults of configs/base.py."""
    defaults: dict[str, Any] = base_config().to_dict()
    return defaults


def recipe_error(error: BaseException, path: Path) -> str:
    """Describes what a recipe raised: "recipe.py, line 7: KeyError: ...", with the last line of the
    recipe that was running.
    """
    place = str(path)
    if isinstance(error, SyntaxError):
        place = f"{error.filename}, line {error.lineno}"
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.name == "get_config" or frame.filename == str(path):
            place = f"{frame.filename}, line {frame.lineno}"
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]  # ml_collections wraps a KeyError into an AttributeError
    text = " ".join(str(error.args[0] if error.args else error).split())
    return f"{place}: {type(error).__name__}: {text}"


def parse_flags(name: str, argv: Sequence[str]) -> list[str]:
    """Reads the flags of a command that has a config, as read_flags does. Bad flags and recipes end
    the process.
    """
    try:
        if "run" in flags.FLAGS:
            argv = with_config_of_run(argv)
            sys.argv[:] = argv  # where ml_collections looks for --config.NAME
        flags.FLAGS["config"].parser = RecipeParser(argv[1:])
        return read_flags(name, argv)
    except (RecipeError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise SystemExit(f"error: {' '.join(str(error).split())}") from error


def with_config_of_run(argv: Sequence[str]) -> list[str]:
    """["evaluate", "--run=DIR"] -> ["evaluate", "--config=DIR/config.json", "--run=DIR"]: the
    config of a run, unless the command line names another.
    """
    program, *arguments = argv
    run = last_value(("run", "workdir"), arguments)
    if not run or last_value(("config",), arguments) is not None:
        return [program, *arguments]
    folder = run.rstrip("/") if in_bucket(run) else local_path("--run", run)
    return [program, f"--config={folder}/{RUN_CONFIG}", *arguments]


def add_own_numbers(config: ml_collections.ConfigDict, overrides: Sequence[str]) -> None:
    """Puts the numbers that a user's method or wrapper declares into config.loss, with their
    defaults, unless the recipe has set them: only what a config has can be set on the command line.

    Args:
      overrides: the command line, which may name another method than the recipe.
    """
    values = config.get("loss", ml_collections.ConfigDict())
    surrogate = last_value(("config.loss.surrogate",), overrides) or values.get("surrogate", "")
    written = last_value(("config.loss.wrappers",), overrides)
    try:
        wrappers = values.get("wrappers", ()) if written is None else TupleParser().parse(written)
        if not any(":" in name for name in (surrogate, *wrappers)):
            return
        numbers = wrapped(method_named(surrogate), wrappers).numbers
    except (TypeError, ValueError):
        return  # reading the settings says what is wrong
    with config.unlocked():
        for name, number in numbers.items():
            value = config.loss.get(name, float(number.default))
            config.loss[name] = float(value) if type(value) is int else value


def last_value(names: Sequence[str], arguments: Sequence[str]) -> str | None:
    """Returns the last value of `--NAME=VALUE` or `--NAME VALUE`, for the flag of one of these
    names; None: there is none.
    """
    value = None
    for argument, following in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        option, equals, text = argument.partition("=")
        if option.lstrip("-") in names and option.startswith("-"):
            value = text if equals else following
    return value


def check_override(argument: str, own: Sequence[str] = ()) -> None:
    """Ends the process if NAME in `--config.NAME=...` is not a setting, suggesting the nearest.

    Args:
      own: names of settings that are not in RunSettings: the numbers of a user's method.
    """
    found = re.match(r"--?(?:no)?config\.([^=]+)", argument)
    names = [*setting_names(RunSettings), *own]
    if found is None or found[1] in names:
        return
    if members := [name for name in names if name.startswith(f"{found[1]}.")]:
        raise SystemExit(
            f"error: --config.{found[1]} is a section, whose settings are set one by one: "
            f"--config.{members[0]}=..."
        )
    near = difflib.get_close_matches(found[1], names, n=1)
    hint = f"did you mean --config.{near[0]}?" if near else "configs/base.py has them all"
    raise SystemExit(f"error: --config.{found[1]} is not a setting: {hint}")
