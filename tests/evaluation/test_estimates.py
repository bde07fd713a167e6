"""Estimates from attempts: by hand, against brute force, and intervals that mean something."""

import dataclasses
import itertools
import random

import numpy as np
import pytest

from cegppo_jax.compare import compare
from cegppo_jax.evaluation.estimates import (
    Attempt,
    by_problem,
    majority_correct,
    pass_at_k,
    problem_results,
    summarise,
)
from cegppo_jax.evaluation.intervals import mean_of_shares
from cegppo_jax.types import Outcome, StopReason

RIGHT, WRONG, UNPARSED = Outcome.CORRECT, Outcome.WRONG, Outcome.UNPARSED


def attempt(problem, sample, outcome, answer="", tokens=3, gold="7"):
    """A completion of 9 tokens was cut off. An answer that is not told is the outcome's own."""
    told = None if outcome is UNPARSED else answer or {RIGHT: gold, WRONG: "0"}[outcome]
    stop = StopReason.LENGTH if tokens == 9 else StopReason.EOS
    return Attempt(problem, f"p{problem}", sample, "", told, gold, outcome, 0.0, tokens, stop)


def attempts_of(outcomes):
    """Lists of outcomes, one a problem -> attempts."""
    return [
        attempt(problem, sample, outcome)
        for problem, group in enumerate(outcomes)
        for sample, outcome in enumerate(group)
    ]


