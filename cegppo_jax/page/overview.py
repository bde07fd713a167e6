"""The page's tables: arms at a glance, settings that differ, evaluations, machines."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cegppo_jax.page.arms import Arm, Curve, differing, shown
from cegppo_jax.saved_config import ABSENT, json_value

Row = list[str]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of texts; the first column names the row."""

    heads: Row
    rows: list[Row]


def facts(arms: Sequence[Arm]) -> list[str]:
    """What all arms have in common: method, model, problems; seeds and commits of all."""
    found = [sorted({own(arm.settings) for arm in arms}) for own in (_method, _model, _problems)]
    shared = [values[0] for values in found if len(values) == 1]
    seeds = sorted({run.settings.get("seed", 0) for arm in arms for run in arm.runs})
    shared.append(f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}")
    starts = [start for arm in arms for run in arm.runs for start in run.versions]
    commits = sorted({_commit(start) for start in starts} - {"unknown"})
    return shared + ([f"commit {', '.join(commits)}"] if commits else [])


def _method(settings: Mapping[str, Any]) -> str:
    return str(settings.get("loss.surrogate", "supervised training"))


def _model(settings: Mapping[str, Any]) -> str:
    named = settings.get("model.pretrained")
    shape = [settings.get(f"model.{name}") for name in ("layers", "width")]
    return str(named or f"a new decoder of {shape[0]} layers, width {shape[1]}")


def _problems(settings: Mapping[str, Any]) -> str:
    return str(settings.get("problems.task") or shown(settings.get("problems.train", ())))


def at_a_glance(arms: Sequence[Arm]) -> Table:
    """One row an arm: how far, and first to last of what matters."""
    heads = ["arm", "runs", "steps", "held-out accuracy", "reward", "entropy (nats)"]
    heads += ["clipped left", "clipped right", "tokens/s", "hours"]
    return Table(heads, [_glance(arm) for arm in arms])


def _glance(arm: Arm) -> Row:
    steps = {f"{run.step} of {run.planned_steps}" for run in arm.runs}
    hours = sum(_hours(run.rl.get("time/step_seconds")) for run in arm.runs)
    return [
        arm.name,
        str(len(arm.runs)),
        ", ".join(sorted(steps)),
        first_to_last(arm.curve("evaluation/accuracy"), "{:.1%}"),
        first_to_last(arm.curve("reward/mean"), "{:.3f}"),
        first_to_last(arm.curve("policy/entropy"), "{:.3f}"),
        _sum(arm.curve("policy/clip_count_low")),
        _sum(arm.curve("policy/clip_count_high")),
        _median(arm.curve("rollout/tokens_per_second")),
        f"{hours:.2g}",
    ]


def first_to_last(curve: Curve, form: str) -> str:
    """The first and last values of a curve: "0.31 to 0.02"; with the span of several seeds."""
    if not len(curve):
        return "-"
    ends = []
    for place in (0, -1):
        text = form.format(curve.mean[place])
        if curve.high[place] > curve.low[place]:
            low, high = form.format(curve.low[place]), form.format(curve.high[place])
            text += f" ({low} to {high})"
        ends.append(text)
    return ends[0] if len(curve) == 1 else " → ".join(ends)


def _sum(curve: Curve) -> str:
    return f"{curve.mean.sum():,.0f}" if len(curve) else "-"


def _median(curve: Curve) -> str:
    return f"{np.median(curve.mean):,.0f}" if len(curve) else "-"


def _hours(seconds: np.ndarray | None) -> float:
    return 0.0 if seconds is None else float(np.nansum(seconds)) / 3600


def settings_apart(arms: Sequence[Arm]) -> Table:
    """The settings in which any two runs differ, a column a run."""
    names, configs = [], []
    for arm in arms:
        for run in arm.runs:
            names.append(arm.run_name(run))
            configs.append({name: json_value(one) for name, one in run.settings.items()})
    rows = [
        [name, *(shown(config.get(name, ABSENT)) for config in configs)]
        for name in differing(configs)
    ]
    return Table(["setting", *names], rows)


def all_settings(arms: Sequence[Arm]) -> Table:
    """Every setting, of the first run of each arm."""
    names = sorted({name for arm in arms for name in arm.settings})
    rows = [[name, *(shown(arm.settings.get(name, ABSENT)) for arm in arms)] for name in names]
    return Table(["setting", *(arm.name for arm in arms)], rows)


def evaluations(arms: Sequence[Arm]) -> Table:
    """The evaluations that `evaluate` has left in the runs' directories."""
    heads = ["run", "step", "problems", "accuracy", "best pass@k", "maj@k", "truncated", "folder"]
    rows = []
    for arm in arms:
        for run in arm.runs:
            for one in run.evaluations:
                result = one.result
                row = [arm.run_name(run), str(one.step)]
                row += [f"{result['problems']} x {result['samples_per_problem']}"]
                row += [_estimate(result["accuracy"])]
                row += [_largest(result[name]) for name in ("pass_at", "majority_at")]
                rows.append([*row, f"{result['truncated_fraction']:.1%}", one.name])
    return Table(heads, rows)


def _estimate(one: dict[str, float]) -> str:
    return f"{one['mean']:.1%} [{one['low']:.1%}, {one['high']:.1%}]"


def _largest(by_k: dict[str, dict[str, float]]) -> str:
    if not by_k:
        return "-"
    k = max(by_k, key=int)
    return f"@{k}: {_estimate(by_k[k])}"


def machines(arms: Sequence[Arm]) -> Table:
    """What each start of each run ran on."""
    heads = ["run", "start", "devices", "python", "commit", "packages"]
    rows = []
    for arm in arms:
        for run in arm.runs:
            for number, start in enumerate(run.versions, start=1):
                rows.append([arm.run_name(run), str(number), *_machine(start)])
    return Table(heads, rows)


def _machine(start: dict[str, Any]) -> Row:
    kinds = start.get("devices", [])
    devices = ", ".join(f"{kinds.count(kind)} x {kind}" for kind in sorted(set(kinds)))
    packages = start.get("packages", {})
    versions = [f"{name} {one}" for name, one in packages.items() if one != "not installed"]
    return [devices, start.get("python", ""), _commit(start), ", ".join(versions)]


def _commit(start: dict[str, Any]) -> str:
    git = start.get("git", "unknown")
    return str(git[:10] + "+changes" * git.endswith("+changes"))
