"""Prompts -> scored groups, and the metrics of a rollout."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import jax
import numpy as np

from cegppo_jax.models.decoder import Params
from cegppo_jax.rollout.actor import Actor, AwaitedScores, RolloutCost, ScoredCompletion
from cegppo_jax.sampling.filters import SamplingFilter
from cegppo_jax.types import Completion, Outcome, Prompt, Rollout, StopReason


@dataclasses.dataclass(frozen=True)
class SampledGroup:
    """A prompt and its G completions, before they have their scores."""

    prompt: Prompt
    completions: tuple[Completion, ...]
    texts: tuple[str, ...]  # the completions, decoded


Group = SampledGroup | Rollout


class SampledRound:
    """Groups that are drawn, in the order of their prompts, whose completions are with the
    verifiers.
    """

    def __init__(
        self,
        groups: Sequence[SampledGroup],
        known: Sequence[ScoredCompletion],
        awaited: AwaitedScores,
    ) -> None:
        """Args: known: those that have their scores; awaited: has the others."""
        self.groups = tuple(groups)
        self._known, self._awaited = known, awaited

    @functools.cached_property
    def scored(self) -> tuple[Rollout, ...]:
        """The same groups with their scores, which are waited for."""
        scores = {
            (one.completion.prompt_index, one.completion.sample_index): one.score
            for one in (*self._known, *self._awaited.ready(), *self._awaited.rest())
        }
        return tuple(
            Rollout(
                group.prompt,
                group.completions,
                group.texts,
                tuple(scores[one.prompt_index, one.sample_index] for one in group.completions),
            )
            for group in self.groups
        )


def sample_round(
    actor: Actor,
    params: Params,
    prompts: Sequence[Prompt],
    samples_per_prompt: int,
    *,
    sampling: SamplingFilter,
    key: jax.Array,
    policy_version: int,
    cost: RolloutCost,
) -> SampledRound:
    """Samples every prompt, and hands the completions to the verifiers as they end. Arguments as in
    Actor.scored_completions.
    """
    awaited = AwaitedScores(actor, prompts, cost)
    finished: dict[tuple[int, int], tuple[Completion, str]] = {}
    known: list[ScoredCompletion] = []
    for completion in actor.sampled(
        params,
        prompts,
        samples_per_prompt,
        sampling=sampling,
        key=key,
        policy_version=policy_version,
        cost=cost,
    ):
        text = awaited.hand_in(completion)
        finished[completion.prompt_index, completion.sample_index] = completion, text
        known += awaited.ready()
    groups = []
    for prompt in prompts:
        own = [finished[prompt.index, sample] for sample in range(samples_per_prompt)]
        completions, texts = zip(*own, strict=True)
        groups.append(SampledGroup(prompt, completions, texts))
    return SampledRound(groups, known, awaited)


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
        "rollout/preempted_samples": cost.preempted,
        "reward/pool_retries": cost.scorer.retries,
        "reward/pool_restarts": cost.scorer.restarts,
        "time/rollout_seconds": cost.sampling_seconds,
        "time/score_seconds": cost.scoring_seconds,
        "time/score_wait_seconds": cost.waiting_seconds,
    }
