"""What --help prints: the console's overview, and the page of a command."""

from __future__ import annotations

import ast
import difflib
import os
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from absl import flags

from cegppo_jax.console.base_settings import BaseSetting, base_settings
from cegppo_jax.console.table import COMMANDS, Command

HELP = ("--help", "-help", "-h", "--helpshort", "-?")
PAGE_WIDTH = 100
CODE = Path(__file__).parents[1]

FLOW = """\
cegppo: reinforcement learning of reasoning LLMs in JAX, around CE-GPPO

    recipe ──► train ──► report
       │           ├───► evaluate ──► compare
       │           └───► export
       └─────► sweep ──► report

Commands, each with an example (`cegppo COMMAND --help`: its flags, the settings that matter):
"""


def overview() -> str:
    """Returns the page of `cegppo --help`."""
    lines = [FLOW]
    for name, command in COMMANDS.items():
        lines += [f"  {name:14} {command.does}", f"  {'':14}   cegppo {name} {command.example}"]
    lines += [
        "",
        "`python -m cegppo_jax.COMMAND` is the same as `cegppo COMMAND`; `cegppo --version`.",
    ]
    return "\n".join(line.rstrip() for line in lines)


def print_page(page: str) -> None:
    """Prints a page. A reader that leaves before its end, as in `cegppo --help | head`, is no
    error.
    """
    try:
        print(page, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit


def help_asked(arguments: Sequence[str]) -> str | None:
    """Returns what the arguments ask help for: "config" for --help=config, "" for --help alone;
    None: they do not.
    """
    for argument in arguments:
        if argument in HELP:
            return ""
        if argument.startswith("--help="):
            return argument.removeprefix("--help=")
    return None


def command_help(name: str, asked: str = "") -> str:
    """Returns the help of a command.

    Args:
      asked: "": the whole page. "config": all settings of configs/base.py; or a section or
        setting of them: "loss", "loss.beta_low".

    Raises:
      SystemExit: there is no such section or setting, or the command has no settings.
    """
    command = COMMANDS[name]
    if asked:
        return _settings_help(name, command, asked.removeprefix("config."))
    usage = " ".join([f"usage: cegppo {name} [--FLAG=VALUE ...]", *command.takes])
    lines = [usage, "", _docstring(name), "", "flags:", *_flag_lines(command)]
    if command.settings:
        chosen = {one.name: one for one in base_settings()}
        lines += [
            "",
            "settings that matter, as --config.NAME=VALUE, with the defaults of configs/base.py",
            f"(a recipe may change them; all settings: cegppo {name} --help=config, one section: "
            "--help=loss):",
            *_setting_lines(chosen[setting] for setting in command.settings),
        ]
    return "\n".join(lines)


def _docstring(name: str) -> str:
    """Returns the docstring of a command's module, which is not imported."""
    source = (CODE / f"{name}.py").read_text(encoding="utf-8")
    found = ast.get_docstring(ast.parse(source))
    assert found is not None
    return found


def _flag_lines(command: Command) -> list[str]:
    values = flags.FlagValues()
    assert command.define_flags is not None
    command.define_flags(values)
    lines = []
    for name in values:
        flag = values[name]
        written = f"--[no]{name}" if flag.boolean else f"--{name}=..."
        text = flag.help
        if name in command.required:
            text += " (required)"
        elif flag.default not in (None, "", False):
            text += f" (default: {flag.default})"
        lines += _hanging(written, text)
    return [*lines, *_hanging("--help", "this page; --helpfull: absl's own flags as well")]


def _setting_lines(settings: Iterable[BaseSetting]) -> list[str]:
    lines = []
    for one in settings:
        written = one.name if one.is_section else f"{one.name}={one.default}"
        lines += _hanging(written, one.meaning)
    return lines


def _hanging(name: str, text: str, indent: int = 34) -> list[str]:
    """Returns "  name   text" in lines of at most PAGE_WIDTH, the text in a column of its own."""
    wrapped = textwrap.wrap(text, PAGE_WIDTH - indent) or [""]
    if len(name) + 4 > indent:
        return [f"  {name}", *(" " * indent + line for line in wrapped if line)]
    first = f"  {name}".ljust(indent) + wrapped[0]
    return [first.rstrip(), *(" " * indent + line for line in wrapped[1:])]


def _settings_help(name: str, command: Command, asked: str) -> str:
    if not command.settings:
        raise SystemExit(f"error: cegppo {name} reads no config: its flags are in --help")
    settings = list(base_settings())
    if asked != "config":
        names = [one.name for one in settings]
        found = [one for one in settings if f"{one.name}.".startswith(f"{asked}.")]
        if not found:
            near = difflib.get_close_matches(asked, names, n=1)
            hint = f"did you mean --help={near[0]}?" if near else "--help=config lists them all"
            raise SystemExit(f"error: --help={asked} is no setting and no section: {hint}")
        settings = found
    lines = ["settings of configs/base.py, with their defaults; --config.NAME=VALUE sets one:", ""]
    lines += _setting_lines(settings)
    if asked in ("config", "loss"):
        lines += ["", "The numbers of single methods: cegppo_jax/losses/README.md"]
    return "\n".join(lines)
