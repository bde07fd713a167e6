"""experiments/promises.md is what promises.py writes, the tests that it names exist, and its exit
code is the program's.
"""

import ast
from pathlib import Path

import pytest

from cegppo_jax.run.checkpoint import FORMAT
from cegppo_jax.run.stopping import EXIT_CODE
from experiments import promises

TESTS = Path(__file__).parent
PAGE = promises.PAGE.read_text("utf-8")
HELD_BY = sorted(
    {
        held
        for topic in promises.PROMISES.values()
        for promise in topic
        for held in promise.held_by.split(", ")
    }
)


@pytest.mark.parametrize("held_by", HELD_BY)
def test_the_tests_that_hold_a_promise_exist(held_by):
    """pytest's -k picks tests whose names have the word."""
    file, _, word = held_by.partition(" -k ")
    tree = ast.parse((TESTS / file).read_text("utf-8"))
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert [name for name in names if name.startswith("test_") and word in name]


def test_the_page_is_what_its_table_and_the_recorded_figures_say():
    """If not: python experiments/promises.py"""
    assert promises.page(PAGE, promises.figures()) == PAGE


def test_numbers_of_the_page_are_the_program_s():
    assert f"| {EXIT_CODE} | stopped by a signal" in PAGE
    assert f"| a checkpoint | {FORMAT}: checksums of all its arrays" in PAGE
