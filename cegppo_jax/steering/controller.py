"""A PI controller that moves the betas to hold entropy in a band."""

from __future__ import annotations

import dataclasses
import math

from cegppo_jax.read_settings import UNLIMITED, check_at_least, check_fields
from cegppo_jax.steering.betas import Betas, Bounds

LEAST_ENTROPY = 1e-6  # nats; a smaller one counts as this, for its logarithm


@dataclasses.dataclass(frozen=True)
class ControllerSettings:
    """The band to hold entropy in, by PI control of both betas within bounds."""

    enabled: bool
    entropy_low: float  # nats
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
        place = "steering.controller"
        band = 0 < self.entropy_low <= self.entropy_high
        check_fields(place, self, "entropy_low entropy_high", band, "0 < low <= high")
        check_at_least(0, place, self, "proportional_gain", "integral_gain")
        check_fields(place, self, "smoothing", 0 <= self.smoothing < 1, "it lies in [0, 1)")
        check_fields(place, self, "hysteresis", 0 <= self.hysteresis <= 1, "it lies in [0, 1]")
        for low, high in (("beta_low_min", "beta_low_max"), ("beta_high_min", "beta_high_max")):
            ordered = getattr(self, low) <= getattr(self, high)
            check_fields(place, self, f"{low} {high}", ordered, "min <= max")

    @property
    def bounds(self) -> Bounds:
        """The smallest and largest betas. Disabled: any that are not negative."""
        if not self.enabled:
            return Bounds(Betas(0.0, 0.0), Betas(math.inf, math.inf))
        smallest = Betas(self.beta_low_min, self.beta_high_min)
        return Bounds(smallest, Betas(self.beta_low_max, self.beta_high_max))

    def check_base(self, base: Betas) -> None:
        """Raises ValueError when base betas, those of the run or of a knot, lie outside the
        bounds.
        """
        if not self.enabled and min(base) < 0:
            raise ValueError(
                f"loss.beta_low = {base.low}, loss.beta_high = {base.high}, of the run or of a "
                "knot of steering.beta_schedule: at least 0. Negative ones, which pull clipped "
                "tokens back, are for steering.controller and its bounds"
            )
        inside = self.bounds.clip(base) == base
        rule = f"{self.bounds} leave out the base {base}: move either"
        check_fields("steering.controller", self, "enabled", inside, rule)


@dataclasses.dataclass(frozen=True)
class ControllerState:
    """What the controller remembers."""

    smoothed_entropy: float | None  # None before the first measurement
    integral: float  # sum of ln(centre / entropy) over the steps in which it acted
    acting: bool


def control(
    settings: ControllerSettings, state: ControllerState, base: Betas, entropy: float
) -> tuple[ControllerState, Betas]:
    """Returns the new state and the betas that bring entropy into the band: PI control around the
    base betas.

        e = ln(centre / H),  u = Kp e + Ki sum(e),  betas = (low - u, high + u) within the bounds

    H is the running mean of entropy, at least LEAST_ENTROPY; the centre is the band's geometric
    mean. The controller starts to act outside the band and stops well inside it (hysteresis). Then
    Kp e goes to 0 and Ki sum(e), which balances the drift, stays. The sum leaves out errors that
    the bounds already answer in full (anti-windup). A measurement that is not finite changes
    nothing. Related: arXiv 2511.15248.
    """
    if not settings.enabled:
        return state, base
    measured = math.isfinite(entropy)
    smoothed = smooth(settings, state, entropy) if measured else state.smoothed_entropy
    error = error_of(settings, smoothed)
    acting = is_acting(settings, state, error)
    proportional = settings.proportional_gain * error if acting else 0.0

    def betas_with(integral: float) -> Betas:
        return settings.bounds.clip(base.apart(proportional + settings.integral_gain * integral))

    integral = state.integral
    is_saturated = betas_with(integral) == settings.bounds.extreme(error)
    if acting and measured and not is_saturated:
        integral += error
    return ControllerState(smoothed, integral, acting), betas_with(integral)


def smooth(settings: ControllerSettings, state: ControllerState, entropy: float) -> float:
    """Returns the running mean of entropy after a measurement; the first one starts it."""
    past = entropy if state.smoothed_entropy is None else state.smoothed_entropy
    return entropy + settings.smoothing * (past - entropy)


def error_of(settings: ControllerSettings, smoothed: float | None) -> float:
    """Returns ln(centre / H): positive when entropy is too low; 0 before the first measurement."""
    if smoothed is None:
        return 0.0
    centre = (math.log(settings.entropy_low) + math.log(settings.entropy_high)) / 2
    return centre - math.log(max(smoothed, LEAST_ENTROPY))


def is_acting(settings: ControllerSettings, state: ControllerState, error: float) -> bool:
    """Whether entropy is outside the band or, once the controller acts, outside its inner part."""
    half_width = (math.log(settings.entropy_high) - math.log(settings.entropy_low)) / 2
    return abs(error) > half_width * (settings.hysteresis if state.acting else 1)
