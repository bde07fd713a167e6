"""The decode copy is made when weights have changed, and only then; its memory can be had back."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cegppo_jax.sampling.decode_copy import DecodeCopy


@pytest.fixture
def copies(one_device, model):
    return DecodeCopy(one_device, model, jnp.dtype("bfloat16"))


def changed(params):
    """The same leaves, but for one."""
    return params | {"embedding": params["embedding"] + 1}


def test_the_same_weights_share_their_copy(copies, params):
    first = copies.of(params)
    assert copies.of(params) is first
    again = jax.tree.map(lambda leaf: leaf, params)  # another tree of the same arrays
    assert copies.of(again) is first


def test_changed_weights_are_copied_again(copies, params):
    first, other = copies.of(params), changed(params)
    second = copies.of(other)
    expected = np.asarray(other["embedding"].astype(jnp.bfloat16))
    np.testing.assert_array_equal(second["embedding"], expected)
    assert (np.asarray(copies.of(params)["embedding"]) == np.asarray(first["embedding"])).all()


def test_one_copy_is_kept_and_none_after_its_release(copies, params):
    """The memory of an update has no room for it."""
    first = weakref.ref(copies.of(params)["embedding"])
    second = weakref.ref(copies.of(changed(params))["embedding"])
    gc.collect()
    assert first() is None
    assert second() is not None
    copies.release()
    gc.collect()
    assert second() is None


def test_neither_are_the_weights_themselves_kept(copies, params):
    own = changed(params)
    leaf = weakref.ref(own["embedding"])
    copies.of(own)
    del own
    gc.collect()
    assert leaf() is None


def test_donated_weights_have_no_copy(copies, params):
    own = jax.tree.map(jnp.copy, params)
    copies.of(own)
    own["embedding"].delete()
    with pytest.raises(RuntimeError, match="deleted"):
        copies.of(own)
