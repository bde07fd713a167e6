"""Prompts -> scored completions: the one loop that samples, decodes text and scores.

Training, the evaluation during training and `evaluate` all draw from here. The actor knows no
optimizer and no loss; the learner knows no tokenizer and no verifier.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Iterator, Sequence

import jax
from transformers import PreTrainedTokenizerBase

from cegppo_jax.activity import SCORING, Activity
from cegppo_jax.data.tokenizer import completion_text
from cegppo_jax.models.decoder import Params
from cegppo_jax.rewards.workers.scorer import NOTHING_HAPPENED, Scorer, ScorerCounts
from cegppo_jax.rollout.verdicts import Verdicts
from cegppo_jax.sampling.filters import SamplingFilter
from cegppo_jax.sampling.sampler import More, Sampler
from cegppo_jax.types import Completion, Prompt, Score


@dataclasses.dataclass(frozen=True)
class ScoredCompletion:
    """A completion, its text, and what the verifier found in it."""

    prompt: Prompt
    completion: Completion
    text: str  # decoded, special tokens left out
    score: Score


@dataclasses.dataclass
class RolloutCost:
    """Where the time of a rollout went; filled in as the rollout proceeds."""

    sampling_seconds: float = 0.0  # waiting for samples
    # Decoding texts and handing them to the scorer, between samples; the device decodes meanwhile
    scoring_seconds: float = 0.0
    waiting_seconds: float = 0.0  # for scores, after the last sample
    scorer: ScorerCounts = NOTHING_HAPPENED
    preempted: int = 0  # samples that were drawn again, for want of pages


@dataclasses.dataclass(frozen=True)
class Actor:
    """Samples completions and scores them."""

    sampler: Sampler
    tokenizer: PreTrainedTokenizerBase
    scorer: Scorer  # open: the commands close it
    activity: Activity = dataclasses.field(default_factory=Activity)  # told of the scoring

    def scored_completions(
        self,
        params: Params,
        prompts: Sequence[Prompt],
        samples_per_prompt: int,
        *,
        sampling: SamplingFilter,
        key: jax.Array,
        policy_version: int,
        cost: RolloutCost,
        done: Collection[tuple[int, int]] = frozenset(),
    ) -> Iterator[ScoredCompletion]:
        """Samples every prompt and yields each completion as soon as it has its score.

        A completion is sent to the scorer when it ends, so verifiers work while the sampler decodes
        on. Completions come in the order in which their scores are known.

        Args:
          params: stacked parameters of the policy.
          sampling: temperature, top-k and top-p.
          key: the rollout's key; a sample depends on it, its prompt's index and its own index.
          policy_version: training step of `params`, written on every completion.
          cost: gains the seconds spent and the scorer's counts.
          done: (prompt index, sample index) of completions to leave out.
        """
        awaited = AwaitedScores(self, prompts, cost)
        sampled = self.sampled(
            params,
            prompts,
            samples_per_prompt,
            sampling=sampling,
            key=key,
            policy_version=policy_version,
            cost=cost,
            done=done,
        )
        for completion in sampled:
            awaited.hand_in(completion)
            yield from awaited.ready()
        yield from awaited.rest()

    def sampled(
        self,
        params: Params,
        prompts: Sequence[Prompt],
        samples_per_prompt: int,
        *,
        sampling: SamplingFilter,
        key: jax.Array,
        policy_version: int,
        cost: RolloutCost,
        done: Collection[tuple[int, int]] = frozenset(),
        more: More | None = None,
    ) -> Iterator[Completion]:
        """Samples every prompt and yields its completions as they end. Arguments as in
        scored_completions; `more` as in Sampler.sample.
        """
        before = self.sampler.preempted
        sampled = self.sampler.sample(
            params,
            prompts,
            samples_per_prompt,
            sampling=sampling,
            key=key,
            policy_version=policy_version,
            done=done,
            more=more,
        )
        while True:
            began, waited = time.perf_counter(), cost.waiting_seconds
            completion = next(sampled, None)
            waited = cost.waiting_seconds - waited  # by `more`
            cost.sampling_seconds += time.perf_counter() - began - waited
            if completion is None:
                cost.preempted += self.sampler.preempted - before
                return
            yield completion


class AwaitedScores:
    """The completions of a rollout that were handed to the verifiers, until each has its score."""

    def __init__(self, actor: Actor, prompts: Sequence[Prompt], cost: RolloutCost) -> None:
        """Args: as of Actor.scored_completions."""
        self._actor, self._cost = actor, cost
        self._prompts: dict[int, Prompt] = {}
        self.expect(prompts)
        self._verdicts = Verdicts(actor.scorer)
        self._waiting: list[tuple[Completion, str] | None] = []  # by their numbers

    def expect(self, prompts: Sequence[Prompt]) -> None:
        """Takes in prompts whose completions will be handed in."""
        self._prompts |= {prompt.index: prompt for prompt in prompts}

    def hand_in(self, completion: Completion) -> str:
        """Hands a completion to the verifiers. Returns its text."""
        began = time.perf_counter()
        with self._actor.activity.during(SCORING):
            text = completion_text(completion, self._actor.tokenizer)
            self._verdicts.submit(text, self._prompts[completion.prompt_index].problem)
        self._waiting.append((completion, text))
        self._cost.scoring_seconds += time.perf_counter() - began
        return text

    def ready(self) -> Iterator[ScoredCompletion]:
        """Yields the completions whose scores are known by now, each once."""
        began = time.perf_counter()
        ready = self._verdicts.ready()
        self._cost.scoring_seconds += time.perf_counter() - began
        for number, score in ready.items():
            yield self._scored(number, score)

    def some(self) -> Iterator[ScoredCompletion]:
        """Waits for the first score that is missing, and yields the completions whose scores are
        known then; nothing, if none is missing.
        """
        activity, began = self._actor.activity, time.perf_counter()
        with activity.during(SCORING):
            if self._verdicts.missing:
                activity.at(f"{self._verdicts.missing:,} verdicts to come")
            told = self._verdicts.next()
        self._cost.waiting_seconds += time.perf_counter() - began
        for number, score in told.items():
            yield self._scored(number, score)

    def rest(self) -> Iterator[ScoredCompletion]:
        """Waits for the scores that are missing, and yields their completions."""
        while found := list(self.some()):
            yield from found
        self._cost.scorer += self._verdicts.happened

    def _scored(self, number: int, score: Score) -> ScoredCompletion:
        handed_in = self._waiting[number]
        assert handed_in is not None  # a score comes once
        self._waiting[number] = None
        completion, text = handed_in
        return ScoredCompletion(self._prompts[completion.prompt_index], completion, text, score)
