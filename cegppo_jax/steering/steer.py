"""Step and measured entropy -> the betas and the entropy coefficient of that step's updates.

A larger beta_low makes entropy (nats) fall faster, a larger beta_high slower (arXiv 2509.20712,
sec. 5.1). A schedule moves both by the step; a guard tells, or goes back, when entropy stays beyond
a limit; a controller holds it in a band; an entropy bonus is the older way. `steer` is all four.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from typing import Any, NamedTuple

from cegppo_jax.read_settings import read_record
from cegppo_jax.steering.settings import (
    SHAPES,
    Betas,
    BetaScheduleSettings,
    ControllerSettings,
    EntropyBonusSettings,
    GuardSettings,
    SteeringSettings,
)


@dataclasses.dataclass(frozen=True)
class ControllerState:
    """What the controller remembers."""

    smoothed_entropy: float | None  # None before the first measurement
    integral: float  # sum of ln(centre / entropy) over acting steps
    acting: bool


@dataclasses.dataclass(frozen=True)
class GuardState:
    """What the guard remembers."""

    outside_steps: int  # in a row
    rollbacks: int
    beta_shift: float  # of the base betas, apart
    candidate_step: int | None  # of the last checkpoint, while its policy is not measured yet
    last_good_step: int | None  # whose checkpoint a rollback returns to


@dataclasses.dataclass(frozen=True)
class SteeringState:
    """What steering remembers, all of it: a resumed run steers as an uninterrupted one."""

    controller: ControllerState
    guard: GuardState
    entropy_alpha: float | None  # None before the first measurement
    to_json = dataclasses.asdict  # -> nested dict of plain finite numbers

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> SteeringState:
        """What `to_json` gave -> the same state. Raises ValueError for other keys."""
        return read_record(cls, values, "checkpoint: steering")


# What the caller does before a step's updates; the values are the names in lower case.
GuardAction = enum.StrEnum("GuardAction", "NONE ALARM_LOW ALARM_HIGH ROLLBACK_LOW ROLLBACK_HIGH")


class Steering(NamedTuple):
    """What one step's updates run with."""

    betas: Betas
    entropy_coef: float
    action: GuardAction


START = SteeringState(ControllerState(None, 0.0, False), GuardState(0, 0, 0.0, None, None), None)
ROLLBACKS = (GuardAction.ROLLBACK_LOW, GuardAction.ROLLBACK_HIGH)


def scheduled_betas(settings: BetaScheduleSettings, base: Betas, step: int) -> Betas:
    """Step -> base betas: a + weight (b - a) between knots a and b; the last knot holds."""
    knots = [base, *map(Betas, settings.beta_low, settings.beta_high)]
    passed = sum(knot <= step for knot in settings.steps)
    begin, end = (0, *settings.steps, math.inf)[passed : passed + 2]
    start, goal = (*knots, knots[-1])[passed : passed + 2]
    weight = SHAPES[settings.kind]((step - begin) / (end - begin))
    return Betas(*(a + weight * (b - a) for a, b in zip(start, goal, strict=True)))


def control(
    settings: ControllerSettings, state: ControllerState, base: Betas, entropy: float
) -> tuple[ControllerState, Betas]:
    """Measured entropy -> betas that hold it in the band: PI control around the base betas.

        e = ln(centre / H),  u = Kp e + Ki sum(e),  betas = (low - u, high + u) within the bounds

    H is the running mean, 1e-6 at least. It acts from outside the band until well inside; then Kp e
    goes, and Ki sum(e), which balances, stays. An error that both bounds answer in full already is
    not summed (anti-windup), and one that is not finite changes nothing. Kin: arXiv 2511.15248.
    """
    if not settings.enabled:
        return state, base
    smoothed, integral, bounds = state.smoothed_entropy, state.integral, settings.bounds
    if math.isfinite(entropy):
        past = entropy if smoothed is None else smoothed
        smoothed = entropy + settings.smoothing * (past - entropy)
    low, high = math.log(settings.entropy_low), math.log(settings.entropy_high)
    error = 0.0 if smoothed is None else (low + high) / 2 - math.log(max(smoothed, 1e-6))
    acting = abs(error) > (high - low) / 2 * (settings.hysteresis if state.acting else 1)
    proportional = settings.proportional_gain * error if acting else 0.0
    betas = base.apart(proportional + settings.integral_gain * integral, *bounds)
    if acting and math.isfinite(entropy) and betas != base.apart(error * math.inf, *bounds):
        integral += error
        betas = base.apart(proportional + settings.integral_gain * integral, *bounds)
    return ControllerState(smoothed, integral, acting), betas


