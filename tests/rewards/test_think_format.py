"""Think tags: well-formed once, and an answer behind them."""

import pytest

from cegppo_jax.rewards.think_format import think_format
from cegppo_jax.types import Outcome, Problem


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("<think>1+1</think>2", Outcome.CORRECT),
        ("\n<think>\n1+1\n</think>\n\n2", Outcome.CORRECT),
        ("1+1</think>2", Outcome.CORRECT),  # opened by the template
        ("<think></think>2", Outcome.CORRECT),
        ("<think>1+1</think>", Outcome.WRONG),
        ("<think>1+1</think> \n", Outcome.WRONG),
        ("<think>1+1", Outcome.WRONG),
        ("2", Outcome.WRONG),
        ("so <think>1+1</think>2", Outcome.WRONG),
        ("</think>2<think>", Outcome.WRONG),
        ("<think>1</think>2</think>3", Outcome.WRONG),
        ("<think><think>1</think>2", Outcome.WRONG),
        ("<think>1</think><think>2</think>3", Outcome.WRONG),
        ("", Outcome.UNPARSED),
        (" \n", Outcome.UNPARSED),
    ],
)
def test_format(text, outcome):
    assert think_format(text, Problem("p", "?", "any", "s")).outcome is outcome
