"""Implementations of attention against each other: small rows, kernels interpreted by Pallas."""

import importlib.util
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from cegppo_jax.models.attention import splash
from cegppo_jax.models.attention.choose import ATTENTIONS, choose_attention
from cegppo_jax.models.attention.dense import attend
from cegppo_jax.models.attention.mask import SegmentMask
from cegppo_jax.models.attention.splash import block_of, splash_rows
from cegppo_jax.models.decoder import REMATERIALISED
from cegppo_jax.planning.chips import open_topology
from cegppo_jax.sharding import MeshShape, make_mesh

LENGTH, HEADS, KV_HEADS, HEAD_SIZE = 300, 4, 2, 16
# Two rows, the second with prompts that completions of several segments share; both end in padding
IDS = np.stack(
    [np.repeat([1, 2, 3, 0], [90, 70, 120, 20]), np.repeat([1, 2, 3, 4, 0], [20, 140, 8, 62, 70])]
)
PROMPTS = np.stack(
    [np.repeat([1, 1, 3, 0], [90, 70, 120, 20]), np.repeat([1, 1, 1, 4, 0], [20, 140, 8, 62, 70])]
)
MASKS = {
    "own": SegmentMask(jnp.asarray(IDS, jnp.int32)),
    "shared prompts": SegmentMask(jnp.asarray(IDS, jnp.int32), jnp.asarray(PROMPTS, jnp.int32)),
    "one segment": SegmentMask(jnp.ones((2, LENGTH), jnp.int32)),
}
REAL = (IDS > 0)[:, :, None, None]


def arrays(dtype="float32", head_size=HEAD_SIZE):
    random = np.random.default_rng(0)
    query = random.normal(size=(2, LENGTH, HEADS, head_size))
    keys, values = random.normal(size=(2, 2, KV_HEADS, LENGTH, head_size))
    return [jnp.asarray(one, dtype) for one in (query, keys, values)]


def value_and_gradients(rows, mask, *given):
    """The mixed values of real tokens, and the gradients of a function of them."""

    def loss(*given):
        mixed = rows(*given, mask).astype(jnp.float32)
        shown = jnp.where(REAL if mask is not MASKS["one segment"] else True, mixed, 0)
        return jnp.sum(jnp.sin(shown)), shown

    (_, mixed), gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(*given)
    return mixed, *gradients


def whole(query, keys, values, mask):
    return attend(query, keys, values, mask.whole())


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_splash_gives_the_values_and_gradients_of_the_whole_mask(mask):
    """Float32: sums in another order, so up to 2e-5 of values and gradients of size 1 to 10."""
    rows = ATTENTIONS["splash_interpreted"].rows
    ours, expected = (value_and_gradients(f, mask, *arrays()) for f in (rows, whole))
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-5)


def test_splash_in_bfloat16_is_as_near_to_float32_as_xla_is():
    mask = MASKS["shared prompts"]
    in_float32 = value_and_gradients(whole, mask, *arrays())
    errors = {}
    for name in ("xla", "splash_interpreted"):
        found = value_and_gradients(ATTENTIONS[name].rows, mask, *arrays("bfloat16"))
        errors[name] = [
            float(jnp.linalg.norm(jnp.asarray(a, jnp.float32) - b) / jnp.linalg.norm(b))
            for a, b in zip(found, in_float32, strict=True)
        ]
    assert max(errors["xla"]) < 0.01
    for ours, xla in zip(errors["splash_interpreted"], errors["xla"], strict=True):
        assert ours < 1.5 * xla


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_splash_computes_the_blocks_that_a_token_needs_and_no_others(mask):
    block = 50  # divides the rows: nothing is filled up
    plan = splash._plan(mask, block)
    blocks = LENGTH // block

    def in_blocks(seen):
        return seen.reshape(2, blocks, block, blocks, block).any(axis=(2, 4))

    seen = np.array(mask.whole())
    of_padding = np.asarray(mask.segment_ids == 0)
    seen &= ~of_padding[:, :, None]
    own_ids = np.asarray(mask.segment_ids)
    own = seen & (own_ids[:, :, None] == own_ids[:, None, :])
    expected = in_blocks(own) | np.eye(blocks, dtype=bool)
    np.testing.assert_array_equal(plan.blocks[:, :, :blocks], expected)
    if mask.prompt_segments is not None:
        np.testing.assert_array_equal(plan.blocks[:, :, blocks:], in_blocks(seen & ~own))


def test_what_is_fetched_next_is_the_next_block_that_is_computed():
    blocks = jnp.asarray([[True, False, False], [False, True, False], [True, False, True]])
    plan = splash._Plan(blocks, *(jnp.zeros(3, jnp.int32),) * 3)
    by_keys, by_queries = (splash._mask_info(plan, axis).data_next[0] for axis in (1, 0))
    np.testing.assert_array_equal(by_keys, [[0, 0, 0], [1, 1, 1], [0, 2, 2]])
    np.testing.assert_array_equal(by_queries, [[0, 1, 2], [2, 1, 2], [2, 1, 2]])


