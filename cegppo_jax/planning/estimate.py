"""How long a step takes and what it costs, from compiled programs and the work of a step.

Two estimates. The roofline: per phase, the larger of arithmetic at peak and main memory at its
speed, plus collectives around a ring. The compiler's cost model: its own cycles, plus the same
collectives; that includes small and badly shaped operations, and is pessimistic about memory.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

import jax.numpy as jnp

from cegppo_jax.models.config import ModelConfig
from cegppo_jax.planning import flops
from cegppo_jax.planning.chips import Chip, Topology
from cegppo_jax.planning.compiling import CompiledProgram
from cegppo_jax.planning.kernels import OF_MEMORY, kernel_seconds
from cegppo_jax.planning.lengths import Lengths, RolloutWork, packed_rows, rollout_work
from cegppo_jax.planning.programs import (
    ADMIT,
    COPY,
    DECODE,
    LOGPROBS,
    PREFILL,
    UPDATE,
    decode_name,
)
from cegppo_jax.planning.traffic import Traffic
from cegppo_jax.run.build import minibatch_settings
from cegppo_jax.run.settings import RunSettings

HOUR = 3600
PRICED_STEPS = 1000  # that a price is given for


@dataclasses.dataclass(frozen=True)
class PhaseTime:
    """Seconds of a step that a phase takes, and what they are made of, a device."""

    compute: float  # arithmetic at peak
    memory: float  # main memory at its speed
    network: float  # collectives
    compiler: float | None  # by its cycles, kernels and collectives included; None: not known

    @property
    def roofline(self) -> float:
        """Seconds at least."""
        return max(self.compute, self.memory) + self.network

    @property
    def bound(self) -> str:
        """What the roofline is made of mostly."""
        parts = {"compute": self.compute, "memory": self.memory, "network": self.network}
        return max(parts, key=lambda name: parts[name])


@dataclasses.dataclass(frozen=True)
class StepEstimate:
    """A step of training on a topology."""

    lengths: str  # in words
    phases: Mapping[str, PhaseTime]
    model_flops: Mapping[str, float]  # of the phases that have any, all devices together
    peak_flops: float  # a second, all devices
    tokens: int  # completion tokens
    decode_steps: int
    ideal_decode: float  # seconds of reading weights and live keys and values alone
    rows: tuple[int, ...]  # packed rows of each mini-batch
    # What batch.rollout_lag_steps = 1 adds to a step without it: by roofline, by the compiler
    lag_adds: tuple[float, float | None]
    dollars: tuple[float, float] | None  # for PRICED_STEPS steps: by roofline, by the compiler

    def seconds(self, how: str) -> float | None:
        """Returns the seconds of a step by "roofline" or "compiler"; None: not known."""
        times = [getattr(one, how) for one in self.phases.values()]
        return None if None in times else sum(times)

    def mfu(self, phase: str, how: str) -> float | None:
        """Returns model FLOPs a second over the peak, in a phase."""
        seconds = getattr(self.phases[phase], how)
        return self.model_flops[phase] / self.peak_flops / seconds if seconds else None

    def decode_share(self, how: str) -> float | None:
        """Returns the share of the decode roofline: the ideal seconds over those of the phase."""
        seconds = getattr(self.phases[DECODE], how)
        return self.ideal_decode / seconds if seconds else None


def estimate_step(
    settings: RunSettings,
    model: ModelConfig,
    topology: Topology,
    compiled: Sequence[CompiledProgram],
    lengths: Lengths,
    price: float | None,
) -> StepEstimate:
    """Estimates a step whose programs have all compiled.

    Args:
      price: dollars a chip and hour; None: not known.
    """
    batch, chip, devices = settings.batch, topology.chip, len(topology.devices)
    work = rollout_work(lengths, batch.samples_per_prompt, settings.sampler)
    rows = tuple(packed_rows(lengths, settings))
    place = _place_bytes(settings, model) / devices  # of a device, on average
    each = _phase_traffic(settings, compiled, work, rows)
    if settings.sampler.reads_pages:
        pages = work.fetched * place
        each[DECODE].add(Traffic(hbm_bytes=pages, page_bytes=pages))
    trained = lengths.completions[: batch.trained_prompts * batch.samples_per_prompt]
    computed = _program_flops(settings, model, work, rows, int(trained.sum()))
    phases = {
        phase: phase_time(traffic, computed.get(phase, 0.0) / devices, chip)
        for phase, traffic in each.items()
    }
    forward = flops.trained_flops(model, lengths.prompt, batch.trained_prompts, trained)
    decoded = flops.decode_flops(model, work.tokens, work.live)
    embedding = 0 if model.tied_embeddings else model.vocab_size * model.width
    item = jnp.dtype(settings.sampler.dtype).itemsize
    decodes = [one.memory for one in compiled if one.phase == DECODE]
    copy_bytes = max(memory.residents[COPY] for memory in decodes if memory)
    read = sum(work.steps.values()) * (copy_bytes - embedding * item // _tensor(settings))
    found = StepEstimate(
        lengths=lengths.words,
        phases=phases,
        model_flops={
            DECODE: decoded,
            LOGPROBS: _looked_at(settings, rows) * forward,
            UPDATE: flops.TRAINING * forward,
        },
        peak_flops=devices * chip.flops_speed,
        tokens=work.tokens,
        decode_steps=sum(work.steps.values()),
        ideal_decode=(read + work.live * place) / chip.hbm_speed,
        rows=rows,
        lag_adds=_lag_adds(settings, model, topology, compiled, work, rows, int(trained.sum())),
        dollars=None,
    )
    if price is None:
        return found
    costs = (found.seconds("roofline"), found.seconds("compiler"))
    hours = [math.nan if one is None else one * PRICED_STEPS / HOUR for one in costs]
    low, high = (one * price * topology.chips for one in hours)
    return dataclasses.replace(found, dollars=(low, high))


def _lag_adds(
    settings: RunSettings,
    model: ModelConfig,
    topology: Topology,
    compiled: Sequence[CompiledProgram],
    work: RolloutWork,
    rows: Sequence[int],
    trained_tokens: int,
) -> tuple[float, float | None]:
    """Returns the seconds of old log-probs that a rollout lag adds: those of the first mini-batch,
    where its update would find them.
    """

    def seconds(lag: int) -> PhaseTime:
        batch = dataclasses.replace(settings.batch, rollout_lag_steps=lag)
        lagged = dataclasses.replace(settings, batch=batch)
        computed = _program_flops(lagged, model, work, rows, trained_tokens)[LOGPROBS]
        traffic = _phase_traffic(lagged, compiled, work, rows)[LOGPROBS]
        return phase_time(traffic, computed / len(topology.devices), topology.chip)

    without, lagged = seconds(0), seconds(1)
    if lagged.compiler is None or without.compiler is None:
        return lagged.roofline - without.roofline, None
    return lagged.roofline - without.roofline, lagged.compiler - without.compiler


def _place_bytes(settings: RunSettings, model: ModelConfig) -> int:
    """Returns the bytes of a token's keys and values in all layers."""
    item = jnp.dtype(settings.sampler.dtype).itemsize
    return 2 * model.layers * model.cached_heads * model.head_size * item


