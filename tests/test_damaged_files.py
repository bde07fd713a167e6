"""A damaged file is refused in words that name it, or read as if it were whole: no deep traceback,
no number that changes without a word. experiments/damaged_files.py tries more.
"""

import damage
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

SEEDS = st.integers(0, 2**32)


def holds(kind, how, seed):
    outcome, words = damage.outcome_of(kind, how, seed)
    assert outcome in ("refused", "the same", "another"), (kind.name, how.__name__, seed, words)


@pytest.mark.parametrize("kind", damage.KINDS, ids=lambda kind: kind.name)
@settings(max_examples=4)
@given(how=st.sampled_from(damage.DAMAGES), seed=SEEDS)
def test_a_damaged_file_is_refused_by_name_or_changes_nothing(kind, how, seed):
    holds(kind, how, seed)


@pytest.mark.slow
@pytest.mark.parametrize("kind", damage.KINDS, ids=lambda kind: kind.name)
@settings(max_examples=100)
@given(how=st.sampled_from(damage.DAMAGES), seed=SEEDS)
def test_many_damaged_files_are_refused_by_name_or_change_nothing(kind, how, seed):
    holds(kind, how, seed)


@pytest.mark.parametrize("kind", damage.KINDS, ids=lambda kind: kind.name)
def test_a_file_that_is_whole_is_read(kind):
    """The same twice: else no difference would mean anything."""
    assert repr(kind.read(damage.whole_folder(kind))) == damage.expected(kind)
