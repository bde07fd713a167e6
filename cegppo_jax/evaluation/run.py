"""Attempts at held-out problems, sampled and scored by the same actor as in training."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Iterator

import jax

from cegppo_jax import distributed
from cegppo_jax.activity import EVALUATION
from cegppo_jax.evaluation.estimates import Attempt, Evaluation, summarise
from cegppo_jax.models.decoder import Params
from cegppo_jax.rollout.actor import Actor, RolloutCost, ScoredCompletion
from cegppo_jax.sampling.filters import SamplingFilter
from cegppo_jax.types import Prompt


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Held-out prompts, and how their completions are sampled and scored."""

    actor: Actor
    prompts: list[Prompt]
    samples_per_problem: int
    sampling: SamplingFilter
    key: jax.Array  # shared by all evaluations of a run, which differ only by their policies

    def attempts(
        self, params: Params, done: Collection[tuple[int, int]] = frozenset()
    ) -> Iterator[Attempt]:
        """Yields attempts of stacked parameters as they are scored, except those in `done`:
        (problem, sample).
        """
        with self.actor.activity.during(EVALUATION):
            for scored in self.actor.scored_completions(
                params,
                self.prompts,
                self.samples_per_problem,
                sampling=self.sampling,
                key=self.key,
                policy_version=0,
                cost=RolloutCost(),
                done=done,
            ):
                yield attempt_of(scored)


def attempt_of(scored: ScoredCompletion) -> Attempt:
    """Returns a scored completion of a held-out prompt as an Attempt."""
    completion, problem = scored.completion, scored.prompt.problem
    return Attempt(
        problem=completion.prompt_index,
        id=problem.id,
        sample=completion.sample_index,
        completion=scored.text,
        answer=scored.score.answer,
        rule=scored.score.rule,
        gold=problem.answer,
        outcome=scored.score.outcome,
        reward=scored.score.reward,
        tokens=len(completion.tokens),
        stop_reason=completion.stop_reason,
    )


def evaluate_policy(evaluator: Evaluator, params: Params) -> tuple[Evaluation, dict[str, float]]:
    """Evaluates stacked parameters. Returns the Evaluation and its metrics."""
    began = time.perf_counter()
    attempts = list(evaluator.attempts(params))
    distributed.agree("the evaluation", {"completions and their scores": attempts})
    evaluation = summarise(attempts)
    return evaluation, {
        "evaluation/accuracy": evaluation.accuracy.mean,
        "evaluation/accuracy_low": evaluation.accuracy.low,
        "evaluation/accuracy_high": evaluation.accuracy.high,
        "evaluation/pass_at_n": evaluation.pass_at[evaluation.samples_per_problem].mean,
        "time/evaluation_seconds": time.perf_counter() - began,
    }
