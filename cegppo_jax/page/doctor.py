"""Says in words what the numbers of a run show, and what to turn.

Each rule is a function of a run's log, with its thresholds beside it, in entropy_rules.py,
learning_rules.py and machine_rules.py. A rule of yours goes into one of their tuples.
"""

from __future__ import annotations

import dataclasses

from cegppo_jax.page.arms import Arm
from cegppo_jax.page.entropy_rules import ENTROPY_RULES
from cegppo_jax.page.findings import DoctorRule, Symptom
from cegppo_jax.page.learning_rules import LEARNING_RULES
from cegppo_jax.page.machine_rules import MACHINE_RULES
from cegppo_jax.reporting.run_log import RunLog

RULES: tuple[DoctorRule, ...] = (*LEARNING_RULES, *ENTROPY_RULES, *MACHINE_RULES)
ORDER = ("problem", "watch", "fine")


@dataclasses.dataclass(frozen=True)
class Shared:
    """A rule's finding in an arm: that of the run in which it is worst, and the seeds of all."""

    finding: Symptom
    seeds: tuple[str, ...]

    def where(self, runs: int) -> str:
        """Says in which of an arm's several runs it was found; "" if there is one run."""
        if runs == 1:
            return ""
        if len(self.seeds) == 1:
            return f"seed {self.seeds[0]} alone"
        return f"seeds {', '.join(self.seeds)}; numbers of seed {self.seeds[0]}"


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What the doctor found in an arm."""

    arm: str
    runs: int
    findings: tuple[Shared, ...]

    def __str__(self) -> str:
        lines = [f"{self.arm}:"]
        for one in self.findings:
            found = one.finding
            words = [found.severity.ljust(7), found.seen, found.advice]
            words += [f"({where})" for where in [one.where(self.runs)] if where]
            lines.append("  " + " ".join(filter(None, words)))
        return "\n".join(lines)


def diagnose_arm(arm: Arm) -> Diagnosis:
    """Returns what the rules find in an arm's runs, each rule once, problems first."""
    by_rule: dict[str, list[tuple[Symptom, str]]] = {}
    for run in arm.runs:
        for finding in diagnose(run):
            by_rule.setdefault(finding.rule, []).append((finding, str(run.settings.get("seed"))))
    shared = []
    for found in by_rule.values():
        found.sort(key=lambda one: ORDER.index(one[0].severity))
        shared.append(Shared(found[0][0], tuple(seed for _, seed in found)))
    shared.sort(key=lambda one: ORDER.index(one.finding.severity))
    return Diagnosis(arm.name, len(arm.runs), tuple(shared))


def diagnose(log: RunLog) -> list[Symptom]:
    """Returns what the rules find in a run, problems first; never an empty list."""
    found = [one for rule in RULES if (one := rule(log)) is not None]
    found.sort(key=lambda one: ORDER.index(one.severity))
    if not log.step:
        kind = "step" if log.is_supervised else "RL step"
        found.append(Symptom("not_begun", "fine", f"no {kind} is finished yet: nothing to judge."))
    elif all(one.severity == "fine" for one in found):
        seen = f"none of {len(RULES)} rules found anything to turn in {log.step} steps."
        found.append(Symptom("nothing_found", "fine", seen))
    if not log.is_finished:
        seen = f"step {log.step} of {log.planned_steps}: the run is not finished."
        found.append(Symptom("not_finished", "fine", seen))
    return found
