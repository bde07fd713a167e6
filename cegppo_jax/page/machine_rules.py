"""The doctor's rules about sampler, verifier, packing and time."""

from __future__ import annotations

import numpy as np

from cegppo_jax.page.findings import Symptom, percent, recent_mean, setting_now, total, values
from cegppo_jax.reporting.run_log import RunLog

GAP = {"float32": 1e-3, "bfloat16": 0.02}  # nats a token, mean, of the less precise of the two


def sampler_and_trainer_differ(log: RunLog) -> Symptom | None:
    """The sampler's log-probs are further from the trainer's than rounding explains."""
    dtypes = {log.settings.get(name, "float32") for name in ("sampler.dtype", "trainer.dtype")}
    dtype = "bfloat16" if "bfloat16" in dtypes else "float32"
    gap = recent_mean(log, "policy/sampler_gap_mean")
    if gap < GAP[dtype]:
        return None
    stale = recent_mean(log, "rollout/staleness_mean_steps")
    seen = f"sampler and trainer differ by {gap:.2g} nats a token; {dtype} explains {GAP[dtype]:g}."
    if stale and not log.settings.get("batch.rollout_lag_steps"):  # there old is as old as they
        seen += f" Groups are {stale:.2g} steps old, which is part of it."
    return Symptom(
        "sampler_and_trainer_differ",
        "problem" if gap > 5 * GAP[dtype] else "watch",
        seen,
        f"Set mismatch.correction = 'token_truncate' ({log.settings.get('mismatch.correction')!r} "
        "now), or sample in sampler.dtype = 'float32'.",
    )


VERIFIER_FAILS = 0.01  # share of completions


def verifier_fails(log: RunLog) -> Symptom | None:
    """Verifiers time out, crash or have to be restarted."""
    names = ("timed_out", "crashed")
    shares = [recent_mean(log, f"reward/{name}_fraction") for name in names]
    restarts = total(log, "reward/pool_restarts")
    if sum(shares) < VERIFIER_FAILS:
        return None
    return Symptom(
        "verifier_fails",
        "problem",
        f"the verifier timed out on {percent(shares[0])} and crashed on {percent(shares[1])} of "
        f"the recent completions; {restarts:.0f} processes were restarted.",
        f"Raise {setting_now(log, 'reward.pool.timeout_seconds')} or "
        f"{setting_now(log, 'reward.pool.memory_megabytes')}; samples.jsonl has the completions.",
    )


# Phases that should take little, and what to turn: metric -> share of a step, advice.
SLOW = {
    "time/score_wait_seconds": (
        0.1,
        "Raise reward.pool.workers: the sampler waits for verifiers. With "
        "batch.rollout_lag_steps = 1 it draws the next rollout meanwhile.",
    ),
    "time/score_seconds": (0.2, "Set reward.pool.workers, so that other processes verify."),
    "time/old_logprobs_seconds": (0.35, "Look at batch.row_tokens and packing/efficiency."),
    "time/evaluation_seconds": (0.3, "Raise evaluation.every_steps, or evaluate fewer problems."),
}


def a_phase_is_slow(log: RunLog) -> Symptom | None:
    """A phase that should take little takes much of the time, the first step apart."""
    steps = values(log, "time/step_seconds")[1:]  # the first one compiles
    if len(steps) < 3:
        return None
    slow = []
    for name, (share, advice) in SLOW.items():
        found = values(log, name)
        own = found[1:].sum() / steps.sum() if len(found) > 1 else 0.0
        if own >= share:
            slow.append((own / share, own, name, advice))
    if not slow:
        return None
    _, own, name, advice = max(slow)
    seen = f"{name} takes {percent(own)} of the time of a step (median {np.median(steps):.2g} s)."
    return Symptom("a_phase_is_slow", "watch", seen, advice)


SLOWER = 0.5  # tokens a second now, of those at the start


def sampling_slows_down(log: RunLog) -> Symptom | None:
    """Tokens a second have fallen to less than half."""
    rates = values(log, "rollout/tokens_per_second")[1:]
    if len(rates) < 10:
        return None
    first, last = float(np.median(rates[:5])), float(np.median(rates[-5:]))
    if last > SLOWER * first:
        return None
    return Symptom(
        "sampling_slows_down",
        "watch",
        f"sampling fell from {first:,.0f} to {last:,.0f} tokens/s.",
        "Longer completions read more cache (sampler.cache_read_ladder); else the machine is busy.",
    )


PACKED = 0.6  # tokens in use, of the rows'


def rows_are_empty(log: RunLog) -> Symptom | None:
    """Packing leaves much of the rows unused."""
    found = values(log, "packing/efficiency")
    if not len(found) or recent_mean(log, "packing/efficiency") >= PACKED:
        return None
    return Symptom(
        "rows_are_empty",
        "watch",
        f"only {percent(recent_mean(log, 'packing/efficiency'))} of the packed rows is tokens.",
        f"Raise {setting_now(log, 'batch.row_tokens')}: longer rows waste less at their ends.",
    )


STARVED = 0.5  # share of recent steps


def batches_starve(log: RunLog) -> Symptom | None:
    """Dynamic sampling finds too few useful groups."""
    share = recent_mean(log, "rollout/starved")
    if share < STARVED:
        return None
    easy, hard = (total(log, f"rollout/groups_dropped_too_{kind}") for kind in ("easy", "hard"))
    return Symptom(
        "batches_starve",
        "watch",
        f"{percent(share)} of the recent steps trained on fewer groups than batch.trained_prompts; "
        f"{easy:,.0f} groups were too easy and {hard:,.0f} too hard.",
        f"Take problems of another difficulty, or raise {setting_now(log, 'batch.max_refills')}.",
    )


DRY = 0.1  # samples drawn again, of the completions of the recent steps


def pages_run_dry(log: RunLog) -> Symptom | None:
    """A paged cache has too few pages: much is drawn again."""
    again = recent_mean(log, "rollout/preempted_samples")
    share = again / max(recent_mean(log, "rollout/completions"), 1.0)
    if share < DRY:
        return None
    return Symptom(
        "pages_run_dry",
        "watch",
        f"the pages of the cache ran out: {again:,.0f} samples a step, {percent(share)} of the "
        "recent completions, gave up their slots and were drawn again from the start.",
        f"Lower {setting_now(log, 'sampler.slots')}, or raise {setting_now(log, 'sampler.pages')}; "
        "0 pages are as many as the slots can fill, or as memory has room for.",
    )


MACHINE_RULES = (
    sampler_and_trainer_differ,
    verifier_fails,
    batches_starve,
    a_phase_is_slow,
    sampling_slows_down,
    pages_run_dry,
    rows_are_empty,
)
