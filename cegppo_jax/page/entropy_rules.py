"""The doctor's rules about entropy, clipping and what steers them."""

from __future__ import annotations

import numpy as np

from cegppo_jax.page.findings import (
    Severity,
    Symptom,
    percent,
    recent,
    recent_mean,
    setting_now,
    total,
    values,
)
from cegppo_jax.page.learning_rules import held_out_accuracy
from cegppo_jax.reporting.run_log import RunLog

ENDS = 3  # steps whose mean is the entropy at the start, or now

# How tokens of a quadrant are called in a sentence.
QUADRANT_WORDS = {
    "pa_hp": "likely tokens of better completions (A > 0)",
    "pa_lp": "rare tokens of better completions (A > 0)",
    "na_hp": "likely tokens of worse completions (A < 0)",
    "na_lp": "rare tokens of worse completions (A < 0)",
}

FALL = 0.6  # of the entropy at the start
RISE = 0.5  # of the entropy at the start
RISE_NATS = 0.2  # and at least by this
BETAS_REACH = 0.2  # share of the budget below which betas can do little about entropy


def entropy_fell(log: RunLog) -> Symptom | None:
    """Entropy fell by more than FALL: from which quadrant, and whether betas reach it. While
    held-out accuracy has risen clearly, that is to be watched; else it is a problem.
    """
    entropy = values(log, "policy/entropy")
    start, now = _ends(entropy)
    if not start or now > (1 - FALL) * start:
        return None
    seen = (
        f"entropy fell {percent(1 - now / start)} in {len(entropy)} steps ({start:.3g} to "
        f"{now:.3g} nats){_main_part(log, sign=-1)}"
    )
    reach, words = _reach(log)
    if reach is not None and reach < BETAS_REACH:
        advice = (
            "Lower optimizer.learning_rate, or add an entropy bonus (steering.entropy_bonus.coef); "
            "a smaller batch.minibatch_prompts makes more tokens leave the interval, where betas "
            "work."
        )
    else:
        advice = (
            f"Lower {_beta(log, 'low')}, raise {_beta(log, 'high')}, or let steering.controller "
            "hold a band."
        )
    learned = held_out_accuracy(log)
    severity: Severity = "watch" if learned and learned.severity == "fine" else "problem"
    return Symptom("entropy_fell", severity, seen + words + ".", advice)


def entropy_rose(log: RunLog) -> Symptom | None:
    """Entropy rose by more than RISE and RISE_NATS: drift to noise."""
    entropy = values(log, "policy/entropy")
    start, now = _ends(entropy)
    if not start or now < max((1 + RISE) * start, start + RISE_NATS):
        return None
    seen = (
        f"entropy rose {percent(now / start - 1)} in {len(entropy)} steps ({start:.3g} to "
        f"{now:.3g} nats){_main_part(log, sign=1)}{_reach(log)[1]}."
    )
    advice = (
        f"Lower {_beta(log, 'high')} or raise {_beta(log, 'low')}; look whether reward still rises."
    )
    return Symptom("entropy_rose", "watch", seen, advice)


def _ends(entropy: np.ndarray) -> tuple[float, float]:
    """Entropy at the start and now; zeros for a run too short to have both."""
    if len(entropy) < 2 * ENDS:
        return 0.0, 0.0
    return float(entropy[:ENDS].mean()), float(entropy[-ENDS:].mean())


def _main_part(log: RunLog, sign: int) -> str:
    """Names the quadrant that gave most of the change of a sign; "" without a budget."""
    parts = {name: max(sign * total(log, f"budget/{name}"), 0.0) for name in QUADRANT_WORDS}
    whole = sum(parts.values())
    if not whole:
        return ""
    name = max(parts, key=lambda one: parts[one])
    direction = "down" if sign < 0 else "up"
    share = percent(parts[name] / whole)
    return f"; {share} of the push {direction} came from {QUADRANT_WORDS[name]}"


def _reach(log: RunLog) -> tuple[float | None, str]:
    """The share of the budget, by size, that lies outside the interval, and words for it; None
    without a budget.
    """
    sizes = {
        name: float(np.abs(values(log, f"budget/{name}")).sum())
        for name in ("inside", "left", "right")
    }
    whole = sum(sizes.values())
    if not whole:
        return None, ""
    outside = (sizes["left"] + sizes["right"]) / whole
    return outside, (
        f"; {percent(1 - outside)} of the budget lies inside the interval, which betas do not "
        f"reach ({percent(sizes['left'] / whole)} left, {percent(sizes['right'] / whole)} right)"
    )


def _beta(log: RunLog, side: str) -> str:
    """Names a beta with what it is now: a schedule or the controller may have moved it."""
    found = values(log, f"steering/beta_{side}")
    moved = f"loss.beta_{side} ({found[-1]:g} now)" if len(found) else ""
    return moved or setting_now(log, f"loss.beta_{side}")


METHODS_WITH_BETAS = ("ce_gppo", "ce_gspo")  # of losses/surrogates.py
FEW_CLIPPED = 1e-5  # of all tokens
MANY_CLIPPED = 0.05


