"""Attempts at held-out problems -> accuracy and its relatives, each with an interval.

    avg@n   mean over problems of the share of correct samples
    pass@k  chance that at least one of k samples is correct: 1 - C(n - c, k) / C(n, k) with c of n
            correct, unbiased (arXiv 2107.03374)
    maj@k   chance that the answer which most of k samples give is correct (arXiv 2203.11171)

Problems are the unit that intervals resample: more samples of a problem say more about that problem
and nothing about others.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from math import comb

import numpy as np

from cegppo_jax.types import Outcome, StopReason

BOOTSTRAP_RESAMPLES = 2000
MAJORITY_DRAWS = 200  # orders of a problem's samples that maj@k, k < n, is averaged over
TOKEN_QUANTILES = (0.1, 0.5, 0.9, 0.99)


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One completion of one problem, scored: a line of completions.jsonl."""

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
class Estimate:
    """A mean over problems and its bootstrap 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.1%} [{self.low:.1%}, {self.high:.1%}]"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What n samples each of some problems say about a policy."""

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
            ]
        )


@dataclasses.dataclass(frozen=True)
class ProblemResult:
    """What the samples of one problem came to: a row of problems.csv."""

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
    """Attempts in any order -> those of each problem, by sample.

    Raises:
      ValueError: there is none, or problems have different numbers of them.
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
    """Attempts, the same number at each problem -> Evaluation."""
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
        accuracy=bootstrap_mean(correct / samples),
        pass_at={
            k: bootstrap_mean(np.asarray([pass_at_k(samples, int(c), k) for c in correct]))
            for k in numbers
        },
        majority_at={k: bootstrap_mean(votes[:, i]) for i, k in enumerate(numbers)},
        truncated_fraction=float(
            np.mean([attempt.stop_reason is StopReason.LENGTH for attempt in attempts])
        ),
        completion_tokens_mean=float(lengths.mean()),
        completion_tokens_max=int(lengths.max()),
        completion_tokens_quantiles={q: float(np.quantile(lengths, q)) for q in TOKEN_QUANTILES},
        outcomes={outcome.value: outcomes[outcome.value] for outcome in Outcome},
    )


def problem_results(attempts: Sequence[Attempt]) -> list[ProblemResult]:
    """Attempts -> one row a problem, in the problems' order."""
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
    """Attempts -> which are correct, bool."""
    return np.asarray([attempt.outcome is Outcome.CORRECT for attempt in group])


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """n samples of which c are correct -> 1 - C(n - c, k) / C(n, k), in whole numbers until the
    end.
    """
    return 1 - comb(samples - correct, k) / comb(samples, k)


def majority_correct(group: Sequence[Attempt], numbers: Sequence[int]) -> np.ndarray:
    """Attempts at one problem and several k -> the chance that a vote of k of them is right.

    Completions without an answer do not vote; without any vote it is 0. Of answers that are given
    equally often one is drawn. k = n is exact; smaller k are averaged over MAJORITY_DRAWS orders,
    the same every time.

    Worked example, answers 7 7 3 - of which 7 is right: k = 4 gives 1; 7 3 would give 1/2.
    """
    answers = [attempt.answer for attempt in group]
    known = sorted({answer for answer in answers if answer is not None})
    if not known:
        return np.zeros(len(numbers))
    ballots = np.asarray([[answer == one for one in known] for answer in answers], np.int64)
    right = ballots.T @ correct_of(group) / ballots.sum(axis=0)  # [answers]
    random = np.random.default_rng(0)
    orders = np.stack([random.permutation(len(group)) for _ in range(MAJORITY_DRAWS)])
    found = []
    for k in numbers:
        chosen = orders[:, :k] if k < len(group) else np.arange(len(group))[None]
        counts = ballots[chosen].sum(axis=1)  # [draws, answers]
        winners = (counts == counts.max(axis=1, keepdims=True)) & (counts > 0)
        shares = winners / np.maximum(winners.sum(axis=1, keepdims=True), 1)
        found.append((shares @ right).mean())
    return np.asarray(found)


def bootstrap_mean(values: np.ndarray) -> Estimate:
    """One value a problem -> mean and percentile-bootstrap 95 % interval over problems; the same
    every time.
    """
    values = np.asarray(values, dtype=np.float64)
    random = np.random.default_rng(0)
    picks = random.integers(len(values), size=(BOOTSTRAP_RESAMPLES, len(values)))
    low, high = np.percentile(values[picks].mean(axis=1), [2.5, 97.5])
    return Estimate(float(values.mean()), float(low), float(high))
