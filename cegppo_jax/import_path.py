"""Finds what a setting names: a choice of the package, or a user's "package.module:attribute"."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import TypeVar

from cegppo_jax.read_settings import NO_OTHER_NAMES, check_choice

Named = TypeVar("Named")
Result = TypeVar("Result")


def named(
    place: str,
    name: str,
    choices: Mapping[str, Named],
    other_names: Mapping[str, str] = NO_OTHER_NAMES,
) -> Named:
    """Returns the choice of a name, or imports one of the user's, "package.module:attribute".

    Args:
      place: the setting that names it, for messages.
      other_names: see check_choice.

    Raises:
      ValueError: there is no choice of that name, or nothing to import.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon:
        check_choice(place, name, choices, other_names)
        return choices[name]
    hint = "anything not built in is named 'package.module:attribute'"
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a user's module raises
        raise ValueError(
            f"{place} = {name!r}: module {module_name!r} cannot be imported ({error}): {hint}"
        ) from error
    if not hasattr(module, attribute):
        raise ValueError(f"{place} = {name!r}: module {module_name!r} has no {attribute!r}: {hint}")
    found: Named = getattr(module, attribute)
    return found


def named_function(
    place: str,
    name: str,
    choices: Mapping[str, Named],
    arguments: str,
    other_names: Mapping[str, str] = NO_OTHER_NAMES,
) -> Named:
    """Does what `named` does, and checks that a user's function can be called with `arguments`.

    Args:
      arguments: what it is given, in order, separated by ", ": "rewards, settings".

    Raises:
      ValueError: as `named`, or the function takes something else.
    """
    found = named(place, name, choices, other_names)
    if ":" in name:
        check_takes(place, name, found, arguments)
    return found


def check_takes(place: str, name: str, function: object, arguments: str) -> None:
    """Raises ValueError when `function` cannot be called with the arguments (separated by ", ")."""
    if not callable(function):
        kind = type(function).__name__
        raise ValueError(f"{place} = {name!r} is of type {kind} and cannot be called")
    try:
        signature = inspect.signature(function)
    except ValueError:  # of some that are written in C nothing is known
        return
    try:
        signature.bind(*arguments.split(", "))
    except TypeError as error:
        raise ValueError(
            f"{place} = {name!r} takes {signature} and is called with ({arguments})"
        ) from error


def tried(place: str, name: str, call: Callable[[], Result]) -> Result:
    """Calls what a setting names, once, before anything is built on it.

    Raises:
      ValueError: it raised an error.
    """
    try:
        return call()
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(
            f"{place} = {name!r} was tried and raised {type(error).__name__}: {error}"
        ) from error
