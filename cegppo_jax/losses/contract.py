"""The contract of a policy-gradient method: one pure per-token function, from log ratios to (value,
gradient weight).

    loss = -aggregate(value),    d loss / d log pi = -aggregate(F A)

The value is what is logged; the gradient weight F is what trains. Stating both lets a method keep
gradients that its forward value cannot show (CE-GPPO's clipped tokens), without stop-gradient
puzzles: `policy_surrogate` is a jax.custom_vjp whose backward pass is F A, and the stop-gradient
form of the papers is its test oracle.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp

from cegppo_jax.sharding import Leaf

# exp() of a larger log ratio is replaced by exp(40) = 2.4e17: its square, which a gradient norm
# takes, is still finite in float32. It bounds unclipped ratios only (delta > 1 + clip_high with A <
# 0), in F and not in the log ratio, so that the gradient's direction survives.
MAX_LOG_RATIO = 40.0


@flax.struct.dataclass
class SurrogateInputs:
    """What a method may look at, per token [R, C] float32. Nothing here carries a gradient."""

    log_ratio: jax.Array  # ln pi_theta - ln pi_old of the token
    advantages: jax.Array  # A

    @property
    def ratio(self) -> jax.Array:
        """delta = pi_theta / pi_old, finite for every log ratio."""
        return jnp.exp(jnp.minimum(self.log_ratio, MAX_LOG_RATIO))


@flax.struct.dataclass
class SurrogateKnobs:
    """The methods' numbers. NumPy scalars, traced: changing one, in a sweep or by a schedule,
    compiles nothing.
    """

    clip_low: Leaf  # the paper's epsilon_l; 1 or more: never clips on the left
    clip_high: Leaf  # epsilon_h; inf: never clips on the right
    beta_low: Leaf  # beta1: weight of clipped NA&LP tokens (left)
    beta_high: Leaf  # beta2: weight of clipped PA&LP tokens (right)


@flax.struct.dataclass
class SurrogateTerms:
    """What a method returns, per token [R, C] float32; to be maximised."""

    value: jax.Array  # the surrogate objective's forward value
    gradient_weight: jax.Array  # F: the objective's gradient is F A grad log pi


Surrogate = Callable[[SurrogateInputs, SurrogateKnobs], SurrogateTerms]


def policy_surrogate(
    surrogate: Surrogate,
    policy_logprobs: jax.Array,
    old_logprobs: jax.Array,
    advantages: jax.Array,
    knobs: SurrogateKnobs,
) -> jax.Array:
    """Log-probabilities and advantages [R, C] -> per-token objective [R, C] float32 with gradient F
    A.

    Only policy_logprobs is differentiated. Inside the clip interval the value's own derivative is F
    A, so numerical and custom gradients agree there; outside, the value of a clipped token is
    constant while F is not 0, so a finite difference sees no slope: that disagreement *is* gradient
    preservation.
    """
    policy_logprobs = policy_logprobs.astype(jnp.float32)
    log_ratio = policy_logprobs - old_logprobs.astype(jnp.float32)
    inputs = SurrogateInputs(log_ratio, advantages.astype(jnp.float32))
    terms = surrogate(jax.lax.stop_gradient(inputs), knobs)
    return _with_gradient(policy_logprobs, terms.value, terms.gradient_weight * inputs.advantages)


@jax.custom_vjp
def _with_gradient(policy_logprobs: jax.Array, value: jax.Array, gradient: jax.Array) -> jax.Array:
    """-> `value`, whose derivative with respect to policy_logprobs is declared to be `gradient`."""
    return value


def _with_gradient_forward(
    policy_logprobs: jax.Array, value: jax.Array, gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return value, gradient


def _with_gradient_backward(
    gradient: jax.Array, cotangent: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    nothing = jnp.zeros_like(gradient)
    return cotangent * gradient, nothing, nothing


_with_gradient.defvjp(_with_gradient_forward, _with_gradient_backward)
