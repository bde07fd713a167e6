"""A guard that raises an alarm, or rolls back, when entropy stays outside its limits."""

from __future__ import annotations

import dataclasses
import enum
import math

from cegppo_jax.read_settings import UNLIMITED, check_at_least, check_fields


@dataclasses.dataclass(frozen=True)
class GuardSettings:
    """Limits of entropy, and what happens outside them."""

    floor: float  # nats; 0: off
    ceiling: float = dataclasses.field(metadata=UNLIMITED)  # nats; inf: off
    patience_steps: int  # consecutive steps outside a limit before anything happens
    rollback: bool  # return to the last good checkpoint; False: alarm only
    beta_step: float  # shift of each base beta at a rollback
    max_rollbacks: int  # after these: alarm only

    def __post_init__(self) -> None:
        place = "steering.guard"
        check_at_least(0, place, self, "floor", "beta_step", "max_rollbacks")
        check_at_least(1, place, self, "patience_steps")
        check_fields(place, self, "floor ceiling", self.floor < self.ceiling, "floor < ceiling")

    @property
    def enabled(self) -> bool:
        """Whether there is a limit."""
        return self.floor > 0 or self.ceiling < math.inf

    def holds(self, entropy: float) -> bool:
        """Whether entropy is within the limits. Rounding may have left it just below 0."""
        return self.floor <= max(entropy, 0.0) <= self.ceiling


class GuardAction(enum.StrEnum):
    """What the caller does before a step's updates."""

    NONE = "none"
    ALARM_LOW = "alarm_low"
    ALARM_HIGH = "alarm_high"
    ROLLBACK_LOW = "rollback_low"
    ROLLBACK_HIGH = "rollback_high"


ROLLBACKS = (GuardAction.ROLLBACK_LOW, GuardAction.ROLLBACK_HIGH)


@dataclasses.dataclass(frozen=True)
class GuardState:
    """What the guard remembers."""

    outside_steps: int  # in a row
    rollbacks: int
    beta_shift: float  # of the base betas, apart
    candidate_step: int | None  # of the last checkpoint, until its policy has been measured
    last_good_step: int | None  # whose checkpoint a rollback returns to


def guard(
    settings: GuardSettings, state: GuardState, entropy: float, step: int
) -> tuple[GuardState, GuardAction]:
    """Decides on an action after every `patience_steps` consecutive steps outside a limit.

    `entropy` is that of the policy after `step` steps. The measurement decides about the last
    checkpoint: within the limits it becomes the good one, outside them it never will.

    The action is a rollback when rollbacks are on, a good checkpoint exists and not all of them are
    used up; else an alarm. The caller then restores parameters and optimizer state of
    `last_good_step`; step counter and prompt stream go on, so no prompt is drawn twice. The base
    betas shift apart when entropy was too low, and together when it was too high.
    """
    if not math.isfinite(entropy):
        return state, GuardAction.NONE
    state = measured(settings, state, entropy)
    if not state.outside_steps or state.outside_steps % settings.patience_steps:
        return state, GuardAction.NONE
    too_low = entropy < settings.floor
    if not can_roll_back(settings, state, step):
        return state, GuardAction.ALARM_LOW if too_low else GuardAction.ALARM_HIGH
    state = dataclasses.replace(
        state,
        outside_steps=0,
        rollbacks=state.rollbacks + 1,
        beta_shift=state.beta_shift + (settings.beta_step if too_low else -settings.beta_step),
    )
    return state, GuardAction.ROLLBACK_LOW if too_low else GuardAction.ROLLBACK_HIGH


def measured(settings: GuardSettings, state: GuardState, entropy: float) -> GuardState:
    """Returns the state after a finite measurement: steps outside counted, and the candidate
    decided.
    """
    if not settings.holds(entropy):
        return dataclasses.replace(
            state, outside_steps=state.outside_steps + 1, candidate_step=None
        )
    good = state.last_good_step if state.candidate_step is None else state.candidate_step
    return dataclasses.replace(state, outside_steps=0, candidate_step=None, last_good_step=good)


def can_roll_back(settings: GuardSettings, state: GuardState, step: int) -> bool:
    """Whether rollbacks are on, one is left, and there is an earlier checkpoint to return to."""
    earlier = state.last_good_step is not None and state.last_good_step < step
    return settings.rollback and earlier and state.rollbacks < settings.max_rollbacks


def mark_candidate(state: GuardState, step: int) -> GuardState:
    """Notes the checkpoint made after `step` rollout steps. Rollbacks return to it once the next
    measurement has found its policy's entropy within the limits.
    """
    return dataclasses.replace(state, candidate_step=step)
