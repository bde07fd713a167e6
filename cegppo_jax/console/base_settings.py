"""The settings of configs/base.py with their defaults and comments, read from its text: help needs
no jax, and a comment there is the one place that says what a setting means.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import io
import tokenize
from collections.abc import Iterator, Mapping
from typing import Any

from cegppo_jax.console.recipe_files import RECIPES


@dataclasses.dataclass(frozen=True)
class BaseSetting:
    """A setting, or a section of settings."""

    name: str  # dotted
    value: Any  # default; None: it is a section
    meaning: str  # its comment; "" without one

    @property
    def is_section(self) -> bool:
        """Whether it has settings, and no value of its own."""
        return self.value is None

    @property
    def default(self) -> str:
        """The default as it can be typed: without quotes around text."""
        return self.value if isinstance(self.value, str) else repr(self.value)


@functools.cache
def base_settings() -> tuple[BaseSetting, ...]:
    """Returns all settings in the order of configs/base.py, each section before its settings,
    without the numbers of single methods, which losses/README.md has.
    """
    source = (RECIPES / "base.py").read_text(encoding="utf-8")
    functions = {
        node.name: node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)
    }
    return tuple(_Reader(functions, _Comments(source)).settings_of("get_config", "", {}))


class _Comments:
    """The comments of a source, by line."""

    def __init__(self, source: str) -> None:
        lines = source.splitlines()
        self._alone: dict[int, str] = {}
        self._behind: dict[int, str] = {}
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                line, column = token.start
                kind = self._behind if lines[line - 1][:column].strip() else self._alone
                kind[line] = token.string.lstrip("# ")

    def of(self, statement: ast.stmt) -> str:
        """Returns the comment in the lines right above a statement, and the one behind it."""
        above, line = [], statement.lineno - 1
        while line in self._alone:
            above.append(self._alone[line])
            line -= 1
        words = " ".join(reversed(above))
        behind = self._behind.get(statement.end_lineno or statement.lineno, "")
        return f"{words}. {behind}" if words and behind else words or behind


class _Reader:
    """Follows the assignments of get_config() and of the functions that it calls for sections."""

    def __init__(self, functions: Mapping[str, ast.FunctionDef], comments: _Comments) -> None:
        self._functions = functions
        self._comments = comments

    def settings_of(
        self, function: str, section: str, given: Mapping[str, Any]
    ) -> Iterator[BaseSetting]:
        """Yields the settings that a function assigns to `config`.

        Args:
          section: "loss." where its result is config.loss.
          given: its arguments.
        """
        for statement in self._functions[function].body:
            if not isinstance(statement, ast.Assign):
                continue
            name = ast.unparse(statement.targets[0]).removeprefix("config.")
            if name == "config":
                continue
            made = self._function_of(statement.value)
            comment = self._comments.of(statement)
            if made in self._functions or made == "ConfigDict":
                yield BaseSetting(section + name, None, comment)
            else:
                yield BaseSetting(section + name, _value(statement.value, given), comment)
            if made in self._functions:
                assert isinstance(statement.value, ast.Call)
                keywords = {str(one.arg): _value(one.value, {}) for one in statement.value.keywords}
                yield from self.settings_of(made, f"{section}{name}.", keywords)

    @staticmethod
    def _function_of(value: ast.expr) -> str:
        """Returns the name of the function that is called; "": it is no call."""
        return ast.unparse(value.func) if isinstance(value, ast.Call) else ""


def _value(value: ast.expr, given: Mapping[str, Any]) -> Any:
    """Returns the value of an expression: a literal, an argument, float("inf"), or a reference to
    one of them.
    """
    if isinstance(value, ast.Name):
        return given[value.id]
    if isinstance(value, ast.Call):
        inner = ast.literal_eval(value.args[0])
        return float(inner) if ast.unparse(value.func) == "float" else inner
    return ast.literal_eval(value)
