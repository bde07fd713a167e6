"""A plan in words: memory by program, collectives, time and cost, and what they do not know."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from cegppo_jax.planning.compiling import CompiledProgram
from cegppo_jax.planning.estimate import STEPS, StepEstimate
from cegppo_jax.planning.programs import COPY, DECODE, LOGPROBS, UPDATE
from cegppo_jax.planning.recipe_plan import RecipePlan
from cegppo_jax.planning.traffic import Traffic

GB = 1e9
WIDTH = 100
LIMITS = (
    "Nothing has run. Memory is what the compiler reserves, exact but for fragmentation and what "
    "the runtime and the host keep; the largest temporary part of the decode copy's leaves is "
    "counted beside a whole copy.",
    "The roofline takes arithmetic at peak, main memory at its published speed, and collectives one "
    "after another around one ring of the torus, none of it hidden: real programs overlap some "
    "collectives and reach no peak. Bytes of main memory are operands and results of the compiled "
    "instructions; an array that stays on the chip is not counted, a slice counts as itself.",
    "The compiler's cycles are its own cost model, pessimistic for products (about twice their "
    "roofline); kernels of Pallas have none. Read both as ratios between two plans, never as a "
    "promise.",
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
    yield (
        f"{'GB a device':26}{'resident':>9}{'batch':>8}{'results':>9}{'temporary':>11}{'code':>7}"
        f"{'total':>8}{'of ' + _gb(plan.capacity):>9}{'compiled in':>13}"
    )
    for one in shown_programs(plan):
        memory = one.memory
        if memory is None:
            yield f"{one.name[:25]:26}does not compile: {one.refused}"
            continue
        parts = sum(memory.residents.values()), memory.batch, memory.results, memory.temporary
        cells = "".join(
            f"{_gb(size):>{wide}}" for size, wide in zip(parts, (9, 8, 9, 11), strict=True)
        )
        share = memory.total / plan.capacity
        yield (
            f"{one.name[:25]:26}{cells}{_gb(memory.code):>7}{_gb(memory.total):>8}"
            f"{share:>9.0%}{one.seconds:>11.0f} s"
        )
    largest = plan.largest
    if largest is None or largest.memory is None:
        yield "It does not fit: see the programs that do not compile."
        return
    held = ", ".join(f"{name} {_gb(size)}" for name, size in largest.memory.residents.items())
    verdict = "It fits" if plan.fits else "It does NOT fit"
    yield f"{verdict}: at most {_gb(largest.memory.total)} GB, in {largest.name} ({held})."


def _collective_lines(plan: RecipePlan) -> Iterator[str]:
    """Yields the table of collectives and of bytes read and written."""
    yield f"{'traffic a device':26}{'main memory':>12}  collectives, GB moved (calls)"
    for one in shown_programs(plan):
        if one.traffic is None:
            continue
        parts = [("a call", one.traffic.outside)]
        if one.phase in (DECODE, LOGPROBS, UPDATE):
            unit = "a step" if one.phase == DECODE else "a micro-batch"
            parts = [("a call besides", one.traffic.outside), (unit, one.traffic.a_pass)]
        for place, (unit, traffic) in enumerate(parts):
            label = one.name[:25] if not place else ""
            yield f"{label:26}{_gb(traffic.hbm_bytes):>9} GB  {unit}: {_collectives(traffic)}"


def _collectives(traffic: Traffic) -> str:
    kinds = sorted(traffic.moved, key=lambda kind: -traffic.moved[kind])
    each = (
        f"{kind} {_gb(traffic.moved[kind])} ({traffic.collectives[kind]:,.0f})" for kind in kinds
    )
    return ", ".join(each) or "none"


def _step_lines(step: StepEstimate) -> Iterator[str]:
    """Yields the table of a step's time, and the rates and costs that follow."""
    yield f"a step: {step.lengths}; {step.decode_steps:,} decode steps, "
    yield f"  {len(step.rows)} updates of {min(step.rows)} to {max(step.rows)} packed rows"
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
        f"{_share(step.decode_share('roofline'))} of its roofline (weights and live keys and values "
        f"alone, {step.ideal_decode:.3g} s) by the bytes of its programs, "
        f"{_share(step.decode_share('compiler'))} by the compiler's cycles"
    )
    rates = [step.tokens / one if one else None for one in (low, high)]
    yield f"completion tokens a second of the step: {_number(rates[0])} / {_number(rates[1])}"
    if step.dollars is not None:
        first, second = step.dollars
        yield f"{STEPS:,} steps: ${first:,.0f} by roofline, ${second:,.0f} by the compiler's cycles"


def _gb(size: float) -> str:
    value = size / GB
    return f"{value:.2f}" if value >= 0.01 or not value else f"{value:.0e}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"
