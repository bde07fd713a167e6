"""The order in which prompts are sampled: the longest completions start first."""

import pytest

from cegppo_jax.rollout.admission import ADMISSION_ORDERS, in_order, longest_first
from cegppo_jax.rollout.difficulty import NOTHING_SEEN, DifficultyStore, Tally
from cegppo_jax.types import Problem, Prompt

PROMPTS = [Prompt(Problem(name, "", "", "test"), (1,), i) for i, name in enumerate("abcde")]
STORE = DifficultyStore({"b": Tally(1, 8, 8 * 40), "c": Tally(0, 2, 2 * 90), "d": Tally(1, 1, 40)})


def names(prompts):
    return "".join(prompt.problem.id for prompt in prompts)


def test_the_longest_so_far_come_first_after_the_unknown():
    """By the mean, not the sum; equals (b and d, a and e) stay in order."""
    assert names(longest_first(STORE, PROMPTS)) == "aecbd"
    assert names(longest_first(STORE, PROMPTS[1:4])) == "cbd"


def test_problems_whose_lengths_were_not_kept_are_unknown():
    store = DifficultyStore({"b": Tally(3, 8), "a": Tally(3, 8, 16)})
    assert names(longest_first(store, PROMPTS[:2])) == "ba"


@pytest.mark.parametrize("order", ADMISSION_ORDERS.values())
def test_without_memory_prompts_stay_in_order(order):
    assert order(NOTHING_SEEN, PROMPTS) == PROMPTS


def test_in_order_looks_at_no_length():
    assert in_order(STORE, PROMPTS) == PROMPTS
