"""The betas and the entropy coefficient of a step's updates, from step and measured entropy.

Four mechanisms, one file each, in the order in which `steer` consults them:

    guard.py        raises an alarm, or rolls back, when entropy stays outside its limits
    schedule.py     moves the base betas with the step (the paper's Fig. 6)
    controller.py   moves both betas around the base to hold entropy in a band
    bonus.py        the older way: an entropy bonus in the loss
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

from cegppo_jax.read_settings import read_record
from cegppo_jax.steering.betas import Betas
from cegppo_jax.steering.bonus import adapt_entropy_coef
from cegppo_jax.steering.controller import ControllerState, control
from cegppo_jax.steering.guard import ROLLBACKS, GuardAction, GuardState, guard
from cegppo_jax.steering.schedule import scheduled_betas
from cegppo_jax.steering.settings import SteeringSettings


@dataclasses.dataclass(frozen=True)
class SteeringState:
    """Everything that steering remembers, so that a resumed run steers like an uninterrupted
    one.
    """

    controller: ControllerState
    guard: GuardState
    entropy_alpha: float | None  # None before the first measurement

    def to_json(self) -> dict[str, Any]:
        """Returns a nested dict of plain finite numbers."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> SteeringState:
        """Reads what `to_json` returned. Raises ValueError for other keys."""
        return read_record(cls, values, "checkpoint: steering")


START = SteeringState(
    controller=ControllerState(smoothed_entropy=None, integral=0.0, acting=False),
    guard=GuardState(
        outside_steps=0, rollbacks=0, beta_shift=0.0, candidate_step=None, last_good_step=None
    ),
    entropy_alpha=None,
)


class Steering(NamedTuple):
    """What one step's updates run with."""

    betas: Betas
    entropy_coef: float
    action: GuardAction


def steer(
    settings: SteeringSettings, state: SteeringState, base: Betas, step: int, entropy: float | None
) -> tuple[SteeringState, Steering]:
    """Decides, once a step and before its updates, what they run with.

    Args:
      base: the run's configured betas.
      step: 0-based.
      entropy: of the step's rollout under the policy that drew it, in nats; None: not measured.
    """
    measured, controller = math.nan if entropy is None else float(entropy), state.controller
    guarded, action = guard(settings.guard, state.guard, measured, step)
    if action in ROLLBACKS:  # the measurement is of the policy that is left behind
        measured = math.nan
        controller = ControllerState(None, controller.integral, acting=False)
    base = scheduled_betas(settings.beta_schedule, base, step)
    base = settings.controller.bounds.clip(base.apart(guarded.beta_shift))
    controller, betas = control(settings.controller, controller, base, measured)
    alpha, coef = adapt_entropy_coef(settings.entropy_bonus, state.entropy_alpha, measured)
    return SteeringState(controller, guarded, alpha), Steering(betas, coef, action)
