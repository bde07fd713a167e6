"""The decoder, tokens -> final hidden states: one for training, prefill and decoding.

There are two trees of the same weights. Training and checkpoints hold the *stacked* tree: each
layer's weights along a leading "layers" axis, one compiled block, scanned and rematerialised. The
*unrolled* decode copy is made from it once a rollout, because a decode step that slices a stack
copies every weight first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cegppo_jax.models.attention.mask import ATTENTION_RESULT, Mask, SegmentMask
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.kv_cache import KVCache, LayerCache
from cegppo_jax.models.layers import Block, RMSNorm, parameter
from cegppo_jax.sharding import constrain

Params = Any  # tree of arrays; its structure is Decoder.init's


class StackedBlock(nn.Module):
    """A Block in the form that nn.scan wants: carry in, carry out, keys and values dropped."""

    config: ModelConfig
    dtype: jnp.dtype
    kernels: str  # of attention

    @nn.compact
    def __call__(
        self, x: jax.Array, positions: jax.Array, mask: Mask, rotates: jax.Array | bool
    ) -> tuple[jax.Array, None]:
        block = Block(self.config, self.dtype, self.kernels, name="block")
        x, _ = block(x, positions, mask, rotates)
        return x, None


# What the backward pass recomputes: nothing; all but the products with weights (norms, activations
# and attention, cheap beside what they would hold); whole blocks but for attention, whose work a
# token grows with the row; or whole blocks, from their inputs.
REMATERIALISED: dict[str, Callable[..., bool] | None] = {
    "none": None,
    "minimal": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "all_but_attention": jax.checkpoint_policies.save_only_these_names(ATTENTION_RESULT),
    "full": None,
}


class Decoder(nn.Module):
    """A decoder of any supported family (ModelConfig). `unrolled` chooses the parameter tree;
    the mathematics is the same.
    """

    config: ModelConfig
    dtype: jnp.dtype  # of the computation; weights are kept in float32
    unrolled: bool
    attention: str = "xla"  # a key of models/attention/choose.py: ATTENTIONS
    # Only for the stacked tree:
    rematerialise: str = "none"  # a key of REMATERIALISED
    scan_unroll: int = 1  # blocks in one iteration of the scan

    @nn.compact
    def __call__(
        self, tokens: jax.Array, positions: jax.Array, mask: Mask, cache: KVCache | None = None
    ) -> tuple[jax.Array, KVCache]:
        """Returns hidden states [B, Q, D] after the final norm, and the cache (unrolled only).

        Args:
          tokens: [B, Q] int32. positions: [B, Q] int32, each token's place in its sequence.
          mask: what each query may attend to: a SegmentMask over the Q tokens themselves, [B, Q, T]
            bool over the places of the cache, or where these lie in a paged cache.
          cache: None, or with Q = 1 the cache to write the token to and read from.
        """
        config = self.config
        init = nn.initializers.normal(config.width**-0.5)
        shape = (config.vocab_size, config.width)
        table = parameter(self, "embedding", init, ("vocab", "width"), shape)
        if not config.tied_embeddings:
            parameter(self, "head", init, ("width", "vocab"), shape[::-1])
        x = jnp.take(table, tokens, axis=0).astype(self.dtype)
        x = constrain(x, "rows", "length", "activation_width")
        layer_caches: list[LayerCache] = []
        if self.unrolled:
            for index in range(config.layers):
                layer = None if cache is None else cache[index]
                block = Block(config, self.dtype, self.attention, name=f"layer_{index}")
                x, layer = block(x, positions, mask, config.rotates(index), layer)
                layer_caches.append(layer)
        else:
            stacked: Any = StackedBlock
            rotates: jax.Array | bool = True
            by_layer: Any = nn.broadcast
            if config.unrotated_layers:
                rotates = jnp.asarray([config.rotates(i) for i in range(config.layers)])
                by_layer = 0
            if self.rematerialise != "none":
                # prevent_cse=False: inside a scan nothing can be merged across iterations anyway.
                policy = REMATERIALISED[self.rematerialise]
                stacked = nn.remat(StackedBlock, prevent_cse=False, policy=policy)
            stack = nn.scan(
                stacked,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                in_axes=(nn.broadcast, nn.broadcast, by_layer),
                length=config.layers,
                unroll=self.scan_unroll,
                metadata_params={nn.PARTITION_NAME: "layers"},
            )
            x, _ = stack(config, self.dtype, self.attention, name="layers")(
                x, positions, mask, rotates
            )
        hidden = RMSNorm(config.norm_epsilon, self.dtype, name="final_norm")(x)
        return hidden, tuple(layer_caches)


def run_decoder(
    decoder: Decoder,
    params: Params,
    tokens: jax.Array,
    positions: jax.Array,
    mask: Mask,
    cache: KVCache | None = None,
) -> tuple[jax.Array, KVCache]:
    """Applies the decoder to tokens [B, Q] with these parameters. Arguments and results as in
    Decoder.__call__.
    """
    return decoder.apply({"params": params}, tokens, positions, mask, cache)  # type: ignore


def output_head(params: Params) -> jax.Array:
    """Returns the head [D, V]; with tied embeddings, the transposed table."""
    return params["head"] if "head" in params else params["embedding"].T


def unroll_layers(params: Params, dtype: jnp.dtype) -> Params:
    """Returns the unrolled decode copy of stacked parameters, in the dtype of the computation
    (norm scales stay float32).
    """
    blocks = params["layers"]["block"]
    depth = jax.tree.leaves(blocks)[0].shape[0]
    unrolled = {name: tree for name, tree in params.items() if name != "layers"}
    for index in range(depth):
        unrolled[f"layer_{index}"] = jax.tree.map(lambda leaf, i=index: leaf[i], blocks)
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if leaf.ndim > 1 else leaf, unrolled)


def abstract_params(config: ModelConfig, *, unrolled: bool) -> tuple[Params, Params]:
    """Returns a tree of ShapeDtypeStructs and a tree of PartitionSpecs of logical names.
    Computes nothing.
    """
    boxed = jax.eval_shape(lambda: _init_boxed(config, jax.random.key(0), unrolled))
    return nn.meta.unbox(boxed), nn.get_partition_spec(boxed)


def init_params(config: ModelConfig, key: jax.Array) -> Params:
    """Returns freshly initialised stacked parameters, float32."""
    return nn.meta.unbox(_init_boxed(config, key, unrolled=False))


def _init_boxed(config: ModelConfig, key: jax.Array, unrolled: bool) -> Params:
    tokens = jnp.zeros((1, 1), jnp.int32)
    decoder = Decoder(config, jnp.float32, unrolled)
    return decoder.init(key, tokens, tokens, SegmentMask(tokens))["params"]
