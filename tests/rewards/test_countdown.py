"""Countdown: every right expression, and nothing that only looks like one."""

import itertools

import pytest

from cegppo_jax.rewards.countdown import countdown
from cegppo_jax.types import Outcome, Problem


def find(text, conditions="98:44,19,35"):
    return countdown(text, Problem("p", "?", conditions, "s"))


@pytest.mark.parametrize(
    ("text", "conditions"),
    [
        ("<answer>44 + 19 + 35</answer>", "98:44,19,35"),
        ("<answer> (44+35)+19 = 98 </answer>", "98:44,19,35"),
        ("<answer>98 = 44+19+35</answer>", "98:44,19,35"),
        (r"so \boxed{44 + 19 + 35}", "98:44,19,35"),
        (r"$\boxed{3 \times \left(5 - 1\right) = 12}$", "12:1,3,5"),
        (r"\boxed{\frac{6}{3} \cdot 5}", "10:3,5,6"),
        ("#### 35+44+19", "98:44,19,35"),
        ("I try 44-35 = 9.\nThen 44+19+35 = 98.", "98:44,19,35"),
        ("6 \u00f7 3 \u00d7 5", "10:3,5,6"),
        ("8/(3-8/3)", "24:3,3,8,8"),  # exact: floats say 23.999...
        ("<answer>1-2</answer><answer>2-1</answer>", "1:1,2"),  # the last counts
        ("<answer>-(3-5)</answer>", "2:3,5"),
        ("<answer>7</answer>", "7:7"),
        ("<answer>2-5</answer>", "-3:5,2"),
        ("<answer>7*7-7</answer>", "42:7,7,7"),
    ],
)
def test_correct(text, conditions):
    assert find(text, conditions).outcome is Outcome.CORRECT


@pytest.mark.parametrize(
    "text",
    [
        "<answer>44 + 54</answer>",
        "<answer>44 + 19 + 35 + 0</answer>",
        "<answer>44 + 19 - 35</answer>",
        "<answer>98</answer>",
        "<answer>44+19+35+44-44</answer>",
        "<answer>44+19+35-(44-44)</answer>",
        "<answer>44*19/(35-35)</answer>",  # no value
        "44 + 19 = 63",
        "44 + 19 = 98",  # what it says of itself does not count
    ],
)
def test_wrong(text):
    finding = find(text)
    assert finding.outcome is Outcome.WRONG
    assert " " not in finding.answer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "it is 98 indeed",
        "<answer></answer>",
        "<answer>44^2</answer>",
        "<answer>44**19</answer>",
        "<answer>9**9**9**9</answer>",
        "<answer>44//19</answer>",
        "<answer>abs(44)</answer>",
        "<answer>__import__('os')</answer>",
        "<answer>44+19+</answer>",
        "<answer>44 19 35</answer>",
        "<answer>044+19+35</answer>",
        "<answer>44.0+19+35</answer>",
        "<answer>+44+19+35</answer>",
        "<answer>" + "(" * 150 + "44" + "</answer>",
        "<answer>" + "1+" * 50_000 + "1</answer>",
        "(" * 200_000,
        "1 " * 100_000,
    ],
)
def test_unparsed(text):
    assert find(text).outcome is Outcome.UNPARSED


def test_all_expressions_of_three_numbers():
    """Of every order and every pair of operators in both bracketings, those whose value is 10."""
    right = set()
    for a, b, c in itertools.permutations((2, 3, 4)):
        for p, q in itertools.product("+-*/", repeat=2):
            for text in (f"({a}{p}{b}){q}{c}", f"{a}{p}({b}{q}{c})"):
                by_hand = abs(eval(text) - 10) < 1e-9
                assert (find(text, "10:2,3,4").outcome is Outcome.CORRECT) == by_hand
                if by_hand:
                    right.add(text)
    assert "(2*3)+4" in right
    assert len(right) > 5
