"""Prompts -> rollouts: sample every completion, decode and score it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from concurrent.futures import Future

import jax
import numpy as np
from transformers import PreTrainedTokenizerBase

from cegppo_jax.data.tokenizer import completion_text
from cegppo_jax.models.decoder import Params
from cegppo_jax.rewards.workers.scorer import Scorer, ScorerCounts
from cegppo_jax.sampling.filters import SamplingFilter
from cegppo_jax.sampling.sampler import Sampler
from cegppo_jax.types import Completion, Outcome, Prompt, Rollout, Score, StopReason


@dataclasses.dataclass(frozen=True)
class RolloutCost:
    """Where the time of a rollout went, and what its scores took."""

    sampling_seconds: float
    scoring_seconds: float  # decoding texts and handing them to the scorer, between samples
    waiting_seconds: float  # for scores, after the last sample
    scorer: ScorerCounts

    def __add__(self, other: RolloutCost) -> RolloutCost:
        return RolloutCost(
            self.sampling_seconds + other.sampling_seconds,
            self.scoring_seconds + other.scoring_seconds,
            self.waiting_seconds + other.waiting_seconds,
            self.scorer + other.scorer,
        )


def collect_rollouts(
    sampler: Sampler,
    params: Params,
    prompts: Sequence[Prompt],
    samples_per_prompt: int,
    *,
    tokenizer: PreTrainedTokenizerBase,
    scorer: Scorer,
    sampling: SamplingFilter,
    key: jax.Array,
    policy_version: int,
) -> tuple[list[Rollout], RolloutCost]:
    """Prompts -> one Rollout (group) each, in the prompts' order, whatever order completions ended
    in. Each is submitted for its score the moment that it ends.
    """
    by_index = {prompt.index: prompt for prompt in prompts}
    finished: dict[tuple[int, int], tuple[Completion, str, Future[Score]]] = {}
    counts = scorer.counts()
    start = time.perf_counter()
    scoring = 0.0
    for completion in sampler.sample(
        params,
        prompts,
        samples_per_prompt,
        sampling=sampling,
        key=key,
        policy_version=policy_version,
    ):
        began = time.perf_counter()
        text = completion_text(completion, tokenizer)
        score = scorer.submit(text, by_index[completion.prompt_index].problem)
        finished[completion.prompt_index, completion.sample_index] = completion, text, score
        scoring += time.perf_counter() - began
    sampled = time.perf_counter()
    rollouts = []
    for prompt in prompts:
        group = [finished[prompt.index, sample] for sample in range(samples_per_prompt)]
        completions, texts, futures = (tuple(column) for column in zip(*group, strict=True))
        scores = tuple(future.result() for future in futures)
        rollouts.append(Rollout(prompt, completions, texts, scores))
    return rollouts, RolloutCost(
        sampling_seconds=sampled - start - scoring,
        scoring_seconds=scoring,
        waiting_seconds=time.perf_counter() - sampled,
        scorer=scorer.counts() - counts,
    )


def rewards_of(rollouts: Sequence[Rollout]) -> np.ndarray:
    """Rollouts -> rewards [P, G] float32."""
    return np.asarray([[s.reward for s in r.scores] for r in rollouts], np.float32)


def rollout_metrics(rollouts: Sequence[Rollout], cost: RolloutCost) -> dict[str, float]:
    """Rollouts -> their metrics."""
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
        "rollout/tokens_per_second": float(lengths.sum() / cost.sampling_seconds),
        "reward/pool_retries": cost.scorer.retries,
        "reward/pool_restarts": cost.scorer.restarts,
        "time/rollout_seconds": cost.sampling_seconds,
        "time/score_seconds": cost.scoring_seconds,
        "time/score_wait_seconds": cost.waiting_seconds,
    }
