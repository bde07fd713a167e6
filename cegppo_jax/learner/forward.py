"""Parameters, PackedBatch -> log-probabilities and entropies: the trainer's forward pass."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from cegppo_jax.losses.logprobs import TokenStatistics, token_statistics
from cegppo_jax.models.attention.mask import SegmentMask
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.decoder import Decoder, Params, output_head, run_decoder
from cegppo_jax.packing import PackedBatch


@dataclasses.dataclass(frozen=True)
class ForwardSettings:
    """How the trainer computes log-probabilities."""

    dtype: str  # of activations and matrix products; log-probs and losses are float32 regardless
    rematerialise: str  # models/decoder.py: REMATERIALISED
    scan_unroll: (
        int  # blocks in one iteration of the scan over layers: more compile time, fewer copies
    )
    temperature: float  # the sampler's
    logprob_chunk_tokens: int  # tokens of a row whose [.., V] logits exist at once
    differentiate_entropy: bool  # for an entropy bonus in the loss
    attention: str  # models/attention/choose.py: ATTENTION_SETTINGS


def at_microbatch(tree: Any, index: jax.Array | int) -> Any:
    """Selects micro-batch `index` from a tree of arrays [U, ...]; scalars stay as they are."""
    return jax.tree.map(
        lambda a: jax.lax.dynamic_index_in_dim(a, index, keepdims=False) if jnp.ndim(a) else a, tree
    )


def microbatch_statistics(
    params: Params,
    batch: PackedBatch,
    index: jax.Array,
    model: ModelConfig,
    forward: ForwardSettings,
) -> TokenStatistics:
    """Returns the token statistics [R, C] of micro-batch `index`; 0 but at completion tokens."""
    micro = at_microbatch(batch, index)
    decoder = Decoder(
        model,
        jnp.dtype(forward.dtype),
        unrolled=False,
        attention=forward.attention,
        rematerialise=forward.rematerialise,
        scan_unroll=forward.scan_unroll,
    )
    mask = SegmentMask(micro.segment_ids, micro.prompt_segments)
    hidden, _ = run_decoder(decoder, params, micro.tokens, micro.positions, mask)
    return token_statistics(
        hidden,
        output_head(params),
        micro.tokens,
        temperature=forward.temperature,
        chunk_tokens=forward.logprob_chunk_tokens,
        differentiate_entropy=forward.differentiate_entropy,
        unused_ids=model.unused_ids,
        predictors=micro.predictors,
        wanted=micro.completion_mask,
    )


def batch_statistics(
    params: Params, batch: PackedBatch, model: ModelConfig, forward: ForwardSettings
) -> PolicyStatistics:
    """Returns log-probabilities and entropies [U, R, C] float32, without gradients; 0 in unused
    micro-batches.
    """
    params = jax.lax.stop_gradient(params)

    def body(index: jax.Array, found: PolicyStatistics) -> PolicyStatistics:
        statistics = microbatch_statistics(params, batch, index, model, forward)
        return put_microbatch(found, statistics, index)

    return jax.lax.fori_loop(0, batch.num_microbatches, body, no_statistics(batch))


# Log-probabilities and entropies of a mini-batch's tokens, each [U, R, C] float32
PolicyStatistics = tuple[jax.Array, jax.Array]


def no_statistics(batch: PackedBatch) -> PolicyStatistics:
    """Returns zeros for a mini-batch."""
    nothing = jnp.zeros(batch.tokens.shape, jnp.float32)
    return nothing, nothing


def put_microbatch(
    found: PolicyStatistics, statistics: TokenStatistics, index: jax.Array
) -> PolicyStatistics:
    """Writes the statistics [R, C] of micro-batch `index` into those of its mini-batch."""
    put = partial(jax.lax.dynamic_update_index_in_dim, index=index, axis=0)
    return put(found[0], statistics.logprobs), put(found[1], statistics.entropy)
