"""Reads the text of a compiled program: its computations, what calls what, and how often loops go
round.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping

_ITEM_BYTES = {
    **{"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s32": 4, "u32": 4},
    **{"f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "c128": 16, "s4": 0.5, "u4": 0.5},
}
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^{}]*)\})?")
_HEAD = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^ *(ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r" ?([a-z][\w\-]*)\(")
_CALLS = re.compile(
    r"(?:calls|to_apply|body|condition|branch_computations|called_computations)="
    r"(?:%?([\w.\-]+)|\{([^}]*)\})"
)


@dataclasses.dataclass(frozen=True)
class Shape:
    """An array in a program: bytes of one device's part, and whether they lie in main memory."""

    size: float  # bytes
    in_hbm: bool  # else in the memory on the chip, VMEM or SMEM


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    opcode: str
    shapes: tuple[Shape, ...]  # of its result; several if that is a tuple
    operands: tuple[str, ...]  # their names
    text: str  # after the operands: attributes and backend_config
    literal: str  # between the brackets: a constant's value, a parameter's number
    is_root: bool

    @property
    def calls(self) -> tuple[str, ...]:
        """Names of the computations that it runs; of a while, its condition and body."""
        found = (one or many for one, many in _CALLS.findall(self.text))
        return tuple(n.strip().lstrip("%") for names in found for n in names.split(",") if n)

    def attribute(self, name: str) -> str | None:
        """Returns the computation or number in `name=...`; None where there is none."""
        found = re.search(rf"\b{name}=%?([\w.\-]+)", self.text)
        return None if found is None else found[1]


Computation = tuple[Instruction, ...]


@dataclasses.dataclass(frozen=True)
class Module:
    """A compiled program."""

    computations: Mapping[str, Computation]
    entry: str

    def trips(self, loop: Instruction) -> int | None:
        """Returns how often the body of a while runs; None if that is known only at run time.

        XLA may have written it down. Else the condition is a comparison of a counter with a
        constant and nothing more, and the counter starts at 0, as jax's do; its step is read off
        the body.
        """
        known = re.search(r'known_trip_count":\{"n":"(\d+)"', loop.text)
        if known is not None:
            return int(known[1])
        condition = self._inlined(loop.attribute("condition") or "")
        compares = [one for one in condition if one.opcode == "compare"]
        limits = [one for one in condition if one.opcode == "constant" and one.literal.isdigit()]
        others = {one.opcode for one in condition} - _OF_A_COUNTER
        if len(compares) != 1 or len(limits) != 1 or others:
            return None
        if "direction=LT" not in compares[0].text:
            return None
        counter = next(one for one in condition if one.opcode == "get-tuple-element")
        step = self._step(loop.attribute("body") or "", int(counter.attribute("index") or 0))
        return math.ceil(int(limits[0].literal) / step)

    def at_most(self, loop: Instruction) -> int | None:
        """Returns the bound of a bounded_loop (loops.py), whose condition compares its counter with
        a constant and with what the data say; None of another loop.
        """
        condition = self._inlined(loop.attribute("condition") or "")
        limits = [one for one in condition if one.opcode == "constant" and one.literal.isdigit()]
        kinds = sorted(one.opcode for one in condition if one.opcode in ("and", "compare"))
        if kinds != ["and", "compare", "compare"] or len(limits) != 1:
            return None
        return int(limits[0].literal)

    def _inlined(self, name: str) -> list[Instruction]:
        """Returns the instructions of a computation with those of its fusions in their places."""
        found: list[Instruction] = []
        for one in self.computations[name]:
            inner = [self._inlined(call) for call in one.calls] if one.opcode == "fusion" else None
            parts = [[one]] if inner is None else inner
            found += [each for part in parts for each in part]
        return found

    def _step(self, body: str, index: int) -> int:
        """Returns what a body adds to element `index` of its tuple; 1 where it cannot be seen."""
        by_name = {one.name: one for one in self.computations[body]}
        root = next(one for one in self.computations[body] if one.is_root)
        if root.opcode != "tuple" or index >= len(root.operands):
            return 1
        added = by_name.get(root.operands[index])
        if added is None or added.opcode != "add":
            return 1
        terms = (by_name.get(name) for name in added.operands)
        steps = [int(t.literal) for t in terms if t and t.opcode == "constant"]
        return steps[0] if steps and steps[0] > 0 else 1


