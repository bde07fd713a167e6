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
    constrain,
    make_mesh,
    named_sharding,
    partition_spec,
    slices_of,
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


def test_constrain_needs_no_mesh():
    x = jax.numpy.ones((4, 2))
    assert constrain(x, "rows", "width") is x


def test_constrain_pins_the_layout():
    mesh = make_mesh(MeshShape(2, 4, 1))
    with jax.set_mesh(mesh):
        y = jax.jit(lambda x: constrain(2 * x, "rows", None))(jax.numpy.ones((8, 3)))
    assert y.sharding.is_equivalent_to(named_sharding(mesh, "rows", None), 2)


@dataclasses.dataclass(frozen=True)
class Chip:
    """As much of a device of a TPU as a mesh looks at."""

    id: int
    slice_index: int
    platform: str = "tpu"
    device_kind: str = "made up"
    process_index: int = 0
    core_on_chip: int = 0

    @property
    def coords(self):
        """In a slice of 4 x 2 chips, whose slices take turns."""
        return self.id // 4 % 4, self.id // 2 % 2, 0


def test_between_slices_goes_data_alone():
    """Chips of two slices in mixed order: each slice is whole in one half of the data axis."""
    chips = [Chip(id=number, slice_index=number % 2) for number in range(16)]
    assert slices_of(chips) == 2
    mesh = make_mesh(MeshShape(-1, 2, 2), chips)
    assert mesh.devices.shape == (4, 2, 2)
    for half, own in ((mesh.devices[:2], 0), (mesh.devices[2:], 1)):
        assert {chip.slice_index for chip in half.flat} == {own}


def test_axes_that_would_cross_slices_are_refused():
    chips = [Chip(id=number, slice_index=number // 4) for number in range(12)]
    with pytest.raises(ValueError, match=r"data=2 x fsdp=6.*multiple of 3"):
        make_mesh(MeshShape(2, 6, 1), chips)


def test_hosts_without_a_tpu_are_no_slices():
    assert slices_of([Chip(id=n, slice_index=n, platform="cuda") for n in range(2)]) == 1
