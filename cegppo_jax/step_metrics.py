"""What a step's updates and its steering left -> metrics of the step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cegppo_jax.losses.reduce import Reductions, merge
from cegppo_jax.steering import GuardAction, Steering, SteeringState


def update_metrics(updates: Sequence[Reductions]) -> dict[str, Any]:
    """Reductions of each update of a step -> the step's metrics.

    The entropy budget is set against what happened: on the last mini-batch's tokens, the change of
    entropy since before the step, and the change that the budgets of the updates in between ask
    for. (The first update has moved no entropy yet, the last one's move is not seen.)
    """
    if not updates:
        return {}
    merged = updates[0]
    for other in updates[1:]:
        merged = merge(merged, other)
    values: dict[str, Any] = {name: reduction.result() for name, reduction in merged.items()}
    if len(updates) > 1:
        values["budget/measured_change"] = updates[-1]["policy/entropy_change"].result()
        values["budget/predicted_change"] = sum(
            update["update/learning_rate"].result() * update["budget/mean"].result()
            for update in updates[:-1]
        )
    return values


def steering_metrics(steering: Steering, state: SteeringState) -> dict[str, Any]:
    """What a step was steered with -> its metrics."""
    low = {GuardAction.ALARM_LOW, GuardAction.ROLLBACK_LOW}
    alarm = 0 if steering.action == GuardAction.NONE else -1 if steering.action in low else 1
    return {
        "steering/beta_low": steering.betas.low,
        "steering/beta_high": steering.betas.high,
        "steering/entropy_coef": steering.entropy_coef,
        "steering/alarm": alarm,
        "steering/rollbacks": state.guard.rollbacks,
    }