def _tensor(settings: RunSettings) -> int:
    return max(settings.mesh.tensor, 1)


def _finds_old(settings: RunSettings) -> bool:
    """Whether the first mini-batch's old log-probs come out of its update."""
    lagged = settings.batch.rollout_lag_steps > 0
    return minibatch_settings(settings).update_finds_old and not lagged


def _looked_at(settings: RunSettings, rows: Sequence[int]) -> float:
    """Returns the share of a step's rows that a pass of old log-probs reads."""
    return sum(rows[_finds_old(settings) :]) / max(sum(rows), 1)


def _passes(settings: RunSettings, rows: Sequence[int]) -> Iterator[int]:
    """Yields the micro-batches of each mini-batch."""
    return (math.ceil(one / settings.batch.rows_per_microbatch) for one in rows)


def _phase_traffic(
    settings: RunSettings,
    compiled: Sequence[CompiledProgram],
    work: RolloutWork,
    rows: Sequence[int],
) -> dict[str, Traffic]:
    """Returns what each phase of a step moves."""
    phases = {name: Traffic() for name in (COPY, PREFILL, ADMIT, DECODE, LOGPROBS, UPDATE)}
    passes = list(_passes(settings, rows))
    by_name = {decode_name(length): length for length in settings.sampler.read_lengths}
    calls = {COPY: 1, PREFILL: work.prefills, ADMIT: work.admissions}
    for one in compiled:
        if one.traffic is None or one.phase not in phases:
            continue
        total = phases[one.phase]
        if one.phase == DECODE:
            length = by_name[one.name]
            total.add(one.traffic.outside, work.chunks[length])
            total.add(one.traffic.a_pass, work.steps[length])
        elif one.phase in (LOGPROBS, UPDATE):
            for count in passes[one.phase == LOGPROBS and _finds_old(settings) :]:
                total.add(one.traffic.of(count))
        else:
            total.add(one.traffic.of(1), calls[one.phase])
    return phases


def _program_flops(
    settings: RunSettings,
    model: ModelConfig,
    work: RolloutWork,
    rows: Sequence[int],
    trained_tokens: int,
) -> dict[str, float]:
    """Returns the FLOPs that the programs of each phase compute at least: rows with their padding,
    logits of the completion tokens that train.
    """
    batch, sampler = settings.batch, settings.sampler
    filled = sum(_passes(settings, rows)) * batch.rows_per_microbatch
    forward = flops.forward_flops(model, [batch.row_tokens], head=False) * filled
    forward += flops.head_flops(model) * trained_tokens
    kept = settings.trainer.rematerialise
    again = flops.computed_again(model, filled, batch.row_tokens, trained_tokens, kept)
    prompts = [sampler.max_prompt_tokens] * sampler.prefill_prompts
    read: float = sampler.slots * sum(steps * length for length, steps in work.steps.items())
    if sampler.reads_pages:
        read = work.fetched
    drawn = sum(work.steps.values()) * sampler.slots
    return {
        PREFILL: work.prefills * flops.forward_flops(model, prompts, head=False),
        DECODE: flops.decode_flops(model, drawn, read),
        LOGPROBS: _looked_at(settings, rows) * forward,
        UPDATE: flops.TRAINING * forward + again,
    }


def phase_time(traffic: Traffic, computed: float, chip: Chip) -> PhaseTime:
    """Returns the time of what a device moves, and computes in FLOPs."""
    network = traffic.moved_bytes / chip.ici_speed
    clock, apart = chip.clock_ghz, kernel_seconds(traffic.kernels, chip) + network
    apart += traffic.page_bytes / (OF_MEMORY * chip.hbm_speed)
    return PhaseTime(
        compute=computed / chip.flops_speed,
        memory=traffic.hbm_bytes / chip.hbm_speed,
        network=network,
        compiler=None if clock is None else traffic.cycles / (clock * 1e9) + apart,
    )