# What the condition of a loop over a counter consists of
_OF_A_COUNTER = {"parameter", "get-tuple-element", "constant", "compare", "bitcast", "copy"}


def parse_module(text: str) -> Module:
    """Parses what `compiled.as_text()` returns.

    Raises:
      ValueError: it has no entry computation.
    """
    computations: dict[str, Computation] = {}
    entry, name = "", None
    lines: list[Instruction] = []
    for line in _whole_lines(text):
        head = _HEAD.match(line)
        if head is not None:
            name, lines = head[1], []
            entry = name if line.startswith("ENTRY") else entry
        elif line.startswith("}"):
            if name is not None:
                computations[name] = tuple(lines)
            name = None
        elif name is not None and (found := _INSTRUCTION.match(line)):
            lines.append(_instruction(found[2], found[3], found[1] is not None))
    if not entry:
        raise ValueError("the text of the compiled program has no ENTRY computation")
    return Module(computations, entry)


def _whole_lines(text: str) -> Iterator[str]:
    """Yields the lines, joined where the metadata of a kernel breaks them: JSON, whose lines may
    look like the end of a computation.
    """
    kept = ""
    for line in text.splitlines():
        kept = f"{kept} {line}" if kept else line
        if "kernel_metadata={" in kept and kept.count("{") > kept.count("}"):
            continue
        yield kept
        kept = ""


def _instruction(name: str, rest: str, is_root: bool) -> Instruction:
    """Parses "f32[2]{0} add(%a, %b), metadata=..."."""
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    shapes = tuple(_shapes(rest[:end]))
    found = _OPCODE.match(rest, end)
    if found is None:
        raise ValueError(f"cannot read the instruction {name!r} of the compiled program")
    close = _closing(rest, found.end() - 1)
    inside = rest[found.end() : close]
    operands = tuple(re.findall(r"%([\w.\-]+)", inside))
    return Instruction(name, found[1], shapes, operands, rest[close + 1 :], inside, is_root)


def _closing(text: str, start: int) -> int:
    """Returns the place of the bracket that closes the one at `start`."""
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if not depth:
            return place
    raise ValueError(f"an unclosed bracket in the compiled program: {text[:80]!r}")


@functools.lru_cache(maxsize=4096)
def _shapes(text: str) -> tuple[Shape, ...]:
    return tuple(_each_shape(text))


def _each_shape(text: str) -> Iterator[Shape]:
    for kind, sizes, layout in _ARRAY.findall(text):
        if kind in _ITEM_BYTES:
            dims = [int(size) for size in sizes.split(",") if size]
            count = math.prod(_padded(dims, layout))
            yield Shape(count * _ITEM_BYTES[kind], not re.search(r"S\([1-9]", layout))


def _padded(dims: list[int], layout: str) -> list[int]:
    """Returns the sizes, minor first, filled up to the layout's tile: f32[4,39]{1,0:T(8,128)} takes
    8 x 128.
    """
    order, _, tiling = layout.partition(":")
    minor_first = [dims[int(axis)] for axis in order.split(",") if axis] if order else dims[::-1]
    tile = re.match(r"T\(([\d,]+)\)", tiling)
    edges = [int(edge) for edge in tile[1].split(",")][::-1] if tile else []
    if len(edges) > len(minor_first):
        return minor_first
    filled = [-(-size // edge) * edge for size, edge in zip(minor_first, edges, strict=False)]
    return filled + minor_first[len(edges) :]
