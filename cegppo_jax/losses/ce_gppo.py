"""CE-GPPO (arXiv 2509.20712): token ratios -> surrogate with bounded gradients for clipped tokens.

Eq. 8-10 of the paper, with delta = pi_theta / pi_old of one token, A its advantage and sg the
stop-gradient. F is the gradient weight: grad J = E[ F A grad log pi ].

    case                              value                                      F
    NA&LP  delta < 1 - clip_low       beta_low (1 - clip_low)                    beta_low
           and A < 0                  delta/sg(delta) A                          (1 - clip_low)
    PA&LP  delta > 1 + clip_high      beta_high (1 + clip_high)                  beta_high
           and A > 0                  delta/sg(delta) A                          (1 + clip_high)
    otherwise                         delta A                                    delta

PPO drops the first two cases (F = 0). Keeping them bounded is what steers entropy: beta_low (the
paper's beta1) pushes mass away from rare failures, so entropy falls faster; beta_high (beta2) lifts
rare successes, so entropy falls slower or rises.

The paper's prose in section 3.2 swaps the two betas; its equations, its section 5.1 and this file
agree.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cegppo_jax.losses.contract import SurrogateInputs, SurrogateKnobs, SurrogateTerms


def ce_gppo(inputs: SurrogateInputs, knobs: SurrogateKnobs) -> SurrogateTerms:
    """Log ratios and advantages -> value and gradient weight F of eq. 8-10; beta = (1, 1) is GPPO
    (arXiv 2508.07629).

    The factor delta/sg(delta) is 1 by definition and is never computed: in float32 it is inf/inf
    beyond |log ratio| = 88.
    """
    left = left_clipped(inputs, knobs)
    right = right_clipped(inputs, knobs)
    weight = jnp.where(
        left,
        knobs.beta_low * (1 - knobs.clip_low),
        jnp.where(right, knobs.beta_high * (1 + knobs.clip_high), inputs.ratio),
    )
    return SurrogateTerms(value=weight * inputs.advantages, gradient_weight=weight)


def left_clipped(inputs: SurrogateInputs, knobs: SurrogateKnobs) -> jax.Array:
    """-> mask of NA&LP tokens: negative advantage, ratio left of the interval."""
    return (inputs.log_ratio < jnp.log1p(-knobs.clip_low)) & (inputs.advantages < 0)


def right_clipped(inputs: SurrogateInputs, knobs: SurrogateKnobs) -> jax.Array:
    """-> mask of PA&LP tokens: positive advantage, ratio right of the interval."""
    return (inputs.log_ratio > jnp.log1p(knobs.clip_high)) & (inputs.advantages > 0)
