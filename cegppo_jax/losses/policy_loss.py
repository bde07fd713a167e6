"""The loss to minimise, and its metrics, from the token statistics of one micro-batch."""

from __future__ import annotations

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp

from cegppo_jax.losses.contract import (
    Knobs,
    Method,
    SurrogateInputs,
    SurrogateTerms,
    bounded_exp,
    left_clipped,
    policy_surrogate,
    right_clipped,
)
from cegppo_jax.losses.entropy_budget import entropy_budget
from cegppo_jax.losses.kl import KL_ESTIMATORS, k3
from cegppo_jax.losses.logprobs import TokenStatistics
from cegppo_jax.losses.reduce import Maximum, Mean, Minimum, Reductions, Total
from cegppo_jax.losses.sequences import Sequences
from cegppo_jax.packing import PackedBatch
from cegppo_jax.sharding import Leaf


@flax.struct.dataclass
class OldStatistics:
    """What is known about a mini-batch's tokens before the step's first update: [U, R, C]
    float32.
    """

    logprobs: Leaf  # ln pi_old of the token
    entropy: Leaf  # of pi_old at the token's place
    ref_logprobs: Leaf | None  # ln pi_ref, under the reference policy; None: no KL in the loss


@flax.struct.dataclass
class LossInputs:
    """One micro-batch as a loss sees it, every array [R, C]."""

    statistics: TokenStatistics  # of the policy that is being differentiated
    batch: PackedBatch
    old: OldStatistics
    uniform: jax.Array | None  # see SurrogateInputs
    selected: dict[str, jax.Array]


# Inputs, knobs -> (what this micro-batch adds to the mini-batch's loss, reductions). The batch's
# loss_weights hold the division: by all completion tokens of the mini-batch for the token mean.
LossFunction = Callable[[LossInputs, Knobs], tuple[jax.Array, Reductions]]


def make_policy_loss(
    method: Method, kl_estimator: str | None, high_probability: str
) -> LossFunction:
    """Returns a method's loss function: surrogate, KL to the reference, entropy bonus, LM loss.

        loss = sum_t weight_t (-correction_t value_t + kl_coef KL_t - entropy_coef H_t)
               - positive_lm_coef sum_t lm_weight_t ln pi_t

    Args:
      kl_estimator: of KL(policy || reference) in the loss: a name in KL_ESTIMATORS; None: no KL.
      high_probability: the entropy budget's criterion: a name in HIGH_PROBABILITY.
    """

    def policy_loss(inputs: LossInputs, knobs: Knobs) -> tuple[jax.Array, Reductions]:
        statistics, batch = inputs.statistics, inputs.batch
        surrogate_inputs = surrogate_inputs_of(inputs)
        objective, terms = policy_surrogate(method, statistics.logprobs, surrogate_inputs, knobs)
        per_token = -batch.corrections * objective - knobs.entropy_coef * statistics.entropy
        extra: Reductions = {}
        if kl_estimator is not None:
            assert inputs.old.ref_logprobs is not None
            log_ratio = statistics.logprobs - inputs.old.ref_logprobs
            kl = KL_ESTIMATORS[kl_estimator](log_ratio)
            per_token += knobs.kl_coef * kl
            extra["policy/kl_ref"] = Mean.over(jax.lax.stop_gradient(kl), batch.trained_mask)
        weighted = batch.loss_weights * per_token
        weighted -= knobs.positive_lm_coef * batch.lm_weights * statistics.logprobs
        loss = jnp.sum(jnp.where(batch.completion_mask, weighted, 0.0))
        at_level = method.level(surrogate_inputs)
        regions = left_clipped(at_level, knobs), right_clipped(at_level, knobs)
        reductions = policy_reductions(inputs, terms, regions)
        reductions |= entropy_budget(
            jax.lax.stop_gradient(statistics),
            batch.loss_weights * batch.corrections * terms.gradient,
            batch.advantages,
            *regions,
            batch.trained_mask,
            high_probability,
        )
        return loss, reductions | extra

    return policy_loss


def surrogate_inputs_of(inputs: LossInputs) -> SurrogateInputs:
    """Returns what a method may read of a micro-batch, [R, C]. No gradient flows out of it."""
    statistics = jax.lax.stop_gradient(inputs.statistics)
    return SurrogateInputs(
        log_ratio=statistics.logprobs - inputs.old.logprobs,
        advantages=inputs.batch.advantages,
        policy_logprobs=statistics.logprobs,
        entropy=statistics.entropy,
        old_entropy=inputs.old.entropy,
        sequences=Sequences(inputs.batch.segment_ids, inputs.batch.completion_mask),
        uniform=inputs.uniform,
        selected=inputs.selected,
    )


def policy_reductions(
    inputs: LossInputs, terms: SurrogateTerms, regions: tuple[jax.Array, jax.Array]
) -> Reductions:
    """Returns what every method logs, from arrays [R, C], over the tokens that train. Each token
    counts once, whatever its weight in the loss. Clip counts refer to the interval at the
    method's level, whatever the method does there.
    """
    mask = inputs.batch.trained_mask
    statistics = jax.lax.stop_gradient(inputs.statistics)
    low, high = (mask & region for region in regions)
    log_ratio = statistics.logprobs - inputs.old.logprobs
    ratio = bounded_exp(log_ratio)
    own: Reductions = {
        f"policy/{name}_count": Total.count(mask & happened)
        for name, happened in terms.events.items()
    }
    own |= {f"user/{name}": Mean.over(values, mask) for name, values in terms.measured.items()}
    return own | {
        "policy/entropy": Mean.over(statistics.entropy, mask),
        # Of the same tokens, before the step's first update and now.
        "policy/entropy_change": Mean.over(statistics.entropy - inputs.old.entropy, mask),
        "policy/clip_fraction_low": Mean.over(low.astype(jnp.float32), mask),
        "policy/clip_fraction_high": Mean.over(high.astype(jnp.float32), mask),
        "policy/clip_count_low": Total.count(low),
        "policy/clip_count_high": Total.count(high),
        # KL(old || policy): the tokens were drawn from old.
        "policy/kl_old": Mean.over(k3(-log_ratio), mask),
        "policy/ratio_max": Maximum.over(ratio, mask),
        "policy/ratio_min": Minimum.over(ratio, mask),
    }


def supervised_loss(inputs: LossInputs, knobs: Knobs) -> tuple[jax.Array, Reductions]:
    """Next-token cross-entropy on the completion tokens [R, C], which here are the written
    solution.
    """
    del knobs
    mask = inputs.batch.completion_mask
    weighted = inputs.batch.loss_weights * -inputs.statistics.logprobs
    return jnp.sum(jnp.where(mask, weighted, 0.0)), {
        "supervised/loss": Mean.over(-jax.lax.stop_gradient(inputs.statistics.logprobs), mask),
        "supervised/entropy": Mean.over(inputs.statistics.entropy, mask),
    }
