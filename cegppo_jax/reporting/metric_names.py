"""The table of all metrics, looked up by name and not read from top to bottom.

python -m cegppo_jax.reporting.metric_names > experiments/METRICS.md      writes the glossary
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Metric:
    """What one name means. `clock` marks readings of a clock, which no resume repeats."""

    meaning: str
    unit: str
    healthy: str
    clock: bool = False


# A mean over tokens is one sum over one count: every completion token of all the step's updates,
# each once, whatever the loss weighs it. Only update/loss and budget/* hold the loss's weights.
METRICS: dict[str, Metric] = {
    "reward/mean": Metric("mean reward of the step's completions", "reward", "rises, with noise"),
    "reward/std_within_group_mean": Metric(
        "standard deviation of reward within a group, mean over groups", "reward", "well above 0"
    ),
    "reward/correct_fraction": Metric(
        "completions whose answer is correct", "share", "rises; 0.2 to 0.8 teaches most"
    ),
    "reward/wrong_fraction": Metric(
        "completions whose answer was read and is wrong", "share", "falls"
    ),
    "reward/unparsed_fraction": Metric(
        "completions from which no answer could be read", "share", "near 0 after the first steps"
    ),
    "reward/timed_out_fraction": Metric(
        "completions whose verifier was killed at reward.pool.timeout_seconds", "share", "near 0"
    ),
    "reward/crashed_fraction": Metric(
        "completions whose verifier raised an error or died", "share", "0"
    ),
    "reward/pool_retries": Metric(
        "completions tried again because the process that verified them died",
        "completions",
        "0",
    ),
    "reward/pool_restarts": Metric(
        "worker processes killed or dead, and replaced, in the step's rollout",
        "processes",
        "0",
    ),
    "reward/uniform_group_fraction": Metric(
        "groups whose G rewards are all equal: advantage 0, no gradient", "share", "below 0.5"
    ),
    "reward/kl_penalty_mean": Metric(
        "what the KL to the reference takes off a completion's reward, mean (loss.kl_place = "
        "'reward')",
        "reward",
        "small beside the rewards",
    ),
    "reward/overlong_masked_fraction": Metric(
        "trained groups' completions that do not train because they reached the limit",
        "share",
        "0 unless reward.overlong_policy = 'mask'",
    ),
    "update/loss": Metric(
        "value of the loss, mean over the step's updates",
        "advantage",
        "no target: its gradient matters, its value hardly",
    ),
    "policy/entropy": Metric(
        "exact entropy of the policy's next-token distribution, mean over completion tokens",
        "nats",
        "falls slowly and stays above 0; a fall to 0 is collapse, a steady rise is drift to noise",
    ),
    "policy/old_entropy": Metric(
        "exact entropy before the step's first update, mean over completion tokens that train",
        "nats",
        "as policy/entropy",
    ),
    "policy/rollout_entropy": Metric(
        "the same over all completions drawn in the step, whether they train or not, and over no "
        "carried ones: what steering reads; left out when groups do not train and nothing reads it",
        "nats",
        "as policy/entropy",
    ),
    "policy/entropy_change": Metric(
        "entropy now - entropy before the step's first update, same tokens, mean over the step's "
        "updates",
        "nats",
        "near 0, of the sign of budget/mean",
    ),
    "policy/clip_fraction_low": Metric(
        "completion tokens left of the interval, of all that train: ratio < 1 - clip_low and A < "
        "0; each token counts once, whatever the loss weighs it",
        "share",
        "1e-4 to 1e-2; 0 with one update a rollout",
    ),
    "policy/clip_fraction_high": Metric(
        "completion tokens right of the interval, of all that train: ratio > 1 + clip_high and A "
        "> 0; each token counts once, whatever the loss weighs it",
        "share",
        "1e-4 to 1e-2; 0 with one update a rollout",
    ),
    "policy/clip_count_low": Metric(
        "numerator of policy/clip_fraction_low, exact", "tokens", "see the fraction"
    ),
    "policy/clip_count_high": Metric(
        "numerator of policy/clip_fraction_high, exact", "tokens", "see the fraction"
    ),
    "policy/ratio_max": Metric(
        "largest policy / old probability of a completion token", "ratio", "below 10"
    ),
    "policy/ratio_min": Metric(
        "smallest policy / old probability of a completion token", "ratio", "above 0.01"
    ),
    "policy/kl_old": Metric(
        "KL(old || policy) by k3 = ratio - 1 - ln ratio, mean over completion tokens",
        "nats",
        "below 0.01; growth within few steps: learning rate or updates a rollout too high",
    ),
    "policy/sampler_gap_mean": Metric(
        "|old_logprobs - sampler_logprobs|, mean over completion tokens; with carried groups also "
        "what the policy has moved since they were drawn",
        "nats",
        "below 1e-4 in fp32, below 0.02 in bf16",
    ),
    "policy/sampler_gap_max": Metric(
        "|old_logprobs - sampler_logprobs|, largest", "nats", "below 1e-2 in fp32, below 1 in bf16"
    ),
    "policy/sampler_kl": Metric(
        "KL(sampler || old) by k3, mean over completion tokens", "nats", "below 1e-3"
    ),
    "policy/sampler_ratio_q001": Metric(
        "old / sampler probability, its 0.1 % quantile over completion tokens",
        "ratio",
        "above 0.9 in fp32",
    ),
    "policy/sampler_ratio_q50": Metric(
        "old / sampler probability, its median over completion tokens", "ratio", "1"
    ),
    "policy/sampler_ratio_q999": Metric(
        "old / sampler probability, its 99.9 % quantile over completion tokens",
        "ratio",
        "below 1.1 in fp32",
    ),
    "policy/correction_mean": Metric(
        "weight that the mismatch correction gives a completion token, mean", "weight", "near 1"
    ),
    "policy/correction_zero_fraction": Metric(
        "completion tokens that the mismatch correction masks", "share", "near 0"
    ),
    "policy/kl_ref": Metric(
        "KL(policy || reference) by loss.kl_estimator, mean over completion tokens, each once, "
        "whatever the loss weighs it (loss.kl_place = 'loss')",
        "nats",
        "rises slowly",
    ),
    "policy/dual_clip_count": Metric(
        "tokens whose gradient the dual clip removed (wrapper dual_clip)", "tokens", "near 0"
    ),
    "policy/entropy_ratio_count": Metric(
        "tokens outside the entropy-ratio interval (wrapper entropy_ratio)",
        "tokens",
        "0.2 of them in arXiv 2512.05591",
    ),
    "policy/low_entropy_count": Metric(
        "tokens that do not train as too certain (wrapper top_entropy)",
        "tokens",
        "1 - top_entropy_fraction of them",
    ),
    "policy/not_preserved_count": Metric(
        "clipped tokens whose draw dropped them (wrapper stochastic_preservation)",
        "tokens",
        "1 - preserve_probability of the clipped ones",
    ),
    "policy/covariance_count": Metric(
        "tokens selected by their covariance (clip_cov, kl_cov)",
        "tokens",
        "covariance_fraction of them",
    ),
    "policy/divergence_mask_count": Metric(
        "tokens outside the trust region on probabilities (dppo_*)", "tokens", "few"
    ),
    "budget/mean": Metric(
        "change of entropy that the surrogate's gradients ask for, per unit of step: sum over "
        "completion tokens that train of each one's, times its weight in the loss and its mismatch "
        "correction, mean over the step's updates (cegppo_jax/losses/entropy_budget.py); LM loss, "
        "KL and entropy bonus are not in it",
        "nats",
        "below 0: entropy is pushed down",
    ),
    "budget/pa_hp": Metric(
        "the part of budget/mean of tokens with A > 0 and high probability", "nats", "below 0"
    ),
    "budget/pa_hp_tokens": Metric(
        "number of tokens with A > 0 and high probability", "tokens", "no target"
    ),
    "budget/pa_lp": Metric(
        "the part of budget/mean of tokens with A > 0 and low probability", "nats", "above 0"
    ),
    "budget/pa_lp_tokens": Metric(
        "number of tokens with A > 0 and low probability", "tokens", "no target"
    ),
    "budget/na_hp": Metric(
        "the part of budget/mean of tokens with A < 0 and high probability", "nats", "above 0"
    ),
    "budget/na_hp_tokens": Metric(
        "number of tokens with A < 0 and high probability", "tokens", "no target"
    ),
    "budget/na_lp": Metric(
        "the part of budget/mean of tokens with A < 0 and low probability", "nats", "below 0"
    ),
    "budget/na_lp_tokens": Metric(
        "number of tokens with A < 0 and low probability", "tokens", "no target"
    ),
    "budget/inside": Metric(
        "the part of budget/mean of tokens that are not clipped, wherever their ratio",
        "nats",
        "no target",
    ),
    "budget/inside_tokens": Metric(
        "number of tokens that are not clipped, wherever their ratio", "tokens", "no target"
    ),
    "budget/left": Metric(
        "the part of budget/mean of clipped tokens left of it: what beta_low scales",
        "nats",
        "below 0; 0 without their gradient",
    ),
    "budget/left_tokens": Metric(
        "number of clipped tokens left of it: what beta_low scales", "tokens", "no target"
    ),
    "budget/right": Metric(
        "the part of budget/mean of clipped tokens right of it: what beta_high scales",
        "nats",
        "above 0; 0 without their gradient",
    ),
    "budget/right_tokens": Metric(
        "number of clipped tokens right of it: what beta_high scales", "tokens", "no target"
    ),
    "budget/predicted_change": Metric(
        "sum of learning rate x budget/mean over the updates that budget/measured_change is of, "
        "each on its own tokens: first order, as if the policy were a table and the optimizer "
        "plain gradient ascent",
        "nats",
        "of the sign of budget/measured_change; its size means nothing",
    ),
    "budget/measured_change": Metric(
        "change of entropy since before the step's first update. In steps of "
        "logging.entropy_change_every_steps: after all its updates, mean over all its tokens that "
        "train. Else, with two updates or more: just before the last, on that one's tokens",
        "nats",
        "near 0",
    ),
    "steering/beta_low": Metric("beta_low of the step's updates", "weight", "within its bounds"),
    "steering/beta_high": Metric("beta_high of the step's updates", "weight", "within its bounds"),
    "steering/entropy_coef": Metric(
        "coefficient of the entropy bonus in the step's updates", "weight", "within its bounds"
    ),
    "steering/alarm": Metric(
        "entropy outside the guard's limits for too long: -1 too low, 1 too high", "sign", "0"
    ),
    "steering/rollbacks": Metric("rollbacks so far", "rollbacks", "0"),
    "update/grad_norm": Metric(
        "global norm of the gradient before clipping, mean over the step's updates",
        "norm",
        "steady; spikes are cut by the clipping of the norm",
    ),
    "update/grad_norm_max": Metric(
        "largest gradient norm of the step's updates", "norm", "within 10 x update/grad_norm"
    ),
    "update/learning_rate": Metric(
        "learning rate, mean over the step's updates", "per update", "follows the schedule"
    ),
    "update/skipped": Metric(
        "updates left out because their gradient was not finite", "updates", "0"
    ),
    "update/num_updates": Metric("updates in the step", "updates", "as configured"),
    "update/microbatches": Metric(
        "micro-batches in use, summed over the step's updates", "micro-batches", "follows length"
    ),
    "rollout/completion_tokens_mean": Metric(
        "mean length of a completion, its EOS included", "tokens", "well below the limit"
    ),
    "rollout/completion_tokens_max": Metric(
        "length of the longest completion", "tokens", "at or below the limit"
    ),
    "rollout/truncated_fraction": Metric(
        "completions ended by the length limit", "share", "below 0.1"
    ),
    "rollout/completions": Metric("completions drawn in the step", "completions", "P x G"),
    "rollout/tokens_per_second": Metric(
        "completion tokens drawn a second of sampling", "tokens/s", "steady", clock=True
    ),
    # drawn + carried_in = trained + all dropped + carried_out: cegppo_jax/rollout/selection.py
    "rollout/groups_drawn": Metric(
        "groups drawn in the step, refills included", "groups", "P, or as few as fill the step"
    ),
    "rollout/groups_carried_in": Metric(
        "useful groups that earlier steps left for this one (carry_over)", "groups", "no target"
    ),
    "rollout/groups_useful": Metric(
        "groups drawn whose share of right completions lies between batch.accuracy_low and "
        "accuracy_high, whether they train or not",
        "groups",
        "half of those drawn, or more",
    ),
    "rollout/groups_trained": Metric(
        "groups that the step's updates read; 0 in the step of a rollback",
        "groups",
        "P, or batch.trained_prompts",
    ),
    "rollout/groups_dropped_too_easy": Metric(
        "groups dropped because too many of their completions are right",
        "groups",
        "few; many: harder prompts, or batch.prompt_weighting = 'difficulty'",
    ),
    "rollout/groups_dropped_too_hard": Metric(
        "groups dropped because too few of their completions are right",
        "groups",
        "few; many: easier prompts, or batch.prompt_weighting = 'difficulty'",
    ),
    "rollout/groups_dropped_unjudged": Metric(
        "groups dropped because no verifier came to a judgement of any of their completions",
        "groups",
        "0",
    ),
    "rollout/groups_dropped_surplus": Metric(
        "useful groups dropped because the step was full, or they did not fill a mini-batch",
        "groups",
        "few; many: a smaller batch.refill_prompts, or carry_over",
    ),
    "rollout/groups_dropped_stale": Metric(
        "useful groups dropped because they would get older than batch.max_staleness_steps "
        "(carry_over), or because a rollback left their policy behind",
        "groups",
        "0",
    ),
    "rollout/groups_carried_out": Metric(
        "useful groups left for the next step (carry_over)", "groups", "below batch.prompts"
    ),
    "rollout/refill_rounds": Metric(
        "further draws because useful groups were missing", "rounds", "below batch.max_refills"
    ),
    "rollout/starved": Metric(
        "1: fewer groups could train than batch.trained_prompts", "1 or 0", "0"
    ),
    "rollout/staleness_mean_steps": Metric(
        "steps between drawing and training on a group, mean over those that train",
        "steps",
        "0, or below 1 with carry_over; policy/sampler_gap_mean then sees it as well",
    ),
    "difficulty/problems": Metric(
        "problems whose success is estimated", "problems", "up to batch.difficulty's capacity"
    ),
    "difficulty/success_q10": Metric(
        "estimated success of a problem, 10 % quantile over problems", "share", "above 0.1"
    ),
    "difficulty/success_q50": Metric("the same, median", "share", "0.2 to 0.8 teaches most"),
    "difficulty/success_q90": Metric("the same, 90 % quantile", "share", "below 0.9"),
    "difficulty/skipped_fraction": Metric(
        "prompts passed over as not promising, of those that fit (batch.prompt_weighting)",
        "share",
        "0 without weighting; near 1 - least_weight: little is left to learn",
    ),
    "rollout/prompts_skipped": Metric(
        "prompts passed over as longer than the limit", "prompts", "0"
    ),
    "packing/efficiency": Metric("tokens in use / tokens of the rows in use", "share", "above 0.8"),
    "evaluation/accuracy": Metric("held-out accuracy", "share", "rises"),
    "evaluation/accuracy_low": Metric(
        "lower end of its 95 % interval", "share", "above the first evaluation's upper end"
    ),
    "evaluation/accuracy_high": Metric("upper end of its 95 % interval", "share", "rises"),
    "supervised/loss": Metric(
        "next-token cross-entropy, mean over solution tokens", "nats", "falls, then flattens"
    ),
    "supervised/entropy": Metric(
        "exact entropy of the next-token distribution, mean over solution tokens",
        "nats",
        "falls with the loss; RL starts from here, so not to 0",
    ),
    "time/rollout_seconds": Metric("sampling", "s", "the largest part", clock=True),
    "time/score_seconds": Metric(
        "what scoring takes of the time between samples: texts are decoded and handed to the "
        "verifiers, or verified at once when reward.pool.workers is 0",
        "s",
        "small beside sampling",
        clock=True,
    ),
    "time/score_wait_seconds": Metric(
        "waiting for scores after the last sample", "s", "near 0", clock=True
    ),
    "time/old_logprobs_seconds": Metric(
        "old_logprobs of the rollout", "s", "at most a third of time/update_seconds", clock=True
    ),
    "time/update_seconds": Metric("all updates of the step", "s", "steady", clock=True),
    "time/step_seconds": Metric(
        "whole step; the parts' sum and what lies between", "s", "steady", clock=True
    ),
    "time/evaluation_seconds": Metric("held-out evaluation", "s", "steady", clock=True),
}


def glossary() -> str:
    """METRICS -> the Markdown page experiments/METRICS.md."""
    clocks = ",\n".join(f"`{name}`" for name, metric in METRICS.items() if metric.clock)
    head = f"""# Metrics

Every name that a run writes to `metrics.jsonl` and TensorBoard. This page is made from the table in
`cegppo_jax/reporting/metric_names.py`:
`python -m cegppo_jax.reporting.metric_names > experiments/METRICS.md`.

A line is one step: `phase` (`supervised` or `rl`), `step` (from 0 in each phase), then the names
that were measured in it. `null` is a value that was not finite. A mean over tokens is one sum over
one count: every completion token of all the step's updates, each once, whatever the loss weighs
it. Only `update/loss` and `budget/*` hold the loss's weights. A resumed run writes what an
uninterrupted one writes, but for the readings of a clock:
{clocks}.

| name | unit | meaning | healthy |
|---|---|---|---|
"""
    cells = ((f"`{name}`", m.unit, m.meaning, m.healthy) for name, m in METRICS.items())
    escaped = ([cell.replace("|", "\\|") for cell in row] for row in cells)
    return head + "".join(f"| {' | '.join(row)} |\n" for row in escaped)


if __name__ == "__main__":
    print(glossary(), end="")
