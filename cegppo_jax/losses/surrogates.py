"""Every policy-gradient method, by name. To add one, write a function of the contract and a line
in SURROGATES; the property tests find it and ask for its stop-gradient form. Its events and
measurements (SurrogateTerms) are logged as policy/<name>_count and user/<name>.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cegppo_jax.losses.ce_gppo import BETAS, ce_gppo, gppo
from cegppo_jax.losses.contract import (
    Knobs,
    Method,
    Number,
    SurrogateInputs,
    SurrogateTerms,
    bounded_exp,
    left_clipped,
    right_clipped,
    sequence_level,
    sequence_ratio,
)
from cegppo_jax.losses.divergence import NUMBERS as DIVERGENCE
from cegppo_jax.losses.divergence import dppo_kl, dppo_tv


def ppo_clip(inputs: SurrogateInputs, knobs: Knobs) -> SurrogateTerms:
    """PPO's clipped objective (arXiv 1707.06347), the token level of GRPO (2402.03300) and DAPO
    (2503.14476).

    min(delta A, clip(delta, 1 - clip_low, 1 + clip_high) A), so F = delta, and 0 where the clip is
    active.
    """
    ratio = inputs.ratio
    clipped = jnp.clip(ratio, 1 - knobs.clip_low, 1 + knobs.clip_high)
    value = jnp.minimum(ratio * inputs.advantages, clipped * inputs.advantages)
    is_clipped = left_clipped(inputs, knobs) | right_clipped(inputs, knobs)
    return SurrogateTerms(value, jnp.where(is_clipped, 0.0, ratio * inputs.advantages))


def reinforce(inputs: SurrogateInputs, knobs: Knobs) -> SurrogateTerms:
    """The policy gradient itself: A ln pi, F = 1, without ratio or clip."""
    del knobs
    return SurrogateTerms(inputs.advantages * inputs.policy_logprobs, inputs.advantages)


def _weighted_logprob(inputs: SurrogateInputs, weight: jax.Array) -> SurrogateTerms:
    """sg(weight) A ln pi: F = weight."""
    gradient = weight * inputs.advantages
    return SurrogateTerms(gradient * inputs.policy_logprobs, gradient)


def cispo(inputs: SurrogateInputs, knobs: Knobs) -> SurrogateTerms:
    """CISPO (arXiv 2506.13585 eq. 4-5): sg(clip(delta, 1 - clip_low, 1 + clip_high)) A ln pi.

    Every token keeps a gradient, whatever the sign of A: it is not pessimistic. clip_low = 1 is the
    paper's choice, which leaves the left side open; the CE-GPPO paper's baseline has 0.2 on both.
    """
    return _weighted_logprob(
        inputs, jnp.clip(inputs.ratio, 1 - knobs.clip_low, 1 + knobs.clip_high)
    )


def cispo_cap(inputs: SurrogateInputs, knobs: Knobs) -> SurrogateTerms:
    """CISPO with only an upper cap, an absolute one: sg(min(delta, cispo_cap)) A ln pi (ScaleRL,
    arXiv 2510.13786).
    """
    return _weighted_logprob(inputs, jnp.minimum(inputs.ratio, knobs.cispo_cap))


def gmpo(inputs: SurrogateInputs, knobs: Knobs) -> SurrogateTerms:
    """GMPO (arXiv 2507.20673): the geometric mean of a sequence's ratios, each clipped on the side
    that A pushes to. Clipped tokens get no gradient; for the others F is that mean.

    The interval is the contract's [1 - clip_low, 1 + clip_high]; the paper's (e^-0.4, e^0.4) is
    clip_low = 0.3297, clip_high = 0.4918.
    """
    left, right = left_clipped(inputs, knobs), right_clipped(inputs, knobs)
    low, high = jnp.log1p(-knobs.clip_low), jnp.log1p(knobs.clip_high)
    one_sided = jnp.where(left, low, jnp.where(right, high, inputs.log_ratio))
    value = bounded_exp(inputs.sequences.mean(one_sided)) * inputs.advantages
    return SurrogateTerms(value, jnp.where(left | right, 0.0, value))


def sapo(inputs: SurrogateInputs, knobs: Knobs) -> SurrogateTerms:
    """SAPO (arXiv 2511.20347): a smooth gate instead of the clip.

    Value (4 / tau) sigma(tau (delta - 1)) A, so F = 4 delta sigma (1 - sigma), with tau =
    gate_positive for A > 0 and gate_negative for A <= 0.
    """
    temperature = jnp.where(inputs.advantages > 0, knobs.gate_positive, knobs.gate_negative)
    ratio = inputs.ratio
    gate = jax.nn.sigmoid(temperature * (ratio - 1))
    closing = jax.nn.sigmoid(-temperature * (ratio - 1))
    return SurrogateTerms(
        4 / temperature * gate * inputs.advantages, 4 * ratio * gate * closing * inputs.advantages
    )


def aspo(inputs: SurrogateInputs, knobs: Knobs) -> SurrogateTerms:
    """ASPO (arXiv 2510.06062): uses the inverse ratio for A > 0, so that rare right tokens weigh
    more than likely ones, with a soft cap on the weight of both signs.

    F = min(1/delta, aspo_cap) for A > 0, min(delta, aspo_cap) for A <= 0, and 0 where PPO clips
    delta. The cap of 3 is that of the authors' code (zyh1999/ASPO). There, intervals also widen
    with a token's entropy; that part is left out.
    """
    positive = inputs.advantages > 0
    weight = bounded_exp(jnp.where(positive, -inputs.log_ratio, inputs.log_ratio))
    soft = jnp.minimum(weight, knobs.aspo_cap) * inputs.advantages
    left, right = left_clipped(inputs, knobs), right_clipped(inputs, knobs)
    edge = (1 - knobs.clip_low) * inputs.advantages
    return SurrogateTerms(
        value=jnp.where(left, edge, jnp.where(right, 0.0, soft)),
        gradient=jnp.where(left | right, 0.0, soft),
    )


def dgpo(inputs: SurrogateInputs, knobs: Knobs) -> SurrogateTerms:
    """DGPO (arXiv 2603.14389): clipped tokens keep a gradient that decays with their distance from
    the interval, measured against the gradient of the probability itself.

    F = delta (delta / (1 - clip_low))^n left, delta ((1 + clip_high) / delta)^(1/m) right, delta
    inside: continuous at both edges. n = decay_low, m = decay_high.
    """
    log_ratio = inputs.log_ratio
    # A side that is never clipped has an infinite edge, and 0 x inf is NaN: take 0 there.
    low = jnp.nan_to_num(jnp.log1p(-knobs.clip_low), neginf=0.0)
    high = jnp.nan_to_num(jnp.log1p(knobs.clip_high), posinf=0.0)
    left = log_ratio + knobs.decay_low * (log_ratio - low)
    right = log_ratio + (high - log_ratio) / knobs.decay_high
    log_weight = jnp.where(
        left_clipped(inputs, knobs), left, jnp.where(right_clipped(inputs, knobs), right, log_ratio)
    )
    weight = bounded_exp(log_weight) * inputs.advantages
    return SurrogateTerms(value=weight, gradient=weight)


def clip_cov(inputs: SurrogateInputs, knobs: Knobs) -> SurrogateTerms:
    """Clip-Cov (arXiv 2505.22617): PPO's clip, and no gradient for a few random tokens of high
    covariance between ln pi and A, which drive entropy down most.
    """
    terms = ppo_clip(inputs, knobs)
    chosen = inputs.selected["random_covariance"]
    value, gradient = (jnp.where(chosen, 0.0, x) for x in (terms.value, terms.gradient))
    return SurrogateTerms(value, gradient, {"covariance": chosen})


def kl_cov(inputs: SurrogateInputs, knobs: Knobs) -> SurrogateTerms:
    """KL-Cov (arXiv 2505.22617): delta A without a clip, and a penalty covariance_kl_coef |ln
    delta| on the tokens of highest covariance between ln pi and A.
    """
    chosen = inputs.selected["high_covariance"]
    free = inputs.ratio * inputs.advantages
    coef = jnp.where(chosen, knobs.covariance_kl_coef, 0.0)
    return SurrogateTerms(
        value=free - coef * jnp.abs(inputs.log_ratio),
        gradient=free - coef * jnp.sign(inputs.log_ratio),
        events={"covariance": chosen},
    )


COVARIANCE_FRACTION = Number(2e-4, "share of tokens selected", at_least=0, at_most=1)

SURROGATES: dict[str, Method] = {
    "ppo_clip": Method(ppo_clip),
    "gppo": Method(gppo),
    "ce_gppo": Method(ce_gppo, numbers=BETAS),
    "ce_gspo": Method(ce_gppo, level=sequence_level, numbers=BETAS),
    "cispo": Method(cispo),
    "cispo_cap": Method(
        cispo_cap,
        numbers={"cispo_cap": Number(5.0, "largest F; ScaleRL's", above=0, unlimited=True)},
    ),
    "gspo": Method(ppo_clip, level=sequence_level),
    "gspo_token": Method(ppo_clip, level=sequence_ratio),
    "gmpo": Method(gmpo),
    "sapo": Method(
        sapo,
        numbers={
            "gate_positive": Number(1.0, "temperature of the gate, A > 0", above=0),
            "gate_negative": Number(1.05, "the same, A <= 0", above=0),
        },
    ),
    "aspo": Method(
        aspo,
        numbers={"aspo_cap": Number(3.0, "largest F; its code's", above=0, unlimited=True)},
    ),
    "dgpo": Method(
        dgpo,
        numbers={
            "decay_low": Number(1.0, "n, the power on the left", at_least=0),
            "decay_high": Number(2.0, "m, the root on the right", above=0, unlimited=True),
        },
    ),
    "clip_cov": Method(
        clip_cov,
        numbers={
            "covariance_fraction": COVARIANCE_FRACTION,
            "covariance_low": Number(1.0, "products that may be selected lie above"),
            "covariance_high": Number(5.0, "and below", unlimited=True),
        },
        selections=("random_covariance",),
    ),
    "kl_cov": Method(
        kl_cov,
        numbers={
            "covariance_fraction": COVARIANCE_FRACTION,
            "covariance_kl_coef": Number(1.0, "penalty on the selected tokens", at_least=0),
        },
        selections=("high_covariance",),
    ),
    "dppo_tv": Method(dppo_tv, numbers=DIVERGENCE),
    "dppo_kl": Method(dppo_kl, numbers=DIVERGENCE),
    "reinforce": Method(reinforce),
}
