"""Logical axis names -> mesh axes: one mesh, one table of rules.

Every weight and every large activation names its axes by what they mean ("width", "heads", "rows");
RULES says which mesh axes split them. To change the parallelism of a run, change the mesh shape,
never the model.

    data     replicates parameters, splits rows, slots and pages
    fsdp     splits parameters along "width", and rows, slots and pages as well (ZeRO-3)
    tensor   splits heads, MLP columns and the vocabulary (Megatron)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

MESH_AXES = ("data", "fsdp", "tensor")

# A field of a record that jit takes or returns. The same record can hold arrays of the device,
# NumPy arrays on their way to it, shapes, or shardings: the comment at each field says more.
Leaf = Any

Rules = Mapping[str, str | tuple[str, ...] | None]

RULES: Rules = {
    "rows": ("data", "fsdp"),
    "slots": ("data", "fsdp"),
    "pages": ("data", "fsdp"),
    "length": None,
    "layers": None,
    "width": "fsdp",
    "activation_width": None,  # residual stream: split by rows only
    "heads": "tensor",
    "kv_heads": "tensor",
    "few_kv_heads": None,  # weights of fewer key/value heads than tensor shards: whole on each
    "head_size": None,
    "mlp": "tensor",
    "vocab": "tensor",
    "norm": None,
}

# The sampler reads every weight once a token: gathering them over fsdp once a rollout beats once a
# decode step.
DECODE_RULES: Rules = {**RULES, "width": None}


@dataclasses.dataclass(frozen=True)
class MeshShape:
    """Sizes of the mesh axes. At most one may be -1: it takes the remaining devices."""

    data: int
    fsdp: int
    tensor: int

    def resolve(self, num_devices: int) -> MeshShape:
        """Fills in the -1. Raises ValueError when the product is not the number of devices."""
        sizes = list(dataclasses.astuple(self))
        if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
            raise ValueError(
                f"mesh {self}: axes are positive, and at most one of them may be -1 (the rest of "
                "the devices)"
            )
        if -1 in sizes:
            fixed = -int(np.prod(sizes))
            if num_devices % fixed:
                raise ValueError(
                    f"mesh {self}: the fixed axes take {fixed} devices, which do not divide the "
                    f"{num_devices} present"
                )
            sizes[sizes.index(-1)] = num_devices // fixed
        if int(np.prod(sizes)) != num_devices:
            raise ValueError(
                f"mesh data={sizes[0]} x fsdp={sizes[1]} x tensor={sizes[2]} = "
                f"{int(np.prod(sizes))} devices, but "
                f"{num_devices} are present: change config.mesh, or set one axis to -1"
            )
        return MeshShape(*sizes)


def make_mesh(shape: MeshShape, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Makes a mesh over `devices` (default: all). Axes are Auto: XLA propagates layouts, the
    rules pin them.

    Over several TPU slices, `data` alone crosses the slower network between them (DCN), where the
    gradients of a micro-batch are summed. Within a slice, axes follow its torus (ICI).

    Raises:
      ValueError: the axes do not fit the devices, or `data` is no multiple of the slices.
    """
    devices = jax.devices() if devices is None else devices
    data, fsdp, tensor = dataclasses.astuple(shape.resolve(len(devices)))
    types, slices = (AxisType.Auto,) * len(MESH_AXES), slices_of(devices)
    if slices == 1:
        return jax.make_mesh((data, fsdp, tensor), MESH_AXES, devices=devices, axis_types=types)
    if data % slices:
        raise ValueError(
            f"mesh data={data} x fsdp={fsdp} x tensor={tensor} on {slices} slices of "
            f"{len(devices) // slices} devices: mesh.data must be a multiple of {slices}, since "
            "only data goes over the network between slices"
        )
    within, between = (data // slices, fsdp, tensor), (slices, 1, 1)
    grid = mesh_utils.create_hybrid_device_mesh(
        within, between, devices=devices, allow_split_physical_axes=True
    )  # as jax.make_mesh allows, so that the shapes of one slice are those of several
    return Mesh(grid, MESH_AXES, axis_types=types)


def slices_of(devices: Sequence[jax.Device]) -> int:
    """Returns the number of TPU slices that devices belong to; 1 on other platforms."""
    tpus = [one for one in devices if one.platform == "tpu"]
    return max(len({getattr(one, "slice_index", 0) for one in tpus}), 1)


def partition_spec(names: Sequence[str | None], rules: Rules = RULES) -> PartitionSpec:
    """Returns the PartitionSpec of logical axis names. A name that the rules lack is a KeyError."""
    return PartitionSpec(*(None if name is None else rules[name] for name in names))


def named_sharding(mesh: Mesh, *names: str | None, rules: Rules = RULES) -> NamedSharding:
    """Returns the NamedSharding of logical axis names on `mesh`. No names: replicated."""
    return NamedSharding(mesh, partition_spec(names, rules))


def tree_shardings(mesh: Mesh, logical_specs: Any, rules: Rules = RULES) -> Any:
    """Returns a tree of NamedShardings from a tree of PartitionSpecs of logical names."""
    return jax.tree.map(
        lambda spec: named_sharding(mesh, *spec, rules=rules),
        logical_specs,
        is_leaf=lambda leaf: isinstance(leaf, PartitionSpec),
    )


def place(tree: Any, layout: Any) -> Any:
    """Returns a tree of host arrays (NumPy), the same on every host, as arrays on the mesh: each
    host gives its devices their parts. What is on the mesh stays as it is. (jit would place host
    arrays too, but compiles again when the same argument later comes from the mesh.)

    Args:
      layout: a tree of NamedShardings like `tree`, or one for all of its arrays.
    """

    def placed(leaf: Any, sharding: NamedSharding) -> Any:
        if isinstance(leaf, jax.Array):
            return leaf
        if sharding.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, sharding, lambda part: array[part])

    if isinstance(layout, NamedSharding):
        return jax.tree.map(lambda leaf: placed(leaf, layout), tree)
    return jax.tree.map(placed, tree, layout)


class Placing:
    """A jitted function that places its arguments on the mesh before it is called."""

    def __init__(self, jitted: Any, *layouts: Any) -> None:
        """Args: layouts: as in `place`, one for each argument from the first on."""
        self._jitted, self._layouts = jitted, layouts
        self.lower, self.eval_shape = jitted.lower, jitted.eval_shape
        self._cache_size = jitted._cache_size

    def __call__(self, *arguments: Any) -> Any:
        placed = map(place, arguments, self._layouts)
        return self._jitted(*placed, *arguments[len(self._layouts) :])


def constrain(x: jax.Array, *names: str | None, rules: Rules = RULES) -> jax.Array:
    """Pins the layout of an array [...] by its logical axes, one name an axis; the identity if no
    mesh is set (jax.set_mesh).
    """
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, partition_spec(names, rules))


def gathered(weight: jax.Array, *names: str | None) -> jax.Array:
    """Pins a weight [...] to be whole on every shard of fsdp, and split over tensor as before."""
    return constrain(weight, *names, rules=DECODE_RULES)


def batch_shards(mesh: Mesh | AbstractMesh) -> int:
    """Number of ways that rows and slots are split; 1 if the mesh is empty."""
    return 1 if mesh.empty else mesh.shape["data"] * mesh.shape["fsdp"]
