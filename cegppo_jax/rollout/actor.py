"""Prompts -> scored completions: the one loop that samples, decodes text and scores.

Training, the evaluation during training and `evaluate` all draw from here. The actor knows no
optimizer and no loss; the learner knows no tokenizer and no verifier.
"""

from __future__ import annotations

import dataclasses
import itertools
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
from cegppo_jax.sampling.sampler import Sampler
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
        by_index = {prompt.index: prompt for prompt in prompts}
        verdicts, waiting = Verdicts(self.scorer), dict[int, tuple[Completion, str]]()
        sampled = self.sampler.sample(
            params,
            prompts,
            samples_per_prompt,
            sampling=sampling,
            key=key,
            policy_version=policy_version,
            done=done,
        )

        def scored(number: int, score: Score) -> ScoredCompletion:
            completion, text = waiting.pop(number)
            return ScoredCompletion(by_index[completion.prompt_index], completion, text, score)

        for number in itertools.count():
            began = time.perf_counter()
            completion = next(sampled, None)
            ended = time.perf_counter()
            cost.sampling_seconds += ended - began
            if completion is None:
                break
            with self.activity.during(SCORING):
                text = completion_text(completion, self.tokenizer)
                problem = by_index[completion.prompt_index].problem
                waiting[number] = completion, text
                verdicts.submit(text, problem)
            ready = verdicts.ready()
            cost.scoring_seconds += time.perf_counter() - ended
            for one, score in ready.items():
                yield scored(one, score)
        while True:
            began = time.perf_counter()
            with self.activity.during(SCORING):
                if verdicts.missing:
                    self.activity.at(f"{verdicts.missing:,} verdicts to come")
                told = verdicts.next()
            cost.waiting_seconds += time.perf_counter() - began
            if not told:
                break
            for one, score in told.items():
                yield scored(one, score)
        cost.scorer += verdicts.happened
