"""Estimates accuracy and its relatives from attempts at held-out problems, each with an interval.

    avg@n   mean over problems of the share of correct samples
    pass@k  chance that at least one of k samples is correct: 1 - C(n - c, k) / C(n, k) with c of n
            correct, unbiased (arXiv 2107.03374)
    maj@k   chance that the most frequent answer of k samples is correct (arXiv 2203.11171), over
            all choices of k of the n samples

pass@k and maj@k depend on k, and not on n: evaluations with different n are compared at one k.
Intervals are over problems (intervals.py).
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from math import comb

import numpy as np

from cegppo_jax.evaluation.intervals import Estimate, mean_of_shares
from cegppo_jax.types import Outcome, StopReason

TOKEN_QUANTILES = (0.1, 0.5, 0.9, 0.99)
MANY_TRUNCATED = 0.05  # of the completions: the figures are then also those of the limit


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One scored completion of one problem: a line of completions.jsonl."""

    problem: int  # place in the problem set
    id: str
    sample: int
    completion: str
    answer: str | None  # as the verifier read it
    gold: str
    outcome: Outcome
    reward: float
    tokens: int
    stop_reason: StopReason
    rule: str | None = None  # where the verifier found it (rewards/extraction.py)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What n samples of each of some problems show about a policy."""

    problems: int
    samples_per_problem: int  # n
    accuracy: Estimate  # avg@n
    pass_at: dict[int, Estimate]  # by k
    majority_at: dict[int, Estimate]
    truncated_fraction: float
    completion_tokens_mean: float
    completion_tokens_max: int
    completion_tokens_quantiles: dict[float, float]
    outcomes: dict[str, int]

    def __str__(self) -> str:
        n = self.samples_per_problem
        rows = [
            (f"avg@{n}", self.accuracy),
            *((f"pass@{k}", estimate) for k, estimate in self.pass_at.items() if k > 1),
            *((f"maj@{k}", estimate) for k, estimate in self.majority_at.items() if k > 1),
        ]
        lengths = ", ".join(
            f"{q:.0%} {v:,.0f}" for q, v in self.completion_tokens_quantiles.items()
        )
        counts = ", ".join(f"{count:,} {name}" for name, count in self.outcomes.items() if count)
        return "\n".join(
            [
                f"{self.problems} problems x {n} samples (95 % intervals over problems)",
                *(f"  {name:9} {estimate}" for name, estimate in rows),
                f"  tokens    mean {self.completion_tokens_mean:,.1f}; quantiles {lengths}, "
                f"longest {self.completion_tokens_max:,}; {self.truncated_fraction:.1%} truncated",
                f"  outcomes  {counts}",
                *([self.advice] if self.advice else []),
            ]
        )

    @property
    def advice(self) -> str:
        """Returns what to do about truncated completions; "" if they are few."""
        completions = self.problems * self.samples_per_problem
        return truncation_advice(round(self.truncated_fraction * completions), completions)


def truncation_advice(truncated: int, completions: int) -> str:
    """Returns what to do if many completions were cut off; "" if they are few."""
    if truncated < max(MANY_TRUNCATED * completions, 1):
        return ""
    return (
        f"{truncated / completions:.1%} of {completions:,} completions were cut off before they "
        "ended: raise sampler.max_completion_tokens to let them finish"
    )


@dataclasses.dataclass(frozen=True)
class ProblemResult:
    """The results of the samples of one problem: a row of problems.csv."""

    problem: int
    id: str
    gold: str
    samples: int
    correct: int
    majority_answer: str | None  # the first of those that were given most often
    majority_correct: float  # chance that a vote of all samples is right: ties are drawn
    tokens_mean: float
    truncated: int


def by_problem(attempts: Sequence[Attempt]) -> list[list[Attempt]]:
    """Groups attempts, in any order, by problem and orders them by sample.

    Raises:
      ValueError: there are no attempts, or problems have different numbers of them.
    """
    if not attempts:
        raise ValueError("there is no attempt to summarise")
    groups: dict[int, list[Attempt]] = {}
    for attempt in sorted(attempts, key=lambda one: (one.problem, one.sample)):
        groups.setdefault(attempt.problem, []).append(attempt)
    numbers = sorted({len(group) for group in groups.values()})
    if len(numbers) > 1:
        raise ValueError(
            f"problems have from {numbers[0]} to {numbers[-1]} attempts, not one number"
        )
    return list(groups.values())


def summarise(attempts: Sequence[Attempt]) -> Evaluation:
    """Summarises attempts, of which every problem has the same number."""
    groups = by_problem(attempts)
    samples = len(groups[0])
    numbers = [k for k in (2**i for i in range(samples.bit_length())) if k < samples] + [samples]
    correct = np.asarray([correct_of(group).sum() for group in groups])
    votes = np.asarray([majority_correct(group, numbers) for group in groups])
    lengths = np.asarray([attempt.tokens for attempt in attempts])
    outcomes = Counter(attempt.outcome.value for attempt in attempts)
    return Evaluation(
        problems=len(groups),
        samples_per_problem=samples,
        accuracy=mean_of_shares(correct / samples),
        pass_at={
            k: mean_of_shares(np.asarray([pass_at_k(samples, int(c), k) for c in correct]))
            for k in numbers
        },
        majority_at={k: mean_of_shares(votes[:, i]) for i, k in enumerate(numbers)},
        truncated_fraction=float(
            np.mean([attempt.stop_reason is StopReason.LENGTH for attempt in attempts])
        ),
        completion_tokens_mean=float(lengths.mean()),
        completion_tokens_max=int(lengths.max()),
        completion_tokens_quantiles={q: float(np.quantile(lengths, q)) for q in TOKEN_QUANTILES},
        outcomes={outcome.value: outcomes[outcome.value] for outcome in Outcome},
    )