def nothing_is_clipped(log: RunLog) -> Symptom | None:
    """Fewer than FEW_CLIPPED of the tokens left the interval, so that betas do nothing."""
    tokens, clipped = _tokens_and_clipped(log)
    has_betas = log.settings.get("loss.surrogate") in METHODS_WITH_BETAS
    if not tokens or not has_betas or clipped > FEW_CLIPPED * tokens:
        return None
    updates = recent_mean(log, "update/num_updates")
    if updates <= 1:
        advice = (
            "With one update a step every ratio is 1: lower "
            f"{setting_now(log, 'batch.minibatch_prompts')} for several updates a rollout."
        )
    else:
        advice = (
            f"Raise {setting_now(log, 'optimizer.learning_rate')} or the number of updates a step "
            f"({updates:.0f}), or narrow {setting_now(log, 'loss.clip_low')}."
        )
    seen = f"{clipped:,.0f} of {tokens:,.0f} tokens were clipped, so that betas change nothing."
    return Symptom("nothing_is_clipped", "watch", seen, advice)


def much_is_clipped(log: RunLog) -> Symptom | None:
    """More than MANY_CLIPPED of the recent tokens left the interval."""
    shares = [recent_mean(log, f"policy/clip_fraction_{side}") for side in ("low", "high")]
    if sum(shares) < MANY_CLIPPED:
        return None
    seen = (
        f"{percent(sum(shares))} of the tokens are clipped lately ({percent(shares[0])} left, "
        f"{percent(shares[1])} right); 0.01 to 1 % is usual."
    )
    advice = (
        f"Lower {setting_now(log, 'optimizer.learning_rate')}, or take fewer updates a rollout."
    )
    return Symptom("much_is_clipped", "watch", seen, advice)


def _tokens_and_clipped(log: RunLog) -> tuple[float, float]:
    sides = ("left", "right")
    clipped = sum(total(log, f"budget/{side}_tokens") for side in sides)
    return clipped + total(log, "budget/inside_tokens"), clipped


SIGNS_AGREE = 0.5  # share of steps
FEWEST_SIGNS = 10  # steps with both numbers


def budget_misses(log: RunLog) -> Symptom | None:
    """The predicted change of entropy has the sign of the measured one in few steps."""
    names = ("budget/predicted_change", "budget/measured_change")
    predicted, measured = (log.rl.get(name, np.zeros(0)) for name in names)
    known = np.isfinite(predicted) & np.isfinite(measured) if len(predicted) else np.zeros(0, bool)
    if known.sum() < FEWEST_SIGNS:
        return None
    agree = np.sign(predicted[known]) == np.sign(measured[known])
    if agree.mean() >= SIGNS_AGREE:
        return None
    seen = (
        f"the budget predicts the sign of entropy's change in {agree.sum()} of {known.sum()} steps."
    )
    advice = "Steps may be too large for the first order: lower optimizer.learning_rate and look."
    return Symptom("budget_misses", "watch", seen, advice)


AT_BOUND = 0.5  # share of recent steps
BAND = ("low", "high")


def controller_at_its_bounds(log: RunLog) -> Symptom | None:
    """The controller's betas stood at a bound in AT_BOUND of the recent steps."""
    if not log.settings.get("steering.controller.enabled"):
        return None
    for side in ("low", "high"):
        betas = recent(log, f"steering/beta_{side}")
        for end in ("min", "max"):
            bound = log.settings.get(f"steering.controller.beta_{side}_{end}")
            if bound is None or not len(betas):
                continue
            held = np.isclose(betas, bound)
            if held.mean() >= AT_BOUND:
                low, high = (log.settings[f"steering.controller.entropy_{e}"] for e in BAND)
                seen = (
                    f"the controller held beta_{side} at its bound {bound:g} in {held.sum()} of "
                    f"the last {len(held)} steps; entropy is "
                    f"{recent_mean(log, 'policy/entropy'):.3g}, its band {low:g} to {high:g}"
                    f"{_reach(log)[1]}."
                )
                advice = (
                    "Widen steering.controller's bounds, move the band, or add an entropy bonus "
                    "(steering.entropy_bonus.coef)."
                )
                return Symptom("controller_at_its_bounds", "watch", seen, advice)
    return None


def guard_acted(log: RunLog) -> Symptom | None:
    """The guard raised an alarm or rolled back."""
    alarms = int(np.count_nonzero(values(log, "steering/alarm")))
    if not alarms:
        return None
    rollbacks = values(log, "steering/rollbacks").max()
    seen = f"entropy was outside the guard's limits in {alarms} steps; {rollbacks:.0f} rollbacks."
    advice = "See steering.guard, and what the other findings say about entropy."
    return Symptom("guard_acted", "problem", seen, advice)


ENTROPY_RULES = (
    entropy_fell,
    entropy_rose,
    nothing_is_clipped,
    much_is_clipped,
    budget_misses,
    controller_at_its_bounds,
    guard_acted,
)
