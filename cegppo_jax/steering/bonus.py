"""The coefficient of the entropy bonus: fixed, or following a target."""

from __future__ import annotations

import dataclasses
import math

from cegppo_jax.read_settings import UNLIMITED, check_at_least, check_fields


@dataclasses.dataclass(frozen=True)
class EntropyBonusSettings:
    """Weight of entropy in the objective: fixed, or following a target."""

    coef: float  # alpha at the start
    target: float  # nats; 0: coef is fixed
    step: float  # change of alpha a rollout step
    coef_min: float
    coef_max: float = dataclasses.field(metadata=UNLIMITED)

    def __post_init__(self) -> None:
        place = "steering.entropy_bonus"
        check_at_least(0, place, self, "coef", "target", "step", "coef_min")
        fits = self.target == 0 or self.coef_min <= self.coef <= self.coef_max
        check_fields(place, self, "coef_min coef coef_max", fits, "min <= coef <= max")


def adapt_entropy_coef(
    settings: EntropyBonusSettings, alpha: float | None, entropy: float
) -> tuple[float | None, float]:
    """Returns the new alpha and the coefficient to use (arXiv 2505.22312).

    Alpha rises by `step` below the target and falls by it above. The coefficient is alpha up to the
    target; above it, and without a finite measurement, it is 0.

    Args:
      alpha: of the step before; None before the first measurement.
      entropy: nats.
    """
    if settings.target == 0:
        return alpha, settings.coef
    if not math.isfinite(entropy):
        return alpha, 0.0
    before = settings.coef if alpha is None else alpha
    moved = before + (settings.step if entropy < settings.target else -settings.step)
    alpha = min(max(moved, settings.coef_min), settings.coef_max)
    return alpha, alpha if entropy <= settings.target else 0.0
