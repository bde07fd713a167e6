"""Generated tasks: right answers, a split by construction, and purity."""

import dataclasses
import random
import re

import pytest

from cegppo_jax.data.tasks import (
    TASKS,
    Split,
    Task,
    Worked,
    draw_chained_arithmetic,
    generate_problem,
    held_out_set,
    split_of,
)
from cegppo_jax.rewards.verifiers import VERIFIERS
from cegppo_jax.types import Outcome

CHAIN = TASKS["chained_arithmetic"]


class Scripted(random.Random):
    """Gives the listed operators and digits instead of random ones."""

    def __init__(self, digits, operators):
        super().__init__(0)
        self.digits, self.operators = iter(digits), iter(operators)

    def randrange(self, *bounds):
        assert bounds == (10,)
        return next(self.digits)

    def choice(self, options):
        assert options == "+-*"
        return next(self.operators)


@pytest.mark.parametrize(
    ("digits", "operators", "problem", "solution"),
    [
        ([7, 5, 3, 6], "+*-", "7+5*3-6", "7+5=2;2*3=6;6-6=0;#0"),  # no precedence: not 7 + 15 - 6
        ([2, 9], "-", "2-9", "2-9=3;#3"),  # -7 modulo 10
        ([9, 9, 0, 1], "**-", "9*9*0-1", "9*9=1;1*0=0;0-1=9;#9"),
    ],
)
def test_chained_arithmetic_by_hand(digits, operators, problem, solution):
    worked = draw_chained_arithmetic(Scripted(digits, operators), steps=len(operators))
    assert worked == Worked(
        problem=problem, answer=solution[-1], solution=solution, bare_solution=solution[-2:]
    )


def test_problems_are_the_same_in_every_version():
    """A changed value here means that runs resumed from older checkpoints see other problems."""
    drawn = [generate_problem(CHAIN, Split.TRAIN, 0, i, 2, 6) for i in range(4)]
    assert [p.problem for p in drawn] == ["3+0+5-8", "2+9-5", "4+0-7*3+4", "0*9-8+6+3*4-3"]
    # printf 3+0+5-8 | b2sum -l 64
    assert drawn[0].id == "chained_arithmetic/7b23f51b1fcf934c"
    held_out = held_out_set(CHAIN, 3, seed=0, min_steps=2, max_steps=6)
    assert [p.problem for p in held_out] == ["4*6+7*0", "9+1+8-0-0*7*3", "7*1*0*7+9*5"]


def test_answers_steps_and_alphabet_over_many_draws():
    """An independent evaluation: one left-to-right pass with Python's own arithmetic."""
    steps_seen = set()
    for i in range(2000):
        drawn = generate_problem(CHAIN, Split.TRAIN, 3, i, 1, 5)
        pieces = re.findall(r"[+*-]\d", drawn.problem)
        assert drawn.problem == drawn.problem[0] + "".join(pieces)
        expression = "(" * len(pieces) + drawn.problem[0] + "".join(f"{p})" for p in pieces)
        assert drawn.answer == str(eval(expression) % 10)
        equations = drawn.solution.split(";")
        assert equations[-1] == f"#{drawn.answer}"
        for equation, piece in zip(equations[:-1], pieces, strict=True):
            left, right = equation.split("=")
            assert left[1:] == piece
            assert str(eval(left) % 10) == right
        assert set(drawn.problem + drawn.solution) <= set(CHAIN.alphabet)
        assert drawn.source == "chained_arithmetic"
        steps_seen.add(len(pieces))
    assert steps_seen == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())
def test_worked_solution_earns_the_answer(task):
    for i in range(200):
        drawn = generate_problem(task, Split.TRAIN, 0, i, 1, 4)
        found = VERIFIERS["final_answer"](drawn.solution, drawn)
        assert (found.outcome, found.answer) == (Outcome.CORRECT, drawn.answer)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())
def test_split_is_disjoint_whatever_the_seeds(task):
    training = {
        generate_problem(task, Split.TRAIN, seed, i, 1, 3).problem
        for seed in range(5)
        for i in range(2000)
    }
    held_out = {p.problem for p in held_out_set(task, 500, seed=0, min_steps=1, max_steps=3)}
    held_out |= {p.problem for p in held_out_set(task, 500, seed=1, min_steps=1, max_steps=3)}
    assert len(training) > 2000
    assert len(held_out) > 500
    assert not training & held_out
    assert {split_of(text) for text in training} == {Split.TRAIN}
    assert {split_of(text) for text in held_out} == {Split.HELD_OUT}


