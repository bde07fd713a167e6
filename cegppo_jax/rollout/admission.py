"""The order in which a round's prompts are sampled. It never changes a sample.

A rollout ends with its longest completion: started late, that one runs alone at the end. Earlier
completions of a problem say how long its next ones will probably be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from cegppo_jax.rollout.difficulty import DifficultyStore
from cegppo_jax.types import Prompt


def in_order(store: DifficultyStore, prompts: Sequence[Prompt]) -> list[Prompt]:
    """Returns the prompts as they come."""
    del store
    return list(prompts)


def longest_first(store: DifficultyStore, prompts: Sequence[Prompt]) -> list[Prompt]:
    """Returns the prompts by the mean length of their problems' earlier completions, the longest
    first. Problems of unknown length, which may be long, come before them; equals stay in order.

    Worked example, mean lengths so far b 40, c 90, a unknown: prompts a b c -> a c b
    """

    def expected(prompt: Prompt) -> float:
        tally = store.tallies.get(prompt.problem.id)
        return math.inf if tally is None or not tally.tokens else tally.tokens / tally.samples

    return sorted(prompts, key=expected, reverse=True)


ADMISSION_ORDERS: dict[str, Callable[[DifficultyStore, Sequence[Prompt]], list[Prompt]]] = {
    "in_order": in_order,
    "longest_first": longest_first,
}
