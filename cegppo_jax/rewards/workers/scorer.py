"""Scorers: completions in, futures of their scores out. Only they know where verifiers run.

A Judge is a verifier with its rewards: a plain function, which may raise, hang or kill its process.
A Scorer is what a rollout sees: its futures always end in a Score, or in an error that the user has
to fix (WorkerFailed).

    InProcessScorer   judges at once, in the caller's thread
    PoolScorer        in processes that can be killed (pool.py)
"""

from __future__ import annotations

import abc
import dataclasses
import logging
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from typing import Self

from cegppo_jax.rewards.scoring import RewardValues, reward_of
from cegppo_jax.types import Outcome, Problem, Score

Judge = Callable[[str, Problem], Score]  # (completion text, problem) -> Score

WARNINGS = 3  # crashes whose reason is printed; a run may have thousands

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, order=True)
class ScorerCounts:
    """What happened to worker processes since a scorer was opened."""

    retries: int  # of completions whose process died
    restarts: int  # of processes, for whatever reason

    def __add__(self, other: ScorerCounts) -> ScorerCounts:
        return ScorerCounts(self.retries + other.retries, self.restarts + other.restarts)

    def __sub__(self, earlier: ScorerCounts) -> ScorerCounts:
        return ScorerCounts(self.retries - earlier.retries, self.restarts - earlier.restarts)


NOTHING_HAPPENED = ScorerCounts(retries=0, restarts=0)


class Scorer(abc.ABC):
    """Takes completions and returns futures of their scores. Close it, or use it in a `with`."""

    def __init__(self, values: RewardValues) -> None:
        self._values = values
        self._crashes = 0
        self.last_crash = ""  # its reason
        self._told = NOTHING_HAPPENED

    @abc.abstractmethod
    def submit(self, text: str, problem: Problem) -> Future[Score]:
        """Returns a Future of a completion's Score."""

    @abc.abstractmethod
    def counts(self) -> ScorerCounts:
        """Returns what happened to worker processes so far."""

    def counts_since(self, before: ScorerCounts) -> ScorerCounts:
        """Returns what happened since `before`, and was not returned yet: while two rollouts wait
        for their scores, what happens is told of the one that has them first.
        """
        now = self.counts()
        since, self._told = max(before, self._told), now
        return now - since

    @abc.abstractmethod
    def close(self) -> None:
        """Ends every process. Completions that were not scored are cancelled."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _failed(self, outcome: Outcome) -> Score:
        """Returns the Score of TIMED_OUT or CRASHED."""
        return Score(reward_of(outcome, self._values), outcome, answer=None)

    def _crashed(self, reason: str) -> Score:
        """Returns the Score of a verifier that failed. The first few reasons are printed."""
        self.last_crash = reason
        self._crashes += 1
        if self._crashes <= WARNINGS:
            logger.warning("a verifier crashed (outcome 'crashed'): %s", reason)
        return self._failed(Outcome.CRASHED)


class InProcessScorer(Scorer):
    """Judges in the caller's thread: for verifiers that cannot hang."""

    def __init__(self, judge: Judge, values: RewardValues) -> None:
        super().__init__(values)
        self._judge = judge

    def submit(self, text: str, problem: Problem) -> Future[Score]:
        """Returns a Future that is already done."""
        future: Future[Score] = Future()
        try:
            future.set_result(self._judge(text, problem))
        except Exception as error:
            future.set_result(self._crashed(reason_of(error)))
        return future

    def counts(self) -> ScorerCounts:
        """Returns zeros."""
        return ScorerCounts(0, 0)

    def close(self) -> None:
        """Does nothing, since nothing is open."""


def reason_of(error: BaseException) -> str:
    """Describes what an error is and where it was raised, in a line: "ValueError: no answer
    (line 12 of rewards.py)".
    """
    words = traceback.format_exception_only(error)[-1].strip()
    frames = traceback.extract_tb(error.__traceback__)
    return f"{words} (line {frames[-1].lineno} of {frames[-1].filename})" if frames else words
