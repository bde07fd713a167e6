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

from cegppo_jax.records import check_at_least, check_choice, read_record

SHAPES = {  # share of the way from one knot to the next, [0, 1] -> weight of the next
    "constant": lambda share: 0.0,
    "piecewise": lambda share: float(share >= 1),
    "linear": lambda share: share,
    "cosine": lambda share: 0.5 * (1 - math.cos(math.pi * share)),
}


class Betas(NamedTuple):
    """Gradient kept left (NA&LP) and right (PA&LP) of the clip interval: beta_low, beta_high."""

    low: float
    high: float

    def apart(self, by: float, smallest: Betas, largest: Betas) -> Betas:
        """-> low moved down and high up, either of which lifts entropy; clipped to the bounds."""
        return Betas(*map(min, largest, map(max, smallest, (self.low - by, self.high + by))))


@dataclasses.dataclass(frozen=True)
class BetaScheduleSettings:
    """Knots that the base betas pass through, after the run's own betas at step 0."""

    kind: str  # a name in SHAPES: how they pass from knot to knot; "constant" has no knots
    steps: tuple[int, ...]  # of the knots, 0-based; the paper's Fig. 6: (585,), from base (0, 1)
    beta_low: tuple[float, ...]  # from that step on; Fig. 6: (0.5,)
    beta_high: tuple[float, ...]  # Fig. 6: (1.0,)

    def __post_init__(self) -> None:
        check_choice("steering.beta_schedule.kind", self.kind, SHAPES)
        equal = len(self.steps) == len(self.beta_low) == len(self.beta_high)
        _check("beta_schedule", self, "steps beta_low beta_high", equal, "one of each a knot")
        fits = (self.kind == "constant") != bool(self.steps)
        _check("beta_schedule", self, "kind steps", fits, "every kind but 'constant' has knots")
        rises = list(self.steps) == sorted({step for step in self.steps if step > 0})
        _check("beta_schedule", self, "steps", rises, "they rise strictly, from 1 or later")


@dataclasses.dataclass(frozen=True)
class ControllerSettings:
    """The band that entropy is held in, by PI control of both betas within bounds."""

    enabled: bool
    entropy_low: float
    entropy_high: float
    proportional_gain: float  # beta per unit of ln(centre / entropy)
    integral_gain: float  # the same, a step
    smoothing: float  # share of the past in the running mean of entropy; 0: none
    hysteresis: float  # acts until back in this inner share of the band; 1: the whole band
    beta_low_min: float
    beta_low_max: float
    beta_high_min: float
    beta_high_max: float

    def __post_init__(self) -> None:
        band = 0 < self.entropy_low <= self.entropy_high < math.inf
        _check("controller", self, "entropy_low entropy_high", band, "0 < low <= high < inf")
        check_at_least(0, "steering.controller", self, "proportional_gain", "integral_gain")
        _check("controller", self, "smoothing", 0 <= self.smoothing < 1, "it lies in [0, 1)")
        _check("controller", self, "hysteresis", 0 <= self.hysteresis <= 1, "it lies in [0, 1]")
        for low, high in (("beta_low_min", "beta_low_max"), ("beta_high_min", "beta_high_max")):
            ordered = getattr(self, low) <= getattr(self, high)
            _check("controller", self, f"{low} {high}", ordered, "min <= max")

    @property
    def bounds(self) -> tuple[Betas, Betas]:
        """-> smallest and largest betas; disabled: any that are not negative."""
        if not self.enabled:
            return Betas(0.0, 0.0), Betas(math.inf, math.inf)
        smallest = Betas(self.beta_low_min, self.beta_high_min)
        return smallest, Betas(self.beta_low_max, self.beta_high_max)


@dataclasses.dataclass(frozen=True)
class GuardSettings:
    """Limits of entropy, and what happens beyond them."""

    floor: float  # 0: off
    ceiling: float  # inf: off
    patience_steps: int  # in a row beyond a limit, before anything happens
    rollback: bool  # return to the last good checkpoint; False: alarm only
    beta_step: float  # shift of each base beta a rollback
    max_rollbacks: int  # after these: alarm only

    def __post_init__(self) -> None:
        check_at_least(0, "steering.guard", self, "floor", "beta_step", "max_rollbacks")
        check_at_least(1, "steering.guard", self, "patience_steps")
        _check("guard", self, "floor ceiling", self.floor < self.ceiling, "floor < ceiling")

    def holds(self, entropy: float) -> bool:
        """Whether an entropy lies within the limits; rounding may have left it just below 0."""
        return self.floor <= max(entropy, 0.0) <= self.ceiling


@dataclasses.dataclass(frozen=True)
class EntropyBonusSettings:
    """Weight of entropy in the objective: fixed, or following a target."""

    coef: float  # at the start
    target: float  # 0: coef is fixed
    step: float  # change of the coefficient a rollout step
    coef_min: float
    coef_max: float

    def __post_init__(self) -> None:
        check_at_least(0, "steering.entropy_bonus", self, "coef", "target", "step", "coef_min")
        fits = self.target == 0 or self.coef_min <= self.coef <= self.coef_max
        _check("entropy_bonus", self, "coef_min coef coef_max", fits, "min <= coef <= max")


@dataclasses.dataclass(frozen=True)
class SteeringSettings:
    """All that moves the betas and the entropy coefficient during a run."""

    beta_schedule: BetaScheduleSettings
    controller: ControllerSettings
    guard: GuardSettings
    entropy_bonus: EntropyBonusSettings

    def __post_init__(self) -> None:
        for knot in map(Betas, self.beta_schedule.beta_low, self.beta_schedule.beta_high):
            check_base(self.controller, knot)


def check_base(settings: ControllerSettings, base: Betas) -> None:
    """Raises ValueError when base betas, a run's own or a knot's, lie outside the bounds."""
    rule = f"bounds {settings.bounds} leave out base {base}: move either"
    _check("controller", settings, "enabled", base.apart(0.0, *settings.bounds) == base, rule)


def _check(section: str, record: Any, names: str, holds: bool, rule: str) -> None:
    if not holds:
        values = ", ".join(f"{name} = {getattr(record, name)!r}" for name in names.split())
        raise ValueError(f"steering.{section}.{values}: {rule}")


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


START = SteeringState(ControllerState(None, 0.0, False), GuardState(0, 0, 0.0, None), None)
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

    A rollback, if on, with a good step behind and one left; else an alarm. The caller then restores
    parameters and optimizer state of `last_good_step`; step counter and prompt stream go on, so
    that no prompt is drawn twice. Base betas shift apart after too low an entropy, else together.
    """
    if not math.isfinite(entropy):
        return state, GuardAction.NONE
    outside_steps = 0 if settings.holds(entropy) else state.outside_steps + 1
    state = dataclasses.replace(state, outside_steps=outside_steps)
    if not outside_steps or outside_steps % settings.patience_steps:
        return state, GuardAction.NONE
    low = entropy < settings.floor
    good = state.last_good_step is not None and state.last_good_step < step
    if not (settings.rollback and good and state.rollbacks < settings.max_rollbacks):
        return state, GuardAction.ALARM_LOW if low else GuardAction.ALARM_HIGH
    shift = state.beta_shift + (settings.beta_step if low else -settings.beta_step)
    state = GuardState(0, state.rollbacks + 1, shift, state.last_good_step)
    return state, GuardAction.ROLLBACK_LOW if low else GuardAction.ROLLBACK_HIGH


def mark_good(state: GuardState, step: int) -> GuardState:
    """-> state whose rollbacks return to the checkpoint made after `step` rollout steps."""
    return dataclasses.replace(state, last_good_step=step)


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
