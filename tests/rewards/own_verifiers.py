"""Verifiers as a user may write them, most of them with a fault."""

import os
import time

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
