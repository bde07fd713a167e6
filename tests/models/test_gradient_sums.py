"""In bfloat16 a weight's gradient is summed over the tokens in float32 and rounded once."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cegppo_jax.models.layers import Linear, RMSNorm

WIDTH = 8


def linear(bias):
    axes = ("width", "heads", "head_size")
    return Linear((WIDTH,), (2, WIDTH // 2), axes, jnp.bfloat16, bias=bias)


def exact_kernel(x, pulled):
    return np.einsum("td,tf->df", x, pulled).reshape(WIDTH, 2, WIDTH // 2)


def exact_bias(x, pulled):
    return pulled.sum(axis=0).reshape(2, WIDTH // 2)


def exact_scale(x, pulled):
    return (x / np.sqrt((x**2).mean(axis=1, keepdims=True) + 1e-6) * pulled).sum(axis=0)


# Weight -> (its module, its gradient in float64)
PARTS = {
    "kernel": (linear(bias=False), exact_kernel),
    "bias": (linear(bias=True), exact_bias),
    "scale": (RMSNorm(1e-6, jnp.bfloat16), exact_scale),
}


@pytest.mark.parametrize("tokens", [64, 4096, 65_536])
@pytest.mark.parametrize("weight", PARTS)
def test_a_gradient_in_bfloat16_is_rounded_once(weight, tokens):
    """However many tokens: 2^-9 = 0.2 % at most."""
    module, exact = PARTS[weight]
    random = np.random.default_rng(tokens)
    x = jnp.asarray(random.normal(size=(tokens, WIDTH)), jnp.bfloat16)
    # Of one sign, as where every token pushes the same way: a sum that grows.
    pulled = jnp.asarray(1 + 0.1 * random.normal(size=(tokens, WIDTH)), jnp.bfloat16)
    params = nn.meta.unbox(module.init(jax.random.key(0), x[:1]))

    @jax.jit
    def gradient(params, x, pulled):
        out, pullback = jax.vjp(lambda params: module.apply(params, x), params)
        return pullback(pulled.reshape(out.shape))[0]

    ours = gradient(params, x, pulled)["params"][weight]
    expected = exact(np.asarray(x, np.float64), np.asarray(pulled, np.float64))
    assert ours.dtype == jnp.float32
    assert np.linalg.norm(ours - expected) / np.linalg.norm(expected) < 2e-3
