"""Generated tasks: right answers, a split by construction, and purity."""

import ast
import dataclasses
import functools
import math
import random
import re
from fractions import Fraction

import pytest

from cegppo_jax.data.tasks.countdown import draw_countdown
from cegppo_jax.data.tasks.expressions import draw_expression
from cegppo_jax.data.tasks.table import (
    TASKS,
    Split,
    Task,
    Worked,
    draw_chained_arithmetic,
    draw_sum,
    generate_problem,
    held_out_set,
    split_of,
)
from cegppo_jax.data.tokenizer import build_character_tokenizer, check_text
from cegppo_jax.rewards.verifiers import VERIFIERS
from cegppo_jax.types import Outcome, Problem

CHAIN = TASKS["chained_arithmetic"]
SUMS = TASKS["sums"]
IN_ENGLISH = ("countdown", "expressions", "word_problems")


class Scripted(random.Random):
    """Gives the listed operators and digits instead of random ones, to draw_chained_arithmetic."""

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


class ScriptedTerms(random.Random):
    """Gives the listed digits instead of random ones, to draw_sum."""

    def __init__(self, digits):
        super().__init__(0)
        self.digits = iter(digits)

    def randint(self, *bounds):
        assert bounds == (1, 9)
        return next(self.digits)


@pytest.mark.parametrize(
    ("digits", "problem", "solution"),
    [
        ([3, 8, 1, 6, 5], "5:23=3+", "3+8+1+6+5"),
        ([1, 1], "2:2=1+", "1+1"),  # the least
        ([9] * 12, "12:108=9+", "9+9+9+9+9+9+9+9+9+9+9+9"),
    ],
)
def test_sums_by_hand(digits, problem, solution):
    worked = draw_sum(ScriptedTerms(digits), steps=len(digits))
    assert worked == Worked(problem=problem, answer=problem, solution=solution, bare_solution=None)


def test_problems_are_the_same_in_every_version():
    """A changed value here means that runs resumed from older checkpoints see other problems."""
    drawn = [generate_problem(CHAIN, Split.TRAIN, 0, i, 2, 6) for i in range(4)]
    assert [p.problem for p in drawn] == ["3+0+5-8", "2+9-5", "4+0-7*3+4", "0*9-8+6+3*4-3"]
    # printf 3+0+5-8 | b2sum -l 64
    assert drawn[0].id == "chained_arithmetic/7b23f51b1fcf934c"
    held_out = held_out_set(CHAIN, 3, seed=0, min_steps=2, max_steps=6)
    assert [p.problem for p in held_out] == ["4*6+7*0", "9+1+8-0-0*7*3", "7*1*0*7+9*5"]


def test_sums_are_the_same_in_every_version():
    """As above."""
    drawn = [generate_problem(SUMS, Split.TRAIN, 0, i, 4, 8) for i in range(3)]
    assert [p.problem for p in drawn] == ["5:19=4+", "6:21=5+", "8:54=5+"]
    assert [p.solution for p in drawn] == ["4+4+3+2+6", "5+4+5+1+5+1", "5+9+2+9+8+9+8+4"]
    # printf 5:19=4+ | b2sum -l 64
    assert drawn[0].id == "sums/fe91e470f55d1646"
    held_out = held_out_set(SUMS, 3, seed=0, min_steps=4, max_steps=8)
    assert [p.problem for p in held_out] == ["6:35=7+", "4:19=9+", "7:47=4+"]


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


def test_sums_conditions_and_lengths_over_many_draws():
    """An independent reading of problem and solution; the limits that a config of 4 to 8 needs."""
    terms_seen = set()
    for i in range(2000):
        drawn = generate_problem(SUMS, Split.TRAIN, 3, i, 4, 8)
        terms, value, first = re.fullmatch(r"([4-8]):(\d+)=([1-9])\+", drawn.problem).groups()
        assert re.fullmatch(r"[1-9](\+[1-9])+", drawn.solution)
        assert drawn.solution[0] == first
        assert drawn.solution.count("+") == int(terms) - 1
        assert eval(drawn.solution) == int(value)
        assert (drawn.answer, drawn.source) == (drawn.problem, "sums")
        assert len(drawn.problem) <= 7
        assert len(drawn.solution) == 2 * int(terms) - 1 <= 15
        terms_seen.add(int(terms))
    assert terms_seen == {4, 5, 6, 7, 8}


