"""The program `cegppo`: finds the command in the table and runs its module."""

from __future__ import annotations

import difflib
import os
import runpy
import sys

from cegppo_jax import __version__
from cegppo_jax.console.help import HELP, command_help, help_asked, overview, print_page
from cegppo_jax.console.table import COMMANDS


def main() -> None:
    """Runs `cegppo COMMAND ...` as `python -m cegppo_jax.COMMAND ...`, or prints help.

    Raises:
      SystemExit: there is no such command, with the line to print; what the command ends with.
    """
    name, *arguments = sys.argv[1:] or ["--help"]
    if name == "help":  # `cegppo help train` is `cegppo train --help`
        name, *arguments = [*arguments[:1], "--help"]
    if name in HELP:
        print_page(overview())
        return
    if name in ("--version", "-V"):
        print(f"cegppo_jax {__version__}")
        return
    if name not in COMMANDS:
        raise SystemExit(f"error: {_no_command(name)}")
    asked = help_asked(arguments)
    if asked is not None and COMMANDS[name].define_flags:  # its module need not be imported
        print_page(command_help(name, asked))
        return
    sys.argv[1:] = arguments
    if not sys.flags.safe_path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as `python -m` does: modules of the user's own
    runpy.run_module(f"cegppo_jax.{name}", run_name="__main__", alter_sys=True)


def _no_command(name: str) -> str:
    if name.startswith("-"):
        return f"{name} where a command is expected: cegppo COMMAND [--FLAG=VALUE ...]"
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean cegppo {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
    return f"there is no command {name!r}: {hint}"
