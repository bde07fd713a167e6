"""Command line -> flags that every command on a run takes; bad input -> one line that says what to
change.
"""

from __future__ import annotations

import contextlib
import difflib
import re
import traceback
from collections.abc import Callable, Iterator, Sequence

from absl import app, flags
from ml_collections import config_flags

from cegppo_jax.read_settings import setting_names
from cegppo_jax.run.settings import RunSettings


def run(main: Callable[[Sequence[str]], None], *, workdir_required: bool = True) -> None:
    """Defines --config and --workdir, reads them, runs `main`. Call it under
    `if __name__ == "__main__"` alone, a flag can exist only once.
    """
    config_flags.DEFINE_config_file(
        "config",
        None,
        "recipe, configs/NAME.py[:variant]; override with --config.loss.beta_low=0.75",
    )
    flags.DEFINE_string("workdir", None, "directory of the run; an interrupted run is resumed")
    flags.mark_flags_as_required(["config", "workdir"] if workdir_required else ["config"])
    app.run(main, flags_parser=parse_flags)


def parse_flags(argv: list[str]) -> list[str]:
    """Command line -> its arguments that are no flags. Bad flags and recipes end the process."""
    for argument in argv[1:]:
        check_override(argument)
    try:
        remaining = flags.FLAGS(argv)
        _ = flags.FLAGS.config.is_locked  # a recipe that could not be opened says so when used
    except (flags.Error, AttributeError, LookupError, OSError) as error:
        message = recipe_error(error)
        if message is None and isinstance(error, AttributeError | LookupError):
            raise  # a mistake elsewhere in a recipe's file: the traceback finds it
        raise SystemExit(f"error: {message or first_and_last_line(error)}") from error
    if remaining[1:]:
        raise SystemExit(f"error: {remaining[1:]} are no flags: write --config.NAME=VALUE")
    return remaining


def check_override(argument: str) -> None:
    """Ends the process for `--config.NAME=...` of a name that is no setting, suggesting the
    nearest.
    """
    found = re.match(r"--?(?:no)?config\.([^=]+)", argument)
    names = setting_names(RunSettings)
    if found and not any(f"{name}.".startswith(f"{found[1]}.") for name in names):
        near = difflib.get_close_matches(found[1], names, n=1)
        hint = f"did you mean --config.{near[0]}?" if near else "configs/base.py has them all"
        raise SystemExit(f"error: --config.{found[1]} is not a setting: {hint}")


def recipe_error(error: BaseException | None) -> str | None:
    """Error while flags were read -> "recipe.py, line 7: KeyError: ..." when a statement of a
    recipe's get_config() began it.
    """
    found = None
    while error is not None:  # from the last of a chain of errors to the first
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.name == "get_config"]
        if frames:
            cause = error  # ml_collections wraps a KeyError into an AttributeError
            while cause.args and isinstance(cause.args[0], Exception):
                cause = cause.args[0]
            text = " ".join(str(cause.args[0] if cause.args else cause).split())
            place = f"{frames[-1].filename}, line {frames[-1].lineno}"
            found = f"{place}: {type(cause).__name__}: {text}"
        error = error.__context__
    return found


def first_and_last_line(error: Exception) -> str:
    """-> the message without the traceback that ml_collections puts into some."""
    lines = str(error).splitlines()
    return lines[0] if len(lines) == 1 else f"{lines[0].strip()} {lines[-1].strip()}"


@contextlib.contextmanager
def ends_on_bad_input() -> Iterator[None]:
    """Around the checks of a run: their error is the last line printed, without a traceback."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
