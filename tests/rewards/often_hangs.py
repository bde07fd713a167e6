"""A verifier of which one completion in twenty hangs, and one in twenty ends the process.

Which ones is a function of the completion and its problem, so that a test can count them.
"""

import os
import time
import zlib

from cegppo_jax.rewards.verifiers import final_answer
from cegppo_jax.types import Outcome


def fate(text, problem_id):
    """Completion -> the outcome of a fault, or None."""
    faults = {0: Outcome.TIMED_OUT, 1: Outcome.CRASHED}
    return faults.get(zlib.crc32(f"{problem_id} {text}".encode()) % 20)


def verify(text, problem):
    """As final_answer, but for the faults."""
    match fate(text, problem.id):
        case Outcome.TIMED_OUT:
            time.sleep(1000)
        case Outcome.CRASHED:
            os._exit(0)
    return final_answer(text, problem)
