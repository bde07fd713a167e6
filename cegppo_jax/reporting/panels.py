"""The panels of report.png, for each phase of a run, with the values that are healthy and why."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cegppo_jax.reporting.metrics import Phase

# Okabe and Ito's colours, distinct in every kind of colour vision; on all panels, orange is
# the left or lower one of a pair and blue the right or upper one.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#555555"

Resolved = Mapping[str, Any]  # of the run, resolved; {} where it is not known
Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Curve:
    """One metric over steps. Extremes are not smoothed, since a mean of maxima says nothing."""

    name: str
    label: str
    color: str
    smooth: bool = True


@dataclasses.dataclass(frozen=True)
class Panel:
    """Curves of one unit.

    scale: "linear" from 0, "share" in per cent, "clip", "log", "ratio", or "against": the first
    metric on the horizontal axis, the second on the vertical one, a dot a step.
    """

    title: str
    unit: str  # of the vertical axis
    curves: tuple[Curve, ...]
    scale: str = "linear"
    evaluated: bool = False  # with the held-out accuracy and its interval
    healthy: Callable[[Resolved], Range | None] | None = None  # shaded; None: no range is healthy
    left_out_if_constant: bool = False  # when no curve ever changes


# Of a report, with what would differ from one drawing to the next
FORMATS: dict[str, dict[str, Any]] = {
    "png": {},
    "pdf": {"CreationDate": None},
    "svg": {"Date": None},
}

HELD_OUT = "evaluation/accuracy"


def check_formats(place: str, formats: Sequence[str]) -> None:
    """Raises ValueError, naming the setting or flag, for a format that a report cannot have."""
    unknown = [one for one in formats if one not in FORMATS]
    if unknown:
        raise ValueError(f"{place} = {tuple(formats)}: choose from {[*FORMATS]}")


def saved_setting(resolved: Resolved, name: str, default: Any) -> Any:
    """Returns a setting of a run by its dotted name, or the default where the run has none."""
    found: Any = resolved
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return default
        found = found[part]
    return found


def between(low: float, high: float) -> Callable[[Resolved], Range]:
    """Returns a range that is the same for every run."""
    return lambda resolved: (low, high)


def entropy_band(resolved: Resolved) -> Range | None:
    """The band that the run's controller holds entropy in, or else its guard's limits; None without
    either, as how much entropy is right depends on the task.
    """
    controller = saved_setting(resolved, "steering.controller", {})
    if controller.get("enabled"):
        return controller["entropy_low"], controller["entropy_high"]
    guard = saved_setting(resolved, "steering.guard", {})
    low, high = (float(guard.get(name, edge)) for name, edge in GUARD_OFF.items())
    return (low, high) if low > 0 or high < math.inf else None


GUARD_OFF = {"floor": 0.0, "ceiling": math.inf}


def uncut_norm(resolved: Resolved) -> Range | None:
    """Norms below `optimizer.max_grad_norm`: larger gradients are scaled down to it."""
    limit = saved_setting(resolved, "optimizer.max_grad_norm", None)
    return None if limit is None else (0.0, float(limit))


def rounding_gap(resolved: Resolved) -> Range:
    """Gaps that rounding explains; larger ones mean that the sampler and the trainer compute
    different things. In bfloat16, with 8 bits of mantissa, a log-probability is off by some 0.01.
    """
    types = [saved_setting(resolved, f"{part}.dtype", "float32") for part in ("sampler", "trainer")]
    return (0.0, 0.02 if "bfloat16" in types else 1e-4)


# None of 10,000 tokens clipped: the updates hardly move the policy, or there is one a step. More
# than one of 100: they move it so far that most of what clipped tokens say comes too late.
CLIPPED = between(1e-4, 1e-2)
# Beyond a factor of 10 or so a single token can decide an update.
RATIO = between(0.01, 10.0)
# The paper's Fig. 4: stable runs stay below; growth within few steps goes before a collapse.
KL_OF_A_STEP = between(0.0, 0.01)
# With more, most completions drawn have no advantage and teach nothing: harder or easier prompts.
EQUAL_GROUPS = between(0.0, 0.5)
# More, and the limit or the format decides rewards, not the reasoning.
LOST_COMPLETIONS = between(0.0, 0.1)

PANELS: dict[Phase, tuple[Panel, ...]] = {
    Phase.RL: (
        Panel("Mean reward", "reward", (Curve("reward/mean", "", BLUE),)),
        Panel(
            "Accuracy",
            "share of completions",
            (Curve("reward/correct_fraction", "training completions", BLUE),),
            "share",
            evaluated=True,
        ),
        Panel(
            "Policy entropy",
            "nats",
            (Curve("policy/entropy", "", BLUE),),
            healthy=entropy_band,
        ),
        Panel(
            "Clipped tokens",
            "share of tokens",
            (
                Curve("policy/clip_fraction_low", "left: ratio low, A < 0", ORANGE),
                Curve("policy/clip_fraction_high", "right: ratio high, A > 0", BLUE),
            ),
            "clip",
            healthy=CLIPPED,
        ),
        Panel(
            "Probability ratio",
            "policy / old",
            (
                Curve("policy/ratio_max", "largest", BLUE, smooth=False),
                Curve("policy/ratio_min", "smallest", ORANGE, smooth=False),
            ),
            "ratio",
            healthy=RATIO,
        ),
        Panel(
            "KL(old || policy) of a step's updates",
            "nats",
            (Curve("policy/kl_old", "", BLUE),),
            "log",
            healthy=KL_OF_A_STEP,
        ),
        Panel("KL to the reference", "nats", (Curve("policy/kl_ref", "", BLUE),)),
        Panel(
            "Gap between sampler and trainer",
            "nats",
            (
                Curve("policy/sampler_gap_max", "largest", GREY, smooth=False),
                Curve("policy/sampler_gap_mean", "mean, whose range is shaded", BLUE),
            ),
            "log",
            healthy=rounding_gap,
        ),
        Panel(
            "Entropy asked for, by kind of token",
            "nats per unit of step",
            (
                Curve("budget/pa_hp", "A > 0, likely", GREY),
                Curve("budget/pa_lp", "A > 0, rare", BLUE),
                Curve("budget/na_hp", "A < 0, likely", GREEN),
                Curve("budget/na_lp", "A < 0, rare", ORANGE),
            ),
        ),
        Panel(
            "Change of entropy, predicted and measured",
            "measured, nats",
            (
                Curve("budget/predicted_change", "predicted, nats", BLUE),
                Curve("budget/measured_change", "measured, nats", BLUE),
            ),
            "against",  # healthy: of one sign. First order says nothing about the size
        ),
        Panel(
            "Betas",
            "weight",
            (
                Curve("steering/beta_low", "left: beta_low", ORANGE, smooth=False),
                Curve("steering/beta_high", "right: beta_high", BLUE, smooth=False),
            ),
            left_out_if_constant=True,
        ),
        Panel(
            "Gradient norm, before clipping",
            "norm",
            (Curve("update/grad_norm", "", BLUE),),
            "log",
            healthy=uncut_norm,
        ),
        Panel(
            "Length of completions",
            "tokens",
            (
                Curve("rollout/completion_tokens_max", "longest", GREY, smooth=False),
                Curve("rollout/completion_tokens_mean", "mean", BLUE),
            ),
        ),
        Panel(
            "Groups of equal rewards",
            "share of groups",
            (Curve("reward/uniform_group_fraction", "", BLUE),),
            "share",
            healthy=EQUAL_GROUPS,
        ),
        Panel(
            "Completions that are lost",
            "share of completions",
            (
                Curve("reward/unparsed_fraction", "no answer could be read", ORANGE),
                Curve("rollout/truncated_fraction", "ended by the limit", BLUE),
            ),
            "share",
            healthy=LOST_COMPLETIONS,
        ),
        Panel(
            "Time of a step",
            "s",
            (
                Curve("time/step_seconds", "whole", GREY, smooth=False),
                Curve("time/rollout_seconds", "rollout", BLUE),
                Curve("time/old_logprobs_seconds", "log-probs", GREEN),
                Curve("time/update_seconds", "update", ORANGE),
            ),
            "log",  # the first step, which compiles, would flatten all others
        ),
    ),
    Phase.SUPERVISED: (
        Panel("Warm start: loss", "nats a token", (Curve("supervised/loss", "", BLUE),)),
        Panel("Warm start: policy entropy", "nats", (Curve("supervised/entropy", "", BLUE),)),
        Panel(
            "Warm start: gradient norm, before clipping",
            "norm",
            (Curve("update/grad_norm", "", BLUE),),
            "log",
            healthy=lambda resolved: uncut_norm(resolved.get("warm_start", {})),
        ),
    ),
}
