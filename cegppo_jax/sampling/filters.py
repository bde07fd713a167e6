"""The distribution that is sampled from, and one token drawn from it."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

# Vocabulary entries per block of the two-level inverse CDF: a full-length cumulative sum is slow on
# every backend. If tensor shards split the vocabulary, their parts are made of whole blocks.
CDF_BLOCK, LEAST_CDF_BLOCK = 512, 16

# Temperatures at which logits and their gradients stay well within float32. The lowest draws the
# best token and the highest any token alike, so nothing is lost beyond them.
LOWEST_TEMPERATURE = 1e-6
HIGHEST_TEMPERATURE = 1e6


@dataclasses.dataclass(frozen=True)
class SamplingFilter:
    """Temperature, then top-k, then top-p. Static: each filter compiles its own decode step."""

    temperature: float  # 0: greedy
    top_k: int  # 0: off
    top_p: float  # 1: off

    def __post_init__(self) -> None:
        if self.temperature != 0 and not (
            LOWEST_TEMPERATURE <= self.temperature <= HIGHEST_TEMPERATURE
        ):
            raise ValueError(
                f"temperature = {self.temperature}: must be 0 (greedy), or from "
                f"{LOWEST_TEMPERATURE:g} to {HIGHEST_TEMPERATURE:g}"
            )
        if self.top_k < 0:
            raise ValueError(f"top_k = {self.top_k}: must be 0 (off) or positive")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p = {self.top_p}: must be in (0, 1]; 1 is off")

    @property
    def keeps_full_support(self) -> bool:
        """Whether every token keeps its softmax probability, which policy gradients rely on."""
        return self.temperature > 0 and not self.top_k and self.top_p == 1


def filter_logits(logits: jax.Array, sampling: SamplingFilter) -> jax.Array:
    """Returns the logits [..., V] float32 of the sampled distribution: scaled, and -inf where a
    token is cut.

    Tokens equal to the last one kept are also kept, so the result does not depend on how a sort
    breaks ties.
    """
    if sampling.temperature == 0:
        best = jnp.argmax(logits, axis=-1, keepdims=True)
        ids = jnp.expand_dims(jnp.arange(logits.shape[-1]), range(logits.ndim - 1))  # [..., V]
        return jnp.where(ids == best, 0.0, -jnp.inf)
    logits = logits / sampling.temperature
    largest = logits
    if sampling.top_k:
        largest = jax.lax.top_k(logits, min(sampling.top_k, logits.shape[-1]))[0]
        # The least of them and not the last: a slice keeps XLA's CPU backend from seeing a top-k,
        # and it sorts the vocabulary instead.
        logits = jnp.where(logits >= jnp.min(largest, axis=-1, keepdims=True), logits, -jnp.inf)
    if sampling.top_p < 1:
        threshold = _least_of_nucleus(logits, largest, sampling.top_p)
        logits = jnp.where(logits >= threshold, logits, -jnp.inf)
    return logits


def _least_of_nucleus(logits: jax.Array, largest: jax.Array, top_p: float) -> jax.Array:
    """Returns the least logit [..., 1] that top-p keeps of logits [..., V] float32: the least one
    above which lies less than `top_p` of the probability. The largest logit is always kept.

    A bisection over the bits of a float32 takes 32 masked sums, where a sort of the vocabulary
    takes several times as long on a CPU. A sum of the same numbers in the same order cannot fall
    when one of them grows, so the bisection finds one threshold in spite of rounding. Programs that
    add in another order (another mesh, batch or backend) may cut a token that lies within rounding
    of `top_p` (some 1e-6) or keep it.

    Args:
      largest: [..., k], the logits themselves, or with top-k the k largest of them, which are
        enough: the others equal the last one or are cut.
    """
    best = jnp.max(largest, axis=-1, keepdims=True)
    weights = jnp.exp(largest - best)
    enough = top_p * jnp.sum(jnp.exp(logits - best), axis=-1, keepdims=True)

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        below, kept = bounds
        middle = (below & kept) + ((below ^ kept) >> 1)  # their mean, which does not overflow
        above = jnp.where(largest > _from_rank(middle), weights, 0.0)
        short = jnp.sum(above, axis=-1, keepdims=True) < enough
        return jnp.where(short, below, middle), jnp.where(short, middle, kept)

    lowest = _rank(jnp.full_like(best, -jnp.inf))
    _, kept = jax.lax.fori_loop(0, 32, halve, (lowest, _rank(best)))
    return _from_rank(kept)


def _rank(values: jax.Array) -> jax.Array:
    """Returns int32 in the order of the float32 values. -0 comes just before 0."""
    bits = jax.lax.bitcast_convert_type(values, jnp.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _from_rank(ranks: jax.Array) -> jax.Array:
    """Returns the float32 values of ranks: the inverse of _rank."""
    return jax.lax.bitcast_convert_type(ranks ^ ((ranks >> 31) & 0x7FFFFFFF), jnp.float32)


def draw_token(logits: jax.Array, uniform: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Draws tokens [S] int32 and their log-probabilities [S] float32, from filtered logits [S, V]
    and one uniform in [0, 1) a row.

    Inverse CDF in two levels: one uniform a row, where Gumbel noise would take V. The token is the
    first one of positive probability whose CDF exceeds the uniform. A cumulative sum is rounded in
    another order at every entry, so it may rise at a token of probability 0, which is never drawn.
    The log-probability is the log-softmax that logprobs.py computes.
    """
    slots, vocab = logits.shape
    normaliser = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    block_size = cdf_block(vocab)
    padding = -vocab % block_size
    weights = jnp.pad(jnp.exp(logits - normaliser), ((0, 0), (0, padding)))
    blocks = weights.reshape(slots, -1, block_size)
    block_weights = jnp.sum(blocks, axis=-1)
    block_cdf = jnp.cumsum(block_weights, axis=-1)
    target = uniform[:, None] * block_cdf[:, -1:]
    block = _first_beyond(block_weights, block_cdf, target)
    before = jnp.take_along_axis(block_cdf, jnp.maximum(block - 1, 0), axis=-1)
    before = jnp.where(block > 0, before, 0.0)
    inside = jnp.take_along_axis(blocks, block[:, :, None], axis=1)[:, 0]
    offset = _first_beyond(inside, jnp.cumsum(inside, axis=-1), target - before)
    tokens = block * block_size + offset
    chosen = jnp.take_along_axis(logits, tokens, axis=-1)
    return tokens[:, 0].astype(jnp.int32), (chosen - normaliser)[:, 0]


