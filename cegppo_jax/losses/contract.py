"""The contract of a policy-gradient method: one pure per-token function, from ratios to (value,
gradient).

    loss = -sum weight value,    d loss / d log pi = -weight gradient,    gradient = F A

The value is what is logged; F, the gradient weight, is what trains. Stating both lets a method keep
gradients that its forward value cannot show (CE-GPPO's clipped tokens), without stop-gradient
puzzles: `policy_surrogate` is a jax.custom_vjp whose backward pass is the declared gradient, and
the stop-gradient form of the papers is its test oracle.

What turns tokens into one number (aggregation), rewards into A (advantages) and completions into
training data (filters) is said elsewhere, on the host: `weight` above is aggregation.py's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol

import flax.struct
import jax
import jax.numpy as jnp

from cegppo_jax.losses.sequences import Sequences
from cegppo_jax.sharding import Leaf

# exp() of a larger log ratio is replaced by exp(40) = 2.4e17: its square, which a gradient norm
# takes, is still finite in float32. It bounds unclipped ratios only (delta > 1 + clip_high with A <
# 0), in F and not in the log ratio, so that the gradient's direction survives.
MAX_LOG_RATIO = 40.0


def bounded_exp(log_ratio: jax.Array) -> jax.Array:
    """Log ratio -> ratio, finite for every log ratio."""
    return jnp.exp(jnp.minimum(log_ratio, MAX_LOG_RATIO))


@flax.struct.dataclass
class SurrogateInputs:
    """What a method may look at, per token [R, C] float32. Nothing here carries a gradient."""

    log_ratio: jax.Array  # ln pi_theta - ln pi_old, at the method's level
    advantages: jax.Array  # A
    policy_logprobs: jax.Array  # ln pi_theta of the token
    entropy: jax.Array  # of pi_theta at the token's place, nats
    old_entropy: jax.Array  # of pi_old there
    sequences: Sequences  # for means over a token's sequence
    # Uniform draws in [0, 1), a function of (seed, update, sequence, position); None: not asked for
    uniform: jax.Array | None
    selected: dict[str, jax.Array]  # masks by name of a selection (selection.py), those asked for

    @property
    def ratio(self) -> jax.Array:
        """delta = pi_theta / pi_old, finite for every log ratio."""
        return bounded_exp(self.log_ratio)


@flax.struct.dataclass
class Knobs:
    """The methods' numbers. NumPy scalars, traced: changing one, in a sweep, by a schedule or by a
    controller, compiles nothing. A method reads its own and leaves the others.
    """

    clip_low: Leaf  # the paper's epsilon_l; 1 or more: never clips on the left
    clip_high: Leaf  # epsilon_h; inf: never clips on the right
    beta_low: Leaf  # CE-GPPO's beta1: weight of clipped NA&LP tokens (left)
    beta_high: Leaf  # CE-GPPO's beta2: weight of clipped PA&LP tokens (right)
    cispo_cap: Leaf  # cispo_cap: largest F
    aspo_cap: Leaf  # aspo: largest F
    dppo_cap: Leaf  # dppo_*: largest F
    divergence_low: Leaf  # dppo_*: how far pi_theta may have moved, A < 0
    divergence_high: Leaf  # dppo_*: A > 0
    gate_positive: Leaf  # sapo: temperature of the gate, A > 0
    gate_negative: Leaf  # sapo: A < 0
    decay_low: Leaf  # dgpo: n, the power on the left
    decay_high: Leaf  # dgpo: m, the root on the right
    covariance_fraction: Leaf  # clip_cov, kl_cov: share of tokens selected
    covariance_low: Leaf  # clip_cov: products that may be selected lie between
    covariance_high: Leaf
    covariance_kl_coef: Leaf  # kl_cov: penalty on the selected tokens
    dual_clip: Leaf  # wrapper dual_clip: c, lowest value = c A for A < 0
    preserve_probability: Leaf  # wrapper stochastic_preservation: q
    entropy_ratio_low: Leaf  # wrapper entropy_ratio: kept while 1 - low < H / H_old < 1 + high
    entropy_ratio_high: Leaf
    top_entropy_fraction: Leaf  # wrapper top_entropy: share of tokens that train
    kl_coef: Leaf  # of the KL to the reference, in the loss
    entropy_coef: Leaf  # of the entropy bonus
    positive_lm_coef: Leaf  # of the language-model loss on correct completions


@flax.struct.dataclass
class SurrogateTerms:
    """What a method returns, per token [R, C] float32; to be maximised."""

    value: jax.Array  # the surrogate objective's forward value
    gradient: jax.Array  # F A: the objective's declared gradient is this times grad log pi
    # Masks of what the method did, by name: policy/<name>_count counts them over the tokens that
    # train
    events: dict[str, jax.Array] = flax.struct.field(default_factory=dict)
    # Values that the method wants to show, by name: user/<name> is their mean over the same tokens
    measured: dict[str, jax.Array] = flax.struct.field(default_factory=dict)


Surrogate = Callable[[SurrogateInputs, Knobs], SurrogateTerms]
Level = Callable[[SurrogateInputs], SurrogateInputs]


def token_level(inputs: SurrogateInputs) -> SurrogateInputs:
    """Each token has its own ratio."""
    return inputs


def sequence_level(inputs: SurrogateInputs) -> SurrogateInputs:
    """One ratio and one advantage a sequence: ln s = mean over the sequence of ln delta (GSPO,
    arXiv 2507.18071 eq. 7).
    """
    mean = inputs.sequences.mean
    return dataclasses.replace(
        inputs, log_ratio=mean(inputs.log_ratio), advantages=mean(inputs.advantages)
    )


def sequence_ratio(inputs: SurrogateInputs) -> SurrogateInputs:
    """One ratio a sequence, each token its own advantage (GSPO-token, arXiv 2507.18071 eq. 14)."""
    return dataclasses.replace(inputs, log_ratio=inputs.sequences.mean(inputs.log_ratio))


@dataclasses.dataclass(frozen=True)
class Method:
    """A surrogate at a ratio level, and what it asks for beyond its micro-batch."""

    surrogate: Surrogate
    level: Level = token_level
    selections: tuple[str, ...] = ()  # masks over the whole mini-batch: names in SELECTIONS
    draws: bool = False  # reads `uniform`
    betas: bool = False  # reads beta_low and beta_high, which steering can move


class Tokens(Protocol):
    """What tells whether a token is clipped."""

    @property
    def log_ratio(self) -> jax.Array: ...
    @property
    def advantages(self) -> jax.Array: ...


def left_clipped(tokens: Tokens, knobs: Knobs) -> jax.Array:
    """-> mask of NA&LP tokens: negative advantage, ratio left of the interval."""
    return (tokens.log_ratio < jnp.log1p(-knobs.clip_low)) & (tokens.advantages < 0)


def right_clipped(tokens: Tokens, knobs: Knobs) -> jax.Array:
    """-> mask of PA&LP tokens: positive advantage, ratio right of the interval."""
    return (tokens.log_ratio > jnp.log1p(knobs.clip_high)) & (tokens.advantages > 0)


def policy_surrogate(
    method: Method, policy_logprobs: jax.Array, inputs: SurrogateInputs, knobs: Knobs
) -> tuple[jax.Array, SurrogateTerms]:
    """Log-probabilities [R, C] and a method's inputs -> per-token objective [R, C] float32 with the
    declared gradient, and the method's terms.

    Only policy_logprobs is differentiated. Where a method's value is F A's own integral, numerical
    and custom gradients agree; where it is not (a clipped token's value is constant while F is not
    0) a finite difference sees no slope: that disagreement *is* gradient preservation.
    """
    inputs = jax.lax.stop_gradient(inputs)
    terms = method.surrogate(method.level(inputs), knobs)
    logprobs = policy_logprobs.astype(jnp.float32)
    return _with_gradient(logprobs, terms.value, terms.gradient), terms


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
