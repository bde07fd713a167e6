"""How much larger a recipe could be on the same chips, by proportion from what was compiled."""

from __future__ import annotations

import dataclasses
import math

from cegppo_jax.planning.compiling import CompiledProgram
from cegppo_jax.planning.programs import ADMIT, DECODE, LOGPROBS, SLOTS, UPDATE, WEIGHTS
from cegppo_jax.run.settings import RunSettings


@dataclasses.dataclass(frozen=True)
class Room:
    """The largest sizes whose programs would fit, if memory grows in proportion; nothing else
    changed. Multiples of what the mesh splits them into; 0: not even that fits.
    """

    slots: int
    rows_per_microbatch: int


def largest_sizes(
    programs: tuple[CompiledProgram, ...], settings: RunSettings, capacity: float, shards: int
) -> Room | None:
    """Returns the room of a plan; None if a program was refused.

    The slots' cache and what decoding and admitting work in grow with the slots; what an update
    works in besides its gradients, with the rows of a micro-batch.

    Args:
      capacity: bytes a device. shards: ways in which the mesh splits slots and rows.
    """
    slots, rows = math.inf, math.inf
    for one in programs:
        memory = one.memory
        if memory is None:
            return None
        cache = memory.residents.get(SLOTS, 0)
        own = memory.temporary + memory.results if one.phase in (DECODE, ADMIT) else 0
        slots = min(slots, _times(capacity, memory.total, cache + own))
        if one.phase in (UPDATE, LOGPROBS):
            gradients = memory.residents[WEIGHTS] if one.phase == UPDATE else 0
            rows = min(rows, _times(capacity, memory.total, memory.temporary - gradients))
    return Room(
        slots=_multiple(slots * settings.sampler.slots, shards),
        rows_per_microbatch=_multiple(rows * settings.batch.rows_per_microbatch, shards),
    )


def _times(capacity: float, total: int, growing: int) -> float:
    """Returns how many times the growing part of a total fits beside the rest of it."""
    return max(capacity - (total - growing), 0) / growing if growing > 0 else math.inf


def _multiple(size: float, of: int) -> int:
    return int(size // of) * of if math.isfinite(size) else 0