def cdf_block(vocab: int) -> int:
    """Returns how many of `vocab` entries make a block: the largest power of 2 up to CDF_BLOCK that
    divides a tensor shard's part of them, since blocks across shards would have all probabilities
    gathered in each step. Whole vocabularies, and parts that such a block does not divide, are
    padded to CDF_BLOCK.
    """
    shards = jax.sharding.get_abstract_mesh().shape.get("tensor", 1)
    part, rest = divmod(vocab, shards)
    dividing = math.gcd(part, CDF_BLOCK)
    if shards > 1 and not rest and dividing >= LEAST_CDF_BLOCK:
        return dividing
    return min(CDF_BLOCK, vocab)


def _first_beyond(weights: jax.Array, cdf: jax.Array, target: jax.Array) -> jax.Array:
    """Returns the index [S, 1] of the first positive weight whose cumulative sum exceeds the
    target [S, 1]; if rounding leaves none, of the last positive weight. Weights and sums are
    [S, n].
    """
    places = jnp.arange(weights.shape[-1])[None, :]
    positive = weights > 0
    last = jnp.max(jnp.where(positive, places, 0), axis=-1, keepdims=True)
    beyond = jnp.where(positive & (cdf > target), places, last)
    return jnp.min(beyond, axis=-1, keepdims=True)
