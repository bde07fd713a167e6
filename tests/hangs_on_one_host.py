"""A verifier that hangs in a process with the variable CEGPPO_VERIFIER_HANGS, but for completions
that hold the answer: a run's self-test tries those.
"""

import os
import time

from cegppo_jax.rewards.verifiers import final_answer


def verify(text, problem):
    """As final_answer, where it answers."""
    if os.environ.get("CEGPPO_VERIFIER_HANGS") and problem.answer not in text:
        time.sleep(1000)
    return final_answer(text, problem)
