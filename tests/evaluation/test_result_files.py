"""problems.csv: what a spreadsheet opens computes nothing that a problem or a model has written."""

import pytest

from cegppo_jax.evaluation.files import as_text


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=HYPERLINK(A1)", "'=HYPERLINK(A1)"),
        ("+1+cmd|' /C calc'!A0", "'+1+cmd|' /C calc'!A0"),
        ("@SUM(1)", "'@SUM(1)"),
        ("-5", "-5"),
        ("-5+2", "'-5+2"),
        ("aime24/7", "aime24/7"),
        (3, 3),
        (None, None),
    ],
)
def test_no_cell_is_a_formula(value, cell):
    assert as_text(value) == cell
