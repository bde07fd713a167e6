"""Stop-gradient transcriptions of every method's and every wrapper's source, written apart from the
package: value, and gradient by automatic differentiation, in float64.

In float64 exp(120) is finite, so formulas stand here as their papers print them, delta / sg(delta)
included. Sequences are rows of a 0/1 matrix instead of segment sums.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

sg = jax.lax.stop_gradient

# The package's one liberty with the papers: a weight above exp(40) is exp(40), so that its square
# is finite in float32. The gradient keeps its direction.
LARGEST_WEIGHT = np.exp(40.0)


class Tokens(NamedTuple):
    """Tokens of packed rows, NumPy arrays [R, C], float64 but for ids and masks."""

    policy_logprobs: np.ndarray
    old_logprobs: np.ndarray
    advantages: np.ndarray
    entropy: np.ndarray
    old_entropy: np.ndarray
    segment_ids: np.ndarray  # 0 is padding
    completion_mask: np.ndarray
    uniform: np.ndarray
    selected: dict[str, np.ndarray]


def saturated(weight):
    """A positive weight -> the same up to LARGEST_WEIGHT, with d weight / d ln weight = weight."""
    return weight * sg(jnp.minimum(1.0, LARGEST_WEIGHT / weight))


def token_ratio(logprobs, tokens):
    """delta = pi_theta / pi_old."""
    return saturated(jnp.exp(logprobs - tokens.old_logprobs))


def edges(knobs):
    """-> 1 - epsilon_l and 1 + epsilon_h, or numbers that no ratio reaches: inf times the 0 of a
    branch not taken would be no number.
    """
    return max(1 - knobs["clip_low"], 1e-60), min(1 + knobs["clip_high"], 1e60)


def membership(tokens):
    """-> [sequences, R C]: 1 where a completion token belongs to the sequence."""
    rows = np.arange(len(tokens.segment_ids))[:, None] * (tokens.segment_ids.max() + 1)
    names = np.where(tokens.completion_mask, rows + tokens.segment_ids, -1).ravel()
    return (np.unique(names[names >= 0])[:, None] == names).astype(np.float64)


def of_sequences(tokens, values):
    """Values [R, C] -> their mean over each sequence's completion tokens [sequences]."""
    member = membership(tokens)
    return member @ values.ravel() / member.sum(1)


def at_tokens(tokens, values):
    """Values of sequences [sequences] -> at each of their completion tokens [R, C]."""
    return (membership(tokens).T @ values).reshape(tokens.advantages.shape)


def sequence_ratio(logprobs, tokens):
    """s = exp(mean ln delta) (arXiv 2507.18071 eq. 7) of each sequence."""
    return saturated(jnp.exp(of_sequences(tokens, logprobs - tokens.old_logprobs)))


def clipped_objective(ratio, advantages, knobs):
    """arXiv 1707.06347 eq. 7: min(ratio A, clip(ratio) A)."""
    low, high = edges(knobs)
    return jnp.minimum(ratio * advantages, jnp.clip(ratio, low, high) * advantages)


def three_cases(delta, advantages, low, high, beta_low, beta_high):
    """arXiv 2509.20712 eq. 8."""
    return jnp.where(
        (sg(delta) < low) & (advantages < 0),
        beta_low * low / sg(delta) * delta * advantages,
        jnp.where(
            (sg(delta) > high) & (advantages > 0),
            beta_high * high / sg(delta) * delta * advantages,
            delta * advantages,
        ),
    )


def ppo_clip(logprobs, tokens, knobs):
    return clipped_objective(token_ratio(logprobs, tokens), tokens.advantages, knobs)


def ce_gppo(logprobs, tokens, knobs):
    delta = token_ratio(logprobs, tokens)
    betas = knobs["beta_low"], knobs["beta_high"]
    return three_cases(delta, tokens.advantages, *edges(knobs), *betas)


