"""Prompts -> scored groups, and the metrics of a rollout."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

import jax
import numpy as np

from cegppo_jax.models.decoder import Params
from cegppo_jax.rollout.actor import Actor, AwaitedScores, RolloutCost, ScoredCompletion
from cegppo_jax.sampling.filters import SamplingFilter
from cegppo_jax.types import Completion, Outcome, Prompt, Rollout, Score, StopReason


@dataclasses.dataclass(frozen=True)
class SampledGroup:
    """A prompt and its G completions, before they have their scores."""

    prompt: Prompt
    completions: tuple[Completion, ...]
    texts: tuple[str, ...]  # the completions, decoded


Group = SampledGroup | Rollout
Place = tuple[int, int]  # prompt and sample index
# (groups that have their scores, how many have not) -> prompts to sample as well, as `More`
Further = Callable[[Sequence[Rollout], int], Sequence[Prompt] | None]


class SampledRound:
    """Groups that are drawn, in the order of their prompts, whose completions are with the
    verifiers.
    """

    def __init__(
        self,
        groups: Sequence[SampledGroup],
        known: Mapping[Place, Score],
        awaited: AwaitedScores,
    ) -> None:
        """Args: known: the scores that are known; awaited: has the others."""
        self.groups = tuple(groups)
        self._known, self._awaited = known, awaited

    @functools.cached_property
    def scored(self) -> tuple[Rollout, ...]:
        """The same groups with their scores, which are waited for."""
        rest = (*self._awaited.ready(), *self._awaited.rest())
        scores = {**self._known, **{place_of(one.completion): one.score for one in rest}}
        return tuple(with_scores(group, scores) for group in self.groups)


def place_of(completion: Completion) -> Place:
    """Returns a completion's place in its rollout."""
    return completion.prompt_index, completion.sample_index


def with_scores(group: SampledGroup, scores: Mapping[Place, Score]) -> Rollout:
    """Returns a group with its completions' scores."""
    own = tuple(scores[place_of(one)] for one in group.completions)
    return Rollout(group.prompt, group.completions, group.texts, own)


class RoundInProgress:
    """A round while its completions end, which may become a longer one."""

    def __init__(
        self,
        actor: Actor,
        prompts: Sequence[Prompt],
        samples_per_prompt: int,
        cost: RolloutCost,
        further: Further | None,
    ) -> None:
        """Args: as of sample_round."""
        self._prompts, self._samples = list(prompts), range(samples_per_prompt)
        self._awaited, self._further = AwaitedScores(actor, prompts, cost), further
        self._finished: dict[Place, tuple[Completion, str]] = {}
        self._known: dict[Place, Score] = {}
        self._whole: list[Prompt] = []  # had all their completions when `more` was last asked

    def take(self, completion: Completion) -> None:
        """Takes in a completion that has ended."""
        text = self._awaited.hand_in(completion)
        self._finished[place_of(completion)] = completion, text
        self._learn(self._awaited.ready())

    def more(self) -> Sequence[Prompt] | None:
        """Returns prompts to sample as well, as Sampler.sample asks for them. Groups that were
        whole at the call before count with their scores: verifiers have had a chunk's time then,
        and no clock decides which they are.
        """
        assert self._further is not None
        whole = self._whole
        self._whole = [
            one
            for one in self._prompts
            if all((one.index, sample) in self._finished for sample in self._samples)
        ]
        wanted = {(one.index, sample) for one in whole for sample in self._samples}
        while not wanted <= self._known.keys():
            self._learn(self._awaited.some())
        scored = [with_scores(self._group(one), self._known) for one in whole]
        prompts = self._further(scored, len(self._prompts) - len(whole))
        if prompts:
            self._prompts += prompts
            self._awaited.expect(prompts)
        return prompts

    def ended(self) -> SampledRound:
        """Returns the round, once all its completions have ended."""
        return SampledRound(list(map(self._group, self._prompts)), self._known, self._awaited)

    def _learn(self, scored: Iterable[ScoredCompletion]) -> None:
        self._known |= {place_of(one.completion): one.score for one in scored}

    def _group(self, prompt: Prompt) -> SampledGroup:
        own = [self._finished[prompt.index, sample] for sample in self._samples]
        completions, texts = zip(*own, strict=True)
        return SampledGroup(prompt, completions, texts)


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
    further: Further | None = None,
) -> SampledRound:
    """Samples every prompt, and hands the completions to the verifiers as they end. Arguments as in
    Actor.scored_completions.

    Args:
      further: is asked for more prompts while the last ones are being sampled.
    """
    going_on = RoundInProgress(actor, prompts, samples_per_prompt, cost, further)
    sampled = actor.sampled(
        params,
        prompts,
        samples_per_prompt,
        sampling=sampling,
        key=key,
        policy_version=policy_version,
        cost=cost,
        more=None if further is None else going_on.more,
    )
    for completion in sampled:
        going_on.take(completion)
    return going_on.ended()


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
