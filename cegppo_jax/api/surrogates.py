"""Any method's value, gradient weight F and entropy change, on plain arrays of tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict

from cegppo_jax.losses import entropy_budget
from cegppo_jax.losses.contract import (
    Knobs,
    Method,
    SurrogateInputs,
    SurrogateTerms,
)
from cegppo_jax.losses.logprobs import TokenStatistics
from cegppo_jax.losses.sequences import Sequences
from cegppo_jax.losses.settings import method_named
from cegppo_jax.losses.wrappers import wrapped

# A method by name, by import path, as a record, or as the bare function
AnyMethod = str | Method | Callable[[SurrogateInputs, Knobs], SurrogateTerms]


def method_of(method: AnyMethod) -> Method:
    """Returns the Method of a name in SURROGATES, of "package.module:METHOD", or of a function
    (SurrogateInputs, Knobs) -> SurrogateTerms. Compiled functions can be looked up by it.

    Raises:
      ValueError: there is no method of that name.
    """
    if isinstance(method, str):
        method = method_named(method)
    elif not isinstance(method, Method):
        method = Method(method)
    return dataclasses.replace(method, numbers=FrozenDict(method.numbers))


def surrogate(
    method: AnyMethod,
    log_ratio: Any,
    advantages: Any,
    *,
    probability: Any = 0.3,
    entropy: Any = 1.0,
    old_entropy: Any = None,
    sequence: Any = None,
    wrappers: Sequence[str] = (),
    selected: Any = False,
    uniform: Any = 0.0,
    **numbers: float,
) -> SurrogateTerms:
    """Computes a method's value and gradient F A for tokens [n].

    Args:
      method: a name in SURROGATES, "package.module:METHOD", a Method, or a function.
      log_ratio: ln pi - ln pi_old, [n], or one number.
      advantages: [n], or one for all; so are the following.
      probability: pi_old of the tokens.
      entropy, old_entropy: of pi and pi_old there, nats; old_entropy None: as entropy.
      sequence: which sequence each token is in, numbers from 0; None: each is one by itself.
      wrappers: names in WRAPPERS, the first innermost.
      selected: what selections over a mini-batch (clip_cov, kl_cov, top_entropy) say of the tokens.
      uniform: draws in [0, 1) of methods that are random.
      numbers: of the method and its wrappers: beta_low, clip_high, ...

    Returns:
      value and gradient [n] float32, events and measured by name [n].

    Raises:
      ValueError: arrays that do not fit log_ratio, a number that the method does not have.
    """
    chosen = wrapped(method_of(method), wrappers)
    ratios = jnp.atleast_1d(jnp.asarray(log_ratio, jnp.float32))
    shape = (1, len(ratios))

    def like(name: str, value: Any, dtype: Any = jnp.float32) -> jax.Array:
        if np.shape(value) not in ((), ratios.shape):
            raise ValueError(
                f"{name} of shape {np.shape(value)} for {len(ratios)} tokens: one each, or one for "
                "all"
            )
        return jnp.broadcast_to(jnp.asarray(value, dtype), shape)

    places = jnp.arange(len(ratios)) if sequence is None else sequence
    inputs = SurrogateInputs(
        log_ratio=ratios[None],
        advantages=like("advantages", advantages),
        policy_logprobs=ratios[None] + jnp.log(like("probability", probability)),
        entropy=like("entropy", entropy),
        old_entropy=like("old_entropy", entropy if old_entropy is None else old_entropy),
        sequences=Sequences(1 + like("sequence", places, jnp.int32), jnp.ones(shape, bool)),
        uniform=like("uniform", uniform),
        selected={name: like("selected", selected, bool) for name in chosen.selections},
    )
    terms = chosen.surrogate(chosen.level(inputs), chosen.knobs(numbers))
    return jax.tree.map(lambda array: np.asarray(array)[0], terms)


def gradient_weight(method: AnyMethod, ratio: Any, advantage: float, **options: Any) -> np.ndarray:
    """Returns F at each ratio [n] for tokens of one advantage: what multiplies A grad ln pi.

    Args:
      options: of `surrogate`, numbers of the method among them.

    Raises:
      ValueError: the advantage is 0, where no gradient has a weight; or see surrogate.
    """
    if not advantage:
        raise ValueError("advantage = 0: such a token has no gradient, give 1 or -1")
    terms = surrogate(method, np.log(np.asarray(ratio, np.float32)), advantage, **options)
    return np.asarray(terms.gradient) / np.float32(advantage)


def entropy_change(logprobs: Any, entropy: Any, slope: Any, gradient: Any) -> np.ndarray:
    """Returns the change of entropy that a gradient asks for at each token, to first order:

        dH = -gradient [p (ln p + H) - S]    nats per unit of step on the logits there

    Args: arrays of one shape, or numbers.
      logprobs: ln p of the tokens.
      entropy: H there, nats.
      slope: S = sum over the vocabulary of p^2 (ln p + H).
      gradient: F A, times the token's weight in the loss for its part of the entropy budget.
    """
    statistics = TokenStatistics(*(jnp.asarray(one) for one in (logprobs, entropy, slope)))
    return np.asarray(entropy_budget.first_order_change(statistics, jnp.asarray(gradient)))
