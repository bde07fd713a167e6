"""CE-GPPO (arXiv 2509.20712): a surrogate with bounded gradients for clipped tokens.

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

import jax.numpy as jnp

from cegppo_jax.losses.contract import (
    Knobs,
    Number,
    SurrogateInputs,
    SurrogateTerms,
    left_clipped,
    right_clipped,
)

# A negative beta pulls clipped tokens back towards the interval.
BETAS = {
    "beta_low": Number(0.5, "the paper's beta1: gradient kept left of the interval (NA&LP)"),
    "beta_high": Number(1.0, "beta2: gradient kept right of it (PA&LP)"),
}


def ce_gppo(inputs: SurrogateInputs, knobs: Knobs) -> SurrogateTerms:
    """Returns value and gradient F A of eq. 8-10, [R, C] float32, from log ratios and advantages.

    The factor delta/sg(delta) is 1 by definition and is never computed: in float32 it is inf/inf
    beyond |log ratio| = 88.
    """
    weight = jnp.where(
        left_clipped(inputs, knobs),
        knobs.beta_low * (1 - knobs.clip_low),
        jnp.where(
            right_clipped(inputs, knobs), knobs.beta_high * (1 + knobs.clip_high), inputs.ratio
        ),
    )
    return SurrogateTerms(value=weight * inputs.advantages, gradient=weight * inputs.advantages)


def gppo(inputs: SurrogateInputs, knobs: Knobs) -> SurrogateTerms:
    """GPPO (arXiv 2508.07629): clipped tokens keep the weight of the interval's edge, beta = (1,
    1).
    """
    one = jnp.ones((), jnp.float32)
    return ce_gppo(inputs, knobs.replace(beta_low=one, beta_high=one))