def gppo(logprobs, tokens, knobs):
    """arXiv 2508.07629: PPO's clip, with edges that carry a gradient."""
    delta = token_ratio(logprobs, tokens)
    low, high = (edge / sg(delta) * delta for edge in edges(knobs))
    clipped = jnp.where(
        sg(delta) < edges(knobs)[0], low, jnp.where(sg(delta) > edges(knobs)[1], high, delta)
    )
    return jnp.minimum(delta * tokens.advantages, clipped * tokens.advantages)


def gspo(logprobs, tokens, knobs):
    """arXiv 2507.18071 eq. 5: one clipped objective a sequence, here on each of its n tokens: their
    sum is n times the sequence's.
    """
    ratio, advantages = sequence_ratio(logprobs, tokens), of_sequences(tokens, tokens.advantages)
    return at_tokens(tokens, clipped_objective(ratio, advantages, knobs))


def ce_gspo(logprobs, tokens, knobs):
    """Eq. 8 of arXiv 2509.20712 on the sequence's ratio and advantage."""
    ratio, advantages = sequence_ratio(logprobs, tokens), of_sequences(tokens, tokens.advantages)
    betas = knobs["beta_low"], knobs["beta_high"]
    return at_tokens(tokens, three_cases(ratio, advantages, *edges(knobs), *betas))


def gspo_token(logprobs, tokens, knobs):
    """arXiv 2507.18071 eq. 13-14: sg(s) pi / sg(pi), each token its own advantage."""
    frozen = at_tokens(tokens, sg(sequence_ratio(logprobs, tokens)))
    ratio = frozen * jnp.exp(logprobs - sg(logprobs))
    return clipped_objective(ratio, tokens.advantages, knobs)


def gmpo(logprobs, tokens, knobs):
    """arXiv 2507.20673: sgn min(sgn ln delta, sgn clip(ln delta)), then the geometric mean."""
    low, high = np.log(edges(knobs))
    sign = np.sign(tokens.advantages)
    log_ratio = logprobs - tokens.old_logprobs
    clipped = sign * jnp.minimum(sign * log_ratio, sign * jnp.clip(log_ratio, low, high))
    mean = saturated(jnp.exp(of_sequences(tokens, clipped)))
    return at_tokens(tokens, mean * of_sequences(tokens, tokens.advantages))


def cispo(logprobs, tokens, knobs):
    """arXiv 2506.13585 eq. 4-5."""
    weight = sg(jnp.clip(token_ratio(logprobs, tokens), *edges(knobs)))
    return weight * tokens.advantages * logprobs


def cispo_cap(logprobs, tokens, knobs):
    """arXiv 2510.13786: an absolute upper cap alone."""
    weight = sg(jnp.minimum(token_ratio(logprobs, tokens), knobs["cispo_cap"]))
    return weight * tokens.advantages * logprobs


def sapo(logprobs, tokens, knobs):
    """arXiv 2511.20347: the gate (4 / tau) sigma(tau (delta - 1))."""
    tau = np.where(tokens.advantages > 0, knobs["gate_positive"], knobs["gate_negative"])
    gate = 1 / (1 + jnp.exp(-tau * (token_ratio(logprobs, tokens) - 1)))
    return 4 / tau * gate * tokens.advantages


def aspo(logprobs, tokens, knobs):
    """arXiv 2510.06062 and its code: A > 0: ratio p q / sg(p^2), masked where delta itself is right
    of the interval; A <= 0: PPO. Either's ratio is capped in value and keeps its gradient.
    """

    def softly_capped(ratio):
        return ratio / sg(ratio) * sg(jnp.minimum(ratio, knobs["aspo_cap"]))

    policy, old = jnp.exp(logprobs), np.exp(tokens.old_logprobs)
    inside = sg(policy) / old <= edges(knobs)[1]
    positive = saturated(softly_capped(policy * old / sg(policy**2))) * inside * tokens.advantages
    delta = saturated(softly_capped(policy / old))
    # Below the interval, where PPO clips, no cap binds: it is no less than 1.
    negative = jnp.where(
        sg(policy) / old < edges(knobs)[0],
        edges(knobs)[0] * tokens.advantages,
        delta * tokens.advantages,
    )
    return jnp.where(tokens.advantages > 0, positive, negative)