def problem_results(attempts: Sequence[Attempt]) -> list[ProblemResult]:
    """Returns one row a problem, in the order of the problems."""
    rows = []
    for group in by_problem(attempts):
        votes = Counter(attempt.answer for attempt in group if attempt.answer is not None)
        rows.append(
            ProblemResult(
                problem=group[0].problem,
                id=group[0].id,
                gold=group[0].gold,
                samples=len(group),
                correct=int(correct_of(group).sum()),
                majority_answer=votes.most_common(1)[0][0] if votes else None,
                majority_correct=float(majority_correct(group, [len(group)])[0]),
                tokens_mean=float(np.mean([attempt.tokens for attempt in group])),
                truncated=sum(attempt.stop_reason is StopReason.LENGTH for attempt in group),
            )
        )
    return rows


def correct_of(group: Sequence[Attempt]) -> np.ndarray:
    """Returns which of n attempts are correct, [n] bool."""
    return np.asarray([attempt.outcome is Outcome.CORRECT for attempt in group])


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Returns 1 - C(n - c, k) / C(n, k) for n samples of which c are correct, computed in whole
    numbers until the end.

    Raises:
      ValueError: unless 0 <= c <= n and 1 <= k <= n. A k larger than n cannot be estimated.
    """
    _check_k(samples, k, "pass")
    if not 0 <= correct <= samples:
        raise ValueError(f"{correct} of {samples} samples are correct: must be 0 to {samples}")
    return 1 - comb(samples - correct, k) / comb(samples, k)


def majority_correct(group: Sequence[Attempt], numbers: Sequence[int]) -> np.ndarray:
    """Returns maj@k for several k, [number of k] float64: the chance that a vote of k attempts at
    one problem, drawn without replacement, is right.

    Completions without an answer do not vote; without any vote the chance is 0. A tie is broken at
    random. Exact for every k.

    Worked example, answers 7 7 3 - of which 7 is right: k = 4 gives 1; answers 7 3 would give 1/2.

    Raises:
      ValueError: a k is not from 1 to the number of attempts.
    """
    for k in numbers:
        _check_k(len(group), k, "maj")
    votes = Counter(attempt.answer for attempt in group if attempt.answer is not None)
    right = Counter(
        attempt.answer
        for attempt, correct in zip(group, correct_of(group), strict=True)
        if correct and attempt.answer is not None
    )
    silent = len(group) - votes.total()
    found = []
    for k in numbers:
        chance = 0.0
        for answer, number in right.items():
            others = [count for other, count in votes.items() if other != answer]
            share = number / votes[answer]
            chance += share * _wins(votes[answer], others, silent, k)
        found.append(min(chance, 1.0))  # a sum of rounded terms
    return np.asarray(found)


def _wins(own: int, others: Sequence[int], silent: int, k: int) -> float:
    """Returns the chance that an answer wins among k votes, given its votes, those of each other
    answer, and the number of attempts without one.

    Counts in k votes drawn without replacement are independent binomial counts, of any one
    probability, given that they sum to k. For each number of votes j the answer may get, the others
    that could have more are cut at j, and `ways[t, i]` collects t of them that tie, i votes in all.
    """
    total = own + sum(others) + silent
    chances = _binomials(total, k / total)
    won = 0.0
    for j in range(1, min(own, k) + 1):
        rest, most_ties = k - j, (k - j) // j
        ways = np.zeros((most_ties + 1, rest + 1))
        below = silent + sum(count for count in others if count < j)
        start = chances[below][: rest + 1]
        ways[0, : len(start)] = start
        for count in others:
            if count >= j:
                ways = _with_rival(ways, chances[count], j)
        won += chances[own][j] * (ways[:, rest] / np.arange(1, most_ties + 2)).sum()
    return float(won / chances[total][k])


def _with_rival(ways: np.ndarray, chances: np.ndarray, j: int) -> np.ndarray:
    """Adds another answer, with at most j votes, to `ways` [ties, votes]; with j votes it ties."""
    width = ways.shape[1]
    after = np.zeros_like(ways)
    for votes in range(min(j, width)):
        after[:, votes:] += chances[votes] * ways[:, : width - votes]
    if j < width:
        after[1:, j:] += chances[j] * ways[:-1, : width - j]
    return after


def _binomials(number: int, p: float) -> list[np.ndarray]:
    """Returns, for each m up to `number`, the chances [m + 1] of 0 to m successes in m trials of
    chance p.
    """
    chances = [np.ones(1)]
    for _ in range(number):
        chances.append(np.convolve(chances[-1], [1 - p, p]))
    return chances


def _check_k(samples: int, k: int, name: str) -> None:
    if not 1 <= k <= samples:
        raise ValueError(
            f"{name}@{k} of {samples} samples: k must be from 1 to the number of samples"
        )
