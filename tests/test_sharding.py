"""Mesh shapes, rules, and the layout of every weight."""

import dataclasses
import math

import jax
import pytest
from jax.sharding import PartitionSpec

from cegppo_jax.models.decoder import abstract_params
from cegppo_jax.sharding import (
    DECODE_RULES,
    RULES,
    MeshShape,
    arrange_slices,
    constrain,
    make_mesh,
    named_sharding,
    partition_spec,
    slice_of,
    tree_shardings,
)


def test_minus_one_takes_the_rest():
    assert MeshShape(-1, 2, 2).resolve(8) == MeshShape(2, 2, 2)
    assert MeshShape(1, 1, -1).resolve(8) == MeshShape(1, 1, 8)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (MeshShape(2, 2, 1), "data=2 x fsdp=2 x tensor=1 = 4 devices, but 8 are present"),
        (MeshShape(-1, 3, 1), "take 3 devices, which do not divide the 8 present"),
        (MeshShape(-1, -1, 1), "at most one"),
        (MeshShape(0, 8, 1), "axes are positive"),
    ],
)
def test_meshes_that_do_not_fit_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        make_mesh(shape)


def test_rules_say_where_an_axis_goes():
    assert partition_spec(("width", "heads", None)) == PartitionSpec("fsdp", "tensor", None)
    assert partition_spec(("width", "heads"), DECODE_RULES) == PartitionSpec(None, "tensor")
    assert RULES.keys() == DECODE_RULES.keys()
    with pytest.raises(KeyError, match="widht"):
        partition_spec(("widht",))


def test_every_weight_is_split_over_the_whole_mesh(model):
    """On fsdp=4 x tensor=2, each weight matrix lies in eighths: nothing large is replicated."""
    mesh = make_mesh(MeshShape(1, 4, 2))
    shapes, specs = abstract_params(model, unrolled=False)
    shardings = tree_shardings(mesh, specs)
    for (path, shape), sharding in zip(
        jax.tree.leaves_with_path(shapes), jax.tree.leaves(shardings), strict=True
    ):
        shard = sharding.shard_shape(shape.shape)
        parts = shape.size // max(1, math.prod(shard))
        is_norm = "scale" in jax.tree_util.keystr(path)
        assert parts == (1 if is_norm else 8), jax.tree_util.keystr(path)


@dataclasses.dataclass(frozen=True)
class Chip:
    """What arranging needs to know of a device."""

    id: int
    slice_index: int
    platform: str = "cpu"
    device_kind: str = "stand-in"
    process_index: int = 0


def test_each_slice_holds_a_part_of_the_data_axis_and_nothing_else_is_split_over_them():
    chips = [Chip(number, slice_index=number // 8) for number in range(16)]
    shuffled = [chips[number] for number in (3, 12, 0, 9, 5, 14, 7, 8, 1, 10, 2, 11, 4, 13, 6, 15)]
    found = arrange_slices(MeshShape(4, 2, 2), shuffled)
    assert found.shape == (4, 2, 2)
    assert [{chip.slice_index for chip in part.flat} for part in found] == [{0}, {0}, {1}, {1}]
    assert {chip.id for chip in found.flat} == set(range(16))
    with pytest.raises(ValueError, match=r"mesh.data = 1 is not a multiple of the 2 slices"):
        arrange_slices(MeshShape(1, 8, 2), chips)


def test_devices_that_know_of_no_slice_are_of_one():
    assert {slice_of(device) for device in jax.devices()} == {0}


def test_constrain_needs_no_mesh():
    x = jax.numpy.ones((4, 2))
    assert constrain(x, "rows", "width") is x


def test_constrain_pins_the_layout():
    mesh = make_mesh(MeshShape(2, 4, 1))
    with jax.set_mesh(mesh):
        y = jax.jit(lambda x: constrain(2 * x, "rows", None))(jax.numpy.ones((8, 3)))
    assert y.sharding.is_equivalent_to(named_sharding(mesh, "rows", None), 2)
