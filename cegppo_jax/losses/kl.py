"""Per-token estimates of KL(policy || reference) from a token's log-probabilities under both
(Schulman 2020, "Approximating KL Divergence").

The token was drawn from the policy (or from one near it), so each estimate's mean is the KL or, for
k2, close to it. With x = ln pi_theta - ln pi_ref:

    k1  x                   unbiased, of either sign
    k2  x^2 / 2             never negative, low variance, biased
    k3  exp(-x) - 1 + x     unbiased and never negative: GRPO's (arXiv 2402.03300 eq. 4)

A good estimate of the KL need not have its gradient. In expectation over tokens drawn from the
policy, training descends:

    estimator   in the loss                  in the reward
    k1          nothing: the gradient is 0   KL(policy || reference) of the whole completion
    k2          KL(policy || reference)      no KL: E[x^2 / 2 grad ln pi]
    k3          KL(reference || policy)      no KL: E[(exp(-x) - 1 + x) grad ln pi]

In the loss the estimate is differentiated, and each token's KL is that of the next token after what
was drawn before it. In the reward it is a constant that multiplies grad ln pi of the whole
completion, so a token's effect on the KL of later ones counts too. In the reward, the gradients of
k2 and k3 are of second order in x while the KL's is of first: near the reference they contain
nothing of it. settings.py therefore refuses them there, and k1 in the loss. Within a step, tokens
were drawn from the policy before its first update; later updates see the KL under that policy.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from cegppo_jax.losses.contract import MAX_LOG_RATIO


def k1(log_ratio: jax.Array) -> jax.Array:
    """x. In a loss its gradient is grad ln pi, of mean 0: it belongs in the reward."""
    return log_ratio


def k2(log_ratio: jax.Array) -> jax.Array:
    """x^2 / 2."""
    return 0.5 * log_ratio**2


def k3(log_ratio: jax.Array) -> jax.Array:
    """exp(-x) - 1 + x; its tangent where exp() has stopped growing."""
    bounded = jnp.minimum(-log_ratio, MAX_LOG_RATIO)
    slope = np.exp(np.float32(MAX_LOG_RATIO))
    beyond = jnp.where(-log_ratio > MAX_LOG_RATIO, slope * (-log_ratio - MAX_LOG_RATIO), 0.0)
    return jnp.expm1(bounded) + beyond + log_ratio


KL_ESTIMATORS: dict[str, Callable[[jax.Array], jax.Array]] = {"k1": k1, "k2": k2, "k3": k3}
# What "by_place" means, and the estimators whose gradient in that place is a KL's.
BY_PLACE = {"loss": "k3", "reward": "k1"}
OF_A_KL = {"loss": ("k2", "k3"), "reward": ("k1",)}


def kl_of_sequence(estimator: str, logprobs: np.ndarray, ref_logprobs: np.ndarray) -> float:
    """Returns the sum of the estimates over the tokens of one completion: what a KL penalty
    subtracts from the reward. Log-probabilities are [n].
    """
    log_ratio = np.asarray(logprobs, np.float32) - np.asarray(ref_logprobs, np.float32)
    return float(np.sum(np.asarray(KL_ESTIMATORS[estimator](jnp.asarray(log_ratio)), np.float64)))
