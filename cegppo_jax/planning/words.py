"""A plan in words: memory by program, collectives, time and cost, and what they do not know."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from cegppo_jax.planning.compiling import CompiledProgram
from cegppo_jax.planning.estimate import PRICED_STEPS, StepEstimate
from cegppo_jax.planning.programs import COPY, DECODE, LOGPROBS, UPDATE
from cegppo_jax.planning.recipe_plan import RecipePlan
from cegppo_jax.planning.traffic import Traffic
from cegppo_jax.run.memory import GB

WIDTH = 100
LIMITS = (
    "Nothing has run. Memory is what the compiler reserves, exact but for fragmentation and what "
    "the runtime and the host keep; the largest temporary part of the decode copy's leaves is "
    "counted beside a whole copy.",
    "The roofline takes arithmetic at peak, main memory at its published speed, and collectives "
    "one after another around one ring of the torus, none of it hidden: real programs overlap "
    "some collectives and reach no peak. Bytes are operands and results of the compiled "
    "instructions; an array that stays on the chip is not counted, a slice counts as itself.",
    "Slices are joined by a slower network, and what crosses it is counted like the rest: with "
    "several slices the update's collectives take longer than this says.",
    "The compiler's cycles are its own cost model, pessimistic for products (about twice their "
    "roofline); kernels of Pallas have none. Read both as ratios between two plans, never as a "
    "promise.",
    "A paged cache is taken never to run dry, and its kernel to read whole blocks of pages up to "
    "the end of each sequence, at 0.85 of the speed of main memory in the compiler's column.",
    "Every decode step is taken to run all slots: sampler.slot_ladder, which lets fewer of them "
    "decode once no sample waits, is neither compiled nor played through.",
    "Lengths are drawn as stated; text, verifiers, the host between two chunks, evaluation, "
    "checkpoints, refills and compiling are left out.",
)


def plan_words(plan: RecipePlan) -> str:
    """Describes a plan in lines."""
    sizes = " x ".join(f"{name} {size}" for name, size in plan.mesh.items())
    hosts = f"{plan.hosts} host{'s' * (plan.hosts > 1)}"
    lines = [
        f"{plan.recipe} on {plan.topology}: {plan.chips} chips, {hosts}, mesh {sizes}",
        f"shape of the model: {plan.model}",
        "",
        *_memory_lines(plan),
        "",
        *_collective_lines(plan),
    ]
    if plan.step is not None:
        lines += ["", *_step_lines(plan.step)]
    lines += ["", "What this does not know:"]
    for limit in LIMITS:
        lines += textwrap.wrap(limit, WIDTH, initial_indent="- ", subsequent_indent="  ")
    return "\n".join(lines)


def shown_programs(plan: RecipePlan) -> list[CompiledProgram]:
    """Returns a plan's programs, of the decode copy's leaves the one with the highest peak, or that
    was refused.
    """

    def peak(one: CompiledProgram) -> float:
        return one.memory.total if one.memory else float("inf")

    copies = [one for one in plan.programs if one.phase == COPY]
    return [max(copies, key=peak), *(one for one in plan.programs if one.phase != COPY)]


def _memory_lines(plan: RecipePlan) -> Iterator[str]:
    """Yields the table of memory, and whether it fits."""
    of = f"of {size_words(plan.capacity)}"
    yield (
        f"{'memory of a device':26}{'resident':>10}{'batch':>10}{'results':>10}{'temporary':>11}"
        f"{'total':>10}{of:>12}{'compiled in':>13}"
    )
    for one in shown_programs(plan):
        memory = one.memory
        if memory is None:
            yield f"{one.name:26}does not compile: {one.refused}"
            continue
        parts = sum(memory.residents.values()), memory.batch, memory.results, memory.temporary
        yield f"{_label(one)}{size_words(parts[0]):>10}" + "".join(
            (
                *(f"{size_words(size):>10}" for size in parts[1:3]),
                f"{size_words(parts[3]):>11}{size_words(memory.total):>10}",
                f"{memory.total / plan.capacity:>12.0%}{one.seconds:>11.0f} s",
            )
        )
    largest = plan.largest
    if largest is None or largest.memory is None:
        yield "It does NOT fit: a program needs more memory than a device has."
        return
    residents = largest.memory.residents.items()
    held = ", ".join(f"{name} {size_words(size)}" for name, size in residents)
    verdict = "It fits" if plan.fits else "It does NOT fit"
    yield f"{verdict}: at most {size_words(largest.memory.total)}, in {largest.name} ({held})."
    if plan.room is not None:
        yield (
            f"By proportion up to {plan.room.slots:,} sampler.slots or "
            f"{plan.room.rows_per_microbatch:,} batch.rows_per_microbatch would fit."
        )


def _label(one: CompiledProgram) -> str:
    """Returns the name of a program, 26 characters wide."""
    name = "decode copy, worst leaf" if one.phase == COPY else one.name
    return f"{name[:25]:26}"


def _collective_lines(plan: RecipePlan) -> Iterator[str]:
    """Yields the table of collectives and of bytes read and written."""
    yield f"{'traffic of a device':26}{'main memory':>12}    collectives: bytes moved (calls)"
    for one in shown_programs(plan):
        if one.traffic is None:
            continue
        parts = [("a call", one.traffic.outside)]
        if one.phase in (DECODE, LOGPROBS, UPDATE):
            unit = "a step" if one.phase == DECODE else "a micro-batch"
            parts = [(unit, one.traffic.a_pass), ("a call besides", one.traffic.outside)]
        for place, (unit, traffic) in enumerate(parts):
            label = " " * 26 if place else _label(one)
            moved = _collectives(traffic) or "none"
            yield f"{label}{size_words(traffic.hbm_bytes):>12}    {unit}: {moved}"


def _collectives(traffic: Traffic) -> str:
    """Describes collectives by kind, the most bytes first."""
    moved, calls = traffic.moved, traffic.collectives
    kinds = sorted(moved, key=lambda kind: -moved[kind])
    return ", ".join(f"{one} {size_words(moved[one])} ({calls[one]:,.0f})" for one in kinds)


def _step_lines(step: StepEstimate) -> Iterator[str]:
    """Yields the table of a step's time, and the rates and costs that follow."""
    yield f"a step: {step.lengths};"
    yield (
        f"{step.decode_steps:,} decode steps, {len(step.rows)} updates of {min(step.rows)} to "
        f"{max(step.rows)} packed rows"
    )
    yield f"{'seconds':26}{'roofline':>10}{'bound by':>10}{'compiler':>10}{'MFU':>16}"
    for name, phase in step.phases.items():
        mfu = ""
        if name in step.model_flops:
            mfu = f"{_share(step.mfu(name, 'roofline'))} / {_share(step.mfu(name, 'compiler'))}"
        yield (
            f"{name:26}{phase.roofline:>10.3g}{phase.bound:>10}"
            f"{_number(phase.compiler):>10}{mfu:>16}"
        )
    low, high = step.seconds("roofline"), step.seconds("compiler")
    yield f"{'step':26}{_number(low):>10}{'':10}{_number(high):>10}"
    yield (
        "decoding reaches "
        f"{_share(step.decode_share('roofline'))} of its roofline (weights and live keys and "
        f"values alone, {step.ideal_decode:.3g} s) by the bytes of its programs, "
        f"{_share(step.decode_share('compiler'))} by the compiler's cycles"
    )
    rates = [step.tokens / one if one else None for one in (low, high)]
    yield f"completion tokens a second of the step: {_number(rates[0])} / {_number(rates[1])}"
    adds = " / ".join(map(_number, step.lag_adds))
    yield (
        f"batch.rollout_lag_steps = 1 adds {adds} s of old log-probs to a step without it, and "
        "hides as much of time/score_wait_seconds as the next rollout and the updates take"
    )
    if step.dollars is not None:
        first, second = (f"${dollars:,.0f}" for dollars in step.dollars)
        yield f"{PRICED_STEPS:,} steps: {first} by roofline, {second} by the compiler's cycles"


def size_words(size: float) -> str:
    """Describes bytes with three digits: "37.6 GB", "4.03 MB"."""
    for unit, name in ((GB, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:{',.0f' if size >= 1000 * unit else '.3g'}} {name}"
    return f"{size:.0f} B"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"
