"""Stop-gradient transcriptions of the methods' papers, written apart from the package: value and
autodiff gradient.

exp(d - sg(d)) is the papers' delta / sg(delta): exactly 1, with the gradient of log pi.
"""

import jax
import jax.numpy as jnp

SATURATED_LOG_RATIO = 40.0  # the package's ratio is exp(40) from there on


def _ratio_with_gradient(log_ratio):
    """delta, with d delta / d log pi = delta also where exp() saturates."""
    frozen = jax.lax.stop_gradient(jnp.exp(jnp.minimum(log_ratio, SATURATED_LOG_RATIO)))
    return frozen * jnp.exp(log_ratio - jax.lax.stop_gradient(log_ratio))


def ce_gppo(log_ratio, advantages, clip_low, clip_high, beta_low, beta_high):
    """arXiv 2509.20712 eq. 8."""
    one = jnp.exp(log_ratio - jax.lax.stop_gradient(log_ratio))
    delta = _ratio_with_gradient(log_ratio)
    left = (jax.lax.stop_gradient(delta) < 1 - clip_low) & (advantages < 0)
    right = (jax.lax.stop_gradient(delta) > 1 + clip_high) & (advantages > 0)
    kept_left = beta_low * (1 - clip_low) * one * advantages
    kept_right = beta_high * (1 + clip_high) * one * advantages
    return jnp.where(left, kept_left, jnp.where(right, kept_right, delta * advantages))


def ppo_clip(log_ratio, advantages, clip_low, clip_high, beta_low, beta_high):
    """arXiv 1707.06347 eq. 7, the betas unread."""
    del beta_low, beta_high
    delta = _ratio_with_gradient(log_ratio)
    clipped = jnp.clip(delta, 1 - clip_low, 1 + clip_high)
    return jnp.minimum(delta * advantages, clipped * advantages)


ORACLES = {"ce_gppo": ce_gppo, "ppo_clip": ppo_clip}
