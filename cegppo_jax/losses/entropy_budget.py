"""The change of entropy that a method's gradient asks for, by kind of token. It shows which beta to
turn.

For a tabular softmax policy, a step eta on the logits of one place changes the entropy H there by

    dH = -eta F A [p_a (ln p_a + H) - S],    S = sum over the vocabulary of p^2 (ln p + H),

to first order, where a is the token, p_a its probability and F A the method's gradient. (The exact
per-token form of arXiv 2505.22617's covariance and of arXiv 2509.20712 eq. 7.) The loss steps by
weight correction F A, with the aggregation's weight (aggregation.py) and the correction of sampler/
trainer mismatch (mismatch.py). The budget is the sum over tokens of the dH of these steps, as the
loss is the sum over tokens of their losses.

Everything here is per unit of eta. A network shares its parameters between places and Adam rescales
them, so the sums give sign and proportion, not nats after the update.

    quadrant    pushes            entropy
    PA&HP       the likely up     falls
    PA&LP       the rare up       rises
    NA&HP       the likely down   rises
    NA&LP       the rare down     falls
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cegppo_jax.losses.logprobs import TokenStatistics
from cegppo_jax.losses.reduce import Part, Reductions, Total

# What counts as a high probability: (ln p, H) -> mask.
HIGH_PROBABILITY: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    # The vertical line of arXiv 2509.20712 Fig. 1.
    "half": lambda logprobs, entropy: jnp.exp(logprobs) >= 0.5,
    # Less surprising than the average token there (arXiv 2602.09782, 2602.03392).
    "surprisal": lambda logprobs, entropy: -logprobs < entropy,
}


def first_order_change(statistics: TokenStatistics, gradient: jax.Array) -> jax.Array:
    """Returns dH / eta of each token, [R, C], nats, for a step up a gradient of ln pi(token),
    [R, C].
    """
    logprobs = statistics.logprobs
    lift = jnp.exp(logprobs) * (logprobs + statistics.entropy)
    return -gradient * (lift - statistics.entropy_slope)


def entropy_budget(
    statistics: TokenStatistics,
    gradient: jax.Array,
    advantages: jax.Array,
    left: jax.Array,
    right: jax.Array,
    mask: jax.Array,
    high_probability: str,
) -> Reductions:
    """Sums dH / eta and counts tokens under the mask, by quadrant and by region, from arrays
    [R, C]. Also returns the sum over all tokens (budget/mean, a mean if the aggregation is one).

    Args:
      gradient: that of the loss, weight correction F A of each token.

    Tokens with A = 0 belong to no quadrant. Their region is `inside`: not clipped, whatever their
    ratio.
    """
    change = first_order_change(statistics, gradient)
    high = HIGH_PROBABILITY[high_probability](statistics.logprobs, statistics.entropy)
    positive, negative = advantages > 0, advantages < 0
    classes = {
        "pa_hp": positive & high,
        "pa_lp": positive & ~high,
        "na_hp": negative & high,
        "na_lp": negative & ~high,
        "inside": ~left & ~right,
        "left": left,
        "right": right,
    }
    reductions: Reductions = {"budget/mean": Part.over(change, mask)}
    for name, members in classes.items():
        reductions[f"budget/{name}"] = Part.over(change, mask & members)
        reductions[f"budget/{name}_tokens"] = Total.count(mask & members)
    return reductions
