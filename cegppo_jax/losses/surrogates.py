"""Every policy-gradient method, by name. Adding one is a function of the contract and a line in
SURROGATES.
"""

from __future__ import annotations

import jax.numpy as jnp

from cegppo_jax.losses.ce_gppo import ce_gppo, left_clipped, right_clipped
from cegppo_jax.losses.contract import Surrogate, SurrogateInputs, SurrogateKnobs, SurrogateTerms


def ppo_clip(inputs: SurrogateInputs, knobs: SurrogateKnobs) -> SurrogateTerms:
    """PPO's clipped objective (arXiv 1707.06347), the token level of GRPO (2402.03300) and DAPO
    (2503.14476).

    min(delta A, clip(delta, 1 - clip_low, 1 + clip_high) A), so F = delta, and 0 where the clip is
    active.
    """
    ratio = inputs.ratio
    clipped = jnp.clip(ratio, 1 - knobs.clip_low, 1 + knobs.clip_high)
    value = jnp.minimum(ratio * inputs.advantages, clipped * inputs.advantages)
    is_clipped = left_clipped(inputs, knobs) | right_clipped(inputs, knobs)
    return SurrogateTerms(value, gradient_weight=jnp.where(is_clipped, 0.0, ratio))


SURROGATES: dict[str, Surrogate] = {
    "ppo_clip": ppo_clip,
    "ce_gppo": ce_gppo,
}
