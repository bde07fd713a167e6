"""What the page draws: one row a chart, with the metrics that it needs."""

from __future__ import annotations

import dataclasses

# Okabe and Ito's colours, distinct in every kind of colour vision. As in report.png, orange is the
# left or lower one of a pair and blue the right or upper one.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
SKY, YELLOW, PINK, BLACK = "#56B4E9", "#E69F00", "#CC79A7", "#222222"
ARM_COLOURS = (BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, BLACK, GREY)


@dataclasses.dataclass(frozen=True)
class Series:
    """One metric of a chart."""

    name: str
    label: str = ""
    colour: str = BLUE
    dash: str = "solid"  # tells a chart's series apart where colours tell arms apart
    noisy: bool = True  # extremes and what is set are not smoothed


@dataclasses.dataclass(frozen=True)
class Limit:
    """A horizontal line at the value of a setting."""

    setting: str
    label: str
    only_if: str = ""  # a setting that must be true for it to mean something


@dataclasses.dataclass(frozen=True)
class Chart:
    """Curves of one unit over steps.

    kind: "lines" of all arms together | "stack" of bars and "area", of shares, for each arm |
    "scatter" of the second series over the first.
    axis: "linear" | "log" | "share", in per cent.
    """

    title: str
    unit: str
    series: tuple[Series, ...]
    kind: str = "lines"
    axis: str = "linear"
    note: str = ""
    evaluated: bool = False  # with held-out accuracy and its interval
    limits: tuple[Limit, ...] = ()
    phase: str = "rl"


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading and its charts."""

    title: str
    charts: tuple[Chart, ...]


def _pair(stem: str, low: str, high: str, noisy: bool = True) -> tuple[Series, Series]:
    return (
        Series(f"{stem}low", low, ORANGE, "dot", noisy),
        Series(f"{stem}high", high, BLUE, "solid", noisy),
    )


SECTIONS = (
    Section(
        "What it learned",
        (
            Chart("Reward", "reward", (Series("reward/mean"),)),
            Chart(
                "Accuracy",
                "share of completions",
                (Series("reward/correct_fraction", "training", BLUE, "dot"),),
                axis="share",
                evaluated=True,
                note="Bars: 95 % interval over problems, of a single seed",
            ),
            Chart(
                "What the verifier found",
                "share of completions",
                (
                    Series("reward/correct_fraction", "correct", GREEN),
                    Series("reward/wrong_fraction", "wrong", ORANGE),
                    Series("reward/unparsed_fraction", "no answer found", YELLOW),
                    Series("reward/timed_out_fraction", "timed out", PINK),
                    Series("reward/crashed_fraction", "crashed", BLACK),
                ),
                kind="area",
                axis="share",
            ),
            Chart(
                "Groups of equal rewards",
                "share of groups",
                (Series("reward/uniform_group_fraction"),),
                axis="share",
                note="They have no advantage and teach nothing",
            ),
        ),
    ),
    Section(
        "Entropy and clipping",
        (
            Chart(
                "Policy entropy",
                "nats",
                (Series("policy/entropy"),),
                limits=(
                    Limit("steering.controller.entropy_low", "band", "steering.controller.enabled"),
                    Limit("steering.controller.entropy_high", "", "steering.controller.enabled"),
                    Limit("steering.guard.floor", "floor of the guard", "steering.guard.floor"),
                ),
                note="Paper, Fig. 2",
            ),
            Chart(
                "Clipped tokens",
                "share of tokens",
                _pair(
                    "policy/clip_fraction_", "left: ratio low, A < 0", "right: ratio high, A > 0"
                ),
                axis="log",
                note="A step without any leaves a gap",
            ),
            Chart("Betas", "weight", _pair("steering/beta_", "beta_low", "beta_high", noisy=False)),
            Chart(
                "Probability ratio, policy / old",
                "ratio",
                (
                    Series("policy/ratio_min", "smallest", ORANGE, "dot", noisy=False),
                    Series("policy/ratio_max", "largest", BLUE, "solid", noisy=False),
                ),
                axis="log",
            ),
        ),
    ),
    Section(
        "Entropy budget",
        (
            Chart(
                "By quadrant",
                "nats a unit of step",
                (
                    Series("budget/pa_hp", "A > 0, likely", GREY),
                    Series("budget/pa_lp", "A > 0, rare", BLUE),
                    Series("budget/na_hp", "A < 0, likely", GREEN),
                    Series("budget/na_lp", "A < 0, rare", ORANGE),
                ),
                kind="stack",
                note="Change of entropy that the gradients ask for; the line is the sum",
            ),
            Chart(
                "By region of the ratio",
                "nats a unit of step",
                (
                    Series("budget/inside", "inside the interval", GREY),
                    Series("budget/left", "left: beta_low scales it", ORANGE),
                    Series("budget/right", "right: beta_high scales it", BLUE),
                ),
                kind="stack",
                note="Betas reach the clipped tokens alone",
            ),
            Chart(
                "Predicted against measured",
                "measured change (nats)",
                (
                    Series("budget/predicted_change", "predicted change (nats, first order)"),
                    Series("budget/measured_change", "measured change (nats)"),
                ),
                kind="scatter",
                note="A point a step; the sign is to agree, the size means nothing",
            ),
        ),
    ),
    Section(
        "Health",
        (
            Chart(
                "Completion length",
                "tokens",
                (
                    Series("rollout/completion_tokens_mean", "mean", BLUE),
                    Series("rollout/completion_tokens_max", "longest", GREY, "dot", noisy=False),
                ),
                limits=(Limit("sampler.max_completion_tokens", "limit"),),
            ),
            Chart(
                "Truncated completions",
                "share of completions",
                (Series("rollout/truncated_fraction"),),
                axis="share",
            ),
            Chart(
                "KL to the old policy and the reference",
                "nats",
                (
                    Series("policy/kl_old", "old policy", BLUE),
                    Series("policy/kl_ref", "reference", ORANGE, "dot"),
                ),
                axis="log",
                note="Paper, Fig. 4",
            ),
            Chart(
                "Gradient norm, before clipping",
                "norm",
                (
                    Series("update/grad_norm", "mean", BLUE),
                    Series("update/grad_norm_max", "largest", GREY, "dot", noisy=False),
                ),
                axis="log",
                limits=(Limit("optimizer.max_grad_norm", "clipped at"),),
                note="Paper, Fig. 4",
            ),
            Chart(
                "Gap between sampler and trainer",
                "nats",
                (
                    Series("policy/sampler_gap_mean", "mean", BLUE),
                    Series("policy/sampler_gap_max", "largest", GREY, "dot", noisy=False),
                    Series("policy/lag_log_ratio_mean", "moved since it drew", ORANGE),
                ),
                axis="log",
            ),
        ),
    ),
    Section(
        "Speed",
        (
            Chart(
                "Time of a step",
                "s",
                (
                    Series("time/rollout_seconds", "sampling", BLUE),
                    Series("time/score_seconds", "scoring", PINK),
                    Series("time/score_wait_seconds", "waiting for scores", YELLOW),
                    Series("time/old_logprobs_seconds", "old log-probs", GREEN),
                    Series("time/update_seconds", "updates", ORANGE),
                    Series("time/evaluation_seconds", "evaluation", GREY),
                ),
                kind="stack",
                note="The first step compiles; the line is the whole step",
            ),
            Chart("Tokens sampled a second", "tokens/s", (Series("rollout/tokens_per_second"),)),
        ),
    ),
    Section(
        "Supervised warm start",
        (
            Chart("Warm start: loss", "nats", (Series("supervised/loss"),), phase="supervised"),
            Chart(
                "Warm start: entropy", "nats", (Series("supervised/entropy"),), phase="supervised"
            ),
            Chart(
                "Warm start: gradient norm",
                "norm",
                (Series("update/grad_norm"),),
                axis="log",
                phase="supervised",
            ),
        ),
    ),
)

# The line over a stack of bars: title of the chart -> metric.
TOTALS = {
    "By quadrant": "budget/mean",
    "By region of the ratio": "budget/mean",
    "Time of a step": "time/step_seconds",
}
