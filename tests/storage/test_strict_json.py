"""JSON that every parser reads, infinities and NaN included."""

import json
import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cegppo_jax.storage import strict_json


def strictly(text):
    """Text -> value, as a parser reads it that knows nothing but JSON."""

    def refuse(name):
        raise ValueError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


VALUE = {"a": [math.inf, {"b": -math.inf}], "c": 1.5, "d": None, "e": True, "f": "text", "g": 3}


NOT_NUMBERS = st.text().filter(lambda text: text not in ("inf", "-inf", "nan"))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | NOT_NUMBERS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(NOT_NUMBERS, inner), max_leaves=8
)


@given(VALUES)
def test_every_value_comes_back_from_json_that_any_parser_reads(value):
    text = strict_json.dumps(value)
    assert strict_json.numbers(strictly(text)) == value
    assert strict_json.loads(text) == value


def test_infinities_are_strings():
    assert strictly(strict_json.dumps(VALUE))["a"] == ["inf", {"b": "-inf"}]


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "config.json"
    strict_json.write_json(path, VALUE)
    assert strict_json.loads(path.read_text()) == VALUE
    with pytest.raises(TypeError, match="not JSON serializable"):
        strict_json.write_json(path, {"a": object()})
    assert strict_json.loads(path.read_text()) == VALUE
    assert [one.name for one in tmp_path.iterdir()] == ["config.json"]


def test_nan_and_tuples():
    read = strictly(strict_json.dumps({"a": (math.nan, 1)}))
    assert read == {"a": ["nan", 1]}
    assert math.isnan(strict_json.numbers(read)["a"][0])


def test_what_json_itself_writes_is_refused_by_the_reader_above():
    with pytest.raises(ValueError, match="Infinity is not JSON"):
        strictly(json.dumps(math.inf))


def test_nesting_that_would_end_the_parser_or_what_walks_over_values_is_no_json(tmp_path):
    """Up to DEEPEST it is; a bracket in a text is none."""
    deepest = strict_json.DEEPEST
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        inner = "" if opening == "[" else "1"
        whole = opening * deepest + inner + closing * deepest
        assert strict_json.dumps(strict_json.loads(whole)).replace(" ", "") == whole
        for times in (deepest + 1, 900, 100_000):
            for end in (inner + closing * times, ""):
                with pytest.raises(ValueError, match=r"nested more than 100|Expecting|delimiter"):
                    strict_json.loads(opening * times + end)
    assert strict_json.parse(json.dumps(["[" * 500])) == ["[" * 500]
    file = tmp_path / "deep.json"
    file.write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"deep\.json is not JSON"):
        strict_json.read_json_file(file)


def test_files_are_read_by_nothing_else():
    """json.loads gives up on nesting with an error of its own; two read lines of their own child
    process, and strict_json is what is meant.
    """
    package = Path(strict_json.__file__).parents[1]
    used = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if re.search(r"\bjson\.loads?\(", path.read_text())
    }
    assert used == {"storage/strict_json.py", "watchdog.py", "distributed.py"}
