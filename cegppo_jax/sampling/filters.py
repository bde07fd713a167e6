"""Logits -> the distribution that is sampled from, and one token of it."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

# Vocabulary entries per block of the two-level inverse CDF: a full-length cumulative sum is slow on
# every backend.
CDF_BLOCK = 512

# Temperatures at which logits and their gradients stay well within float32. The lowest draws the
# best token and the highest any token alike, so nothing is lost beyond them.
LOWEST_TEMPERATURE = 1e-6
HIGHEST_TEMPERATURE = 1e6


@dataclasses.dataclass(frozen=True)
class SamplingFilter:
    """Temperature, then top-k, then top-p. Static: each one compiles its own decode step."""

    temperature: float  # 0: greedy
    top_k: int  # 0: off
    top_p: float  # 1: off

    def __post_init__(self) -> None:
        if self.temperature != 0 and not (
            LOWEST_TEMPERATURE <= self.temperature <= HIGHEST_TEMPERATURE
        ):
            raise ValueError(
                f"temperature = {self.temperature}: it is 0 (greedy), or from "
                f"{LOWEST_TEMPERATURE:g} to {HIGHEST_TEMPERATURE:g}"
            )
        if self.top_k < 0:
            raise ValueError(f"top_k = {self.top_k}: it is 0 (off) or positive")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p = {self.top_p}: it lies in (0, 1], and 1 is off")

    @property
    def keeps_full_support(self) -> bool:
        """Whether every token keeps its softmax probability, which policy gradients rely on."""
        return self.temperature > 0 and not self.top_k and self.top_p == 1


def filter_logits(logits: jax.Array, sampling: SamplingFilter) -> jax.Array:
    """Logits [..., V] float32 -> logits of the sampled distribution: scaled, -inf where a token is
    cut.

    Tokens equal to the last one kept are kept as well, so the result does not depend on how a sort
    breaks ties.
    """
    if sampling.temperature == 0:
        best = jnp.argmax(logits, axis=-1, keepdims=True)
        return jnp.where(jnp.arange(logits.shape[-1]) == best, 0.0, -jnp.inf)
    logits = logits / sampling.temperature
    if sampling.top_k:
        kept = min(sampling.top_k, logits.shape[-1])
        threshold = jax.lax.top_k(logits, kept)[0][..., -1:]
        logits = jnp.where(logits >= threshold, logits, -jnp.inf)
    if sampling.top_p < 1:
        descending = -jnp.sort(-logits, axis=-1)
        probabilities = jax.nn.softmax(descending, axis=-1)
        # A token is kept while the mass before it is short of top_p: the first one always is.
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        last = jnp.sum(before < sampling.top_p, axis=-1, keepdims=True) - 1
        threshold = jnp.take_along_axis(descending, last, axis=-1)
        logits = jnp.where(logits >= threshold, logits, -jnp.inf)
    return logits


def draw_token(logits: jax.Array, uniform: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Filtered logits [S, V] and one uniform in [0, 1) a row -> tokens [S] int32, their log-
    probabilities [S].

    Inverse CDF in two levels: one uniform a row, where Gumbel noise would take V. The log-
    probability is the log-softmax that logprobs.py computes.
    """
    slots, vocab = logits.shape
    normaliser = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    block_size = min(CDF_BLOCK, vocab)
    padding = -vocab % block_size
    weights = jnp.pad(jnp.exp(logits - normaliser), ((0, 0), (0, padding)))
    blocks = weights.reshape(slots, -1, block_size)
    block_cdf = jnp.cumsum(jnp.sum(blocks, axis=-1), axis=-1)
    # uniform < 1 keeps the target below the total, so some block's CDF exceeds it.
    target = uniform[:, None] * block_cdf[:, -1:]
    block = jnp.sum(block_cdf <= target, axis=-1, keepdims=True)
    before = jnp.take_along_axis(block_cdf, jnp.maximum(block - 1, 0), axis=-1)
    before = jnp.where(block > 0, before, 0.0)
    inside = jnp.take_along_axis(blocks, block[:, :, None], axis=1)[:, 0]
    offset = jnp.sum(jnp.cumsum(inside, axis=-1) <= target - before, axis=-1)
    # The two levels round differently: never step past the block's last token of positive
    # probability.
    last = jnp.max(jnp.where(inside > 0, jnp.arange(block_size), 0), axis=-1)
    tokens = block[:, 0] * block_size + jnp.minimum(offset, last)
    chosen = jnp.take_along_axis(logits, tokens[:, None], axis=-1)
    return tokens.astype(jnp.int32), (chosen - normaliser)[:, 0]
