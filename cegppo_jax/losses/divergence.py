"""DPPO (arXiv 2602.04879): a trust region on probabilities instead of ratios.

A ratio of 2 at p = 1e-4 moves hardly any mass, a ratio of 1.2 at p = 0.5 moves a tenth of it. DPPO
drops a token's gradient once its probability itself has moved too far in the direction that the
advantage pushes to. F = min(delta, dppo_cap) inside, 0 outside.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cegppo_jax.losses.contract import Knobs, Number, SurrogateInputs, SurrogateTerms

NUMBERS = {
    "dppo_cap": Number(20.0, "largest F", above=0, unlimited=True),
    "divergence_low": Number(
        0.2, "how far a probability may have moved, A < 0", at_least=0, unlimited=True
    ),
    "divergence_high": Number(0.2, "the same, A > 0", at_least=0, unlimited=True),
}

SMALL = 1e-8  # keeps the logarithm of 1 - p finite


def _probabilities(inputs: SurrogateInputs) -> tuple[jax.Array, jax.Array]:
    """Returns the token's probability under the policy and under the old policy."""
    old_logprobs = inputs.policy_logprobs - inputs.log_ratio
    return jnp.exp(jnp.minimum(inputs.policy_logprobs, 0.0)), jnp.exp(
        jnp.minimum(old_logprobs, 0.0)
    )


def total_variation(inputs: SurrogateInputs) -> jax.Array:
    """|p - p_old|: the total variation between {token, rest} under both policies."""
    policy, old = _probabilities(inputs)
    return jnp.abs(policy - old)


def binary_kl(inputs: SurrogateInputs) -> jax.Array:
    """KL(old || policy) between {token, rest} under both policies."""
    policy, old = _probabilities(inputs)
    rest = (1 - old) * jnp.log((1 - old + SMALL) / (1 - policy + SMALL))
    return -old * inputs.log_ratio + rest


def _dppo(
    divergence: Callable[[SurrogateInputs], jax.Array], inputs: SurrogateInputs, knobs: Knobs
) -> SurrogateTerms:
    """sg(min(delta, cap)) M A ln pi, with M = 0 where the divergence exceeds its limit and the
    token moved the way that A pushes.
    """
    positive = inputs.advantages > 0
    limit = jnp.where(positive, knobs.divergence_high, knobs.divergence_low)
    pushed = jnp.where(positive, inputs.log_ratio > 0, inputs.log_ratio < 0)
    left_behind = pushed & (divergence(inputs) > limit)
    weight = jnp.where(left_behind, 0.0, jnp.minimum(inputs.ratio, knobs.dppo_cap))
    gradient = weight * inputs.advantages
    return SurrogateTerms(
        gradient * inputs.policy_logprobs, gradient, {"divergence_mask": left_behind}
    )


def dppo_tv(inputs: SurrogateInputs, knobs: Knobs) -> SurrogateTerms:
    """DPPO by total variation; reported limits 0.15 to 0.2."""
    return _dppo(total_variation, inputs, knobs)


def dppo_kl(inputs: SurrogateInputs, knobs: Knobs) -> SurrogateTerms:
    """DPPO by the binary KL divergence; reported limit 0.05."""
    return _dppo(binary_kl, inputs, knobs)
