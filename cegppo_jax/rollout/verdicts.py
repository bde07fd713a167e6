"""The scores of a rollout's completions, each of which one host asks its verifiers for.

Verifiers run under a time limit, so the same completion may be right on one host and timed out on
another: no host uses a score that the others have not got as well. All hosts sample the same
completions in the same order, so a completion's number says whose it is, and when scores are
exchanged.
"""

from __future__ import annotations

from concurrent.futures import Future

from cegppo_jax import distributed
from cegppo_jax.rewards.workers.scorer import NOTHING_HAPPENED, Scorer, ScorerCounts
from cegppo_jax.types import Problem, Score

EXCHANGED_EVERY = 64  # completions a host, while more are being sampled


class Verdicts:
    """Scores by the number of their completion, from 0 in the order of `submit`."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._before = scorer.counts()
        self._own: dict[int, Future[Score]] = {}  # of this host, not yet told
        self._submitted = 0
        self._told = 0
        self.happened: ScorerCounts = NOTHING_HAPPENED  # to the workers of all hosts, at the end

    @property
    def missing(self) -> int:
        """Returns how many completions have no score yet that was told."""
        return self._submitted - self._told

    def submit(self, text: str, problem: Problem) -> None:
        """Hands a completion to its host's verifiers."""
        if self._submitted % distributed.hosts() == distributed.this_host():
            self._own[self._submitted] = self._scorer.submit(text, problem)
        self._submitted += 1

    def ready(self) -> dict[int, Score]:
        """Returns scores that are known by now, each once. With several hosts, those that all know:
        they are exchanged now and then.
        """
        hosts = distributed.hosts()
        if hosts > 1 and self._submitted % (EXCHANGED_EVERY * hosts):
            return {}
        return self._tell({number: one for number, one in self._own.items() if one.done()})

    def next(self) -> dict[int, Score]:
        """Waits for scores and returns them: for the first one that is missing, or with several
        hosts for all. {} when none is missing.
        """
        if not self.missing:
            happened = distributed.exchange(self._scorer.counts_since(self._before))
            self.happened = sum(happened, NOTHING_HAPPENED)
            return {}
        if distributed.hosts() > 1:
            return self._tell(self._own)
        first = min(self._own)
        return self._tell({first: self._own[first]})

    def _tell(self, own: dict[int, Future[Score]]) -> dict[int, Score]:
        """Returns these scores and those that the other hosts tell at the same time."""
        found = {number: future.result() for number, future in own.items()}
        self._own = {number: one for number, one in self._own.items() if number not in found}
        told: dict[int, Score] = {}
        for scores in distributed.exchange(found):
            told |= scores
        self._told += len(told)
        return dict(sorted(told.items()))
