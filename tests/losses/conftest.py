"""Thousands of small functions are compiled here."""

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def _leave_no_programs_behind():
    """jit keeps the programs of a bounded number of functions: later tests count theirs."""
    yield
    jax.clear_caches()
