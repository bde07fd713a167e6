"""Checksums of arrays: the same on every mesh, and another one after any change of a word."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from cegppo_jax.run.checksums import changed_since, tree_checksums
from cegppo_jax.sharding import MeshShape, make_mesh

KERNEL = np.random.default_rng(0).standard_normal((16, 24)).astype(np.float32)
TREE = {"kernel": KERNEL, "count": np.int32(7), "half": KERNEL.astype(jnp.bfloat16)}
SUMS = tree_checksums(TREE)


def test_every_layout_has_the_same():
    mesh = make_mesh(MeshShape(2, 2, 2))
    for spec in (PartitionSpec("fsdp", None), PartitionSpec(None, ("data", "tensor"))):
        split = NamedSharding(mesh, spec)
        whole = NamedSharding(mesh, PartitionSpec())
        shardings = {"kernel": split, "count": whole, "half": split}
        assert tree_checksums(jax.tree.map(jax.device_put, TREE, shardings)) == SUMS
    assert tree_checksums({"params": {"kernel": KERNEL}}) == {"params/kernel": SUMS["kernel"]}


@given(st.sampled_from(sorted(TREE)), st.data())
def test_any_flipped_bit_changes_that_leaf_alone(name, data):
    leaf = np.atleast_1d(TREE[name]).copy()
    raw = leaf.view(np.uint8).reshape(-1)
    bit = data.draw(st.integers(0, 8 * raw.size - 1))
    raw[bit // 8] ^= np.uint8(1 << bit % 8)
    changed = TREE | {name: leaf.reshape(np.shape(TREE[name]))}
    assert changed_since(SUMS, tree_checksums(changed)) == [name]


def test_exchanged_rows_and_a_lost_name_are_noticed():
    assert changed_since(SUMS, tree_checksums(TREE | {"kernel": KERNEL[::-1]})) == ["kernel"]
    assert changed_since({}, SUMS) == list(SUMS)