def test_worked_sums_are_uniform_over_the_right_answers():
    """3:12=5+ leaves 7 to 2 terms, in 6 ways: chi-squared with 5 degrees of freedom."""
    counts: dict[str, int] = {}
    drawn = [draw_sum(random.Random(i), 3) for i in range(60_000)]
    for worked in drawn:
        if worked.problem == "3:12=5+":
            counts[worked.solution] = counts.get(worked.solution, 0) + 1
    assert set(counts) == {f"5+{a}+{7 - a}" for a in range(1, 7)}
    expected = sum(counts.values()) / 6  # about 82
    assert sum((n - expected) ** 2 / expected for n in counts.values()) < 20.5  # p = 0.001


def test_entropy_and_number_of_sums_are_as_documented():
    """draw_sum's numbers for 4 to 8 terms, counted."""

    @functools.cache
    def ways(terms, value):
        """The number of sequences of so many digits from 1 to 9 with that sum."""
        if terms == 0:
            return int(value == 0)
        return sum(ways(terms - 1, value - digit) for digit in range(1, min(9, value) + 1))

    free = range(3, 8)  # terms behind the first
    nats = [
        sum(n * math.log(n) for rest in range(k, 9 * k + 1) if (n := ways(k, rest))) / 9**k
        for k in free
    ]
    assert round(sum(nats) / len(nats), 1) == 7.8
    pairs = [f"{n}:{value}=" for n in range(4, 9) for value in range(n, 9 * n + 1)]
    assert len(pairs) == 245
    assert sum(split_of(text) is Split.HELD_OUT for text in pairs) == 30
    every = [
        f"{k + 1}:{first + rest}={first}+"
        for k in free
        for first in range(1, 10)
        for rest in range(k, 9 * k + 1)
    ]
    assert len(set(every)) == len(every) == 1845
    assert sum(split_of(text) is Split.HELD_OUT for text in every) == 192
    found = held_out_set(SUMS, 128, seed=0, min_steps=4, max_steps=8)
    assert {p.problem for p in found} <= set(every)
    message = "asked for 193 held-out .* 4 to 8 steps only 145 distinct ones were found"
    with pytest.raises(ValueError, match=message):
        held_out_set(SUMS, 193, seed=0, min_steps=4, max_steps=8)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())
def test_worked_solution_earns_the_answer(task):
    for i in range(2000):
        drawn = generate_problem(task, Split.TRAIN, 0, i, task.least_steps, 8)
        found = VERIFIERS[task.verifier](drawn.solution, drawn)
        expected = drawn.answer if task.verifier == "final_answer" else drawn.solution
        if task.verifier == "countdown":
            expected = expected.replace(" ", "")  # the one spelling of an expression
        assert (found.outcome, found.answer) == (Outcome.CORRECT, expected)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())
def test_alphabet_spells_every_text_and_has_nothing_else(task):
    tokenizer = build_character_tokenizer(task.alphabet)
    used = set()
    for i in range(500):
        drawn = generate_problem(task, Split.TRAIN, 4, i, task.least_steps, 12)
        for text in (drawn.problem, drawn.answer, drawn.solution):
            check_text(text, tokenizer, drawn.id)
            used |= set(text)
    assert used == set(task.alphabet)


@pytest.mark.parametrize(
    ("task", "low", "high", "few"), [(CHAIN, 1, 3, 500), (SUMS, 4, 8, 128)], ids=["chained", "sums"]
)
def test_split_is_disjoint_whatever_the_seeds(task, low, high, few):
    training = {
        generate_problem(task, Split.TRAIN, seed, i, low, high).problem
        for seed in range(5)
        for i in range(2000)
    }
    held_out = {p.problem for p in held_out_set(task, few, seed=0, min_steps=low, max_steps=high)}
    held_out |= {p.problem for p in held_out_set(task, few, seed=1, min_steps=low, max_steps=high)}
    assert len(training) > 4 * few
    assert len(held_out) > few
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


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())
def test_generation_is_pure(task):
    """No state between calls: any order of indices gives the same problems."""
    forward = [generate_problem(task, Split.TRAIN, 1, i, 2, 4) for i in range(300)]
    backward = [generate_problem(task, Split.TRAIN, 1, i, 2, 4) for i in reversed(range(300))]
    assert forward == backward[::-1]
    other_seed = [generate_problem(task, Split.TRAIN, 2, i, 2, 4) for i in range(300)]
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


