"""The decoder's parts: projections, norm, rotary positions, attention, MLP.

Each weight states its shape, logical axes (sharding.RULES) and initialiser in one place.
"""

from __future__ import annotations

import math
from functools import partial
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from cegppo_jax.models.attention.choose import ATTENTIONS
from cegppo_jax.models.attention.mask import Mask, PageTable, SegmentMask
from cegppo_jax.models.attention.paged import paged_step
from cegppo_jax.models.config import ModelConfig, RopeScaling
from cegppo_jax.models.kv_cache import LayerCache, write_token
from cegppo_jax.sharding import constrain, gathered


def parameter(
    module: nn.Module,
    name: str,
    init: jax.nn.initializers.Initializer,
    axes: tuple[str, ...],
    shape: tuple[int, ...],
) -> jax.Array:
    """Returns the module's float32 weight of that name, [*shape], annotated with its logical
    axes.
    """
    return cast(jax.Array, module.param(name, nn.with_logical_partitioning(init, axes), shape))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def weight_product(x: jax.Array, kernel: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    """Returns x [tokens, fan_in] @ kernel [*inputs, *outputs] = [tokens, fan_out] in x's dtype.

    A float32 kernel that fsdp splits is rounded to x's dtype and gathered once, before the product:
    left to itself, XLA multiplies its parts one by one and sums them in that dtype. Its gradient is
    summed over tokens and devices in float32.
    """
    return x @ _matrix(kernel, axes, x)


def _matrix(kernel: jax.Array, axes: tuple[str, ...], x: jax.Array) -> jax.Array:
    return gathered(kernel.astype(x.dtype), *axes).reshape(x.shape[1], -1)


def _weight_product_forward(
    x: jax.Array, kernel: jax.Array, axes: tuple[str, ...]
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return weight_product(x, kernel, axes), (x, kernel)


def _weight_product_backward(
    axes: tuple[str, ...], kept: tuple[jax.Array, jax.Array], pulled: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    over_tokens = (((0,), (0,)), ((), ()))
    gradient = jax.lax.dot_general(pulled, x, over_tokens, preferred_element_type=kernel.dtype)
    by_fsdp = constrain(gradient.T.reshape(kernel.shape), *axes)
    return pulled @ _matrix(kernel, axes, x).T, by_fsdp


weight_product.defvjp(_weight_product_forward, _weight_product_backward)


class Linear(nn.Module):
    """Computes x [..., *inputs] @ kernel = [..., *outputs], over one or several axes on each side.

    nn.DenseGeneral with several feature axes cannot initialise partitioned kernels inside a mesh;
    this can. The product itself is of two matrices: on CPU its weight gradient takes half the time
    of the equivalent einsum over many axes.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    axes: tuple[str, ...]  # logical, of inputs + outputs
    dtype: jnp.dtype
    bias: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        split = len(self.inputs)
        init = nn.initializers.variance_scaling(
            1.0,
            "fan_in",
            "truncated_normal",
            in_axis=tuple(range(split)),
            out_axis=tuple(range(split, len(self.axes))),
        )
        shape = self.inputs + self.outputs
        kernel = parameter(self, "kernel", init, self.axes, shape)
        fan_in, fan_out = math.prod(self.inputs), math.prod(self.outputs)
        result = weight_product(x.astype(self.dtype).reshape(-1, fan_in), kernel, self.axes)
        if self.bias:
            zeros = nn.initializers.zeros_init()
            bias = parameter(self, "bias", zeros, self.axes[split:], self.outputs)
            # Spread before it is rounded: its gradient is then summed over the tokens in float32.
            spread = jnp.broadcast_to(bias.reshape(fan_out), result.shape)
            result += spread.astype(self.dtype)
        return result.reshape(*x.shape[: x.ndim - split], *self.outputs)


class RMSNorm(nn.Module):
    """Computes x / rms(x) * scale over the last axis of x [..., D], in float32."""

    epsilon: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = parameter(self, "scale", nn.initializers.ones_init(), ("norm",), (x.shape[-1],))
        x32 = x.astype(jnp.float32)
        normed = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + self.epsilon)
        spread = jnp.expand_dims(scale, range(x.ndim - 1))  # [..., D]
        return (normed * spread).astype(self.dtype)


def frequencies(half: int, theta: float, scaling: RopeScaling | None) -> jax.Array:
    """Returns the radians a position of each pair, [H / 2] float32: theta^(-2 i / H). `half` is H /
    2.

    Scaled as in Llama 3.1: a pair makes n = original_tokens / wavelength turns over the original
    length. If n is below low_freq_factor, the frequency is divided by factor; above
    high_freq_factor it stays the same; between, the two are mixed linearly in n.
    """
    unscaled = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    if scaling is None:
        return unscaled
    turns = scaling.original_tokens * unscaled / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
    return kept * unscaled + (1 - kept) * unscaled / scaling.factor


def rotate(x: jax.Array, positions: jax.Array, frequencies: jax.Array) -> jax.Array:
    """Rotates heads [B, Q, heads, H] at positions [B, Q] (RoPE, arXiv 2104.09864; half-split
    pairs).
    """
    angles = positions[..., None, None].astype(jnp.float32) * frequencies[None, None, None, :]
    angles = jnp.concatenate([angles, angles], axis=-1)
    # Kept apart from what follows: fused with it, they are computed again for every head.
    cos, sin = jax.lax.optimization_barrier((jnp.cos(angles), jnp.sin(angles)))
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([-second, first], axis=-1)  # by 90 degrees
    return (x.astype(jnp.float32) * cos + turned * sin).astype(x.dtype)


class Attention(nn.Module):
    """Maps the residual stream [B, Q, D] to the attention output [B, Q, D] and the keys and
    values it used.
    """

    config: ModelConfig
    dtype: jnp.dtype
    kernels: str  # a key of ATTENTIONS

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        positions: jax.Array,
        mask: Mask,
        rotates: jax.Array | bool,
        cache: LayerCache | None,
    ) -> tuple[jax.Array, LayerCache]:
        config = self.config
        turns = frequencies(config.head_size // 2, config.rope_theta, config.rope_scaling)
        # At position 0 the rotation is the identity.
        angles_at = positions * rotates if config.unrotated_layers else positions

        def project(name: str, heads: int, axis: str) -> jax.Array:
            outputs = (heads, config.head_size)
            axes = ("width", axis, "head_size")
            bias = config.query_key_value_bias
            return Linear((config.width,), outputs, axes, self.dtype, bias, name=name)(x)

        def rotated(name: str, heads: int, axis: str) -> jax.Array:
            projected = project(name, heads, axis)
            if config.query_key_norm:
                norm = RMSNorm(config.norm_epsilon, self.dtype, name=f"{name}_norm")
                projected = norm(projected)
            return rotate(projected, angles_at, turns)

        query = rotated("query", config.heads, "heads")
        kv_axis = "kv_heads" if config.kv_copies == 1 else "few_kv_heads"
        key = self._copied(rotated("key", config.kv_heads, kv_axis))
        value = self._copied(project("value", config.kv_heads, kv_axis))
        kernels = ATTENTIONS[self.kernels]
        if isinstance(mask, SegmentMask):  # training and prefill: the tokens attend to each other
            cache = LayerCache(key.swapaxes(1, 2), value.swapaxes(1, 2))
            mixed = kernels.rows(query, cache.keys, cache.values, mask)
        elif isinstance(mask, PageTable):  # decoding, Q = 1, on a paged cache
            assert cache is not None
            mixed, cache = paged_step(kernels.pages, query, key[:, 0], value[:, 0], cache, mask)
        else:  # decoding, Q = 1: write the token, then read
            assert cache is not None
            cache = write_token(cache, key[:, 0], value[:, 0], positions[:, 0])
            mixed = kernels.step(query, cache.keys, cache.values, mask)
        inputs = (config.heads, config.head_size)
        axes = ("heads", "head_size", "width")
        return Linear(inputs, (config.width,), axes, self.dtype, name="out")(mixed), cache

    def _copied(self, heads: jax.Array) -> jax.Array:
        """Returns keys or values [B, Q, K, H] with their copies, each tensor shard with its own."""
        if self.config.kv_copies == 1:
            return heads
        copied = jnp.repeat(heads, self.config.kv_copies, axis=2)
        return constrain(copied, "rows", "length", "kv_heads", "head_size")


class MLP(nn.Module):
    """Maps the residual stream x [B, Q, D] to down(silu(gate(x)) * up(x)) [B, Q, D]."""

    config: ModelConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        narrow, wide = (self.config.width,), (self.config.mlp_width,)
        gate = Linear(narrow, wide, ("width", "mlp"), self.dtype, name="gate")(x)
        up = Linear(narrow, wide, ("width", "mlp"), self.dtype, name="up")(x)
        return Linear(wide, narrow, ("mlp", "width"), self.dtype, name="down")(nn.silu(gate) * up)


class Block(nn.Module):
    """One pre-norm layer: x + attention(norm(x)), then x + mlp(norm(x))."""

    config: ModelConfig
    dtype: jnp.dtype
    kernels: str  # of attention

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        positions: jax.Array,
        mask: Mask,
        rotates: jax.Array | bool,
        cache: LayerCache | None = None,
    ) -> tuple[jax.Array, LayerCache]:
        epsilon = self.config.norm_epsilon
        attention = Attention(self.config, self.dtype, self.kernels, name="attention")
        normed = RMSNorm(epsilon, self.dtype, name="attention_norm")(x)
        mixed, cache = attention(normed, positions, mask, rotates, cache)
        x = constrain(x + mixed, "rows", "length", "activation_width")
        normed = RMSNorm(epsilon, self.dtype, name="mlp_norm")(x)
        x = x + MLP(self.config, self.dtype, name="mlp")(normed)
        return constrain(x, "rows", "length", "activation_width"), cache
