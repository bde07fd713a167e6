"""The decoder: causality, segments, the two parameter trees, the cache."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cegppo_jax.models.attention.dense import attend
from cegppo_jax.models.attention.in_blocks import attend_in_blocks
from cegppo_jax.models.attention.mask import SegmentMask
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.decoder import (
    Decoder,
    abstract_params,
    init_params,
    output_head,
)
from cegppo_jax.models.decoder import unroll_layers as unroll_layers_of
from cegppo_jax.models.kv_cache import empty_cache
from cegppo_jax.models.layers import frequencies, rotate

unroll_layers = jax.jit(unroll_layers_of, static_argnums=1)  # one program, not one for each slice
TURNS = frequencies(4, 10_000.0, None)  # of heads of 8


def forward(model, params, tokens, *, unrolled=False, segment_ids=None, positions=None, **kwargs):
    if segment_ids is None:
        segment_ids = jnp.ones_like(tokens)
    if positions is None:
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    return hidden_states(
        model, params, tokens, positions, SegmentMask(segment_ids), unrolled=unrolled, **kwargs
    )


@partial(jax.jit, static_argnames=("model", "unrolled", "rematerialise", "scan_unroll"))
def hidden_states(model, params, tokens, positions, mask, *, unrolled=False, **kwargs):
    decoder = Decoder(model, jnp.float32, unrolled, **kwargs)
    return decoder.apply({"params": params}, tokens, positions, mask)[0]


@pytest.fixture(scope="module")
def tokens():
    return jax.random.randint(jax.random.key(2), (2, 12), 0, 32)


def test_hidden_states_depend_on_the_past_only(model, params, tokens):
    """Causality, through gradients: d hidden[5] / d embedding of token 7 is exactly 0, of token 3
    is not.
    """
    decoder = Decoder(model, jnp.float32, unrolled=False)
    positions = jnp.arange(12)[None]
    distinct = jnp.arange(12)[None]  # every position its own row of the embedding

    def hidden_at_5(table):
        variables = {"params": params | {"embedding": table}}
        hidden, _ = decoder.apply(
            variables, distinct, positions, SegmentMask(jnp.ones((1, 12), int))
        )
        return hidden[0, 5].sum()

    reach = np.abs(jax.jit(jax.grad(hidden_at_5))(params["embedding"])).sum(axis=1)
    assert (reach[:6] > 0).all()
    assert (reach[6:] == 0).all()


def test_unrolled_tree_is_the_same_function(model, params, tokens):
    stacked = forward(model, params, tokens)
    unrolled = forward(model, unroll_layers(params, jnp.float32), tokens, unrolled=True)
    np.testing.assert_allclose(stacked, unrolled, rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize(
    "options",
    [
        *({"rematerialise": one} for one in ("minimal", "all_but_attention", "full")),
        {"scan_unroll": 2},
    ],
)
def test_how_layers_are_compiled_changes_nothing(model, params, tokens, options):
    # Not the sum of squares: the last norm makes that a constant, and its gradient rounding alone.
    probe = jax.random.normal(jax.random.key(3), (*tokens.shape, model.width))

    def loss(params, **kwargs):
        return (forward(model, params, tokens, **kwargs) * probe).sum()

    gradient = jax.jit(jax.grad(loss), static_argnames=("rematerialise", "scan_unroll"))
    plain, other = gradient(params), gradient(params, **options)
    for ours, theirs in zip(jax.tree.leaves(plain), jax.tree.leaves(other), strict=True):
        assert np.linalg.norm(ours - theirs) < 1e-4 * np.linalg.norm(theirs)


def test_unroll_layers_names_what_abstract_params_promises(model, params):
    shapes, _ = abstract_params(model, unrolled=True)
    assert jax.tree.map(jnp.shape, unroll_layers(params, jnp.float32)) == jax.tree.map(
        jnp.shape, shapes
    )


def test_cached_decode_equals_full_forward(model, params, tokens):
    """Token by token through the cache, slots at different positions."""
    full = forward(model, params, tokens)
    decode = jax.jit(Decoder(model, jnp.float32, unrolled=True).apply)
    variables = {"params": unroll_layers(params, jnp.float32)}
    cache = empty_cache(model, 2, 12, jnp.float32)
    late = 3  # slot 1 runs three tokens behind slot 0
    for step in range(12 + late):
        at = jnp.array([min(step, 11), max(step - late, 0)])
        reach = jnp.arange(12)[None, None, :] <= at[:, None, None]
        hidden, cache = decode(
            variables, tokens[jnp.arange(2), at][:, None], at[:, None], reach, cache
        )
        for slot in range(2):
            np.testing.assert_allclose(hidden[slot, 0], full[slot, at[slot]], rtol=1e-4, atol=5e-5)


def test_segments_do_not_see_each_other(model, params, tokens):
    """Packed = one sequence at a time."""
    segment_ids = jnp.array([[1] * 5 + [2] * 6 + [0]])
    positions = jnp.array([[*range(5), *range(6), 0]])
    packed = forward(model, params, tokens[:1], segment_ids=segment_ids, positions=positions)
    first = forward(model, params, tokens[:1, :5])
    second = forward(model, params, tokens[:1, 5:11])
    np.testing.assert_allclose(packed[:, :5], first, rtol=1e-4, atol=5e-5)
    np.testing.assert_allclose(packed[:, 5:11], second, rtol=1e-4, atol=5e-5)
    assert np.isfinite(packed).all()


def test_completions_share_a_prompt_as_if_each_had_its_own(model, params, tokens):
    """Row: 5 tokens of a prompt, then 4 and 3 of two completions."""
    mask = SegmentMask(jnp.array([[1] * 5 + [2] * 4 + [3] * 3]), jnp.array([[1] * 12]))
    positions = jnp.array([[*range(9), 5, 6, 7]])
    shared = hidden_states(model, params, tokens[:1, :12], positions, mask)
    first = forward(model, params, tokens[:1, :9])
    second = forward(model, params, jnp.concatenate([tokens[:1, :5], tokens[:1, 9:12]], axis=1))
    np.testing.assert_allclose(shared[:, :9], first, rtol=1e-4, atol=5e-5)
    np.testing.assert_allclose(shared[:, 9:], second[:, 5:], rtol=1e-4, atol=5e-5)


def test_attention_matches_numpy():
    random = np.random.default_rng(0)
    query = random.normal(size=(2, 5, 4, 6)).astype(np.float32)
    keys, values = random.normal(size=(2, 2, 2, 7, 6)).astype(np.float32)
    mask = random.random((2, 5, 7)) < 0.6
    mask[..., 0] = True
    ours = attend(query, keys, values, mask)
    for b, q, n in np.ndindex(2, 5, 4):
        scores = keys[b, n // 2] @ query[b, q, n] / np.sqrt(6)
        weights = np.where(mask[b, q], np.exp(scores), 0)
        expected = (weights / weights.sum()) @ values[b, n // 2]
        np.testing.assert_allclose(ours[b, q, n], expected, rtol=1e-4, atol=5e-5)


IDS = jnp.array([[1] * 5 + [2] * 8, [1] * 3 + [2] * 7 + [0] * 3])
CONTINUED = jnp.array([[1] * 13, [1] * 3 + [2] * 7 + [0] * 3])


@pytest.mark.parametrize("continued", [None, CONTINUED], ids=["own", "shared prompt"])
@pytest.mark.parametrize(
    "block", [5, 12, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 13))]
)
def test_attention_in_blocks_is_that_of_the_whole_mask(block, continued):
    random = np.random.default_rng(0)
    query = random.normal(size=(2, 13, 4, 6)).astype(np.float32)
    keys, values = random.normal(size=(2, 2, 2, 13, 6)).astype(np.float32)
    mask = SegmentMask(IDS, continued)

    def loss(attention, *arrays):
        return jnp.sum(jnp.sin(attention(*arrays)))

    def whole(*arrays):
        return attend(*arrays, mask.whole())

    def blocks(*arrays):
        return attend_in_blocks(*arrays, mask, block=block, whole_row=0)

    np.testing.assert_allclose(
        jax.jit(blocks)(query, keys, values), whole(query, keys, values), rtol=1e-5, atol=1e-6
    )
    expected, actual = (
        jax.jit(jax.grad(partial(loss, attention), argnums=(0, 1, 2)))(query, keys, values)
        for attention in (whole, blocks)
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), actual, expected
    )


def test_long_rows_take_the_platforms_blocks():
    """Without a block's length: 650 tokens are no whole number of blocks of any platform."""
    random = np.random.default_rng(0)
    query = random.normal(size=(1, 650, 2, 4)).astype(np.float32)
    keys, values = random.normal(size=(2, 1, 1, 650, 4)).astype(np.float32)
    mask = SegmentMask(jnp.asarray(np.repeat([1, 2, 3, 0], [100, 300, 200, 50])[None]))
    gradients = [
        jax.jit(jax.grad(lambda *a, f=f: jnp.sin(f(*a)).sum(), argnums=(0, 1, 2)))(
            query, keys, values
        )
        for f in (lambda *a: attend_in_blocks(*a, mask), lambda *a: attend(*a, mask.whole()))
    ]
    for ours, whole in zip(*gradients, strict=True):
        np.testing.assert_allclose(ours, whole, rtol=1e-4, atol=1e-5)


