"""The contract of a policy-gradient method: one pure per-token function from ratios to (value,
gradient).

    loss = -sum weight value,    d loss / d log pi = -weight gradient,    gradient = F A

The value is what is logged; F, the gradient weight, is what trains. Stating both lets a method keep
gradients that its forward value cannot show (CE-GPPO's clipped tokens), without stop-gradient
puzzles: `policy_surrogate` is a jax.custom_vjp whose backward pass is the declared gradient, and
the stop-gradient form of the papers is its test oracle.

Turning tokens into one number (aggregation), rewards into A (advantages) and completions into
training data (filters) happens elsewhere, on the host: `weight` above comes from aggregation.py.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from cegppo_jax.losses.sequences import Sequences
from cegppo_jax.sharding import Leaf

# exp() of a larger log ratio is replaced by exp(40) = 2.4e17: its square, which a gradient norm
# takes, is still finite in float32. It bounds unclipped ratios only (delta > 1 + clip_high with A <
# 0), in F and not in the log ratio, so that the gradient's direction survives.
MAX_LOG_RATIO = 40.0


def bounded_exp(log_ratio: jax.Array) -> jax.Array:
    """Returns the ratio, finite for every log ratio."""
    return jnp.exp(jnp.minimum(log_ratio, MAX_LOG_RATIO))


@flax.struct.dataclass
class SurrogateInputs:
    """What a method may read, per token [R, C] float32. Nothing here carries a gradient."""

    log_ratio: jax.Array  # ln pi_theta - ln pi_old, at the method's level
    advantages: jax.Array  # A
    policy_logprobs: jax.Array  # ln pi_theta of the token
    entropy: jax.Array  # of pi_theta at the token's place, nats
    old_entropy: jax.Array  # of pi_old there
    sequences: Sequences  # for means over a token's sequence
    # Uniform draws in [0, 1), a function of (seed, update, sequence, position); None: not requested
    uniform: jax.Array | None
    selected: dict[str, jax.Array]  # masks by name of a selection (selection.py), if requested

    @property
    def ratio(self) -> jax.Array:
        """delta = pi_theta / pi_old, finite for every log ratio."""
        return bounded_exp(self.log_ratio)


@dataclasses.dataclass(frozen=True)
class Number:
    """A number that a method reads, declared next to the method: its default and its limits."""

    default: float
    meaning: str
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    unlimited: bool = False  # infinity is allowed and means: no limit

    def check(self, place: str, value: float) -> None:
        """Raises ValueError, naming the place, when a value is not allowed."""
        rules = []
        try:
            finite = math.isfinite(value)
        except TypeError as error:
            raise ValueError(
                f"{place} = {value!r} is of type {type(value).__name__}: it needs a number "
                f"({self.meaning})"
            ) from error
        if not finite and not (self.unlimited and value == math.inf):
            rules.append("a number, or inf for no limit" if self.unlimited else "a finite number")
        if self.at_least is not None and not value >= self.at_least:
            rules.append(f"at least {self.at_least:g}")
        if self.above is not None and not value > self.above:
            rules.append(f"above {self.above:g}")
        if self.at_most is not None and not value <= self.at_most:
            rules.append(f"at most {self.at_most:g}")
        if rules:
            raise ValueError(f"{place} = {value}: {', '.join(rules)} ({self.meaning})")


# Read by the loss of every method: the clip interval, which decides how tokens are counted, and the
# coefficients of what is added to the surrogate.
COMMON_NUMBERS: Mapping[str, Number] = MappingProxyType(
    {
        "clip_low": Number(0.2, "epsilon_l; 1 or more: never clips on the left", at_least=0),
        "clip_high": Number(
            0.2, "epsilon_h; inf: never clips on the right", at_least=0, unlimited=True
        ),
        "kl_coef": Number(0.0, "of the KL to the reference", at_least=0),
        "entropy_coef": Number(0.0, "of the entropy bonus", at_least=0),
        "positive_lm_coef": Number(
            0.0, "of the language-model loss on correct completions", at_least=0
        ),
    }
)


@jax.tree_util.register_pytree_node_class
class Knobs:
    """Numbers of a method, by name: `knobs.beta_low`. They are NumPy scalars and traced, so
    changing one in a sweep, by a schedule or by a controller compiles nothing. A method reads
    its own and ignores the others.
    """

    def __init__(self, **numbers: Leaf):
        self._numbers = dict(sorted(numbers.items()))

    def __getattr__(self, name: str) -> Leaf:
        try:
            return self.__dict__["_numbers"][name]
        except KeyError:
            raise AttributeError(
                f"no number {name!r} was given: a method declares what it reads in Method.numbers"
            ) from None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the numbers."""
        return tuple(self._numbers)

    def replace(self, **changes: Leaf) -> Knobs:
        """Returns the same numbers with some changes."""
        return Knobs(**{**self._numbers, **changes})

    def tree_flatten(self) -> tuple[tuple[Leaf, ...], tuple[str, ...]]:
        """Returns the values, and the names, which are static."""
        return tuple(self._numbers.values()), tuple(self._numbers)

    @classmethod
    def tree_unflatten(cls, names: tuple[str, ...], values: Sequence[Leaf]) -> Knobs:
        """Reverses tree_flatten."""
        return cls(**dict(zip(names, values, strict=True)))


