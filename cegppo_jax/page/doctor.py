"""Says in words what the numbers of a run show, and what to turn.

Each rule is a function of a run's log, with its thresholds beside it, in entropy_rules.py,
learning_rules.py and machine_rules.py. A rule of yours goes into one of their tuples.
"""

from __future__ import annotations

from cegppo_jax.page.entropy_rules import ENTROPY_RULES
from cegppo_jax.page.findings import Finding, Rule
from cegppo_jax.page.learning_rules import LEARNING_RULES
from cegppo_jax.page.machine_rules import MACHINE_RULES
from cegppo_jax.reporting.run_log import RunLog

RULES: tuple[Rule, ...] = (*LEARNING_RULES, *ENTROPY_RULES, *MACHINE_RULES)
ORDER = ("problem", "watch", "fine")


def diagnose(log: RunLog) -> list[Finding]:
    """Returns what the rules find in a run, problems first; never an empty list."""
    found = [one for rule in RULES if (one := rule(log)) is not None]
    found.sort(key=lambda one: ORDER.index(one.severity))
    if not any(one.severity != "fine" for one in found):
        seen = f"none of {len(RULES)} rules found anything to turn in {log.step} steps."
        found.append(Finding("nothing_found", "fine", seen))
    if not log.is_finished:
        seen = f"step {log.step} of {log.planned_steps}: the run is not finished."
        found.append(Finding("not_finished", "fine", seen))
    return found
