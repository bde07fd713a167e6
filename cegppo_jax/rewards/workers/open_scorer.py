"""Opens the Scorer of a run, tried on known answers before anything is compiled."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial

from cegppo_jax.rewards.scoring import score_completion
from cegppo_jax.rewards.settings import RewardSettings
from cegppo_jax.rewards.verifiers import resolve_verifier
from cegppo_jax.rewards.workers.pool import PoolScorer
from cegppo_jax.rewards.workers.scorer import InProcessScorer, Judge, Scorer
from cegppo_jax.rewards.workers.self_test import check_kills, check_scorer
from cegppo_jax.types import Problem


def judge_of(settings: RewardSettings) -> Judge:
    """Returns the settings' verifiers with their rewards. Each worker process calls this itself."""
    for name in settings.verifiers:
        resolve_verifier(name)  # imports it: before the process's memory is limited
    return partial(score_completion, scoring=settings.scoring)


def open_scorer(settings: RewardSettings, problems: Sequence[Problem]) -> Scorer:
    """Opens a Scorer that has passed its self-test, which includes the first of `problems`.

    Raises:
      ValueError: the verifier calls a known answer something else than it is, or fails.
    """
    scorer: Scorer
    if settings.workers == 0:
        scorer = InProcessScorer(judge_of(settings), settings.outcomes)
    else:
        pool = dataclasses.replace(settings.pool, workers=settings.workers)
        check_kills(pool, settings.outcomes)
        scorer = PoolScorer(partial(judge_of, settings), pool, settings.outcomes)
    try:
        check_scorer(scorer, settings.scoring, problems)
    except BaseException:
        scorer.close()
        raise
    return scorer
