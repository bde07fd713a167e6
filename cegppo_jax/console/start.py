"""How a command starts: its flags are read, and bad input ends it with one line."""

from __future__ import annotations

import contextlib
import difflib
import sys
from collections.abc import Callable, Iterator, Sequence

from absl import app, flags

from cegppo_jax.console.help import command_help, help_asked, print_page
from cegppo_jax.console.table import COMMANDS

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: a signal stopped it, and the same command goes on
Main = Callable[[Sequence[str]], None]
FlagsReader = Callable[[str, Sequence[str]], list[str]]


def read_flags(name: str, argv: Sequence[str]) -> list[str]:
    """Reads the flags of a command and returns the program and the arguments that are not flags.

    Args:
      argv: the program and its arguments.

    Raises:
      SystemExit: an unknown flag, a value that it cannot have, too many arguments, or one that the
        command cannot do without is missing; with the line to print.
    """
    command = COMMANDS[name]
    try:
        remaining = flags.FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        raise SystemExit(f"error: {_unknown(name, error.flagname)}") from error
    except flags.Error as error:
        raise SystemExit(f"error: {' '.join(str(error).split())}") from error
    takes_many = command.takes[-1:] and command.takes[-1].endswith("...")
    if not takes_many and (extra := remaining[1 + len(command.takes) :]):
        raise SystemExit(f"error: {extra} are not flags: write --NAME=VALUE (cegppo {name} --help)")
    missing = [f"--{one}" for one in command.required if flags.FLAGS[one].value is None]
    if missing:
        raise SystemExit(
            f"error: give {' and '.join(missing)}, as in: cegppo {name} {command.example}"
        )
    return remaining


def _unknown(name: str, flag: str) -> str:
    """Says that a command has no flag of that name, with the nearest that it has."""
    if flag.startswith("config.") and "config" in flags.FLAGS:  # a setting is one of a config
        return f"--{flag} changes a setting of a recipe: give one before it, --config=RECIPE"
    values = flags.FlagValues()
    define = COMMANDS[name].define_flags
    assert define is not None
    define(values)
    near = difflib.get_close_matches(flag, list(values), n=1)
    hint = f"did you mean --{near[0]}?" if near else f"cegppo {name} --help lists them"
    return f"--{flag} is no flag of cegppo {name}: {hint}"


def start_command(name: str, main: Main, read: FlagsReader = read_flags) -> None:
    """Runs a command of the table: prints its help if that is asked for, or reads its flags and
    calls `main` with the program and the arguments that are not flags. Call it only under `if
    __name__ == "__main__"`, since a flag can be defined only once.

    Args:
      read: reads the flags, as read_flags does.
    """
    asked = help_asked(sys.argv[1:])
    if asked is not None:
        print_page(command_help(name, asked))
        return
    define = COMMANDS[name].define_flags
    assert define is not None
    define(flags.FLAGS)
    app.run(main, flags_parser=lambda argv: read(name, argv))


@contextlib.contextmanager
def ends_on_bad_input() -> Iterator[None]:
    """Around the checks of a command: prints their error as the last line, without a traceback."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt:
        raise stopped("stopped") from None


def stopped(words: str) -> SystemExit:
    """Prints why a command was stopped, as its last line. Returns what ends it with EXIT_CODE."""
    print(words, file=sys.stderr, flush=True)
    return SystemExit(EXIT_CODE)