def test_a_segment_mask_is_causal_within_segments():
    mask = SegmentMask(jnp.array([[1, 1, 2, 0]]))
    expected = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    np.testing.assert_array_equal(mask.whole()[0], expected)


def test_a_segment_mask_reaches_the_prompt_that_a_segment_continues():
    mask = SegmentMask(jnp.array([[1, 2, 2, 3, 0]]), jnp.array([[1, 1, 1, 1, 0]]))
    expected = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 0, 0, 1, 0], [0, 0, 0, 0, 1]]
    np.testing.assert_array_equal(mask.whole()[0], expected)


def test_rotation_depends_on_distance_only():
    """RoPE's property: <rotate(q, m), rotate(k, n)> is a function of m - n; and position 0 changes
    nothing.
    """
    random = np.random.default_rng(0)
    q, k = random.normal(size=(2, 1, 1, 1, 8)).astype(np.float32)

    def score(m, n):
        turned_q = rotate(jnp.asarray(q), jnp.full((1, 1), m), TURNS)
        turned_k = rotate(jnp.asarray(k), jnp.full((1, 1), n), TURNS)
        return float((turned_q * turned_k).sum())

    np.testing.assert_allclose(score(9, 4), score(25, 20), rtol=1e-4)
    assert abs(score(9, 4) - score(9, 5)) > 1e-3
    np.testing.assert_array_equal(rotate(jnp.asarray(q), jnp.zeros((1, 1), int), TURNS), q)


def test_untied_head_has_its_own_weights(model):
    untied = ModelConfig(**(vars(model) | {"tied_embeddings": False}))
    params = init_params(untied, jax.random.key(0))
    assert output_head(params).shape == (32, 32)
    assert not np.allclose(output_head(params), params["embedding"].T)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"kv_heads": 3}, "heads = 16 is not a multiple"), ({"head_size": 5}, "head_size = 5 is odd")],
)
def test_impossible_shapes_are_refused(model, change, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**(vars(model) | change))