@flax.struct.dataclass
class SurrogateTerms:
    """What a method returns for each token, [R, C] float32, to be maximised."""

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
    """A surrogate at a ratio level, the numbers that it reads, and what it needs beyond its
    micro-batch.
    """

    surrogate: Surrogate
    level: Level = token_level
    # Its own, in addition to COMMON_NUMBERS
    numbers: Mapping[str, Number] = dataclasses.field(default_factory=dict)
    selections: tuple[str, ...] = ()  # masks over the whole mini-batch: names in SELECTIONS
    draws: bool = False  # reads `uniform`

    @property
    def all_numbers(self) -> dict[str, Number]:
        """Returns every number that its loss reads."""
        return {**COMMON_NUMBERS, **self.numbers}

    @property
    def reads_betas(self) -> bool:
        """Whether it reads beta_low and beta_high, which steering can move."""
        return {"beta_low", "beta_high"} <= self.numbers.keys()

    def knobs(self, changes: Mapping[str, float] = MappingProxyType({})) -> Knobs:
        """Returns the defaults of all its numbers, with the changes.

        Raises:
          ValueError: it has no number of that name, or the value is not allowed.
        """
        known = self.all_numbers
        for name, value in changes.items():
            if name not in known:
                raise ValueError(
                    f"{name} = {value} is not a number of this method: {sorted(known)}"
                )
            known[name].check(name, value)
        values = {name: changes.get(name, number.default) for name, number in known.items()}
        return Knobs(**{name: np.float32(value) for name, value in values.items()})


class Tokens(Protocol):
    """What decides whether a token is clipped."""

    @property
    def log_ratio(self) -> jax.Array: ...
    @property
    def advantages(self) -> jax.Array: ...


def left_clipped(tokens: Tokens, knobs: Knobs) -> jax.Array:
    """Returns the mask of NA&LP tokens: negative advantage, ratio left of the interval."""
    return (tokens.log_ratio < jnp.log1p(-knobs.clip_low)) & (tokens.advantages < 0)


def right_clipped(tokens: Tokens, knobs: Knobs) -> jax.Array:
    """Returns the mask of PA&LP tokens: positive advantage, ratio right of the interval."""
    return (tokens.log_ratio > jnp.log1p(knobs.clip_high)) & (tokens.advantages > 0)


def policy_surrogate(
    method: Method, policy_logprobs: jax.Array, inputs: SurrogateInputs, knobs: Knobs
) -> tuple[jax.Array, SurrogateTerms]:
    """Returns the per-token objective [R, C] float32 with the declared gradient, and the method's
    terms.

    Only policy_logprobs [R, C] is differentiated. Where a method's value is the integral of F A,
    numerical and custom gradients agree. Where it is not (a clipped token's value is constant while
    F is not 0) a finite difference sees no slope: that disagreement *is* gradient preservation.
    """
    inputs = jax.lax.stop_gradient(inputs)
    terms = method.surrogate(method.level(inputs), knobs)
    logprobs = policy_logprobs.astype(jnp.float32)
    return _with_gradient(logprobs, terms.value, terms.gradient), terms


@jax.custom_vjp
def _with_gradient(policy_logprobs: jax.Array, value: jax.Array, gradient: jax.Array) -> jax.Array:
    """Returns `value`, with `gradient` declared as its derivative with respect to
    policy_logprobs.
    """
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
