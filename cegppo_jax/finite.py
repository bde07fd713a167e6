"""The first log-probability that is not finite ends a run, with one line that says where it came
from.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np


class NonFiniteError(ValueError):
    """A token's log-probability is NaN or infinite, so nothing after it would have a meaning."""


def check_logprobs(
    logprobs: np.ndarray, whose: str, problem_id: str, sample: int, before: int
) -> None:
    """Checks log-probabilities [n] of successive tokens of one completion.

    Args:
      whose: who computed them: "sampler", "trainer" or "reference".
      before: tokens of the completion that come before them.

    Raises:
      NonFiniteError: one of them is not finite; it names the place of the first.
    """
    bad = ~np.isfinite(logprobs)
    if bad.any():
        first = int(np.argmax(bad))
        raise NonFiniteError(
            f"the {whose}'s log-probabilities are not finite: {bad.sum()} of {len(logprobs)} "
            f"tokens of prompt {problem_id!r}, sample {sample}, first {logprobs[first]} at token "
            f"{before + first} of the completion. {where_to_look(whose)}"
        )


def where_to_look(whose: str) -> str:
    """Returns the likely reasons for a value that is not finite, in a sentence."""
    dtype = "sampler.dtype" if whose == "sampler" else "trainer.dtype"
    return (
        "Look at the weights (model.pretrained: NaN or infinite values, or the wrong architecture; "
        "a run: update/grad_norm and update/skipped of the steps before, optimizer.learning_rate) "
        f"and, if they are finite, at overflow under {dtype}"
    )


@contextlib.contextmanager
def at_step(step: int) -> Iterator[None]:
    """Around a step of training: adds the step to a NonFiniteError from inside."""
    try:
        yield
    except NonFiniteError as error:
        raise NonFiniteError(f"step {step}: {error}") from error
