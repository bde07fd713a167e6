"""Sources: the order depends on (seed, position) alone."""

from collections import Counter

import pytest

from cegppo_jax.data.sources import FiniteSource, GeneratedSource, epoch_order
from cegppo_jax.data.tasks.table import TASKS, Split, generate_problem
from cegppo_jax.types import Problem


def numbered(n):
    return [Problem(id=str(i), problem=f"p{i}", answer="0", source="s") for i in range(n)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_each_epoch_has_each_problem_exactly_once(size):
    source = FiniteSource(numbered(size))
    for seed in (0, 1):
        for epoch in range(4):
            positions = range(epoch * size, (epoch + 1) * size)
            ids = [source.problem_at(seed, position).id for position in positions]
            assert sorted(ids, key=int) == [str(i) for i in range(size)]


def test_order_is_the_same_in_every_version_and_another_for_another_seed_or_epoch():
    """A changed value here means that runs resumed from older checkpoints see other problems."""
    # the indices i, sorted by: printf 0/0/i | b2sum -l 64
    assert epoch_order(0, 0, 10) == (0, 4, 2, 3, 8, 7, 6, 9, 5, 1)
    orders = {epoch_order(seed, epoch, 50) for seed in range(10) for epoch in range(10)}
    assert len(orders) == 100


def test_order_does_not_depend_on_what_was_asked_before():
    source = FiniteSource(numbered(30))
    forward = [source.problem_at(4, position) for position in range(100)]
    epoch_order.cache_clear()
    assert [source.problem_at(4, p) for p in reversed(range(100))] == forward[::-1]


def test_order_is_uniform():
    """First place over 3,000 seeds, 6 problems: 500 expected each, standard deviation 20."""
    firsts = Counter(epoch_order(seed, 0, 6)[0] for seed in range(3000))
    assert set(firsts) == set(range(6))
    assert all(400 < count < 600 for count in firsts.values())


def test_finite_source_knows_its_problems():
    problems = numbered(3)
    assert list(FiniteSource(problems).known_problems) == problems
    assert list(FiniteSource(problems).problems_to_check(5)) == problems
    assert FiniteSource(problems).patience == 5
    with pytest.raises(ValueError, match="at least 1 problem"):
        FiniteSource([])


def test_generated_source_is_the_task_at_that_index():
    task = TASKS["chained_arithmetic"]
    source = GeneratedSource(task=task, split=Split.TRAIN, min_steps=2, max_steps=3)
    assert len(source.known_problems) == 0
    assert source.problems_to_check(8) == [source.problem_at(8, i) for i in range(256)]
    for position in (0, 1, 10**12):
        expected = generate_problem(task, Split.TRAIN, 8, position, 2, 3)
        assert source.problem_at(8, position) == expected
    with pytest.raises(ValueError, match=r"min_steps is 3 .* max_steps is 2"):
        GeneratedSource(task=task, split=Split.TRAIN, min_steps=3, max_steps=2)
