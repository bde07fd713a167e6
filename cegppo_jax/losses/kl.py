"""Log-probabilities of a token under two policies -> estimates of KL(policy || reference), per
token (Schulman 2020, "Approximating KL Divergence").

The token was drawn from the policy (or from one near it), so each estimate's mean is the KL or, for
k2, close to it. With x = ln pi_theta - ln pi_ref:

    k1  x                   unbiased, of either sign
    k2  x^2 / 2             never negative, low variance; the gradient of its mean is the KL's own
    k3  exp(-x) - 1 + x     unbiased and never negative: GRPO's (arXiv 2402.03300 eq. 4)
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from cegppo_jax.losses.contract import MAX_LOG_RATIO


def k1(log_ratio: jax.Array) -> jax.Array:
    """x. In a loss its gradient is grad log pi, of mean 0: use it in the reward."""
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


def kl_of_sequence(estimator: str, logprobs: np.ndarray, ref_logprobs: np.ndarray) -> float:
    """Log-probabilities [n] of one completion under policy and reference -> the sum of the
    estimates over its tokens: what a KL penalty in the reward takes off.
    """
    log_ratio = np.asarray(logprobs, np.float32) - np.asarray(ref_logprobs, np.float32)
    return float(np.sum(np.asarray(KL_ESTIMATORS[estimator](jnp.asarray(log_ratio)), np.float64)))
