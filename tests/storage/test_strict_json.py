"""JSON that every parser reads, infinities and NaN included."""

import json
import math

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
