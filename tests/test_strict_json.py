"""JSON that every parser reads, infinities and NaN included."""

import json
import math

import pytest

from cegppo_jax import strict_json


def strictly(text):
    """Text -> value, as a parser reads it that knows nothing but JSON."""

    def refuse(name):
        raise ValueError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


VALUE = {"a": [math.inf, {"b": -math.inf}], "c": 1.5, "d": None, "e": True, "f": "text", "g": 3}


def test_infinities_come_back_as_numbers():
    text = strict_json.dumps(VALUE)
    assert strictly(text)["a"] == ["inf", {"b": "-inf"}]
    assert strict_json.numbers(strictly(text)) == VALUE


def test_nan_and_tuples():
    read = strictly(strict_json.dumps({"a": (math.nan, 1)}))
    assert read == {"a": ["nan", 1]}
    assert math.isnan(strict_json.numbers(read)["a"][0])


def test_what_json_itself_writes_is_refused_by_the_reader_above():
    with pytest.raises(ValueError, match="Infinity is not JSON"):
        strictly(json.dumps(math.inf))
