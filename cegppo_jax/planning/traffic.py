"""What a compiled program moves: collectives by kind, bytes of main memory, the compiler's cycles.

Loops of known length are counted as often as they go round. What lies in a loop whose length is
known only at run time (micro-batches, decode steps) is kept apart, for one pass.
"""

from __future__ import annotations

import dataclasses
import math
import re

from cegppo_jax.planning.hlo import Computation, Instruction, Module, Shape, parse_module
from cegppo_jax.planning.kernels import kernel_work

# Bytes that a device of a group of n sends and receives around a ring, per byte of its operand.
MOVED = {
    "all-gather": lambda n: n - 1,
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "reduce-scatter": lambda n: (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n,
    "ragged-all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1,
    "collective-broadcast": lambda n: 1,
}
# Neither reads nor writes an array: it names one, or its computation does the work
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional"),
    *("call", "after-all", "opt-barrier", "partition-id", "replica-id", "iota"),
}
_SLICES = {"dynamic-slice", "slice", "gather"}
_UPDATES = {"dynamic-update-slice", "scatter"}


@dataclasses.dataclass
class Traffic:
    """Sums over the instructions that a device runs."""

    collectives: dict[str, float] = dataclasses.field(default_factory=dict)  # calls by kind
    moved: dict[str, float] = dataclasses.field(default_factory=dict)  # bytes by kind
    hbm_bytes: float = 0.0  # read and written
    cycles: float = 0.0  # the compiler's estimates, which kernels of Pallas have none of
    kernels: dict[str, float] = dataclasses.field(default_factory=dict)  # FLOPs of those, by kind
    page_bytes: float = 0.0  # of hbm_bytes, those that a paged kernel reads of a cache

    def add(self, other: Traffic, times: float = 1) -> None:
        """Adds another's sums, so many times."""
        sums = (self.collectives, self.moved, self.kernels)
        its_sums = (other.collectives, other.moved, other.kernels)
        for mine, its in zip(sums, its_sums, strict=True):
            for kind, value in its.items():
                mine[kind] = mine.get(kind, 0) + value * times
        self.hbm_bytes += other.hbm_bytes * times
        self.page_bytes += other.page_bytes * times
        self.cycles += other.cycles * times

    @property
    def moved_bytes(self) -> float:
        """Bytes that a device's collectives move."""
        return sum(self.moved.values())


@dataclasses.dataclass(frozen=True)
class ProgramTraffic:
    """The traffic of a program: what it always does, and one pass of its loops of traced length."""

    outside: Traffic
    a_pass: Traffic

    def of(self, passes: float) -> Traffic:
        """Returns the sums of a call whose traced loops go round so often."""
        total = Traffic()
        total.add(self.outside)
        total.add(self.a_pass, passes)
        return total


def read_traffic(text: str) -> ProgramTraffic:
    """Counts the traffic in the text of a compiled program."""
    walk = _Walk(parse_module(text))
    walk.visit(walk.module.entry, 1, traced=False)
    return ProgramTraffic(walk.outside, walk.a_pass)


