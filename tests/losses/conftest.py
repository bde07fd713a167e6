"""Thousands of small functions are compiled here."""

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def _leave_no_programs_behind():
    """jit keeps the programs of a bounded number of functions: later tests count theirs."""
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True)
def ranks_do_not_promote():
    """Arrays of different ranks do not broadcast: where that is meant, the code has the axes."""
    with jax.numpy_rank_promotion("raise"):
        yield
