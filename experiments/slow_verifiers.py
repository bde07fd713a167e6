"""final_answer, slowed down to the speed of verifiers that compute: for
experiments/benchmark_scoring.py.
"""

import time

from cegppo_jax.rewards.verifiers import Finding, final_answer
from cegppo_jax.types import Problem


def one_millisecond(text: str, problem: Problem) -> Finding:
    """As final_answer, after a millisecond of computing."""
    return after(0.001, text, problem)


def five_milliseconds(text: str, problem: Problem) -> Finding:
    """As final_answer, after five milliseconds."""
    return after(0.005, text, problem)


def after(seconds: float, text: str, problem: Problem) -> Finding:
    """Keeps a core busy for that long and holds the GIL, as Python code does."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    return final_answer(text, problem)
