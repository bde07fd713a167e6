"""Parameters -> attempts at held-out problems, by the sampler and the verifier that train."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Iterator

import jax
from transformers import PreTrainedTokenizerBase

from cegppo_jax.evaluation import Attempt, Evaluation, summarise
from cegppo_jax.models.decoder import Params
from cegppo_jax.rollout import Scorer, scored_completions
from cegppo_jax.sampling.filters import SamplingFilter
from cegppo_jax.sampling.sampler import Sampler
from cegppo_jax.types import Prompt


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Held-out prompts, and how completions of them are drawn and scored."""

    sampler: Sampler
    prompts: list[Prompt]
    tokenizer: PreTrainedTokenizerBase
    scorer: Scorer
    samples_per_problem: int
    sampling: SamplingFilter
    key: jax.Array  # all evaluations with it draw alike: two differ by their policies alone

    def attempts(
        self, params: Params, done: Collection[tuple[int, int]] = frozenset()
    ) -> Iterator[Attempt]:
        """Stacked parameters -> attempts as they are scored, without those that are `done`:
        (problem, sample).
        """
        scored = scored_completions(
            self.sampler,
            params,
            self.prompts,
            self.samples_per_problem,
            tokenizer=self.tokenizer,
            scorer=self.scorer,
            sampling=self.sampling,
            key=self.key,
            policy_version=0,
            done=done,
        )
        problems = {prompt.index: prompt.problem for prompt in self.prompts}
        for completion, text, score in scored:
            problem = problems[completion.prompt_index]
            yield Attempt(
                problem=completion.prompt_index,
                id=problem.id,
                sample=completion.sample_index,
                completion=text,
                answer=score.answer,
                gold=problem.answer,
                outcome=score.outcome,
                reward=score.reward,
                tokens=len(completion.tokens),
                stop_reason=completion.stop_reason,
            )


def evaluate_policy(evaluator: Evaluator, params: Params) -> tuple[Evaluation, dict[str, float]]:
    """Stacked parameters -> Evaluation, and its metrics."""
    began = time.perf_counter()
    evaluation = summarise(list(evaluator.attempts(params)))
    return evaluation, {
        "evaluation/accuracy": evaluation.accuracy.mean,
        "evaluation/accuracy_low": evaluation.accuracy.low,
        "evaluation/accuracy_high": evaluation.accuracy.high,
        "time/evaluation_seconds": time.perf_counter() - began,
    }