@pytest.mark.parametrize(
    ("length", "block"),
    [(8, 128), (128, 128), (300, 128), (1100, 128), (2048, 1024), (20480, 1024)],
)
def test_rows_are_filled_up_by_little(length, block):
    assert block_of(length) == block
    assert -length % block <= max(length / 8, 127)


@pytest.mark.parametrize("shape", [MeshShape(2, 2, 1), MeshShape(1, 2, 2)], ids=str)
def test_on_a_mesh_each_device_attends_to_its_rows_with_its_heads(shape):
    """One row and all heads on a device, then all rows and half of the heads."""
    mask = jax.tree.map(lambda ids: jnp.concatenate([ids, ids]), MASKS["shared prompts"])
    given = [jnp.concatenate([one, one]) for one in arrays()]
    rows = jax.jit(partial(splash_rows, interpret=True))
    alone = rows(*given, mask)
    count = shape.data * shape.fsdp * shape.tensor
    mesh = make_mesh(shape, jax.devices()[:count])
    with jax.set_mesh(mesh):
        together = rows(*given, mask)
    np.testing.assert_array_equal(alone, together)
    part = 4 // (shape.data * shape.fsdp), LENGTH, HEADS // shape.tensor, HEAD_SIZE
    assert together.sharding.shard_shape(together.shape) == part


@pytest.mark.parametrize(("kept", "times"), [("full", 2), ("all_but_attention", 1)])
@pytest.mark.parametrize("name", ["xla", "splash_interpreted"])
def test_attention_whose_result_is_kept_is_not_computed_again(name, kept, times):
    """Counted in the program of the gradient: the forward pass's kernel, or the choice of blocks by
    platform, which the backward pass makes as well.
    """
    query, keys, values = (jnp.concatenate([one, one], axis=axis) for one, axis in zip(
        arrays(), (1, 2, 2), strict=True
    ))  # fmt: skip
    ids = jnp.concatenate([MASKS["own"].segment_ids] * 2, axis=1)  # rows over 512 tokens
    again = jax.checkpoint(
        lambda *given: jnp.sin(ATTENTIONS[name].rows(*given, SegmentMask(ids))),
        policy=REMATERIALISED[kept],
    )
    gradient = jax.grad(lambda *given: again(*given).sum(), argnums=(0, 1, 2))
    text = str(jax.make_jaxpr(gradient)(query, keys, values))
    if name == "xla":
        assert text.count("platform_index") == times + 1
    else:
        assert text.count("name=splash_mha_fwd") == times


def test_shared_prompts_in_rows_too_long_for_their_codes_are_refused():
    ids = jax.ShapeDtypeStruct((1, 40_960), jnp.int32)
    rows = partial(splash_rows, interpret=True)
    sizes = (1, 40_960, 2, 8), (1, 1, 40_960, 8)
    query, keys = (jax.ShapeDtypeStruct(size, jnp.float32) for size in sizes)
    with pytest.raises(ValueError, match=r"40,960 tokens.*32,768.*row_tokens"):
        jax.eval_shape(rows, query, keys, keys, SegmentMask(ids, ids))
    assert jax.eval_shape(rows, query, keys, keys, SegmentMask(ids)).shape == query.shape


@pytest.mark.parametrize(
    ("setting", "platform", "expected"),
    [
        ("auto", "cpu", "xla"),
        ("auto", "gpu", "xla"),
        ("auto", "tpu", "splash"),
        ("xla", "tpu", "xla"),
        ("splash", "tpu", "splash"),
        ("splash", "cpu", "splash_interpreted"),
    ],
)
def test_the_platform_chooses_unless_a_setting_does(setting, platform, expected):
    assert choose_attention(setting, platform) == expected


def test_kernels_of_another_platform_are_refused():
    with pytest.raises(ValueError, match=r"splash.*gpu"):
        choose_attention("splash", "gpu")


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu, the compiler of TPUs, is not installed (extra `tpu`)",
)
@pytest.mark.parametrize("head_size", [64, 128])
def test_splash_compiles_for_a_real_topology(head_size):
    device = SingleDeviceSharding(open_topology("v5p:2x2x1").devices[0])
    query, keys = (
        jax.ShapeDtypeStruct(size, jnp.bfloat16, sharding=device)
        for size in ((1, 1024, 4, head_size), (1, 2, 1024, head_size))
    )
    ids = jax.ShapeDtypeStruct((1, 1024), jnp.int32, sharding=device)

    def loss(query, keys, values, mask):
        mixed = splash_rows(query, keys, values, mask, interpret=False)
        return jnp.sum(mixed.astype(jnp.float32))

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    text = gradient.lower(query, keys, keys, SegmentMask(ids, ids)).compile().as_text()
    for kernel in ("fwd", "dkv"):
        assert f"%splash_mha_{kernel}_segmented" in text
