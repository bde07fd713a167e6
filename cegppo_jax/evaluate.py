"""Parameters, held-out problems -> accuracy with its interval, by the sampler that trains.

python -m cegppo_jax.evaluate --config=configs/quickstart.py --workdir=runs/quickstart
evaluates the newest checkpoint of a run and writes evaluation.json into its directory.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import numpy as np

from cegppo_jax.models.decoder import Params
from cegppo_jax.parts import KeyPurpose, Parts
from cegppo_jax.rollout import collect_rollouts
from cegppo_jax.types import Outcome, Rollout, StopReason

BOOTSTRAP_RESAMPLES = 2000


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over problems and its bootstrap 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.1%} [{self.low:.1%}, {self.high:.1%}]"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What n problems with k samples each say about a policy."""

    problems: int
    samples_per_problem: int  # k
    accuracy: Estimate  # avg@k: mean over problems of the share of correct samples
    pass_at_k: Estimate  # share of problems with at least one correct sample among the k
    truncated_fraction: float
    completion_tokens_mean: float


def summarise(rollouts: Sequence[Rollout]) -> Evaluation:
    """Rollouts of held-out problems -> Evaluation. The problems are the unit that intervals resample."""
    correct = np.asarray(
        [[score.outcome is Outcome.CORRECT for score in r.scores] for r in rollouts]
    )
    completions = [c for rollout in rollouts for c in rollout.completions]
    return Evaluation(
        problems=correct.shape[0],
        samples_per_problem=correct.shape[1],
        accuracy=bootstrap_mean(correct.mean(axis=1)),
        pass_at_k=bootstrap_mean(correct.any(axis=1)),
        truncated_fraction=float(np.mean([c.stop_reason is StopReason.LENGTH for c in completions])),
        completion_tokens_mean=float(np.mean([len(c.tokens) for c in completions])),
    )


def bootstrap_mean(values: np.ndarray) -> Estimate:
    """One value a problem -> mean and percentile-bootstrap 95 % interval over problems; the same every time."""
    values = np.asarray(values, dtype=np.float64)
    random = np.random.default_rng(0)
    picks = random.integers(len(values), size=(BOOTSTRAP_RESAMPLES, len(values)))
    low, high = np.percentile(values[picks].mean(axis=1), [2.5, 97.5])
    return Estimate(float(values.mean()), float(low), float(high))


def evaluate_policy(parts: Parts, params: Params) -> tuple[Evaluation, dict[str, float]]:
    """Stacked parameters -> Evaluation on the run's held-out problems, and its metrics.

    Every evaluation of a run draws with the same keys, so that two of them differ by their policies alone.
    """
    settings = parts.settings.evaluation
    began = time.perf_counter()
    rollouts, _ = collect_rollouts(
        parts.sampler,
        params,
        parts.held_out_prompts,
        settings.samples_per_problem,
        tokenizer=parts.problems.tokenizer,
        scorer=parts.scorer,
        sampling=settings.sampling,
        key=parts.key(KeyPurpose.EVALUATION),
        policy_version=0,
    )
    evaluation = summarise(rollouts)
    return evaluation, {
        "evaluation/accuracy": evaluation.accuracy.mean,
        "evaluation/accuracy_low": evaluation.accuracy.low,
        "evaluation/accuracy_high": evaluation.accuracy.high,
        "time/evaluation_seconds": time.perf_counter() - began,
    }
