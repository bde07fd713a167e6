"""The hardware table: plans of several recipes and topologies, a row each, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from cegppo_jax.planning.recipe_plan import HOWS, RecipePlan
from cegppo_jax.run.memory import GB

HEAD = (
    *("recipe", "topology", "chips", "fits", "peak GB of", "peak in", "s a step", "update MFU"),
    *("decode roofline", "tokens/s"),
)


def hardware_table(plans: Sequence[RecipePlan], refused: Sequence[tuple[str, str, str]]) -> str:
    """Returns a Markdown table of plans, and of (recipe, topology, why) that could not be planned.
    Two numbers are by roofline and by the compiler's cycles.
    """
    rows = [HEAD, ("---",) * len(HEAD), *map(_row, plans)]
    rows += [(*two, "", "no", why, *("",) * (len(HEAD) - 5)) for *two, why in refused]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(plan: RecipePlan) -> tuple[str, ...]:
    known = plan.recipe, plan.topology, str(plan.chips), "yes" if plan.fits else "**no**"
    capacity, largest, step = f"{plan.capacity / GB:.0f}", plan.largest, plan.step
    if largest is None or largest.memory is None or step is None:
        names = [one.name for one in plan.programs if one.memory is None]
        refusal = f"does not compile: {', '.join(names)}"
        return (*known, f"over {capacity}", refusal, *("",) * (len(HEAD) - 6))
    seconds = [step.seconds(how) for how in HOWS]
    return (
        *known,
        f"{largest.memory.total / GB:.1f} of {capacity}",
        largest.name,
        _two(seconds, "{:.3g}"),
        _two([step.mfu("update", how) for how in HOWS], "{:.0%}"),
        _two([step.decode_share(how) for how in HOWS], "{:.0%}"),
        _two([one and step.tokens / one for one in seconds], "{:,.0f}"),
    )


def _two(values: Sequence[float | None], form: str) -> str:
    return " / ".join("-" if one is None else form.format(one) for one in values)
