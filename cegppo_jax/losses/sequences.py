"""Sums and means of per-token values over each token's sequence, within packed rows."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Sequences:
    """Which tokens of a micro-batch form a sequence. A sequence is always within one row.

    Worked example, C = 8: prompt "a b" with completion "c d", and prompt "e" with completion "f".

        tokens           a b c d e f 0 0
        segment_ids      1 1 1 1 2 2 0 0
        completion_mask  0 0 1 1 0 1 0 0
        values           9 9 1 3 9 5 9 9
        mean(values)     2 2 2 2 5 5 0 0

    A prompt that completions share is a segment of its own, and theirs do not hold it: sums and
    means at its tokens are 0.
    """

    segment_ids: jax.Array  # [R, C] int32; 0 is padding
    completion_mask: jax.Array  # [R, C] bool: what counts

    def sum(self, values: jax.Array) -> jax.Array:
        """Returns at each token [R, C] the sum of the values over its sequence's completion
        tokens, float32; 0 in padding.
        """
        counted = jnp.where(self.completion_mask, values, 0.0).astype(jnp.float32)
        segments = counted.shape[-1] + 1  # a row of C tokens has at most C segments

        def one_row(values: jax.Array, ids: jax.Array) -> jax.Array:
            return jax.ops.segment_sum(values, ids, num_segments=segments)[ids]

        return jax.vmap(one_row)(counted, self.segment_ids)

    def mean(self, values: jax.Array) -> jax.Array:
        """Returns at each token [R, C] the mean of the values over its sequence's completion
        tokens.
        """
        tokens = self.sum(jnp.ones_like(values, jnp.float32))
        return self.sum(values) / jnp.maximum(tokens, 1.0)
