"""Token statistics of one micro-batch -> the loss to minimise, as a sum, and its metrics."""

from __future__ import annotations

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp

from cegppo_jax.logprobs import TokenStatistics
from cegppo_jax.losses.ce_gppo import left_clipped, right_clipped
from cegppo_jax.losses.contract import (
    Surrogate,
    SurrogateInputs,
    SurrogateKnobs,
    policy_surrogate,
)
from cegppo_jax.losses.reduce import Maximum, Mean, Minimum, Reductions, Total


@flax.struct.dataclass
class LossInputs:
    """One micro-batch as a loss sees it, [R, C] each (PackedBatch has their meaning)."""

    statistics: TokenStatistics  # of the policy that is being differentiated
    completion_mask: jax.Array
    advantages: jax.Array
    old_logprobs: jax.Array  # trainer, before the step's first update
    sampler_logprobs: jax.Array


# Inputs, knobs -> (sum over completion tokens to minimise, reductions). The update divides the sum
# by the number of completion tokens of the whole mini-batch: the global token mean of the paper's
# eq. 8.
LossFunction = Callable[[LossInputs, SurrogateKnobs], tuple[jax.Array, Reductions]]


def make_policy_loss(surrogate: Surrogate) -> LossFunction:
    """Method -> its loss function."""

    def policy_loss(inputs: LossInputs, knobs: SurrogateKnobs) -> tuple[jax.Array, Reductions]:
        objective = policy_surrogate(
            surrogate,
            inputs.statistics.logprobs,
            inputs.old_logprobs,
            inputs.advantages,
            knobs,
        )
        loss = Mean.over(-objective, inputs.completion_mask)
        return loss.total, policy_reductions(loss, inputs, knobs)

    return policy_loss


def policy_reductions(loss: Mean, inputs: LossInputs, knobs: SurrogateKnobs) -> Reductions:
    """What every method logs, from the same numbers: clip counts are of the interval, whatever a
    method does there.
    """
    mask = inputs.completion_mask
    log_ratio = jax.lax.stop_gradient(inputs.statistics.logprobs) - inputs.old_logprobs
    terms = SurrogateInputs(log_ratio, inputs.advantages)
    low, high = mask & left_clipped(terms, knobs), mask & right_clipped(terms, knobs)
    gap = jnp.abs(inputs.old_logprobs - inputs.sampler_logprobs)
    return {
        "policy/loss": jax.lax.stop_gradient(loss),
        "policy/entropy": Mean.over(inputs.statistics.entropy, mask),
        "policy/clip_fraction_low": Mean.over(low.astype(jnp.float32), mask),
        "policy/clip_fraction_high": Mean.over(high.astype(jnp.float32), mask),
        "policy/clip_count_low": Total.count(low),
        "policy/clip_count_high": Total.count(high),
        # k3 of KL(old || policy), Schulman 2020: (delta - 1) - ln delta, never negative.
        "policy/kl_old": Mean.over(terms.ratio - 1 - log_ratio, mask),
        "policy/ratio_max": Maximum.over(terms.ratio, mask),
        "policy/ratio_min": Minimum.over(terms.ratio, mask),
        "policy/sampler_gap_mean": Mean.over(gap, mask),
        "policy/sampler_gap_max": Maximum.over(gap, mask),
    }


def supervised_loss(inputs: LossInputs, knobs: SurrogateKnobs) -> tuple[jax.Array, Reductions]:
    """Next-token cross-entropy on the completion tokens (here: the written solution)."""
    del knobs
    mask = inputs.completion_mask
    loss = Mean.over(-inputs.statistics.logprobs, mask)
    return loss.total, {
        "supervised/loss": jax.lax.stop_gradient(loss),
        "supervised/entropy": Mean.over(inputs.statistics.entropy, mask),
    }