class _Walk:
    """Visits computations as often as they run."""

    def __init__(self, module: Module):
        self.module = module
        self.outside, self.a_pass = Traffic(), Traffic()

    def visit(self, name: str, times: float, traced: bool) -> None:
        """Adds a computation that runs `times` times; `traced`: inside a loop of traced length."""
        total = self.a_pass if traced else self.outside
        computation = self.module.computations[name]
        by_name = {one.name: one for one in computation}
        for one in computation:
            if one.opcode == "while":
                trips = self.module.trips(one)
                if trips is None and traced:
                    trips = self.module.at_most(one)
                inside = traced or trips is None
                for call in one.calls:  # the condition too: it may hold a collective
                    self.visit(call, times * (1 if trips is None else trips), inside)
                continue
            total.add(self._of_one(one, by_name), times)
            if one.opcode in ("call", "conditional", "async-start"):
                for call in one.calls:
                    self.visit(call, times, traced)
            elif one.opcode in ("fusion", "custom-call"):
                for call in one.calls:
                    total.add(self._collectives_in(call), times)

    def _of_one(self, one: Instruction, by_name: dict[str, Instruction]) -> Traffic:
        found = Traffic()
        kind = one.opcode.removesuffix("-start")
        if kind in MOVED:
            size = sum(s.size for name in one.operands for s in _shapes_of(by_name, name))
            found.collectives[kind] = 1
            found.moved[kind] = size * MOVED[kind](group_size(one.text))
        cycles = re.search(r'"estimated_cycles":"(\d+)"', one.text)
        found.cycles = float(cycles[1]) if cycles else 0.0
        if one.opcode not in _FREE and not one.opcode.endswith(("-done", "-update")):
            found.hbm_bytes = self._hbm_bytes(one, by_name)
        work = kernel_work(one)
        if work is not None:
            found.kernels[work.kind] = work.flops
            found.hbm_bytes += work.fetched_bytes
        return found

    def _collectives_in(self, name: str) -> Traffic:
        """Returns the collectives that a fusion holds."""
        found = Traffic()
        computation = self.module.computations[name]
        by_name = {one.name: one for one in computation}
        for one in computation:
            if one.opcode.removesuffix("-start") in MOVED:
                inner = self._of_one(one, by_name)
                found.add(Traffic(inner.collectives, inner.moved))
            for call in one.calls if one.opcode == "fusion" else ():
                found.add(self._collectives_in(call))
        return found

    def _hbm_bytes(self, one: Instruction, by_name: dict[str, Instruction]) -> float:
        """Returns what an instruction reads and writes of main memory. A slice is read alone; an
        update in place writes what is new.
        """
        if one.opcode.removesuffix("-start") == "copy":
            source = by_name.get(one.operands[0])
            shapes = (one.shapes[0], *(source.shapes[:1] if source else ()))
            return sum(shape.size for shape in shapes if shape.in_hbm)
        inner = self.module.computations[one.calls[0]] if one.opcode == "fusion" else None
        written = sum(shape.size for shape in one.shapes if shape.in_hbm)
        read = 0.0
        for place, name in enumerate(one.operands):
            size = sum(shape.size for shape in _shapes_of(by_name, name) if shape.in_hbm)
            uses = _slices_alone(inner, place) if inner is not None else None
            if inner is None and place == 0 and one.opcode in _SLICES:
                size = min(size, sum(shape.size for shape in one.shapes))
            elif inner is None and place == 0 and one.opcode in _UPDATES:
                written, size = _changed(one, by_name), 0.0
            elif uses is not None:
                size = min(size, uses)
            read += size
        if inner is not None:
            kept, new = _updates_in(inner)
            written = max(written - kept, 0.0) + new
        return read + written


def group_size(text: str) -> int:
    """Returns how many devices take part, from replica_groups in any of its spellings:
    {{0,1},{2,3}}, [groups,size]<=[...], mesh['a'=2,'b'=4] {'b'}.
    """
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", text):
        return found[1].count(",") + 1
    if found := re.search(r"replica_groups=\[\d+,(\d+)\]", text):
        return int(found[1])
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\] *\{([^}]*)\}", text):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", found[1]))
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", found[2])
        return math.prod(int(part or sizes[axis]) for axis, part in axes)
    return 1


def _shapes_of(by_name: dict[str, Instruction], name: str) -> tuple[Shape, ...]:
    return by_name[name].shapes if name in by_name else ()


def _slices_alone(inner: Computation, place: int) -> float | None:
    """Returns the bytes that a fusion reads of its operand if it only takes slices of it or updates
    it in place; None if it reads all of it.
    """
    parameter = next(
        (o for o in inner if o.opcode == "parameter" and o.literal == str(place)), None
    )
    if parameter is None:
        return None
    users = [one for one in inner if parameter.name in one.operands]
    if not users:
        return 0.0
    read = 0.0
    for user in users:
        if user.opcode in _SLICES and user.operands[0] == parameter.name:
            read += sum(shape.size for shape in user.shapes)
        elif not (user.opcode in _UPDATES and user.operands[0] == parameter.name):
            return None
    return read


def _updates_in(inner: Computation) -> tuple[float, float]:
    """Returns the bytes of arrays that a fusion updates in place, and of what it writes there."""
    by_name = {one.name: one for one in inner}
    root = next(one for one in inner if one.is_root)
    results = [by_name[n] for n in root.operands] if root.opcode == "tuple" else [root]
    kept = new = 0.0
    for one in results:
        while one.opcode == "bitcast" and one.operands[0] in by_name:
            one = by_name[one.operands[0]]
        if one.opcode in _UPDATES:
            kept += sum(shape.size for shape in one.shapes if shape.in_hbm)
            new += _changed(one, by_name)
    return kept, new


def _changed(one: Instruction, by_name: dict[str, Instruction]) -> float:
    """Returns the bytes that an update writes: its operand after the array; a scatter's last."""
    name = one.operands[1] if one.opcode == "dynamic-update-slice" else one.operands[-1]
    return sum(shape.size for shape in _shapes_of(by_name, name))
