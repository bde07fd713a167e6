"""The root keys of a run: randomness for different purposes never overlaps.

A key is a function of (seed, purpose, step, prompt, sample, token), folded in that order. It does
not depend on slots, batch layout or devices, and a resumed run needs no saved key.
"""

from __future__ import annotations

import enum

import jax

# Added to the run's seed for the warm start's prompt order, so that it differs from RL's.
SUPERVISED_SEED_OFFSET = 1_000_003
# Added to the run's seed for methods that draw random numbers in their loss.
DRAWS_SEED_OFFSET = 2_000_003


class KeyPurpose(enum.IntEnum):
    """First fold_in of the run's root key: what the randomness is for."""

    INITIAL_WEIGHTS = 0
    ROLLOUT = 1  # then the step
    EVALUATION = 2


def purpose_key(seed: int, purpose: KeyPurpose) -> jax.Array:
    """Returns the root key of one purpose of a run."""
    return jax.random.fold_in(jax.random.key(seed), int(purpose))