def test_too_few_terms_leave_nothing_to_solve():
    message = "min_steps is 1: task 'sums' needs at least 2"
    with pytest.raises(ValueError, match=message):
        generate_problem(SUMS, Split.TRAIN, 0, 0, 1, 8)
    with pytest.raises(ValueError, match=message):
        held_out_set(SUMS, 1, seed=0, min_steps=1, max_steps=8)


def test_bad_index_split_and_count():
    with pytest.raises(ValueError, match=r"index is -1: .* 0"):
        generate_problem(CHAIN, Split.TRAIN, 0, -1, 1, 2)
    with pytest.raises(ValueError, match="'test' is not a valid Split"):
        generate_problem(CHAIN, "test", 0, 0, 1, 2)
    with pytest.raises(ValueError, match=r"n is 0: .* 1"):
        held_out_set(CHAIN, 0, seed=0, min_steps=1, max_steps=2)


def test_side_without_problems_is_an_error_and_not_an_endless_loop():
    text = next(str(i) for i in range(100) if split_of(str(i)) is Split.TRAIN)
    single = Task(
        name="single",
        alphabet=text,
        verifier="final_answer",
        least_steps=1,
        usual_steps=(1, 2),
        draw=lambda rng, steps: Worked(text, "0", "#0", "#0"),
    )
    message = "1000 draws of task 'single' with 1 to 2 steps gave no held_out problem: raise"
    with pytest.raises(ValueError, match=message):
        generate_problem(single, Split.HELD_OUT, 0, 0, 1, 2)


def test_tasks_are_named_by_their_keys_and_alphabets_repeat_nothing():
    for name, task in TASKS.items():
        assert task.name == name
        assert len(set(task.alphabet)) == len(task.alphabet)
        assert task.verifier in VERIFIERS


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


@pytest.mark.parametrize("fraction", [0.01, 0.6, 1.0])
def test_sums_have_no_bare_solutions(fraction):
    """Refused at the first problem, however small the share."""
    message = f"bare_fraction is {fraction}, .* task 'sums'"
    with pytest.raises(ValueError, match=message):
        generate_problem(SUMS, Split.TRAIN, 0, 0, 4, 8, fraction)


# --- tasks in English


def test_tasks_in_english_are_the_same_in_every_version():
    """A changed value here means that runs resumed from older checkpoints see other problems."""
    drawn = [generate_problem(TASKS[name], Split.TRAIN, 0, 0, 2, 3) for name in IN_ENGLISH]
    assert [problem.problem for problem in drawn] == [
        "Using the numbers 32, 60 and 96, each exactly once, and + - * /, make 4. End with the "
        "expression, with parentheses where it needs them.",
        "What is 2 + 19 * 1 - 19?",
        "Ella has 14 shells. Ella sells 2 of them. Ella gives 6 of them to a friend. How many "
        "shells does Ella have now?",
    ]


@pytest.mark.parametrize("name", IN_ENGLISH)
def test_split_of_tasks_in_english(name):
    task = TASKS[name]
    training = {generate_problem(task, Split.TRAIN, 0, i, 1, 3).problem for i in range(3000)}
    held_out = {p.problem for p in held_out_set(task, 300, 0, 1, 3)}
    assert len(training) > 2000
    assert len(held_out) == 300
    assert not training & held_out


def test_countdown_over_many_draws():
    """Conditions in text and answer agree, and the expression meets them."""
    operators = set()
    for i in range(2000):
        steps = i % 5 + 1
        worked = draw_countdown(random.Random(i), steps)
        listed, target = re.fullmatch(
            r"Using the numbers (.*), each exactly once, and \+ - \* /, make (\d+)\. End with .*",
            worked.problem,
        ).groups()
        numbers = [int(number) for number in re.findall(r"\d+", listed)]
        assert worked.answer == f"{target}:{','.join(map(str, numbers))}"
        assert len(numbers) == steps + 1
        assert numbers == sorted(numbers)  # one text for each choice of numbers and target
        assert 1 <= min(numbers) <= max(numbers) <= 99
        assert 1 <= int(target) <= 999
        assert sorted(int(n) for n in re.findall(r"\d+", worked.solution)) == numbers
        exact = re.sub(r"\d+", lambda number: f"Fraction({number[0]})", worked.solution)
        assert eval(exact) == Fraction(target)
        operators |= set(re.findall(r"[-+*/]", worked.solution))
    assert operators == set("+-*/")


