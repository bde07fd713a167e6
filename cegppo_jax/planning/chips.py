"""TPU chips by name, with the figures that a plan computes from, and topologies to compile for."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Mapping
from typing import Any

import jax
from jax.experimental import topologies

from cegppo_jax.distributed import hosts_of
from cegppo_jax.sharding import slices_of

# So that libtpu neither asks for a machine that is not there, nor writes warnings about it.
QUIET = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5p-8",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # several plans at once: no process owns a TPU
}
GIB = 2**30
MEGACORE = {"chip_config_name": "megacore"}  # both cores of a chip as one device


@dataclasses.dataclass(frozen=True)
class Chip:
    """A TPU generation. Figures of a whole chip, as published; memory as its compiler grants it."""

    topology: str  # libtpu's name of it
    devices: int  # that JAX sees on a chip
    hbm_gib: float  # that a program may use on a chip: what XLA says when it runs out
    hbm_gb_per_s: float
    bf16_tflops: float
    ici_gb_per_s: float  # of one link in one direction
    ici_axes: int  # of the torus, each with a link up and one down
    clock_ghz: float | None  # by which the compiler's cycles become seconds; None: not known
    source: str  # of all but hbm_gib and clock_ghz
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of the topology
    cores: int = 1  # of a device, which share its work

    @property
    def hbm_bytes(self) -> float:
        """Bytes of memory a device."""
        return self.hbm_gib * GIB / self.devices

    @property
    def hbm_speed(self) -> float:
        """Bytes of memory a second and device."""
        return self.hbm_gb_per_s * 1e9 / self.devices

    @property
    def flops_speed(self) -> float:
        """bfloat16 operations a second and device."""
        return self.bf16_tflops * 1e12 / self.devices

    @property
    def ici_speed(self) -> float:
        """Bytes a second that a device receives around one ring of the torus, both ways."""
        return 2 * self.ici_gb_per_s * 1e9 / self.devices


_DOCS = "https://docs.cloud.google.com/tpu/docs/"
# HBM and bf16 peak are those of each page. It gives the interconnect's bandwidth of a chip in both
# directions together: divided by 4 x axes, that is a link in one direction (of v4, whose page has
# none: https://jax-ml.github.io/scaling-book/tpus). Clocks are those with which the compiler's
# cycles for large plain products agree with the published peaks; v7's is not known.
CHIPS = {
    "v4": Chip("v4", 1, 30.75, 1200, 275, 45, 3, 1.05, _DOCS + "v4", MEGACORE, cores=2),
    "v5e": Chip("v5e", 1, 15.75, 819, 197, 50, 2, 1.5, _DOCS + "v5e"),
    "v5p": Chip("v5p", 1, 95.74, 2765, 459, 100, 3, 1.75, _DOCS + "v5p", cores=2),
    "v6e": Chip("v6e", 1, 31.25, 1638, 918, 100, 2, 1.75, _DOCS + "v6e"),
    "v7": Chip("tpu7x", 2, 189.5, 7380, 2307, 100, 3, None, _DOCS + "tpu7x"),
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Chips of one generation, in a grid: what a program is compiled for."""

    name: str  # as asked for, "v5p:2x2x4"
    chip: Chip
    devices: tuple[Any, ...]  # jax.Device, of all slices; they hold nothing and run nothing

    @property
    def chips(self) -> int:
        """Number of chips."""
        return len(self.devices) // self.chip.devices

    @property
    def slices(self) -> int:
        """Number of slices: grids of chips that only a slower network joins."""
        return slices_of(self.devices)

    @property
    def hosts(self) -> int:
        """Number of hosts."""
        return hosts_of(self.devices)


def parse_topology(name: str) -> tuple[Chip, tuple[int, ...], int]:
    """Splits "v5p:2x2x4" into its chip, its grid (2, 2, 4) and the number of slices, which are 1
    but for "v5p:2x2x4:2", two slices of that grid.

    Raises:
      ValueError: it is not of that form, or the chip is not known or of another dimension.
    """
    found = re.fullmatch(r"(\w+):(\d+(?:x\d+)+)(?::([1-9]\d*))?", name)
    if found is None:
        raise ValueError(
            f"--topology={name}: give a chip and its grid, as in v5p:2x2x4 or v6e:4x4, or with "
            f"slices, v5p:2x2x4:2 (chips: {', '.join(CHIPS)})"
        )
    if found[1] not in CHIPS:
        raise ValueError(f"--topology={name}: no chip {found[1]!r}; there are {', '.join(CHIPS)}")
    chip, grid = CHIPS[found[1]], tuple(map(int, found[2].split("x")))
    if len(grid) != chip.ici_axes:
        raise ValueError(
            f"--topology={name}: a grid of {found[1]} has {chip.ici_axes} axes, and this has "
            f"{len(grid)}"
        )
    if not math.prod(grid):
        raise ValueError(f"--topology={name}: give 1 chip or more along each axis")
    return chip, grid, int(found[3] or 1)


def check_libtpu() -> None:
    """Raises ValueError, with what to install, where the TPU compiler is absent."""
    if importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ:
        raise ValueError(
            "compiling for TPUs needs their compiler, libtpu: pip install 'cegppo_jax[tpu]' (no "
            "TPU is needed)"
        )


def open_topology(name: str) -> Topology:
    """Opens a topology by name. Programs are then compiled for it on this machine's CPU.

    Raises:
      ValueError: libtpu is absent, or it knows no such topology.
    """
    chip, grid, slices = parse_topology(name)
    check_libtpu()
    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)
    jax.config.update("jax_enable_compilation_cache", False)  # such programs cannot be read back
    sizes = "x".join(map(str, grid))
    try:
        found = topologies.get_topology_desc(
            platform="tpu",
            topology_name=f"{chip.topology}:{sizes}",
            num_slices=slices,
            **chip.options,
        )
    except (jax.errors.JaxRuntimeError, RuntimeError, NotImplementedError) as error:
        line = str(error).splitlines()[0]
        raise ValueError(f"--topology={name}: libtpu cannot compile for it: {line}") from error
    return Topology(name, chip, tuple(found.devices))