def dgpo(logprobs, tokens, knobs):
    """arXiv 2603.14389: outside the interval, the numerator's p alone carries the gradient."""
    low, high = edges(knobs)
    n, m = knobs["decay_low"], knobs["decay_high"]
    policy, old = jnp.exp(logprobs), np.exp(tokens.old_logprobs)
    left = policy * sg(policy) ** n / old ** (n + 1) / low**n
    right = policy * high ** (1 / m) * old ** (1 / m - 1) * sg(policy) ** (-1 / m)
    delta = sg(policy) / old
    ratio = jnp.where(
        (delta < low) & (tokens.advantages < 0),
        left,
        jnp.where((delta > high) & (tokens.advantages > 0), right, policy / old),
    )
    return saturated(ratio) * tokens.advantages


def clip_cov(logprobs, tokens, knobs):
    """arXiv 2505.22617: PPO's objective times 0 on the chosen tokens."""
    kept = ~tokens.selected["random_covariance"]
    return ppo_clip(logprobs, tokens, knobs) * kept


def kl_cov(logprobs, tokens, knobs):
    """arXiv 2505.22617: delta A, minus coef |ln delta| on the chosen tokens.

    |x| = max(x, -x) has slope 0 at 0, as in PyTorch; jnp.abs has slope 1 there.
    """
    log_ratio = logprobs - tokens.old_logprobs
    penalty = knobs["covariance_kl_coef"] * jnp.maximum(log_ratio, -log_ratio)
    chosen = tokens.selected["high_covariance"]
    return token_ratio(logprobs, tokens) * tokens.advantages - jnp.where(chosen, penalty, 0.0)


def _dppo(keep_positive, keep_negative, logprobs, tokens, knobs):
    weight = sg(jnp.minimum(token_ratio(logprobs, tokens), knobs["dppo_cap"]))
    keep = jnp.where(tokens.advantages > 0, keep_positive, keep_negative)
    return weight * keep * tokens.advantages * logprobs


def dppo_tv(logprobs, tokens, knobs):
    """arXiv 2602.04879, the mask on p - q."""
    moved = sg(jnp.exp(logprobs)) - np.exp(tokens.old_logprobs)
    keep = moved <= knobs["divergence_high"], moved >= -knobs["divergence_low"]
    return _dppo(*keep, logprobs, tokens, knobs)


def dppo_kl(logprobs, tokens, knobs):
    """arXiv 2602.04879, the mask on KL(old || policy) of {token, rest}."""
    p, q = sg(jnp.exp(logprobs)), np.exp(tokens.old_logprobs)
    divergence = q * (tokens.old_logprobs - sg(logprobs))
    divergence += (1 - q) * jnp.log((1 - q + 1e-8) / (1 - p + 1e-8))
    keep = (
        (divergence <= knobs["divergence_high"]) | (p <= q),
        (divergence <= knobs["divergence_low"]) | (p >= q),
    )
    return _dppo(*keep, logprobs, tokens, knobs)


def reinforce(logprobs, tokens, knobs):
    del knobs
    return tokens.advantages * logprobs


ORACLES = {
    "ppo_clip": ppo_clip,
    "gppo": gppo,
    "ce_gppo": ce_gppo,
    "ce_gspo": ce_gspo,
    "cispo": cispo,
    "cispo_cap": cispo_cap,
    "gspo": gspo,
    "gspo_token": gspo_token,
    "gmpo": gmpo,
    "sapo": sapo,
    "aspo": aspo,
    "dgpo": dgpo,
    "clip_cov": clip_cov,
    "kl_cov": kl_cov,
    "dppo_tv": dppo_tv,
    "dppo_kl": dppo_kl,
    "reinforce": reinforce,
}

