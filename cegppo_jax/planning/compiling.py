"""Compiles a run's programs for a topology, and adds up what lies in a device's memory in each."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from cegppo_jax.planning.programs import (
    COPY,
    OPTIMIZER,
    REFERENCE,
    UPDATE,
    WEIGHTS,
    PlannedProgram,
    RunPrograms,
)
from cegppo_jax.planning.traffic import ProgramTraffic, read_traffic


@dataclasses.dataclass(frozen=True)
class ProgramMemory:
    """Bytes a device while a program runs."""

    residents: Mapping[str, int]  # by name: what stays from one program to the next
    batch: int  # its other arguments
    results: int  # that do not take an argument's place
    temporary: int
    code: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.residents.values()) + self.batch + self.results + self.temporary + self.code


@dataclasses.dataclass(frozen=True)
class CompiledProgram:
    """What compiling a program showed."""

    name: str
    phase: str
    seconds: float  # that compiling took
    memory: ProgramMemory | None  # None: it did not compile
    traffic: ProgramTraffic | None
    refused: str  # why it did not compile; "" if it did


@dataclasses.dataclass(frozen=True)
class _Compilation:
    """A program as it left the compiler."""

    program: PlannedProgram
    seconds: float
    found: Any  # its memory_analysis(); None: refused
    traffic: ProgramTraffic | None
    refused: str


def compile_run(run: RunPrograms, told: Callable[[str], None]) -> tuple[CompiledProgram, ...]:
    """Compiles every program of a run, and calls `told` with a line before each."""
    compiled = []
    for place, program in enumerate(run.programs, start=1):
        told(f"compiling {place} of {len(run.programs)}: {program.name}")
        compiled.append(_compile(program, run))
    residents = padded_residents(run, compiled)
    return tuple(_with_memory(one, residents) for one in compiled)


def _compile(program: PlannedProgram, run: RunPrograms) -> _Compilation:
    """Compiles one program for the devices of its run's mesh. One that needs more memory than a
    device has is refused.
    """
    began = time.perf_counter()
    try:
        with jax.set_mesh(run.mesh):
            compiled = program.jitted.lower(*program.arguments).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        why = " ".join(str(error).split()).removeprefix("RESOURCE_EXHAUSTED: ")
        return _Compilation(program, time.perf_counter() - began, None, None, why[:160])
    seconds, found = time.perf_counter() - began, compiled.memory_analysis()
    return _Compilation(program, seconds, found, read_traffic(compiled.as_text()), "")


def padded_residents(run: RunPrograms, compiled: Sequence[_Compilation]) -> dict[str, int]:
    """Returns the bytes a device of each resident with the padding of its layout: those of the
    programs that return it. Where they were refused, the bytes of the numbers alone.
    """
    sizes = dict(run.residents)
    for name in {one.program.makes for one in compiled} - {""}:
        makers = [one.found for one in compiled if one.program.makes == name]
        if all(makers):
            sizes[name] = sum(found.output_size_in_bytes for found in makers)
    copies = [one.found for one in compiled if one.program.makes == COPY]
    if copies and all(copies):
        sizes[WEIGHTS] = sum(found.argument_size_in_bytes for found in copies)
        sizes[REFERENCE] = sizes[WEIGHTS]
    for one in compiled:
        if one.program.phase == UPDATE and one.found is not None:  # it returns the whole state
            sizes[OPTIMIZER] = one.found.alias_size_in_bytes - sizes[WEIGHTS]
    return sizes


def _with_memory(one: _Compilation, residents: Mapping[str, int]) -> CompiledProgram:
    program, found = one.program, one.found
    known = program.name, program.phase, one.seconds
    if found is None:
        return CompiledProgram(*known, None, None, one.refused)
    names = dict.fromkeys((*program.takes, *program.beside))
    # A leaf's copy: its argument is a part of the weights, its result of the copy
    part = program.makes == COPY
    taken = sum(residents[name] for name in program.takes)
    memory = ProgramMemory(
        residents={name: residents[name] for name in names if residents[name]},
        batch=0 if part else max(found.argument_size_in_bytes - taken, 0),
        results=0 if part else found.output_size_in_bytes - found.alias_size_in_bytes,
        temporary=found.temp_size_in_bytes,
        code=found.generated_code_size_in_bytes,
    )
    return CompiledProgram(*known, memory, one.traffic, "")