def guard(
    settings: GuardSettings, state: GuardState, entropy: float, step: int
) -> tuple[GuardState, GuardAction]:
    """Measured entropy -> an action after every `patience_steps` in a row beyond a limit.

    The entropy is of the policy after `step` steps. A candidate waits for it: within the limits it
    becomes the last good step, beyond them it is none.

    A rollback, if on, with a good step behind and one left; else an alarm. The caller then restores
    parameters and optimizer state of `last_good_step`; step counter and prompt stream go on, so
    that no prompt is drawn twice. Base betas shift apart after too low an entropy, else together.
    """
    if not math.isfinite(entropy):
        return state, GuardAction.NONE
    holds = settings.holds(entropy)
    if holds and state.candidate_step is not None:
        state = dataclasses.replace(state, last_good_step=state.candidate_step)
    outside_steps = 0 if holds else state.outside_steps + 1
    state = dataclasses.replace(state, candidate_step=None, outside_steps=outside_steps)
    if not outside_steps or outside_steps % settings.patience_steps:
        return state, GuardAction.NONE
    low = entropy < settings.floor
    good = state.last_good_step is not None and state.last_good_step < step
    if not (settings.rollback and good and state.rollbacks < settings.max_rollbacks):
        return state, GuardAction.ALARM_LOW if low else GuardAction.ALARM_HIGH
    shift = state.beta_shift + (settings.beta_step if low else -settings.beta_step)
    state = GuardState(0, state.rollbacks + 1, shift, None, state.last_good_step)
    return state, GuardAction.ROLLBACK_LOW if low else GuardAction.ROLLBACK_HIGH


def mark_candidate(state: GuardState, step: int) -> GuardState:
    """-> state whose rollbacks return to the checkpoint made after `step` rollout steps, once the
    next measurement has found its policy's entropy within the limits.
    """
    return dataclasses.replace(state, candidate_step=step)


def adapt_entropy_coef(
    settings: EntropyBonusSettings, alpha: float | None, entropy: float
) -> tuple[float | None, float]:
    """Measured entropy -> alpha, up by `step` below the target and else down (arXiv 2505.22312),
    and the coefficient to use: alpha up to the target, 0 above it or without a finite measurement.
    """
    if settings.target == 0:
        return alpha, settings.coef
    if not math.isfinite(entropy):
        return alpha, 0.0
    change = settings.step if entropy < settings.target else -settings.step
    moved = (settings.coef if alpha is None else alpha) + change
    alpha = min(max(moved, settings.coef_min), settings.coef_max)
    return alpha, alpha if entropy <= settings.target else 0.0


def steer(
    settings: SteeringSettings, state: SteeringState, base: Betas, step: int, entropy: float | None
) -> tuple[SteeringState, Steering]:
    """Entropy of a step's rollout under the policy that drew it (None: not measured) -> what the
    step's updates run with. Once a step (0-based), before them; `base`: the run's own betas.
    """
    measured, controller = math.nan if entropy is None else float(entropy), state.controller
    guarded, action = guard(settings.guard, state.guard, measured, step)
    if action in ROLLBACKS:  # it measured the policy that is left behind
        measured, controller = math.nan, ControllerState(None, controller.integral, acting=False)
    base = scheduled_betas(settings.beta_schedule, base, step)
    base = base.apart(guarded.beta_shift, *settings.controller.bounds)
    controller, betas = control(settings.controller, controller, base, measured)
    alpha, coef = adapt_entropy_coef(settings.entropy_bonus, state.entropy_alpha, measured)
    return SteeringState(controller, guarded, alpha), Steering(betas, coef, action)
