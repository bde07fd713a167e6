"""The doctor's rules about rewards, accuracy and the size of updates."""

from __future__ import annotations

import numpy as np

from cegppo_jax.page.findings import Finding, percent, recent, recent_mean, setting, total, values
from cegppo_jax.reporting.equal_rewards import likely_reason
from cegppo_jax.reporting.run_log import RunLog

EQUAL = 0.5  # share of groups: watch
MOSTLY_EQUAL = 0.8  # problem


def rewards_are_equal(log: RunLog) -> Finding | None:
    """Most groups have equal rewards, which teach nothing."""
    share = recent_mean(log, "reward/uniform_group_fraction")
    if share < EQUAL:
        return None
    limit = int(log.settings.get("sampler.max_completion_tokens", 0))
    lines = [line for line in log.lines if "reward/uniform_group_fraction" in line]
    return Finding(
        "rewards_are_equal",
        "problem" if share >= MOSTLY_EQUAL else "watch",
        f"in {percent(share)} of the recent groups all completions earned the same reward.",
        likely_reason(lines[-1], limit) + ".",
    )


SATURATED = 0.95  # share of training completions that are right


def accuracy_is_saturated(log: RunLog) -> Finding | None:
    """Nearly all training completions are right: little is left to learn."""
    share = recent_mean(log, "reward/correct_fraction")
    if share < SATURATED:
        return None
    return Finding(
        "accuracy_is_saturated",
        "watch",
        f"{percent(share)} of the recent training completions are right: little is left to learn.",
        "Take harder problems, batch.prompt_weighting = 'difficulty', or stop here.",
    )


def held_out_accuracy(log: RunLog) -> Finding | None:
    """What became of held-out accuracy, if its first and last 95 % intervals are apart."""
    names = [f"evaluation/accuracy{end}" for end in ("", "_low", "_high")]
    middle, low, high = (values(log, name) for name in names)
    if len(middle) < 2 or not len(middle) == len(low) == len(high):
        return None
    ends = [f"{middle[i]:.1%} [{low[i]:.1%}, {high[i]:.1%}]" for i in (0, -1)]
    words = f"held-out accuracy went from {ends[0]} to {ends[1]}"
    if low[-1] > high[0]:
        return Finding("held_out_accuracy", "fine", f"{words}: the intervals are apart.")
    if high[-1] < low[0]:
        return Finding(
            "held_out_accuracy",
            "problem",
            f"{words}: it fell.",
            f"Lower {setting(log, 'optimizer.learning_rate')}; compare entropy, KL and truncation.",
        )
    return Finding(
        "held_out_accuracy",
        "watch",
        f"{words}: the intervals overlap, so that nothing is shown yet.",
        "Train longer, or evaluate more: evaluation.problems, evaluation.samples_per_problem.",
    )


CUT = 0.1  # share of completions: watch
MOSTLY_CUT = 0.3  # problem


def completions_are_cut(log: RunLog) -> Finding | None:
    """Completions reach the length limit."""
    share = recent_mean(log, "rollout/truncated_fraction")
    if share < CUT:
        return None
    policy = log.settings.get("reward.overlong_policy")
    seen = f"{percent(share)} of the recent completions were cut at the length limit."
    advice = f"Raise {setting(log, 'sampler.max_completion_tokens')}"
    advice += "." if policy != "keep" else ", or set reward.overlong_policy ('keep' now)."
    return Finding(
        "completions_are_cut", "problem" if share >= MOSTLY_CUT else "watch", seen, advice
    )


UNREAD = 0.1  # share of completions


def answers_are_not_read(log: RunLog) -> Finding | None:
    """The verifier finds no answer in many completions."""
    share = recent_mean(log, "reward/unparsed_fraction")
    if share < UNREAD:
        return None
    return Finding(
        "answers_are_not_read",
        "watch",
        f"no answer could be read from {percent(share)} of the recent completions.",
        "See the completions below; ask for the form in problems.instruction, or choose another "
        "reward.verifier.",
    )


KL_HIGH = 0.01  # nats a token: watch
KL_BLOWN_UP = 0.1  # problem, in any step


def policy_jumps(log: RunLog) -> Finding | None:
    """KL(old || policy) within a step is too large."""
    kl = values(log, "policy/kl_old")
    if not len(kl) or (recent_mean(log, "policy/kl_old") < KL_HIGH and kl.max() < KL_BLOWN_UP):
        return None
    return Finding(
        "policy_jumps",
        "problem" if kl.max() >= KL_BLOWN_UP else "watch",
        f"KL to the old policy is {recent_mean(log, 'policy/kl_old'):.2g} nats lately and was up "
        f"to {kl.max():.2g}; below {KL_HIGH} is healthy.",
        f"Lower {setting(log, 'optimizer.learning_rate')}, or take fewer updates a rollout "
        f"({recent_mean(log, 'update/num_updates'):.0f} now).",
    )


def updates_are_skipped(log: RunLog) -> Finding | None:
    """Gradients were not finite."""
    skipped, updates = total(log, "update/skipped"), total(log, "update/num_updates")
    if not skipped:
        return None
    return Finding(
        "updates_are_skipped",
        "problem",
        f"{skipped:.0f} of {updates:.0f} updates were left out: their gradient was not finite.",
        "trainer.dtype = 'float32' tells overflow from a fault; a user's method may divide by 0.",
    )


ALWAYS_CLIPPED = 0.9  # share of steps
SPIKE = 10.0  # times the median


def gradient_norm(log: RunLog) -> Finding | None:
    """The norm is always clipped, or it has spikes."""
    norms, largest = values(log, "update/grad_norm"), recent(log, "update/grad_norm_max")
    limit = log.settings.get("optimizer.max_grad_norm")
    if len(norms) < 5 or not limit:
        return None
    clipped, median = float((norms > limit).mean()), float(np.median(norms))
    if clipped >= ALWAYS_CLIPPED:
        return Finding(
            "gradient_norm",
            "watch",
            f"the gradient's norm (median {median:.3g}) was above optimizer.max_grad_norm = "
            f"{limit:g} in {percent(clipped)} of the steps.",
            "The limit sets the size of every step: raise it, or count on it as a learning rate.",
        )
    if len(largest) and largest.max() > SPIKE * median:
        return Finding(
            "gradient_norm",
            "watch",
            f"a gradient's norm reached {largest.max():.3g} lately, {largest.max() / median:.0f} "
            f"times the median of {median:.3g}.",
            "See updates.jsonl for the step, and its completions.",
        )
    return None


LEARNING_RULES = (
    held_out_accuracy,
    rewards_are_equal,
    accuracy_is_saturated,
    completions_are_cut,
    answers_are_not_read,
    policy_jumps,
    updates_are_skipped,
    gradient_norm,
)
