"""Metrics of a step from the results of its updates and its steering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cegppo_jax.losses.reduce import Reductions, merge
from cegppo_jax.steering.guard import GuardAction
from cegppo_jax.steering.steer import Steering, SteeringState


def values_of(update: Reductions) -> dict[str, Any]:
    """Returns the results of reductions by name."""
    return {name: reduction.result() for name, reduction in update.items()}


def update_metrics(
    updates: Sequence[Reductions], measured: float | None, *, old_is_start: bool
) -> dict[str, Any]:
    """Returns a step's metrics from the reductions of each of its updates.

    The entropy budget is compared with what happened to entropy. With `measured`, the change on all
    tokens of the step after its last update, it is compared with what all updates asked for.
    Without it, if there are at least two updates, the change that the last one finds on its own
    tokens is compared with what those before it asked for on theirs, if `old_is_start`: whether
    old entropies are those before the first update, and not of an earlier policy.
    """
    if not updates:
        return {}
    merged = updates[0]
    for other in updates[1:]:
        merged = merge(merged, other)
    values = values_of(merged)
    asking = updates if measured is not None else updates[: -1 if old_is_start else 0]
    if asking:
        found = updates[-1]["policy/entropy_change"].result()
        values["budget/measured_change"] = found if measured is None else measured
        values["budget/predicted_change"] = sum(
            update["update/learning_rate"].result() * update["budget/mean"].result()
            for update in asking
        )
    return values


def steering_metrics(steering: Steering, state: SteeringState) -> dict[str, Any]:
    """Returns the metrics of what a step was steered with."""
    low = {GuardAction.ALARM_LOW, GuardAction.ROLLBACK_LOW}
    alarm = 0 if steering.action == GuardAction.NONE else -1 if steering.action in low else 1
    return {
        "steering/beta_low": steering.betas.low,
        "steering/beta_high": steering.betas.high,
        "steering/entropy_coef": steering.entropy_coef,
        "steering/alarm": alarm,
        "steering/rollbacks": state.guard.rollbacks,
    }
