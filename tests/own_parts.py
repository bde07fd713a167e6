"""Advantages, aggregations, corrections and tasks as a user may write them outside the package."""

import random

import numpy as np

from cegppo_jax.data.tasks.table import Task
from cegppo_jax.data.tasks.worked import Worked


def best_only(rewards, settings):
    """The group's best completions get 1, all others 0."""
    return (rewards == rewards.max(axis=1, keepdims=True)).astype(float)


def without_epsilon(rewards, settings):
    """Groups of equal rewards give 0 / 0."""
    with np.errstate(invalid="ignore"):
        return (rewards - rewards.mean(axis=1, keepdims=True)) / rewards.std(axis=1, keepdims=True)


def one_a_group(rewards, settings):
    """Of another shape."""
    return rewards.mean(axis=1)


def raises(rewards, settings):
    """With a bug."""
    return rewards["a"]


def by_root(lengths, settings):
    """Weights that fall with the root of the length."""
    return 1 / (len(lengths) * np.sqrt(lengths))


def one_for_all(lengths, settings):
    """Of another shape."""
    return 1 / lengths.sum()


def half(log_rho, settings):
    """The root of each token's ratio."""
    return [np.exp(0.5 * one) for one in log_rho]


def first_alone(log_rho, settings):
    """Of another number of completions."""
    return [np.exp(log_rho[0])]


def one_argument(values):
    """Too few."""


def draw_double(rng, steps):
    """ "12*2" -> "#24" """
    number = rng.randrange(10**steps)
    return Worked(f"{number}*2", str(2 * number), f"#{2 * number}", None)


def draw_anything(rng, steps):
    """Takes nothing from rng."""
    return draw_double(random.SystemRandom(), 12)


def task(draw):
    """A task of doubling numbers of so many digits."""
    return Task(
        name="doubling",
        alphabet="0123456789*#",
        verifier="final_answer",
        least_steps=1,
        usual_steps=(2, 3),
        draw=draw,
    )


DOUBLING, NOT_REPEATABLE = task(draw_double), task(draw_anything)
NOT_WORKED = task(lambda rng, steps: ("6*2", "12"))
