"""A method from outside the package."""

from cegppo_jax import Method, Number, SurrogateTerms
from cegppo_jax.losses.contract import Knobs, SurrogateInputs


def damped(inputs: SurrogateInputs, knobs: Knobs) -> SurrogateTerms:
    """F = damping, whatever the ratio."""
    gradient = knobs.damping * inputs.advantages
    return SurrogateTerms(gradient * inputs.ratio, gradient)


DAMPED = Method(damped, numbers={"damping": Number(0.25, "F of every token", at_least=0)})
