"""A token's keys and values go where its slot is, and nowhere else."""

import jax
import jax.numpy as jnp
import numpy as np

from cegppo_jax.models.kv_cache import LayerCache, write_token


def test_a_token_is_written_at_its_position_alone():
    """The last slot's position lies beyond the cache, as an idle slot's may in a shorter read."""
    drawn = np.random.default_rng(0)
    before = LayerCache(*drawn.normal(size=(2, 4, 2, 6, 3)).astype(np.float32))
    keys, values = drawn.normal(size=(2, 4, 2, 3)).astype(np.float32)
    after = jax.jit(write_token)(before, keys, values, jnp.asarray([0, 3, 5, 9]))
    expected = LayerCache(before.keys.copy(), before.values.copy())
    for slot, place in enumerate((0, 3, 5, 5)):
        expected.keys[slot, :, place], expected.values[slot, :, place] = keys[slot], values[slot]
    np.testing.assert_array_equal(after.keys, expected.keys)
    np.testing.assert_array_equal(after.values, expected.values)
