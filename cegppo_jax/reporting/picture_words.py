"""The words of report.png: what was trained, on what, by which code, and with what result."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cegppo_jax.reporting.panels import HELD_OUT, Panel, Range, Resolved, saved_setting
from cegppo_jax.storage import strict_json

CONFIG_NAME = "config.json"  # the resolved config
VERSIONS_NAME = "versions.json"  # of each start
COMMIT_LETTERS = 9


def read_config(workdir: Path) -> Resolved:
    """Returns a run's resolved config; {} where there is none."""
    path = workdir / CONFIG_NAME
    return strict_json.read_json_file(path) if path.is_file() else {}


def method_words(resolved: Resolved) -> str:
    """Returns the method, in the words of the config; "" without a config."""
    loss = resolved.get("loss", {})
    knobs = [f"{name} {loss[name]:g}" for name in ("beta_low", "beta_high") if name in loss]
    return "  ".join([str(loss.get("surrogate", "")), *knobs]).strip()


def origin_words(workdir: Path, resolved: Resolved) -> str:
    """Returns model, task, seed and commit; of those only what is known."""
    parts = [_model(resolved), _task(resolved)]
    if "seed" in resolved:
        parts.append(f"seed {resolved['seed']}")
    if commit := _commit(workdir):
        parts.append(f"commit {commit}")
    return " · ".join(part for part in parts if part)


def _model(resolved: Resolved) -> str:
    model = resolved.get("model", {})
    if model.get("pretrained"):
        return str(model["pretrained"])
    if "layers" not in model:
        return ""
    layers = model["layers"]
    return f"new decoder, {layers} layer{'s' * (layers != 1)} of width {model['width']}"


def _task(resolved: Resolved) -> str:
    task = saved_setting(resolved, "problems.task", "")
    sets = saved_setting(resolved, "problems.train", ())
    if task or not sets:
        return str(task)
    return ", ".join(map(_set_name, [sets] if isinstance(sets, str) else sets))


def _set_name(member: Any) -> str:
    """Returns the name of a member of problems.train: a string, or a mapping or pairs."""
    if isinstance(member, str):
        return member
    values = dict(member)
    return str(values.get("name") or values.get("task") or member)


def _commit(workdir: Path) -> str:
    """Returns the commit of the newest start, short: "265f51e9c", "265f51e9c+changes"."""
    path = workdir / VERSIONS_NAME
    starts = strict_json.read_json_file(path) if path.is_file() else []
    commit, plus, changes = str((starts[-1].get("git") if starts else "") or "").partition("+")
    return commit[:COMMIT_LETTERS] + plus + changes


def metric_words(panel: Panel) -> str:
    """Returns the names of a panel's metrics, those of one group by their last parts:
    "policy/ratio_max, ratio_min".
    """
    words, before = [], ""
    for metric in [*(curve.name for curve in panel.curves), *[HELD_OUT] * panel.evaluated]:
        group, slash, name = metric.partition("/")
        words.append(name if group == before else group + slash + name)
        before = group
    return ", ".join(words)


def range_words(healthy: Range, in_per_cent: bool) -> str:
    """Returns a range of healthy values as text: "healthy: below 0.01"."""
    low, high = (f"{100 * edge:g}%" if in_per_cent else f"{edge:g}" for edge in healthy)
    if math.isinf(healthy[1]):
        return f"healthy: above {low}"
    if healthy[0] == 0:
        return f"healthy: below {high}"
    return f"healthy: {low} to {high}"


def sign_words(predicted: Iterable[float], measured: Iterable[float]) -> str:
    """Returns how often two changes have one sign; NaNs are left out."""
    pairs = [p * m > 0 for p, m in zip(predicted, measured, strict=True) if math.isfinite(p * m)]
    return f"of one sign in {sum(pairs)} of {len(pairs)} steps"
