"""Methods as a user may write them outside the package: with a number, an event and a measure."""

import dataclasses

import jax.numpy as jnp

from cegppo_jax.losses.contract import Method, Number, SurrogateTerms


def near_only(inputs, knobs):
    """F = delta while |ln delta| <= horizon, and 0 beyond."""
    distance = jnp.abs(inputs.log_ratio)
    beyond = distance > knobs.horizon
    weight = jnp.where(beyond, 0.0, inputs.ratio)
    return SurrogateTerms(
        value=weight * inputs.advantages,
        gradient=weight * inputs.advantages,
        events={"beyond": beyond},
        measured={"distance": distance},
    )


METHOD = Method(
    near_only,
    numbers={"horizon": Number(0.5, "the largest |ln delta| that trains", above=0, at_most=2)},
)
ANOTHER_DEFAULT = Method(near_only, numbers={"clip_low": Number(0.3, "not config.loss's")})
NAME_TAKEN = Method(near_only, numbers={"aggregation": Number(1.0, "another setting's name")})
NOT_A_NUMBER = Method(near_only, numbers={"horizon": 0.5})


def positive_only(inputs, knobs):
    """A surrogate without numbers needs no Method."""
    gradient = jnp.where(inputs.advantages > 0, inputs.ratio * inputs.advantages, 0.0)
    return SurrogateTerms(value=gradient, gradient=gradient)


def takes_too_much(inputs, knobs, mask):
    """No surrogate."""


def one_for_all(inputs, knobs):
    """No surrogate: a sum."""
    return SurrogateTerms(value=inputs.advantages.sum(), gradient=inputs.advantages)


def counts_rows(inputs, knobs):
    """No surrogate: its event is not of tokens."""
    rows = jnp.any(inputs.advantages > 0, axis=1)
    return SurrogateTerms(inputs.advantages, inputs.advantages, events={"positive": rows})


def whole_numbers(inputs, knobs):
    """No surrogate: its gradient is of integers."""
    return SurrogateTerms(value=inputs.advantages, gradient=jnp.where(inputs.advantages > 0, 1, 0))


def one_array(inputs, knobs):
    """No surrogate: an array."""
    return inputs.ratio * inputs.advantages


def undeclared(inputs, knobs):
    """No surrogate: it reads a number that it does not declare."""
    gradient = knobs.horizon * inputs.advantages
    return SurrogateTerms(value=gradient, gradient=gradient)


def scaled(method):
    """A wrapper with a number."""
    inner = method.surrogate

    def surrogate(inputs, knobs):
        terms = inner(inputs, knobs)
        return dataclasses.replace(
            terms, value=knobs.scale * terms.value, gradient=knobs.scale * terms.gradient
        )

    number = Number(1.0, "of value and gradient", above=0)
    return dataclasses.replace(
        method, surrogate=surrogate, numbers={**method.numbers, "scale": number}
    )


def gives_nothing(method):
    """No wrapper."""
