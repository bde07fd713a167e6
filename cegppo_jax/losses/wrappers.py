"""Wrappers from method to method, which can be put around any surrogate in any order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from cegppo_jax.import_path import named_function
from cegppo_jax.losses.contract import (
    Knobs,
    Method,
    Number,
    Surrogate,
    SurrogateInputs,
    SurrogateTerms,
    left_clipped,
    right_clipped,
)

Wrapper = Callable[[Method], Method]


def _around(
    method: Method, surrogate: Surrogate, numbers: Mapping[str, Number], **changes: Any
) -> Method:
    """Returns the method with another surrogate, which reads further numbers."""
    return dataclasses.replace(
        method, surrogate=surrogate, numbers={**method.numbers, **numbers}, **changes
    )


def _without(terms: SurrogateTerms, dropped: jax.Array, event: str) -> SurrogateTerms:
    """Returns terms with value and gradient 0 where dropped, counted as `event`."""
    value, gradient = (jnp.where(dropped, 0.0, x) for x in (terms.value, terms.gradient))
    return dataclasses.replace(
        terms, value=value, gradient=gradient, events=terms.events | {event: dropped}
    )


DUAL_CLIP = {
    "dual_clip": Number(10.0, "c: the lowest value is c A, A < 0", above=0, unlimited=True)
}


def dual_clip(method: Method) -> Method:
    """For A < 0, the value is at least c A (arXiv 1912.09729). A token below it gets no
    gradient, as beyond delta = c in PPO's objective. Nor does a token with F > c: the values of
    CISPO and similar methods are log-probabilities, which do not show it.
    """
    inner = method.surrogate

    def surrogate(inputs: SurrogateInputs, knobs: Knobs) -> SurrogateTerms:
        terms = inner(inputs, knobs)
        lowest = knobs.dual_clip * inputs.advantages
        beyond = (terms.value < lowest) | (terms.gradient < lowest)
        hit = (inputs.advantages < 0) & beyond
        return dataclasses.replace(
            terms,
            value=jnp.where(hit, jnp.maximum(terms.value, lowest), terms.value),
            gradient=jnp.where(hit, 0.0, terms.gradient),
            events=terms.events | {"dual_clip": hit},
        )

    return _around(method, surrogate, DUAL_CLIP)


ENTROPY_RATIO = {
    "entropy_ratio_low": Number(
        0.05, "a token trains while 1 - low < H / H_old", at_least=0, unlimited=True
    ),
    "entropy_ratio_high": Number(0.05, "and H / H_old < 1 + high", at_least=0, unlimited=True),
}


def entropy_ratio(method: Method) -> Method:
    """ERC (arXiv 2512.05591): a token trains while 1 - entropy_ratio_low < H_theta / H_old < 1 +
    entropy_ratio_high, both exclusive. Outside, it keeps its value and loses its gradient. 1e-8
    is added to both entropies, so that an entropy that stays 0 has ratio 1.
    """
    inner = method.surrogate

    def surrogate(inputs: SurrogateInputs, knobs: Knobs) -> SurrogateTerms:
        terms = inner(inputs, knobs)
        ratio = (inputs.entropy + 1e-8) / (inputs.old_entropy + 1e-8)
        kept = (ratio > 1 - knobs.entropy_ratio_low) & (ratio < 1 + knobs.entropy_ratio_high)
        return dataclasses.replace(
            terms,
            gradient=jnp.where(kept, terms.gradient, 0.0),
            events=terms.events | {"entropy_ratio": ~kept},
        )

    return _around(method, surrogate, ENTROPY_RATIO)


TOP_ENTROPY = {
    "top_entropy_fraction": Number(0.2, "share of tokens that train", above=0, at_most=1)
}


def top_entropy(method: Method) -> Method:
    """Only the mini-batch's most uncertain tokens train (arXiv 2506.01939: the top 20 %); the
    loss's denominator still counts all of them.
    """
    inner = method.surrogate

    def surrogate(inputs: SurrogateInputs, knobs: Knobs) -> SurrogateTerms:
        return _without(inner(inputs, knobs), ~inputs.selected["top_entropy"], "low_entropy")

    selections = (*method.selections, "top_entropy")
    return _around(method, surrogate, TOP_ENTROPY, selections=selections)


STOCHASTIC_PRESERVATION = {
    "preserve_probability": Number(
        1.0, "q, that a clipped token keeps its gradient", above=0, at_most=1
    )
}


def stochastic_preservation(method: Method) -> Method:
    """A clipped token keeps its gradient with probability q = preserve_probability, scaled by
    1/q: the same gradient in expectation, and the unchanged method at q = 1.
    """
    inner = method.surrogate

    def surrogate(inputs: SurrogateInputs, knobs: Knobs) -> SurrogateTerms:
        terms = inner(inputs, knobs)
        clipped = left_clipped(inputs, knobs) | right_clipped(inputs, knobs)
        q = knobs.preserve_probability
        dropped = clipped & (inputs.uniform >= q)
        scale = jnp.where(clipped, 1 / q, 1.0)
        scaled = dataclasses.replace(
            terms, value=terms.value * scale, gradient=terms.gradient * scale
        )
        return _without(scaled, dropped, "not_preserved")

    return _around(method, surrogate, STOCHASTIC_PRESERVATION, draws=True)


WRAPPERS: dict[str, Wrapper] = {
    "dual_clip": dual_clip,
    "entropy_ratio": entropy_ratio,
    "top_entropy": top_entropy,
    "stochastic_preservation": stochastic_preservation,
}


def wrapped(method: Method, names: Sequence[str]) -> Method:
    """Puts the named wrappers (in WRAPPERS, or "package.module:function") around a method, the
    first one innermost.

    Raises:
      ValueError: a name does not exist, or names something that does not make a Method from a
        Method.
    """
    for name in names:
        method = named_function("loss.wrappers", name, WRAPPERS, "method")(method)
        if not isinstance(method, Method):
            kind = type(method).__name__
            raise ValueError(f"loss.wrappers = {name!r} gave a {kind}: a wrapper gives a Method")
    return method
