"""Masks that need the whole mini-batch: which tokens are among its most uncertain, or its most
covariant.

They are computed once an update, by a forward pass of the current parameters over every micro-batch
(update.py runs it only for a method that asks), so micro-batches, packing and devices cannot change
them.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp

from cegppo_jax.losses.contract import Knobs, left_clipped, right_clipped


@flax.struct.dataclass
class BatchView:
    """A mini-batch under the current parameters; every array is [U, R, C]."""

    policy_logprobs: jax.Array
    entropy: jax.Array
    log_ratio: jax.Array
    advantages: jax.Array
    mask: jax.Array  # completion tokens that train
    uniform: jax.Array  # draws in [0, 1)


Selection = Callable[[BatchView, Knobs], jax.Array]


def largest(values: jax.Array, mask: jax.Array, count: jax.Array, uniform: jax.Array) -> jax.Array:
    """Returns the mask [...] bool of the `count` largest values [...] under a mask [...] bool. Ties
    go to the larger of the draws [...] in [0, 1).

    Worked example, two of 5 3 3 1 with draws .1 .2 .9 .4: the first and the third.
    """
    masked = jnp.where(mask, values, -jnp.inf).ravel()
    order = jnp.lexsort((-uniform.ravel(), -masked, ~mask.ravel()))
    first = jnp.arange(order.size) < count
    return jnp.zeros(order.size, bool).at[order].set(first).reshape(mask.shape) & mask


def share_of(mask: jax.Array, fraction: jax.Array) -> jax.Array:
    """Returns floor(fraction of the true entries of a mask [...]), at least 1, [] int32. A part
    in 10^6 is added before rounding down, so that 0.2 of 10 is 2 in float32 too.
    """
    share = jnp.floor(fraction * jnp.sum(mask, dtype=jnp.float32) * (1 + 1e-6))
    return jnp.maximum(share, 1).astype(jnp.int32)


def most_uncertain_tokens(view: BatchView, knobs: Knobs) -> jax.Array:
    """The share top_entropy_fraction of tokens at which the policy is least certain
    (arXiv 2506.01939).
    """
    mask = view.mask
    return largest(view.entropy, mask, share_of(mask, knobs.top_entropy_fraction), view.uniform)


def covariance(view: BatchView) -> jax.Array:
    """Returns (A - mean A)(ln pi - mean ln pi) of each token, [U, R, C], with means over the
    tokens that train: a token's part of the covariance that drives entropy down (arXiv
    2505.22617 eq. 10).
    """
    mask = view.mask
    count = jnp.maximum(jnp.sum(mask, dtype=jnp.float32), 1.0)

    def centred(values: jax.Array) -> jax.Array:
        return values - jnp.sum(jnp.where(mask, values, 0.0)) / count

    return centred(view.advantages) * centred(view.policy_logprobs)


def high_covariance(view: BatchView, knobs: Knobs) -> jax.Array:
    """The share covariance_fraction of tokens with the largest covariance: KL-Cov's selection."""
    mask = view.mask
    count = share_of(mask, knobs.covariance_fraction)
    return largest(covariance(view), mask, count, view.uniform)


def random_covariance(view: BatchView, knobs: Knobs) -> jax.Array:
    """A random share covariance_fraction of all tokens, drawn from those that are not clipped
    and whose covariance lies in (covariance_low, covariance_high): Clip-Cov's selection.
    """
    product = covariance(view)
    clipped = left_clipped(view, knobs) | right_clipped(view, knobs)
    within = (product > knobs.covariance_low) & (product < knobs.covariance_high)
    candidates = view.mask & within & ~clipped
    count = share_of(view.mask, knobs.covariance_fraction)
    return largest(view.uniform, candidates, count, view.uniform)


SELECTIONS: dict[str, Selection] = {
    "top_entropy": most_uncertain_tokens,
    "high_covariance": high_covariance,
    "random_covariance": random_covariance,
}


def token_uniforms(key: jax.Array, draw_ids: jax.Array, positions: jax.Array) -> jax.Array:
    """Returns uniform draws [...] in [0, 1), float32, from each token's sequence number in the
    run [...] and position in it [...]. A token's draw does not depend on where it is packed.
    """

    def one(draw_id: jax.Array, position: jax.Array) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, draw_id), position))

    flat = jax.vmap(one)(draw_ids.ravel().astype(jnp.uint32), positions.ravel().astype(jnp.uint32))
    return flat.reshape(positions.shape)
