"""What verifies completions, and what each finding is worth: the section config.reward."""

from __future__ import annotations

import dataclasses
import math

from cegppo_jax.records import check_choice
from cegppo_jax.rewards.extraction import SCOPES
from cegppo_jax.rewards.scoring import Bonus, RewardValues, Scoring
from cegppo_jax.rewards.verifiers import SCOPES_READ, resolve_verifier


@dataclasses.dataclass(frozen=True)
class RewardSettings:
    """Who verifies what part of a completion, and what each outcome is worth."""

    verifier: str  # a name in VERIFIERS, or "package.module:function"
    by_source: tuple[str, ...]  # "source=verifier"
    scope: str  # a name in SCOPES
    bonuses: tuple[str, ...]  # "verifier=weight"
    outcomes: RewardValues
    overlong_policy: str  # a name in OVERLONG
    overlong_buffer_tokens: int
    overlong_penalty: float

    def __post_init__(self) -> None:
        check_choice("reward.scope", self.scope, SCOPES)
        scoring = self.scoring
        _check_verifier("reward.verifier", self.verifier, self.scope)
        for _, verifier in scoring.by_source:
            _check_verifier("reward.by_source", verifier, self.scope)
        for bonus in scoring.bonuses:
            resolve_verifier(bonus.verifier, "reward.bonuses")
        _check_once("reward.by_source", self.by_source, [name for name, _ in scoring.by_source])
        _check_once("reward.bonuses", self.bonuses, [bonus.verifier for bonus in scoring.bonuses])
        if self.outcomes.correct <= self.outcomes.highest_of_others + self.highest_bonus:
            raise ValueError(
                f"reward.bonuses = {self.bonuses} add up to {self.highest_bonus:g}, so that an "
                f"answer that is not correct could earn {self.outcomes.highest_of_others:g} + "
                f"{self.highest_bonus:g}, and a correct one without them only "
                f"{self.outcomes.correct:g}: lower the weights, or raise reward.outcomes.correct"
            )

    @property
    def highest_bonus(self) -> float:
        """What all bonuses together add."""
        return sum(bonus.weight for bonus in self.scoring.bonuses)

    @property
    def scoring(self) -> Scoring:
        """All that scores completions."""
        by_source = tuple(_pair("reward.by_source", one) for one in self.by_source)
        bonuses = tuple(_bonus(one) for one in self.bonuses)
        return Scoring(self.verifier, by_source, self.scope, bonuses, self.outcomes)


def _pair(place: str, text: str) -> tuple[str, str]:
    """ "gsm8k/train=math" -> ("gsm8k/train", "math")"""
    name, equals, value = text.rpartition("=")
    if not (equals and name.strip() and value.strip()):
        raise ValueError(f"{place}: {text!r} is not of the form 'name=value'")
    return name.strip(), value.strip()


def _bonus(text: str) -> Bonus:
    name, value = _pair("reward.bonuses", text)
    try:
        weight = float(value)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise ValueError(
            f"reward.bonuses: the weight of {text!r} is no finite number above 0: 'format=0.1'"
        )
    return Bonus(name, weight)


def _check_verifier(place: str, name: str, scope: str) -> None:
    """Raises ValueError when there is no such verifier, or it could never read the scope."""
    resolve_verifier(name, place)
    scopes = SCOPES_READ.get(name, SCOPES)
    if scope not in scopes:
        raise ValueError(
            f"{place} = {name!r} finds no answer in reward.scope = {scope!r}: it reads "
            f"{' and '.join(scopes)}"
        )


def _check_once(place: str, written: tuple[str, ...], names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{place} = {written} names {twice} more than once")
