"""experiments/promises.md: the tests that it names exist, and its exit code is the program's."""

import ast
import re
from pathlib import Path

import pytest

from cegppo_jax.run.checkpoint import FORMAT
from cegppo_jax.run.stopping import EXIT_CODE

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "experiments" / "promises.md").read_text("utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))
PROMISES = re.search(r"(?m)(?:^\|.*\n)+", PAGE)[0].splitlines()[2:]


@pytest.mark.parametrize(("file", "test"), NAMED, ids=[test for _, test in NAMED])
def test_the_tests_that_hold_a_promise_exist(file, test):
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    assert test in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("row", PROMISES)
def test_every_promise_names_a_test(row):
    assert re.search(r"`tests/[\w/]+\.py::\w+`", row)


def test_numbers_of_the_page_are_the_program_s():
    assert f"| {EXIT_CODE} | stopped by a signal" in PAGE
    assert f"| a checkpoint | {FORMAT}: checksums of all its arrays" in PAGE
