"""Per-token log-probability, entropy and entropy slope from hidden states. Only this file and
packing.py know which hidden state predicts which token.

Logits exist for one chunk of each row's tokens at a time (head_product.py).
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from cegppo_jax.losses.head_product import over_chunks

# Logit of an id that no token has. Its probability is exactly 0, and unlike that of -inf its
# log-probability is a number.
UNUSED_LOGIT = -1e30


@flax.struct.dataclass
class TokenStatistics:
    """Statistics of the policy's distribution at each token, float32; index (r, c) is about
    token (r, c) itself.
    """

    logprobs: jax.Array  # [R, C] ln p(token | what precedes it); differentiable
    # [R, C] H = -sum p ln p of the distribution that the token was drawn from, nats
    entropy: jax.Array
    # [R, C] S = sum p^2 (ln p + H): a small policy-gradient step eta F A on a token of probability
    # p_a changes H by -eta F A [p_a (ln p_a + H) - S]
    entropy_slope: jax.Array


def token_statistics(
    hidden: jax.Array,
    head: jax.Array,
    tokens: jax.Array,
    *,
    temperature: float,
    chunk_tokens: int,
    differentiate_entropy: bool,
    unused_ids: tuple[tuple[int, int], ...] = (),
    predictors: jax.Array | None = None,
    wanted: jax.Array | None = None,
) -> TokenStatistics:
    """Returns the statistics [R, C] of each token under softmax(hidden @ head / temperature).

    The hidden state at c - 1 predicts the token at c, unless `predictors` says otherwise. The first
    token of a prompt has none that predicts it: its values mean nothing, and completion_mask
    excludes it.

    Args:
      hidden: [R, C, D], float32 or bfloat16: the product's dtype. head: [D, V] float32, gathered
        over fsdp once for all chunks. tokens: [R, C] int32.
      temperature: divides the logits, as in the sampler that drew the tokens.
      chunk_tokens: tokens of a row per chunk, a divisor of C.
      differentiate_entropy: whether gradients flow through the entropy (for an entropy bonus).
      unused_ids: ranges of ids with probability 0 (ModelConfig.unused_ids).
      predictors: [R, C] int32, the column whose hidden state predicts each token.
      wanted: [R, C] bool; the others get 0, and chunks without a wanted token cost nothing. None:
        all but column 0.

    Raises:
      ValueError: chunk_tokens does not divide C.
    """
    rows, length = tokens.shape
    if length % chunk_tokens:
        raise ValueError(f"logprob chunk of {chunk_tokens} tokens does not divide rows of {length}")
    columns = jnp.broadcast_to(jnp.arange(length), tokens.shape)
    predictors = jnp.maximum(columns - 1, 0) if predictors is None else predictors
    wanted = columns > 0 if wanted is None else wanted
    # Wanted tokens first: they fill the first chunks of their row.
    order = jnp.argsort(~wanted, axis=1, stable=True)
    fullest_row = jnp.max(jnp.sum(wanted, axis=1))

    def by_chunk(values: jax.Array, places: jax.Array) -> jax.Array:
        """Values [R, C, ...] at places [R, C] -> [chunks, R, chunk_tokens, ...]."""
        places = jnp.expand_dims(places, range(2, values.ndim))
        taken = jnp.take_along_axis(values, places, axis=1)
        return taken.reshape(rows, -1, chunk_tokens, *values.shape[2:]).swapaxes(0, 1)

    def statistics(products: jax.Array, targets: jax.Array) -> TokenStatistics:
        return statistics_of_logits(
            mask_unused(products / temperature, unused_ids),
            targets,
            differentiate_entropy=differentiate_entropy,
        )

    in_chunks = over_chunks(
        statistics,
        -(-fullest_row // chunk_tokens),
        head,
        by_chunk(hidden, jnp.take_along_axis(predictors, order, axis=1)),
        by_chunk(tokens, order),
    )
    back = jnp.argsort(order, axis=1)

    def in_rows(values: jax.Array) -> jax.Array:
        """Values [chunks, R, chunk_tokens] -> [R, C], each at its token."""
        in_order = values.swapaxes(0, 1).reshape(rows, length)
        return jnp.where(wanted, jnp.take_along_axis(in_order, back, axis=1), 0.0)

    return jax.tree.map(in_rows, in_chunks)


def mask_unused(logits: jax.Array, unused_ids: tuple[tuple[int, int], ...]) -> jax.Array:
    """Sets logits [..., V] to UNUSED_LOGIT at the ids in some ranges [first, last).

    Sampler and trainer both call it, so the distribution that is sampled is the one that is
    differentiated. transformers leaves padding ids in; in a trained model they are improbable.
    """
    ids = jnp.expand_dims(jnp.arange(logits.shape[-1]), range(logits.ndim - 1))  # [..., V]
    for first, last in unused_ids:
        logits = jnp.where((ids >= first) & (ids < last), UNUSED_LOGIT, logits)
    return logits


def statistics_of_logits(
    logits: jax.Array, targets: jax.Array, *, differentiate_entropy: bool = False
) -> TokenStatistics:
    """Returns the statistics of target tokens [...] int32 under logits [..., V] float32.

    Entropy and slope are measurements: no gradient flows through them, unless the entropy is to be
    differentiable.
    """
    logits = logits.astype(jnp.float32)
    # A comparison and a sum instead of a gather: it fuses, and stays local when V is sharded.
    ids = jnp.expand_dims(jnp.arange(logits.shape[-1]), range(targets.ndim))  # [..., V]
    is_target = ids == targets[..., None]
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    logprobs = jnp.sum(jnp.where(is_target, logits, 0.0), axis=-1) - normaliser

    all_logprobs = logits - normaliser[..., None]
    if not differentiate_entropy:
        all_logprobs = jax.lax.stop_gradient(all_logprobs)
    # A token of probability zero contributes p ln p = 0, even if its logit is -inf.
    finite_logprobs = jnp.where(all_logprobs > -jnp.inf, all_logprobs, 0.0)
    probabilities = jnp.where(all_logprobs > -jnp.inf, jnp.exp(finite_logprobs), 0.0)
    entropy = -jnp.sum(probabilities * finite_logprobs, axis=-1)
    slope = jnp.sum(probabilities**2 * (finite_logprobs + entropy[..., None]), axis=-1)
    return TokenStatistics(logprobs, entropy, jax.lax.stop_gradient(slope))
