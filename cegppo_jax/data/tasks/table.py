"""Built-in generated tasks, each problem with a known answer and a worked solution: (split, seed,
index) -> Problem.

Training and held-out problems are separate by construction. A digest of the problem's text alone
decides whether a problem is held out, so the two sides are disjoint whatever the seeds, the
difficulty and the number drawn.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import random
from collections.abc import Callable

from cegppo_jax.data.tasks import countdown, expressions, word_problems
from cegppo_jax.data.tasks.worked import Worked
from cegppo_jax.types import Problem

HELD_OUT_ONE_IN = 10  # the share of all problems that training never sees: 1 / 10

# Of at least 30 held-out problems in 300, a fair draw misses all with probability 0.9**1000 =
# 1e-46; running into the bound means that the difficulty leaves (almost) no such problem.
MAX_DRAWS = 1000


class Split(enum.StrEnum):
    """The two sides of a generated task."""

    TRAIN = "train"
    HELD_OUT = "held_out"


@dataclasses.dataclass(frozen=True)
class Task:
    """A family of problems with one notion of difficulty: the number of steps, or of terms."""

    name: str
    alphabet: str  # each character of its problems, answers and solutions, once
    # A name in VERIFIERS, or "package.module:function", that reads its solutions: reward.verifier
    # must be it
    verifier: str
    least_steps: int  # fewer leave nothing to solve
    usual_steps: tuple[int, int]  # if the name of a problem set gives no range
    draw: Callable[[random.Random, int], Worked]  # (rng, steps) -> a problem of that many steps


def draw_chained_arithmetic(rng: random.Random, steps: int) -> Worked:
    """Draws a chain of operations modulo 10, worked from left to right without operator precedence.

    Worked example, steps = 3:

        problem   7+5*3-6
        solution  7+5=2;2*3=6;6-6=0;#0        every intermediate value is one digit
        answer    0

    There is no shortcut from the end of the problem, except that *0 (1 operation in 30) forgets
    everything before it: a last + or - makes the answer uniform over the digits. Products favour 0,
    so always answering 0 is right on 15 to 18 % of the problems.
    """
    value = rng.randrange(10)
    problem = str(value)
    solution = ""
    for _ in range(steps):
        operator, operand = rng.choice("+-*"), rng.randrange(10)
        result = _apply(operator, value, operand)
        problem += f"{operator}{operand}"
        solution += f"{value}{operator}{operand}={result};"
        value = result
    return Worked(
        problem=problem,
        answer=str(value),
        solution=f"{solution}#{value}",
        bare_solution=f"#{value}",
    )


def _apply(operator: str, left: int, right: int) -> int:
    """Applies one of + - * modulo 10."""
    if operator == "+":
        return (left + right) % 10
    if operator == "-":
        return (left - right) % 10
    return (left * right) % 10


def draw_sum(rng: random.Random, steps: int) -> Worked:
    """Draws a sum of `steps` digits from 1 to 9. The problem gives their number, their sum and the
    first.

    Worked example, steps = 5:

        problem   5:23=3+       write 23 as a sum of exactly 5 digits from 1 to 9, the first a 3
        solution  3+8+1+6+5     as drawn; 3+5+5+5+5 is also right
        answer    5:23=3+       the conditions, since any sum that meets them is right

    The task has many right answers, so a policy may be right and uncertain. The digits are
    independent and uniform, so the solution is uniform over the right answers of its problem. A
    policy that imitates solutions perfectly has an entropy of log(number of right answers): 7.8
    nats a completion, in the mean over problems of 4 to 8 terms. The task does not require RL to
    reduce it. Of n terms, n - 2 are open (2 terms have one right answer): the first is given and
    the last is forced.

    The first digit is given to make more problems. 4 to 8 terms have 245 pairs of a number of terms
    and a value, 30 of them held out; with the first digit they have 1,845 problems, 192 of them
    held out. About 145 of those are likely enough to be found by held_out_set.
    """
    digits = [str(rng.randint(1, 9)) for _ in range(steps)]
    problem = f"{steps}:{sum(map(int, digits))}={digits[0]}+"
    return Worked(problem=problem, answer=problem, solution="+".join(digits), bare_solution=None)


TASKS: dict[str, Task] = {
    "chained_arithmetic": Task(
        name="chained_arithmetic",
        alphabet="0123456789+-*=;#",
        verifier="final_answer",
        least_steps=1,
        usual_steps=(2, 4),
        draw=draw_chained_arithmetic,
    ),
    "countdown": Task(
        name="countdown",
        alphabet=countdown.ALPHABET,
        verifier="countdown",
        least_steps=1,
        usual_steps=(2, 3),
        draw=countdown.draw_countdown,
    ),
    "expressions": Task(
        name="expressions",
        alphabet=expressions.ALPHABET,
        verifier="final_answer",
        least_steps=1,
        usual_steps=(2, 4),
        draw=expressions.draw_expression,
    ),
    "sums": Task(
        name="sums",
        alphabet="0123456789+:=",
        verifier="digit_sum",
        least_steps=2,  # the first term is given
        usual_steps=(4, 8),
        draw=draw_sum,
    ),
    "word_problems": Task(
        name="word_problems",
        alphabet=word_problems.ALPHABET,
        verifier="final_answer",
        least_steps=1,
        usual_steps=(1, 3),
        draw=word_problems.draw_word_problem,
    ),
}


def split_of(problem_text: str) -> Split:
    """Returns the side of a problem's text, the same in every process, version and run."""
    return _split_of_digest(_digest(problem_text))


