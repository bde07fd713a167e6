"""Parameters -> attempts at held-out problems, by the sampler and the verifier that train."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Iterator
from concurrent.futures import Future

import jax
from transformers import PreTrainedTokenizerBase

from cegppo_jax.evaluation.estimates import Attempt, Evaluation, summarise
from cegppo_jax.models.decoder import Params
from cegppo_jax.rewards.workers.scorer import Scorer
from cegppo_jax.sampling.filters import SamplingFilter
from cegppo_jax.sampling.sampler import Sampler
from cegppo_jax.types import Completion, Prompt, Score


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
        problems = {prompt.index: prompt.problem for prompt in self.prompts}
        waiting: list[tuple[Completion, str, Future[Score]]] = []
        for completion in self.sampler.sample(
            params,
            self.prompts,
            self.samples_per_problem,
            sampling=self.sampling,
            key=self.key,
            policy_version=0,
            done=done,
        ):
            text = str(self.tokenizer.decode(completion.tokens, skip_special_tokens=True))
            future = self.scorer.submit(text, problems[completion.prompt_index])
            waiting.append((completion, text, future))
            yield from (self._attempt(*one) for one in waiting if one[-1].done())
            waiting = [one for one in waiting if not one[-1].done()]
        yield from (self._attempt(*one) for one in waiting)

    def _attempt(self, completion: Completion, text: str, future: Future[Score]) -> Attempt:
        """Completion, its text and its score, which is waited for -> Attempt."""
        problem, score = self.prompts[completion.prompt_index].problem, future.result()
        return Attempt(
            problem=completion.prompt_index,
            id=problem.id,
            sample=completion.sample_index,
            completion=text,
            answer=score.answer,
            rule=score.rule,
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
