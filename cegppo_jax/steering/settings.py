"""How entropy is steered, as a config says it: typed and checked. What it does: steering.py."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

from cegppo_jax.read_settings import UNLIMITED, check_at_least, check_choice

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
    beta_low_min: float = dataclasses.field(metadata=UNLIMITED)
    beta_low_max: float = dataclasses.field(metadata=UNLIMITED)
    beta_high_min: float = dataclasses.field(metadata=UNLIMITED)
    beta_high_max: float = dataclasses.field(metadata=UNLIMITED)

    def __post_init__(self) -> None:
        band = 0 < self.entropy_low <= self.entropy_high
        _check("controller", self, "entropy_low entropy_high", band, "0 < low <= high")
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
    ceiling: float = dataclasses.field(metadata=UNLIMITED)  # inf: off
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
    coef_max: float = dataclasses.field(metadata=UNLIMITED)

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

    @property
    def reads_entropy(self) -> bool:
        """Whether anything here acts on measured entropy."""
        guarded = self.guard.floor > 0 or self.guard.ceiling < math.inf
        return self.controller.enabled or guarded or self.entropy_bonus.target > 0

    @property
    def moves_betas(self) -> bool:
        """Whether anything here changes the betas during a run."""
        shifts = self.guard.rollback and self.guard.beta_step > 0
        return self.controller.enabled or self.beta_schedule.kind != "constant" or shifts

    def __post_init__(self) -> None:
        for knot in map(Betas, self.beta_schedule.beta_low, self.beta_schedule.beta_high):
            check_base(self.controller, knot)


def check_base(settings: ControllerSettings, base: Betas) -> None:
    """Raises ValueError when base betas, a run's own or a knot's, lie outside the bounds."""
    if not settings.enabled and min(base) < 0:
        raise ValueError(
            f"loss.beta_low = {base.low}, loss.beta_high = {base.high}, of the run or of a knot of "
            "steering.beta_schedule: at least 0. Negative ones, which pull clipped tokens back, "
            "are for steering.controller and its bounds"
        )
    rule = f"bounds {settings.bounds} leave out base {base}: move either"
    _check("controller", settings, "enabled", base.apart(0.0, *settings.bounds) == base, rule)


def _check(section: str, record: Any, names: str, holds: bool, rule: str) -> None:
    if not holds:
        values = ", ".join(f"{name} = {getattr(record, name)!r}" for name in names.split())
        raise ValueError(f"steering.{section}.{values}: {rule}")