def generate_problem(
    task: Task,
    split: Split,
    seed: int,
    index: int,
    min_steps: int,
    max_steps: int,
    bare_fraction: float = 0.0,
) -> Problem:
    """Returns the problem of (split, seed, index); a pure function.

    Draws until a problem falls on the requested side, from a generator that is seeded by the
    arguments alone. Different indices may give the same problem; held_out_set gives distinct ones.

    Args:
      task: one of TASKS, or a user's.
      split: the side that the problem must lie on.
      seed: of the run.
      index: position in the infinite sequence of problems, from 0.
      min_steps, max_steps: the number of steps is uniform in [min_steps, max_steps].
      bare_fraction: share of problems whose solution gives the answer without the steps.

    Returns:
      The problem. Its id is made from its text, so the same problem always has the same id.

    Raises:
      ValueError: not 1 <= min_steps <= max_steps, min_steps below the task's least, index below 0,
        bare_fraction above 0 for a task without bare solutions, or no problem of that side in
        MAX_DRAWS draws.
    """
    check_steps(min_steps, max_steps)
    if min_steps < task.least_steps:
        raise ValueError(
            f"min_steps is {min_steps}: task {task.name!r} needs at least {task.least_steps}"
        )
    if index < 0:
        raise ValueError(f"index is {index}: the sequence of problems starts at 0")
    split = Split(split)
    rng = _random_of(f"{task.name}/{split}/{seed}/{index}")
    for _ in range(MAX_DRAWS):
        worked = task.draw(rng, rng.randint(min_steps, max_steps))
        if worked.bare_solution is None and bare_fraction > 0:
            raise ValueError(
                f"bare_fraction is {bare_fraction}, but a solution of task {task.name!r} is the "
                "answer alone and has no steps to leave out: set it to 0"
            )
        digest = _digest(worked.problem)
        if _split_of_digest(digest) is split:
            return Problem(
                id=f"{task.name}/{digest.hex()}",
                problem=worked.problem,
                answer=worked.answer,
                source=task.name,
                solution=worked.bare_solution if rng.random() < bare_fraction else worked.solution,
            )
    raise ValueError(
        f"{MAX_DRAWS} draws of task {task.name!r} with {min_steps} to {max_steps} steps gave no "
        f"{split} problem: raise max_steps"
    )


def _random_of(counter: str) -> random.Random:
    """Returns a generator seeded by a text, the same in all Python versions."""
    # By an integer: how random.Random reads a string has changed between them.
    digest = hashlib.blake2b(counter.encode(), digest_size=8).digest()
    return random.Random(int.from_bytes(digest, "big"))


def held_out_set(task: Task, n: int, seed: int, min_steps: int, max_steps: int) -> list[Problem]:
    """Returns n distinct held-out problems; a smaller n gives the beginning of a larger set.

    Args:
      task: one of TASKS, or a user's.
      n: number of problems.
      seed: of the set; keep it separate from the run's seed, so that runs share their held-out set.
      min_steps, max_steps: see generate_problem.

    Raises:
      ValueError: n is below 1, or the difficulty has fewer distinct held-out problems than n.
    """
    if n < 1:
        raise ValueError(f"n is {n}: ask for at least 1 held-out problem")
    distinct: dict[str, Problem] = {}
    index = repeats = 0
    while len(distinct) < n:
        drawn = generate_problem(task, Split.HELD_OUT, seed, index, min_steps, max_steps)
        repeats = repeats + 1 if drawn.problem in distinct else 0
        distinct.setdefault(drawn.problem, drawn)
        index += 1
        if repeats == MAX_DRAWS:
            raise ValueError(
                f"asked for {n} held-out problems of task {task.name!r}, but with {min_steps} to "
                f"{max_steps} steps only {len(distinct)} distinct ones were found "
                f"({MAX_DRAWS} draws in a row gave nothing new): ask for fewer, or raise max_steps"
            )
    return list(distinct.values())


def check_steps(min_steps: int, max_steps: int) -> None:
    """Refuses a range of steps that is empty or below 1."""
    if not 1 <= min_steps <= max_steps:
        raise ValueError(
            f"min_steps is {min_steps} and max_steps is {max_steps}: "
            "need 1 <= min_steps <= max_steps"
        )


def _digest(problem_text: str) -> bytes:
    """Returns 8 bytes that identify a problem's text."""
    return hashlib.blake2b(problem_text.encode(), digest_size=8).digest()


def _split_of_digest(digest: bytes) -> Split:
    """Returns the side that a digest of a problem's text decides."""
    held_out = int.from_bytes(digest, "big") % HELD_OUT_ONE_IN == 0
    return Split.HELD_OUT if held_out else Split.TRAIN