# Methods whose interval is for the sequence's ratio.
OF_SEQUENCE_RATIOS = ("gspo", "gspo_token", "ce_gspo")


def dual_clip(objective, slope, ratio, tokens, knobs):
    """arXiv 1912.09729 eq. 5: max(objective, c A) where A < 0; detached as well where the weight of
    the gradient is beyond c, which the objective of a detached weight cannot show.
    """
    del ratio
    lowest = knobs["dual_clip"] * tokens.advantages
    bounded = jnp.maximum(objective, lowest)
    bounded = jnp.where(slope < lowest, sg(bounded), bounded)
    return jnp.where(tokens.advantages < 0, bounded, objective)


def entropy_ratio(objective, slope, ratio, tokens, knobs):
    """arXiv 2512.05591: the objective is detached unless low < H / H_old < high."""
    del slope, ratio
    entropies = (tokens.entropy + 1e-8) / (tokens.old_entropy + 1e-8)
    low, high = 1 - knobs["entropy_ratio_low"], 1 + knobs["entropy_ratio_high"]
    return jnp.where((low < entropies) & (entropies < high), objective, sg(objective))


def top_entropy(objective, slope, ratio, tokens, knobs):
    """arXiv 2506.01939: the objective times 0 on tokens of low entropy."""
    del slope, ratio, knobs
    return objective * tokens.selected["top_entropy"]


def stochastic_preservation(objective, slope, ratio, tokens, knobs):
    """The project's own: clipped tokens times b / q, b of Bernoulli(q)."""
    del slope
    low, high = edges(knobs)
    left = (ratio < low) & (tokens.advantages < 0)
    right = (ratio > high) & (tokens.advantages > 0)
    q = knobs["preserve_probability"]
    return objective * jnp.where(left | right, (tokens.uniform < q) / q, 1.0)


ORACLE_WRAPPERS = {
    "dual_clip": dual_clip,
    "entropy_ratio": entropy_ratio,
    "top_entropy": top_entropy,
    "stochastic_preservation": stochastic_preservation,
}


def differentiated(objective: Callable, tokens: Tokens) -> tuple[np.ndarray, np.ndarray]:
    """(log-probs -> per-token objective) and tokens -> objective, and the gradient of its sum over
    completion tokens; 0 at other tokens.
    """

    value, gradient_of = jax.vjp(objective, jnp.asarray(tokens.policy_logprobs))
    (gradient,) = gradient_of(jnp.asarray(tokens.completion_mask, value.dtype))
    return np.where(tokens.completion_mask, value, 0), np.asarray(gradient)


def oracle(
    name: str, wrappers: tuple[str, ...], tokens: Tokens, knobs: dict[str, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Method, names of wrappers (the first innermost), tokens, knobs -> value and gradient [R, C].

    A wrapper acts on one token at a time: it is given the method's value with the method's gradient
    as its slope in that token's own log-prob, whatever other tokens the method looked at.
    """
    with jax.enable_x64(True):
        value, gradient = differentiated(lambda x: ORACLES[name](x, tokens, knobs), tokens)
        ratio = token_ratio(tokens.policy_logprobs, tokens)
        if name in OF_SEQUENCE_RATIOS:
            ratio = at_tokens(tokens, sequence_ratio(tokens.policy_logprobs, tokens))

        def objective(logprobs):
            return value + gradient * (logprobs - tokens.policy_logprobs)

        for wrapper in wrappers:
            objective = around(ORACLE_WRAPPERS[wrapper], objective, ratio, tokens, knobs)
        return differentiated(objective, tokens) if wrappers else (value, gradient)


def around(wrapper, objective, *fixed):
    """Wrapper, (log-probs -> objective of each token) -> the objective inside the wrapper."""

    def wrapped(logprobs):
        inner, slope = jax.jvp(objective, (logprobs,), (jnp.ones_like(logprobs),))
        return wrapper(inner, sg(slope), *fixed)

    return wrapped
