"""The arms of a sweep, written as a small algebra of overrides.

    product(over("loss.beta_low", 0.0, 0.5), over("loss.beta_high", 0.5, 1.0), seeds(0, 1, 2))

    over("loss.beta_low", 0.0, 0.5)          an arm a value
    arm("grpo", {"loss.surrogate": "grpo"})  one arm, with a name of one's own
    seeds(0, 1, 2)                           the same arm, repeated: what a table takes means over
    product(a, b)                            every arm of a with every arm of b
    zipped(a, b)                             the first with the first, the second with the second
    chain(a, b)                              those of a, then those of b

An arm's name is made of what it changes, and of nothing else, so it stays the same when other arms
are added: `beta_low=0.5,beta_high=1.0`. It is the name of a folder.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

SEED_SETTING = "seed"  # the setting that repeats an arm
BASE = "base"  # the name of an arm that changes nothing
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=,-]*")
LONGEST_NAME = 120  # characters; file systems take 255


@dataclasses.dataclass(frozen=True)
class NamedOverrides:
    """What is changed in the base: dotted names of settings and their values."""

    name: str  # "": only the seed is changed, or nothing
    overrides: Mapping[str, Any]


Arms = tuple[NamedOverrides, ...]


@dataclasses.dataclass(frozen=True)
class ArmRun:
    """One arm with one seed: a run of its own."""

    arm: str
    seed: int
    overrides: Mapping[str, Any]  # without the seed

    def __str__(self) -> str:
        return f"{self.arm}/seed{self.seed}"

    def options(self) -> list[str]:
        """Returns the overrides and the seed as a command line has them."""
        values = {**self.overrides, SEED_SETTING: self.seed}
        return [f"--config.{name}={option_text(value)}" for name, value in values.items()]


def over(name: str, *values: Any) -> Arms:
    """Returns an arm for each value of a setting, named "beta_low=0.5".

    Raises:
      ValueError: there is no value, or a value gives no readable name.
    """
    if not values:
        raise ValueError(f"over({name!r}) has no values")
    return tuple(NamedOverrides(_part(name, value), {name: value}) for value in values)


def seeds(*values: int) -> Arms:
    """Returns the same arm once for each seed. Raises ValueError unless they are whole numbers."""
    for value in values:
        if type(value) is not int or value < 0:
            raise ValueError(f"seeds{values}: {value!r} is not a whole number from 0")
    return over(SEED_SETTING, *values)


def arm(name: str, overrides: Mapping[str, Any] | None = None) -> Arms:
    """Returns one arm with a name of one's own; without overrides it is the base itself.

    Raises:
      ValueError: the name cannot be that of a folder.
    """
    _check_name(name)
    return (NamedOverrides(name, dict(overrides or {})),)


def product(*groups: Arms) -> Arms:
    """Returns every combination of an arm of each group, the last group's changing fastest.

    Raises:
      ValueError: two groups set the same setting.
    """
    return tuple(_merged(arms) for arms in itertools.product(*groups))


def zipped(*groups: Arms) -> Arms:
    """Returns the combination of the groups' first arms, of their second arms, and so on.

    Raises:
      ValueError: the groups have different lengths, or set the same setting.
    """
    lengths = [len(group) for group in groups]
    if len(set(lengths)) > 1:
        raise ValueError(f"zipped() takes groups of one length, and these have {lengths} arms")
    return tuple(_merged(arms) for arms in zip(*groups, strict=True))


def chain(*groups: Arms) -> Arms:
    """Returns the arms of all groups, one group after another."""
    return tuple(itertools.chain.from_iterable(groups))


def runs_of(arms: Sequence[NamedOverrides]) -> tuple[ArmRun, ...]:
    """Returns the runs of a sweep, in order.

    Raises:
      ValueError: there are none, an arm has no seed, or two share a folder.
    """
    if not arms or not all(isinstance(one, NamedOverrides) for one in arms):
        raise ValueError("arms() returns no arms: return product(over(NAME, VALUE, ...), seeds(0))")
    found: dict[str, ArmRun] = {}
    for one in arms:
        if SEED_SETTING not in one.overrides:
            raise ValueError(
                f"arm {one.name or BASE!r} has no seed: product(..., seeds(0, 1, 2)) repeats every "
                "arm with each"
            )
        overrides = {name: value for name, value in one.overrides.items() if name != SEED_SETTING}
        run = ArmRun(one.name or BASE, one.overrides[SEED_SETTING], overrides)
        _check_name(run.arm)
        folder = str(run).casefold()  # some file systems do not tell a from A
        if folder in found:
            raise ValueError(_duplicate(found[folder], run))
        found[folder] = run
    return tuple(found.values())


def _duplicate(one: ArmRun, other: ArmRun) -> str:
    if one.overrides == other.overrides:
        return f"{other} is there twice, with the same overrides {dict(one.overrides)}"
    return (
        f"two runs would be called {other}, with {dict(one.overrides)} and "
        f"{dict(other.overrides)}: give them names, arm(NAME, {{...}})"
    )


def _merged(arms: Sequence[NamedOverrides]) -> NamedOverrides:
    overrides: dict[str, Any] = {}
    for one in arms:
        if twice := sorted(overrides.keys() & one.overrides.keys()):
            raise ValueError(f"{twice[0]} is set twice: {overrides[twice[0]]!r} and {one.name!r}")
        overrides |= one.overrides
    return NamedOverrides(",".join(one.name for one in arms if one.name), overrides)


def _part(name: str, value: Any) -> str:
    """("loss.beta_low", 0.5) -> "beta_low=0.5"; ("seed", 0) -> ""."""
    if name == SEED_SETTING:
        return ""
    members = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(member, bool | int | float | str) for member in members):
        raise ValueError(f"{name} = {value!r} gives no name: arm(NAME, {{{name!r}: ...}}) has one")
    text = re.sub(r"[^A-Za-z0-9._+-]", "_", "+".join(map(str, members)))
    return f"{name.rpartition('.')[2]}={text}"


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise ValueError(
            f"{name!r} cannot be the name of an arm's folder: up to {LONGEST_NAME} letters, digits "
            "and ._+=,- that begin with a letter or digit; arm(NAME, {...}) gives an arm a name"
        )


def option_text(value: Any) -> str:
    """Value of a setting -> its text on a command line: 0.5, True, "('dual_clip',)", "" for ()."""
    return "" if value == () else str(value)
