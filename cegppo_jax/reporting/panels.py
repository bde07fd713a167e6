"""The panels of report.png, for each phase of a run."""

from __future__ import annotations

import dataclasses

from cegppo_jax.reporting.metrics import Phase

# Okabe and Ito's colours, distinct in every kind of colour vision; on all panels, orange is
# the left or lower one of a pair and blue the right or upper one.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#555555"


@dataclasses.dataclass(frozen=True)
class Curve:
    """One metric over steps. Extremes are not smoothed, since a mean of maxima says nothing."""

    name: str
    label: str
    color: str
    smooth: bool = True


@dataclasses.dataclass(frozen=True)
class Panel:
    """Curves of one unit; scale: "linear" from 0, "share" in per cent, "clip", "log" or "ratio"."""

    title: str
    curves: tuple[Curve, ...]
    scale: str = "linear"
    evaluated: bool = False  # with the held-out accuracy and its interval


HELD_OUT = "evaluation/accuracy"

PANELS: dict[Phase, tuple[Panel, ...]] = {
    Phase.RL: (
        Panel("Reward, mean", (Curve("reward/mean", "", BLUE),)),
        Panel(
            "Accuracy",
            (Curve("reward/correct_fraction", "training completions", BLUE),),
            "share",
            evaluated=True,
        ),
        Panel("Policy entropy (nats)", (Curve("policy/entropy", "", BLUE),)),
        Panel(
            "Clipped tokens",
            (
                Curve("policy/clip_fraction_low", "left: ratio low, A < 0", ORANGE),
                Curve("policy/clip_fraction_high", "right: ratio high, A > 0", BLUE),
            ),
            "clip",
        ),
        Panel(
            "Probability ratio, policy / old",
            (
                Curve("policy/ratio_max", "largest", BLUE, smooth=False),
                Curve("policy/ratio_min", "smallest", ORANGE, smooth=False),
            ),
            "ratio",
        ),
        Panel(
            "Entropy asked for, by kind of token (sum)",
            (
                Curve("budget/pa_hp", "A > 0, likely", GREY),
                Curve("budget/pa_lp", "A > 0, rare", BLUE),
                Curve("budget/na_hp", "A < 0, likely", GREEN),
                Curve("budget/na_lp", "A < 0, rare", ORANGE),
            ),
        ),
        Panel(
            "Entropy's change within a step (nats)",
            (Curve("budget/measured_change", "", BLUE),),
        ),
        Panel(
            "Betas",
            (
                Curve("steering/beta_low", "left: beta_low", ORANGE, smooth=False),
                Curve("steering/beta_high", "right: beta_high", BLUE, smooth=False),
            ),
        ),
        Panel("Gradient norm, before clipping", (Curve("update/grad_norm", "", BLUE),), "log"),
        Panel(
            "Completion length (tokens)",
            (
                Curve("rollout/completion_tokens_max", "longest", GREY, smooth=False),
                Curve("rollout/completion_tokens_mean", "mean", BLUE),
            ),
        ),
        Panel(
            "Warning signs",
            (
                Curve("reward/uniform_group_fraction", "groups of equal rewards", BLUE),
                Curve("reward/unparsed_fraction", "answers not readable", ORANGE),
                Curve("rollout/truncated_fraction", "completions truncated", GREEN),
            ),
            "share",
        ),
        Panel(
            "Time of a step (s)",
            (
                Curve("time/step_seconds", "whole", GREY, smooth=False),
                Curve("time/rollout_seconds", "rollout", BLUE),
                Curve("time/update_seconds", "update", ORANGE),
            ),
            "log",  # the first step, which compiles, would flatten all others
        ),
    ),
    Phase.SUPERVISED: (
        Panel("Warm start: loss (nats)", (Curve("supervised/loss", "", BLUE),)),
        Panel(
            "Warm start: policy entropy (nats)",
            (Curve("supervised/entropy", "", BLUE),),
        ),
        Panel("Warm start: gradient norm", (Curve("update/grad_norm", "", BLUE),), "log"),
    ),
}