def test_summarise_by_hand():
    """Shares of correct samples 2/2, 1/2, 0/2: accuracy 1/2, and 2 of 3 problems solved once. The
    vote of 7 and 0 is drawn: 1, 1/2, 0. Rewards play no part.
    """
    tokens = [3, 4, 5, 6, 9, 9]
    outcomes = [RIGHT, RIGHT, WRONG, RIGHT, WRONG, UNPARSED]
    attempts = [
        attempt(i // 2, i % 2, outcome, tokens=n)
        for i, (outcome, n) in enumerate(zip(outcomes, tokens, strict=True))
    ]
    random.Random(0).shuffle(attempts)  # they end in any order
    evaluation = summarise(attempts)
    assert (evaluation.problems, evaluation.samples_per_problem) == (3, 2)
    assert evaluation.accuracy.mean == 0.5
    assert evaluation.pass_at[1] == evaluation.accuracy
    assert evaluation.pass_at[2].mean == pytest.approx(2 / 3)
    assert evaluation.majority_at[2].mean == pytest.approx(0.5)
    assert evaluation.truncated_fraction == pytest.approx(2 / 6)
    assert evaluation.completion_tokens_mean == 6.0
    assert evaluation.completion_tokens_max == 9
    assert evaluation.completion_tokens_quantiles[0.5] == 5.5
    counts = {name: n for name, n in evaluation.outcomes.items() if n}
    assert counts == {"correct": 3, "wrong": 2, "unparsed": 1}
    text = str(evaluation)
    assert "3 problems x 2 samples" in text
    assert "pass@2    66.7% [" in text


def test_rows_of_problems():
    attempts = [attempt(0, 0, WRONG, "3"), attempt(0, 1, RIGHT), attempt(0, 2, RIGHT, tokens=9)]
    (row,) = problem_results(attempts)
    assert (row.samples, row.correct, row.majority_answer, row.truncated) == (3, 2, "7", 1)
    assert (row.majority_correct, row.tokens_mean) == (1.0, 5.0)


@pytest.mark.parametrize(("n", "c"), [(5, 0), (5, 1), (5, 3), (5, 5)])
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample(n, c):
    samples = [True] * c + [False] * (n - c)
    for k in range(1, n + 1):
        subsets = list(itertools.combinations(samples, k))
        share = np.mean([any(subset) for subset in subsets])
        assert pass_at_k(n, c, k) == pytest.approx(share, abs=1e-12)


def test_a_majority_needs_votes_and_draws_ties():
    def vote(*answers, k=None):
        group = [
            attempt(0, i, UNPARSED if a is None else RIGHT if a == "7" else WRONG, a)
            for i, a in enumerate(answers)
        ]
        return majority_correct(group, [k or len(group)])[0]

    assert vote("7", "7", "3", None) == 1.0
    assert vote("7", "3", None, None) == 0.5
    assert vote("7", "3", "3") == 0.0
    assert vote("7", "3", "5") == pytest.approx(1 / 3)
    assert vote(None, None) == 0.0
    assert vote(None, "7") == 1.0
    # of one sample: the share of right ones among all, those without an answer included
    assert vote("7", "3", None, "7", k=1) == pytest.approx(0.5)


@pytest.mark.parametrize("seed", range(8))
def test_a_majority_of_fewer_is_what_all_subsets_say(seed):
    """Several answers may be right (0.5 and 1/2); ties, and completions without an answer."""
    draw = random.Random(seed)
    answers = [draw.choice(["7", "7.0", "3", "5", None]) for _ in range(8)]
    outcomes = {"7": RIGHT, "7.0": RIGHT, None: UNPARSED}
    group = [attempt(0, i, outcomes.get(a, WRONG), a) for i, a in enumerate(answers)]
    for k in range(1, 9):
        subsets = [majority_correct(list(s), [k])[0] for s in itertools.combinations(group, k)]
        assert majority_correct(group, [k])[0] == pytest.approx(np.mean(subsets), abs=1e-12)


@pytest.mark.parametrize(("n", "c", "k"), [(2, 0, 5), (2, 1, 0), (2, 3, 1), (2, -1, 1), (0, 0, 1)])
def test_pass_and_majority_of_impossible_numbers_are_refused(n, c, k):
    with pytest.raises(ValueError, match=f"of {n} samples"):
        pass_at_k(n, c, k)


@pytest.mark.parametrize("k", [0, 3, -1])
def test_a_vote_of_more_samples_than_there_are_is_refused(k):
    with pytest.raises(ValueError, match=rf"maj@{k} of 2 samples"):
        majority_correct([attempt(0, 0, RIGHT), attempt(0, 1, WRONG)], [1, k])


def test_uneven_and_empty_attempts_are_refused():
    with pytest.raises(ValueError, match="no attempt"):
        summarise([])
    with pytest.raises(ValueError, match="from 1 to 2 attempts"):
        by_problem([attempt(0, 0, RIGHT), attempt(0, 1, RIGHT), attempt(1, 0, RIGHT)])


@pytest.mark.parametrize("n", [50, 200, 800])
def test_the_interval_is_as_wide_as_theory_has_it(n):
    """Half of n problems right: mean +- 1.96 sqrt(0.25 / n), halved by four times the problems."""
    estimate = mean_of_shares(np.arange(n) % 2)
    half = 1.96 * np.sqrt(0.25 / n)
    assert estimate.mean == 0.5
    assert estimate.low == pytest.approx(0.5 - half, abs=0.15 * half)
    assert estimate.high == pytest.approx(0.5 + half, abs=0.15 * half)


def test_the_interval_resamples_problems_and_not_samples():
    """Two samples that always agree say no more than one: the same interval."""
    outcomes = [RIGHT, WRONG, WRONG, RIGHT, WRONG] * 4
    once = summarise(attempts_of([[outcome] for outcome in outcomes]))
    twice = summarise(attempts_of([[outcome] * 2 for outcome in outcomes]))
    assert once.accuracy == twice.accuracy == twice.pass_at[2] == twice.majority_at[2]


# Two evaluations of the same problems


def test_a_comparison_is_paired():
    """Half of the problems are hard for both; the second solves one more of every ten, always."""
    first = [[RIGHT] * 4 if i % 2 else [WRONG] * 4 for i in range(200)]
    second = [[RIGHT] * 4 if i % 2 or i % 10 == 0 else [WRONG] * 4 for i in range(200)]
    compared = compare(attempts_of(first), attempts_of(second))
    assert compared.accuracy.difference.mean == pytest.approx(0.1)
    width = compared.accuracy.difference.high - compared.accuracy.difference.low
    alone = compared.accuracy.first.high - compared.accuracy.first.low
    assert width < 0.65 * alone
    assert compared.accuracy.difference.low > 0
    assert compared.accuracy.p_value < 0.001
    assert (compared.better, compared.worse, compared.problems) == (20, 0, 200)
    assert "+10.0 [" in str(compared)
    assert "200 problems, 4 samples each: 20 better, 0 worse, 180 equal" in str(compared)


def test_different_numbers_of_samples_are_compared_at_the_smaller_k():
    first = attempts_of([[RIGHT, WRONG, WRONG, WRONG]])
    second = attempts_of([[RIGHT, WRONG]])
    compared = compare(first, second)
    assert compared.k == 2
    assert compared.pass_at_k.first.mean == pytest.approx(0.5)
    assert compared.pass_at_k.second.mean == 1.0


def test_a_policy_is_no_better_than_itself_at_another_number_of_samples():
    """A policy that gives 7, which is right, 40 % of the time and one of many wrong answers else:
    its first 4 samples against all 64. Every row is about the same, and every p-value large.
    """
    draw = random.Random(0)

    def sampled(samples):
        return [
            attempt(problem, sample, *draw.choices([(RIGHT, "7"), (WRONG, "w")], [0.4, 0.6])[0])
            for problem in range(80)
            for sample in range(samples)
        ]

    def varied(attempts):
        wrong = (str(draw.randrange(8, 99)) for _ in attempts)
        return [
            one if one.outcome is RIGHT else dataclasses.replace(one, answer=next(wrong))
            for one in attempts
        ]

    compared = compare(varied(sampled(4)), varied(sampled(64)))
    assert compared.k == 4
    for row in (compared.accuracy, compared.pass_at_k, compared.majority):
        assert abs(row.difference.mean) < 0.08
        assert row.difference.low < 0 < row.difference.high
        assert row.p_value > 0.05
    assert abs(compared.better - compared.worse) < 12
    own = summarise(varied(sampled(64))).majority_at
    assert own[64].mean - own[4].mean > 0.2  # what votes of their own sizes would have shown


def test_how_many_problems_are_better_is_counted_at_one_number_of_samples():
    """1 of 4 right against 0 of 1: one sample of the first is right with chance 1/4."""
    compared = compare(attempts_of([[RIGHT, WRONG, WRONG, WRONG]]), attempts_of([[WRONG]]))
    assert (compared.k, compared.better, compared.worse) == (1, 0.0, 0.25)


def test_problems_of_one_id_cannot_be_paired():
    twins = [attempt(0, 0, RIGHT), dataclasses.replace(attempt(1, 0, WRONG), id="p0")]
    with pytest.raises(ValueError, match=r"\['p0'\] are of several problems"):
        compare(twins, twins)


def test_many_truncated_completions_name_the_limit_to_raise():
    def told(truncated):
        attempts = [attempt(i, 0, WRONG, tokens=9 if i < truncated else 3) for i in range(10)]
        return str(summarise(attempts))

    assert "80.0% of 10 completions were cut off" in told(8)
    assert "sampler.max_completion_tokens" in told(8)
    assert "sampler.max_completion_tokens" not in told(0)


def test_other_problems_and_other_answers_are_refused():
    one = attempts_of([[RIGHT]] * 3)
    with pytest.raises(ValueError, match=r"3 and 2 problems, .* 1 of them .*p2"):
        compare(one, attempts_of([[RIGHT]] * 2))
    changed = [attempt(i, 0, RIGHT, gold="8") for i in range(3)]
    with pytest.raises(ValueError, match=r"\['p0', 'p1', 'p2'\] .* answers"):
        compare(one, changed)
