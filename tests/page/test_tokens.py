"""Coloured tokens: numbers become colours, text stays text."""

import re
from html.parser import HTMLParser

import pytest

from cegppo_jax.page.tokens import (
    COLOURINGS,
    ColouredTokens,
    coloured_tokens,
    escaped,
    legend,
    tokens_of_sample,
    tokens_page,
)

HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "&lt;", "</div>", "\x00"]


class Elements(HTMLParser):
    """Names of elements, and the text, as a browser reads them."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.text = [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


def tokens(texts, advantage=1.0, **options):
    count = len(texts)
    return ColouredTokens(
        texts, [-0.1] * count, [0.7] * count, [-0.05] * count, advantage, **options
    )


@pytest.mark.parametrize("by", COLOURINGS)
def test_hostile_text_stays_text(by):
    read = Elements(coloured_tokens(tokens(HOSTILE), by))
    assert read.tags == ["div", *["span"] * len(HOSTILE)]
    assert read.text == "".join(HOSTILE).replace("\x00", "␀")
    read = Elements(tokens_page([tokens(HOSTILE, rest="<b>")], by))
    assert {"script", "img", "b"} & {*read.tags} == set()


def test_a_lone_surrogate_can_be_written():
    assert escaped("a\ud800b").encode() == b"a?b"


def test_colours_follow_the_numbers():
    page = coloured_tokens(ColouredTokens("abc", [-0.1, -1, None], [0, 0.7, None], [0.05, -9, 0]))
    assert re.findall(r"--e:([\d.e-]+)", page) == ["0", "0.5"]
    assert re.findall(r"--r:([\d.e-]+)", page) == ["0.5", "1", "0"]
    assert page.count('class="less"') == 1
    assert "p 0.368, entropy 0.7 nats, ln trainer/sampler -9" in page


@pytest.mark.parametrize(
    ("advantage", "rule", "expected"),
    [
        (1.0, "half", ["pa_hp", "pa_lp", ""]),
        (-0.5, "half", ["na_hp", "na_lp", ""]),
        (-0.5, "surprisal", ["na_hp", "na_hp", ""]),  # -ln p = 1 < H = 1.2
        (0.0, "half", ["", "", ""]),
    ],
)
def test_quadrants(advantage, rule, expected):
    own = ColouredTokens("abc", [-0.1, -1, None], [0.2, 1.2, 0], (), advantage, rule)
    assert [own.quadrant(token) for token in range(3)] == expected


def test_a_line_of_samples():
    line = {
        "tokens": 3,
        "advantage": 0.5,
        "token_texts": ["a", "b"],
        "token_logprobs": [-1.0, -2.0],
        "token_entropies": [1.0, 2.0],
        "token_log_ratios": [0.0, None],
    }
    own = tokens_of_sample(line, "surprisal")
    assert own.rest == " … 1 more tokens without readings"
    assert own.quadrant(0) == "pa_lp"
    assert coloured_tokens(own).count("ln trainer/sampler") == 1
    assert tokens_of_sample({"tokens": 3, "completion": "ab"}) is None
    assert "None of these" in tokens_page([None])


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"by = 'size'.*'log_ratio'"):
        coloured_tokens(tokens("a"), "size")
    with pytest.raises(ValueError, match=r"'size'"):
        legend("size")
    with pytest.raises(ValueError, match=r"\[1, 2, 1\]"):
        ColouredTokens("a", [0, 0], [0])
    with pytest.raises(ValueError, match="'third'"):
        ColouredTokens("a", [0], [0], high_probability="third")
