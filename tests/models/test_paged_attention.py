"""A decode step on pages: the kernel for TPUs, interpreted, against plain XLA."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cegppo_jax.models.attention import paged
from cegppo_jax.models.attention.choose import ATTENTIONS
from cegppo_jax.models.attention.dense import attend
from cegppo_jax.models.attention.mask import PageTable
from cegppo_jax.models.attention.paged import paged_step
from cegppo_jax.models.kv_cache import LayerCache, write_token
from cegppo_jax.sharding import MeshShape, make_mesh

SLOTS, HEADS, KV_HEADS, HEAD_SIZE, PAGE, PAGES_OF_SLOT = 4, 6, 2, 128, 8, 5
LENGTH = PAGE * PAGES_OF_SLOT
# In the middle of a page, at its end, at the first place and at the last; slot 1 is idle
POSITIONS = np.asarray([19, 30, 0, 39], np.int32)
ACTIVE = np.asarray([True, False, True, True])


def case(dtype, shards=1):
    """A step's arguments on pages in any order, and the same keys and values contiguous."""
    random = np.random.default_rng(0)
    query = random.normal(size=(SLOTS, 1, HEADS, HEAD_SIZE))
    key, value = random.normal(size=(2, SLOTS, KV_HEADS, HEAD_SIZE))
    contiguous = random.normal(size=(2, SLOTS, KV_HEADS, LENGTH, HEAD_SIZE))
    own = SLOTS // shards
    each = 1 + own * PAGES_OF_SLOT  # the first is spare
    pages = random.normal(size=(2, KV_HEADS, shards * each, PAGE, HEAD_SIZE))
    table = np.zeros((SLOTS, PAGES_OF_SLOT), np.int32)
    for shard in range(shards):
        mixed = 1 + random.permutation(each - 1).reshape(own, -1)
        table[shard * own : (shard + 1) * own] = mixed
        for slot, row in enumerate(mixed, start=shard * own):
            for place, page in enumerate(shard * each + row):
                cut = slice(place * PAGE, (place + 1) * PAGE)
                pages[:, :, page] = contiguous[:, slot, :, cut]
    query, key, value, contiguous, pages = (
        jnp.asarray(one, dtype) for one in (query, key, value, contiguous, pages)
    )
    where = PageTable(*map(jnp.asarray, (table, POSITIONS, ACTIVE)), LENGTH)
    return (query, key, value, LayerCache(*pages), where), LayerCache(*contiguous)


def on_pages(name, *given):
    mixed, cache = jax.jit(lambda *given: paged_step(ATTENTIONS[name].pages, *given))(*given)
    return np.asarray(mixed, np.float32)[ACTIVE], cache


def attend_after_writing(query, key, value, cache):
    cache = write_token(cache, key, value, jnp.asarray(POSITIONS))
    reach = jnp.arange(LENGTH)[None, None, :] <= POSITIONS[:, None, None]
    return attend(query, cache.keys, cache.values, reach)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_pages_give_what_a_contiguous_cache_gives_to_the_bit(dtype):
    given, contiguous = case(dtype)
    mixed, cache = on_pages("xla", *given)
    expected = jax.jit(attend_after_writing)(*given[:3], contiguous)
    np.testing.assert_array_equal(mixed, np.asarray(expected, np.float32)[ACTIVE])
    changed = np.asarray(cache.keys != given[3].keys).any(axis=(0, 3))  # [P, page]
    table = given[4].pages
    places = {(int(table[s, POSITIONS[s] // PAGE]), int(POSITIONS[s] % PAGE)) for s in (0, 2, 3)}
    assert set(zip(*map(np.ndarray.tolist, np.nonzero(changed)), strict=True)) == places | {(0, 1)}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_kernel_gives_what_xla_gives(monkeypatch, dtype):
    """Over several blocks of pages. To what bfloat16 keeps of keys, values and results: 1 % of the
    largest, also in float32, whose keys and values the kernel rounds.
    """
    monkeypatch.setattr(paged, "PAGES_OF_BLOCK", 2)
    given, _ = case(dtype)
    expected, _ = on_pages("xla", *given)
    ours, _ = on_pages("splash_interpreted", *given)
    assert np.abs(ours - expected).max() < 0.01 * np.abs(expected).max()


def test_shards_and_heads_of_a_mesh_work_alone():
    given, contiguous = case("float32", shards=2)
    expected = attend_after_writing(*given[:3], contiguous)
    with jax.set_mesh(make_mesh(MeshShape(1, 2, 2), jax.devices()[:4])):
        mixed, _ = on_pages("xla", *given)
    np.testing.assert_allclose(mixed, np.asarray(expected)[ACTIVE], rtol=1e-6, atol=1e-6)
