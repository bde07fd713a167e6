"""What splash attention's kernels compute: the compiler gives no cycles for kernels of Pallas.

A call's text has the shapes of its operands. Which blocks are computed depends on the segments;
here a row is one segment, the most that there can be, as for attention in blocks. With a second
copy of the keys, for shared prompts, each block of queries computes one block of that as well.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping

from cegppo_jax.planning.chips import Chip
from cegppo_jax.planning.hlo import Instruction

# Products of [block, head size] and [head size, block] or alike, in a computed block
PRODUCTS = {"fwd": 2, "dkv": 5}  # dkv: with the queries' gradient in the same kernel
# Kernels whose heads both cores of a chip share; the others run on one of them
ON_ALL_CORES = {"fwd"}
# Of the peak of the cores that a kernel runs on. The compiler's final schedules for v5p, blocks of
# 1,024: forward 0.77, backward 1.0 (experiments/attention_blocks.py --kernels)
OF_PEAK = 0.75

# The paged kernel's, by the instructions of its schedule beside the time that its reads take
# (models/attention/paged.py): of the speed of main memory
OF_MEMORY = 0.85

_NAME = re.compile(r"^splash_mha_(fwd|dkv)")
_PAGED = re.compile(r"^paged_attention")
_OPERANDS = re.compile(r"operand_layout_constraints=\{(.*?\})\}")
_ARRAY = re.compile(r"(\w+)\[([\d,]+)\]")


@dataclasses.dataclass(frozen=True)
class KernelWork:
    """What one call of a kernel computes, and what it reads again and again."""

    kind: str  # a key of PRODUCTS; "paged"
    flops: float
    # Of main memory, beyond reading each operand once. Pages are taken off: how many are read
    # follows from the lengths of the slots, which the program does not know (lengths.py)
    fetched_bytes: float


def kernel_work(one: Instruction) -> KernelWork | None:
    """Returns the work of a call of a splash or paged kernel; None of another instruction.

    Raises:
      ValueError: the call's operands are not those of such a kernel.
    """
    named, paged = _NAME.match(one.name), _PAGED.match(one.name)
    if one.opcode != "custom-call" or not (named or paged):
        return None
    listed = _OPERANDS.search(one.text)
    arrays = _ARRAY.findall(listed[1]) if listed else []
    if paged:
        return _paged_work(one, arrays)
    assert named
    sizes = [[int(size) for size in dims.split(",")] for _, dims in arrays[:4]]
    if len(sizes) < 4 or [len(size) for size in sizes] != [3] * 4:
        raise ValueError(f"cannot read the operands of the kernel {one.name!r}")
    (_, query_blocks, key_blocks), _, (heads, length, head_size), _ = sizes
    block = length // query_blocks
    pairs = query_blocks * (query_blocks + 1) // 2
    pairs += query_blocks * (key_blocks > query_blocks)
    products = PRODUCTS[named[1]]
    item = {"bf16": 2, "f32": 4}[arrays[2][0]]
    # Forward: keys and values, for each block of queries; backward: the other way round
    fetched = heads * pairs * 2 * block * head_size * item
    flops = 2.0 * products * heads * pairs * block * block * head_size
    return KernelWork(named[1], flops, fetched)


def _paged_work(one: Instruction, arrays: list[tuple[str, str]]) -> KernelWork:
    """Takes the pages of keys and values, the last two operands, off what is read."""
    pages = [[int(size) for size in dims.split(",")] for _, dims in arrays[-2:]]
    if len(pages) < 2 or pages[0] != pages[1] or len(pages[0]) != 4:
        raise ValueError(f"cannot read the operands of the kernel {one.name!r}")
    item = {"bf16": 2, "f32": 4}[arrays[-1][0]]
    return KernelWork("paged", 0.0, -2.0 * math.prod(pages[0]) * item)


def kernel_seconds(flops: Mapping[str, float], chip: Chip) -> float:
    """Returns the seconds that a device's kernels take. flops: by kind."""
    seconds = 0.0
    for kind, count in flops.items():
        cores = 1 if kind in ON_ALL_CORES else chip.cores
        seconds += count * cores / (OF_PEAK * chip.flops_speed)
    return seconds
