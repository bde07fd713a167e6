"""(sum, count) pairs, sums and extremes of per-token values, which merge across micro-batches,
mini-batches and devices.

A mean is divided once, at the very end, so its value cannot depend on how the tokens were split.
"""

from __future__ import annotations

from typing import Self

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np


@flax.struct.dataclass
class Mean:
    """A mean that is still being accumulated: total / count."""

    total: jax.Array
    count: jax.Array

    @classmethod
    def over(cls, values: jax.Array, mask: jax.Array) -> Mean:
        """Returns the Mean of values [...] under a mask [...] bool of the same shape (float32
        sums).
        """
        total = jnp.sum(jnp.where(mask, values, 0.0), dtype=jnp.float32)
        return cls(total, jnp.sum(mask, dtype=jnp.float32))

    def merge(self, other: Self) -> Self:
        return type(self)(self.total + other.total, self.count + other.count)

    def result(self) -> float:
        """The mean as a Python float; NaN if nothing was counted."""
        return float(self.total) / float(self.count) if self.count else float("nan")


@flax.struct.dataclass
class Total:
    """A sum (float32), or an exact count (int32: up to 2^31 tokens a step)."""

    total: jax.Array

    @classmethod
    def count(cls, mask: jax.Array) -> Total:
        """Returns the number of true entries of a mask [...] bool."""
        return cls(jnp.sum(mask, dtype=jnp.int32))

    @classmethod
    def over(cls, values: jax.Array, mask: jax.Array) -> Total:
        """Returns the sum of values [...] under a mask [...] bool of the same shape."""
        return cls(jnp.sum(jnp.where(mask, values, 0.0), dtype=jnp.float32))

    def merge(self, other: Self) -> Self:
        return type(self)(self.total + other.total)

    def result(self) -> float | int:
        return np.asarray(self.total).item()


@flax.struct.dataclass
class Part:
    """A micro-batch's part of a number of its update, such as the loss: the parts add up to it.
    What is logged for a step is the mean over its updates (`whole`).
    """

    total: jax.Array

    @classmethod
    def over(cls, values: jax.Array, mask: jax.Array) -> Part:
        """Returns the float32 sum, under a mask [...] bool, of values [...] that already contain
        the loss's weights.
        """
        return cls(jnp.sum(jnp.where(mask, values, 0.0), dtype=jnp.float32))

    def merge(self, other: Self) -> Self:
        return type(self)(self.total + other.total)

    def result(self) -> float:
        """The sum as a Python float: the update's number once all its parts are merged."""
        return float(self.total)


@flax.struct.dataclass
class Maximum:
    """A running maximum."""

    maximum: jax.Array

    @classmethod
    def over(cls, values: jax.Array, mask: jax.Array) -> Maximum:
        return cls(jnp.max(jnp.where(mask, values, -jnp.inf)))

    def merge(self, other: Self) -> Self:
        return type(self)(jnp.maximum(self.maximum, other.maximum))

    def result(self) -> float:
        return float(self.maximum)


@flax.struct.dataclass
class Minimum:
    """A running minimum."""

    minimum: jax.Array

    @classmethod
    def over(cls, values: jax.Array, mask: jax.Array) -> Minimum:
        return cls(jnp.min(jnp.where(mask, values, jnp.inf)))

    def merge(self, other: Self) -> Self:
        return type(self)(jnp.minimum(self.minimum, other.minimum))

    def result(self) -> float:
        return float(self.minimum)


Reduction = Mean | Total | Part | Maximum | Minimum
Reductions = dict[str, Reduction]


def neutral(like: Reductions) -> Reductions:
    """Returns empty reductions of the same names (from reductions or their shapes); merging with
    them changes nothing.
    """

    starts = {Mean: 0.0, Total: 0.0, Part: 0.0, Maximum: -jnp.inf, Minimum: jnp.inf}

    def empty(reduction: Reduction) -> Reduction:
        start = starts[type(reduction)]
        return jax.tree.map(lambda leaf: jnp.full(leaf.shape, start, leaf.dtype), reduction)

    return {name: empty(reduction) for name, reduction in like.items()}


def merge(first: Reductions, second: Reductions) -> Reductions:
    """Merges two dicts of reductions with the same names."""
    return {name: first[name].merge(second[name]) for name in first}  # type: ignore[arg-type]


def whole(update: Reductions) -> Reductions:
    """Returns the reductions of a whole update, merged over its micro-batches, with each Part as
    a Mean that counts the update once.
    """
    return {
        name: Mean(reduction.total, jnp.ones(())) if isinstance(reduction, Part) else reduction
        for name, reduction in update.items()
    }