def test_countdown_verifier_reads_its_conditions():
    problem = Problem("x", "...", "98:19,35,44", "countdown")
    verify = VERIFIERS["countdown"]
    assert verify("(44 + 19) + 35", problem).outcome is Outcome.CORRECT
    assert verify("35 + 44 + 19", problem).outcome is Outcome.CORRECT
    for wrong in ("44 + 19 - 35", "49 * 2", "44 + 35 + 19 + 0"):
        assert verify(wrong, problem).outcome is not Outcome.CORRECT
    assert verify("", problem).outcome is Outcome.UNPARSED


def test_expressions_over_many_draws():
    """Python's own precedence gives the answer, and each line of the solution is right."""
    for i in range(2000):
        steps = i % 6 + 1
        worked = draw_expression(random.Random(i), steps)
        expression = re.fullmatch(r"What is ([-+*() 0-9]+)\?", worked.problem)[1]
        assert str(eval(expression)) == worked.answer
        *lines, last = worked.solution.split("\n")
        assert last == worked.bare_solution == f"#### {worked.answer}"
        assert len(lines) == len(re.findall(r" [-+*] ", expression)) == steps
        for line in lines:
            left, right = line.split(" = ")
            assert eval(left) == int(right)
            assert abs(int(right)) <= 999
        assert lines[-1].endswith(f" = {worked.answer}")


def test_expressions_have_no_parentheses_to_spare():
    """Leaving out a pair of them changes how the expression is worked."""
    for i in range(500):
        expression = draw_expression(random.Random(i), 4).problem
        tree = ast.dump(ast.parse(expression[8:-1], mode="eval"))
        for opening in (at for at, sign in enumerate(expression) if sign == "("):
            depth, closing = 1, opening
            while depth:
                closing += 1
                depth += {"(": 1, ")": -1}.get(expression[closing], 0)
            shorter = (
                expression[:opening] + expression[opening + 1 : closing] + expression[closing + 1 :]
            )
            assert ast.dump(ast.parse(shorter[8:-1], mode="eval")) != tree


def test_word_problems_over_many_draws():
    """A reading of its own: sentence by sentence, from the numbers and verbs in it."""
    kinds = set()
    for i in range(3000):
        steps = i % 5 + 1
        worked = TASKS["word_problems"].draw(random.Random(i), steps)
        first, *changes, question = re.findall(r"[^.?]+[.?]", worked.problem)
        name, value, items = re.fullmatch(r"(\w+) has (\d+) (\w+)\.", first).groups()
        assert question == f" How many {items} does {name} have now?"
        assert len(changes) == steps
        value = int(value)
        for sentence in changes:
            numbers = [int(number) for number in re.findall(r"\d+", sentence)]
            amount = math.prod(numbers) if numbers else value // 2
            assert numbers or value % 2 == 0
            verb = r"(finds|buys|friends? gives?) "
            comes = bool(re.search(rf"{verb}({name} )?\d", sentence)) and " to " not in sentence
            value += amount if comes else -amount
            assert 0 <= value <= 99
            kinds.add(re.sub(r"\d+", "0", sentence).replace(name, "N").replace(items, "I"))
            if len(numbers) == 2:  # "1 apples" and "1 friends" are no English
                assert min(numbers) >= 2
        assert worked.answer == str(value)
        *lines, last = worked.solution.split("\n")
        assert last == f"#### {value}"
        for equation in ",".join(lines).split(","):
            left, right = equation.split("=")
            assert eval(left) == int(right)
    # bought, given by a friend, given, sold; found and lost in 4 places; 3 products; 2 halves
    assert len(kinds) == 4 + 2 * 4 + 3 + 2
