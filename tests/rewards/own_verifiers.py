"""Verifiers as a user may write them, most of them with a fault."""

import os
import time

import numpy as np

from cegppo_jax.rewards.verifiers import Finding, VerifierExample
from cegppo_jax.types import Outcome, Problem, Score

OWN = VerifierExample(Problem("own", "6*7", "42", "own"), "forty-two", "forty-one")


def right(text, problem):
    return Finding(Outcome.CORRECT, text)


def all_wrong(text, problem):
    return Finding(Outcome.WRONG, text)


def finds_all_right(text, problem):
    return Finding(Outcome.CORRECT, text)


def finds_all_wrong(text, problem):
    return Finding(Outcome.WRONG, text)


finds_all_right.examples = finds_all_wrong.examples = [OWN]


def raises(text, problem):
    return 1 / 0


def returns_nothing(text, problem):
    pass


def hangs(text, problem):
    time.sleep(1000)


def dies(text, problem):
    os._exit(0)


def needs_100_megabytes(text, problem):
    bytearray(100 * 2**20)
    return Finding(Outcome.WRONG, text)


def no_hang():
    return answers


def answers(text, problem):
    return Score(1.0, Outcome.CORRECT, None)


def is_it(text, problem):
    """Returns a bool."""
    return text == problem.answer


def numpy_is_it(text, problem):
    """Returns one of NumPy's."""
    return np.bool_(text == problem.answer)


def digits_right(text, problem):
    """Returns partial credit: the share of the answer's digits that are right."""
    return np.mean([one == other for one, other in zip(text, problem.answer, strict=False)] or [0])


def finding_with_credit(text, problem):
    """Returns a Finding of partial credit, with what it read."""
    credit = digits_right(text, problem)
    return Finding(Outcome.CORRECT if credit == 1 else Outcome.WRONG, text[:2], credit=credit)


def trl(completions, answer, **columns):
    """In TRL's form, on texts."""
    assert columns.keys() == {"prompts", "id", "problem", "source", "solution"}
    assert all(isinstance(one, list) and len(one) == 1 for one in columns.values())
    return [1.0 if text == a else 0.0 for text, a in zip(completions, answer, strict=True)]


def trl_chat(completions: list[list[dict[str, str]]], prompts, solution):
    """In TRL's form, on messages; it takes no further columns."""
    assert prompts == [[{"role": "user", "content": "6*7"}]]
    return [float(one[0]["content"] == s) for one, s in zip(completions, solution, strict=True)]


def verl(data_source, solution_str, ground_truth, extra_info=None):
    """In verl's form."""
    assert (data_source, extra_info["question"]) == ("test", "6*7")
    return 1.0 if solution_str == ground_truth else 0.0


def verl_dict(solution_str, ground_truth):
    """In verl's form, with a score from -1 to 1 and what it read."""
    right = solution_str == ground_truth
    return {"score": 1.0 if right else -1.0, "acc": right, "pred": solution_str[:2]}


def grader(unit):
    """Makes a verifier, as a library may."""

    class Grader:
        def __call__(self, text, problem):
            return text == f"{problem.answer}{unit}"

    return Grader()


an_object = grader("")


def not_a_number(text, problem):
    return float("nan")


def two_million(text, problem):
    return 2e6


def trl_two(completions, **columns):
    return [1.0, 0.0]


def trl_none(completions, **columns):
    return [None]


def trl_ids(completions, completion_ids):
    return [0.0]


def one_argument(text):
    return True


def double(text, problem):
    return 2.0 * is_it(text, problem)