def test_a_tenth_of_all_problems_is_held_out():
    """All 300 one-step problems: 30 expected, standard deviation 5.2."""
    every = [f"{a}{op}{b}" for a in range(10) for op in "+-*" for b in range(10)]
    held_out = {text for text in every if split_of(text) is Split.HELD_OUT}
    assert 15 <= len(held_out) <= 45
    found = held_out_set(CHAIN, len(held_out), seed=0, min_steps=1, max_steps=1)
    assert {p.problem for p in found} == held_out
    message = (
        f"asked for {len(held_out) + 1} held-out problems of task 'chained_arithmetic', but with "
        f"1 to 1 steps only {len(held_out)} distinct ones were found"
    )
    with pytest.raises(ValueError, match=message):
        held_out_set(CHAIN, len(held_out) + 1, seed=0, min_steps=1, max_steps=1)


def test_generation_is_pure():
    """No state between calls: any order of indices gives the same problems."""
    forward = [generate_problem(CHAIN, Split.TRAIN, 1, i, 2, 4) for i in range(300)]
    backward = [generate_problem(CHAIN, Split.TRAIN, 1, i, 2, 4) for i in reversed(range(300))]
    assert forward == backward[::-1]
    other_seed = [generate_problem(CHAIN, Split.TRAIN, 2, i, 2, 4) for i in range(300)]
    assert sum(a == b for a, b in zip(forward, other_seed, strict=True)) < 5


def test_same_text_has_the_same_id():
    by_text: dict[str, str] = {}
    for i in range(2000):
        drawn = generate_problem(CHAIN, Split.TRAIN, i % 2, i, 1, 1)
        assert by_text.setdefault(drawn.problem, drawn.id) == drawn.id
    assert len(set(by_text.values())) == len(by_text) < 300


def test_held_out_set_is_distinct_and_grows_at_its_end():
    large = held_out_set(CHAIN, 400, seed=5, min_steps=1, max_steps=2)
    assert len({p.problem for p in large}) == len({p.id for p in large}) == 400
    assert held_out_set(CHAIN, 100, seed=5, min_steps=1, max_steps=2) == large[:100]


@pytest.mark.parametrize(("low", "high"), [(0, 3), (4, 3), (-1, -1)])
def test_bad_steps(low, high):
    message = f"min_steps is {low} and max_steps is {high}: need 1 <= min_steps <= max_steps"
    with pytest.raises(ValueError, match=message):
        generate_problem(CHAIN, Split.TRAIN, 0, 0, low, high)


def test_bad_index_split_and_count():
    with pytest.raises(ValueError, match="index is -1: the sequence of problems starts at 0"):
        generate_problem(CHAIN, Split.TRAIN, 0, -1, 1, 2)
    with pytest.raises(ValueError, match="'test' is not a valid Split"):
        generate_problem(CHAIN, "test", 0, 0, 1, 2)
    with pytest.raises(ValueError, match="n is 0: ask for at least 1"):
        held_out_set(CHAIN, 0, seed=0, min_steps=1, max_steps=2)


def test_side_without_problems_is_an_error_and_not_an_endless_loop():
    text = next(str(i) for i in range(100) if split_of(str(i)) is Split.TRAIN)
    single = Task("single", text, lambda rng, steps: Worked(text, "0", "#0", "#0"))
    message = "1000 draws of task 'single' with 1 to 2 steps gave no held_out problem: raise"
    with pytest.raises(ValueError, match=message):
        generate_problem(single, Split.HELD_OUT, 0, 0, 1, 2)


def test_tasks_are_named_by_their_keys_and_alphabets_repeat_nothing():
    for name, task in TASKS.items():
        assert task.name == name
        assert len(set(task.alphabet)) == len(task.alphabet)


def test_bare_solutions_are_a_share_and_change_nothing_else():
    """The style is drawn after the problem: with it and without it, the problems are the same."""
    task = TASKS["chained_arithmetic"]
    worked = [generate_problem(task, Split.TRAIN, 3, i, 2, 4) for i in range(2000)]
    mixed = [generate_problem(task, Split.TRAIN, 3, i, 2, 4, 0.6) for i in range(2000)]
    bare = [generate_problem(task, Split.TRAIN, 3, i, 2, 4, 1.0) for i in range(2000)]
    assert all("=" in problem.solution for problem in worked)
    assert all(problem.solution == f"#{problem.answer}" for problem in bare)
    for one, other in zip(worked, mixed, strict=True):
        assert dataclasses.replace(other, solution=one.solution) == one
        assert other.solution in (one.solution, f"#{one.answer}")
    share = sum("=" not in problem.solution for problem in mixed) / 2000
    assert abs(share - 0.6) < 0.04  # 3.7 standard deviations
