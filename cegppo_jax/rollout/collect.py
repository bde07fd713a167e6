"""Prompts -> scored groups, and the metrics of a rollout."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from cegppo_jax.models.decoder import Params
from cegppo_jax.rollout.actor import Actor, RolloutCost, ScoredCompletion
from cegppo_jax.sampling.filters import SamplingFilter
from cegppo_jax.types import Outcome, Prompt, Rollout, StopReason


def collect_rollouts(
    actor: Actor,
    params: Params,
    prompts: Sequence[Prompt],
    samples_per_prompt: int,
    *,
    sampling: SamplingFilter,
    key: jax.Array,
    policy_version: int,
    cost: RolloutCost,
) -> list[Rollout]:
    """Samples and scores every prompt. Returns one Rollout (group) for each prompt, in the order of
    the prompts, whatever the order in which completions ended. Arguments as in
    Actor.scored_completions.
    """
    finished = {
        (one.completion.prompt_index, one.completion.sample_index): one
        for one in actor.scored_completions(
            params,
            prompts,
            samples_per_prompt,
            sampling=sampling,
            key=key,
            policy_version=policy_version,
            cost=cost,
        )
    }
    groups = [
        [finished[prompt.index, sample] for sample in range(samples_per_prompt)]
        for prompt in prompts
    ]
    return [group_of(group) for group in groups]


def group_of(scored: Sequence[ScoredCompletion]) -> Rollout:
    """Returns the Rollout of one prompt's scored completions, which come ordered by sample
    index.
    """
    return Rollout(
        scored[0].prompt,
        tuple(one.completion for one in scored),
        tuple(one.text for one in scored),
        tuple(one.score for one in scored),
    )


def rewards_of(rollouts: Sequence[Rollout]) -> np.ndarray:
    """Returns the rewards of the rollouts, [P, G] float32."""
    return np.asarray([[s.reward for s in r.scores] for r in rollouts], np.float32)


def rollout_metrics(rollouts: Sequence[Rollout], cost: RolloutCost) -> dict[str, float]:
    """Returns the metrics of a step's rollouts."""
    rewards = rewards_of(rollouts)
    completions = [c for rollout in rollouts for c in rollout.completions]
    lengths = np.asarray([len(c.tokens) for c in completions])
    outcomes = [s.outcome for rollout in rollouts for s in rollout.scores]
    truncated = [c.stop_reason is StopReason.LENGTH for c in completions]
    shares = {
        f"reward/{outcome}_fraction": outcomes.count(outcome) / len(outcomes) for outcome in Outcome
    }
    return shares | {
        "reward/mean": float(rewards.mean()),
        "reward/std_within_group_mean": float(rewards.std(axis=1).mean()),
        "reward/uniform_group_fraction": float((np.ptp(rewards, axis=1) == 0).mean()),
        "rollout/completions": len(completions),
        "rollout/completion_tokens_mean": float(lengths.mean()),
        "rollout/completion_tokens_max": int(lengths.max()),
        "rollout/truncated_fraction": float(np.mean(truncated)),
        "rollout/tokens_per_second": float(
            lengths.sum() / (cost.sampling_seconds + cost.scoring_seconds)
        ),
        "reward/pool_retries": cost.scorer.retries,
        "reward/pool_restarts": cost.scorer.restarts,
        "time/rollout_seconds": cost.sampling_seconds,
        "time/score_seconds": cost.scoring_seconds,
        "time/score_wait_seconds": cost.waiting_seconds,
    }
