"""Where answers stand: scopes, boxes, the words that announce an answer."""

import pytest

from cegppo_jax.rewards.extraction import (
    SCOPES,
    in_scope,
    last_boxed,
    last_expression,
    stands_alone,
    stated_answer,
)


@pytest.mark.parametrize(
    ("text", "after_think", "boxed_only"),
    [
        (r"<think>\boxed{1}</think> so 2", " so 2", r"\boxed{1}"),
        (r"<think>\boxed{1} but", None, r"\boxed{1}"),
        (r"so \boxed{2}", None, r"\boxed{2}"),
        ("so 2", None, None),
        ("1</think>2", "2", None),  # the template may have opened it
        ("<think>1</think>2<think>3</think>4", "4", None),
        ("<think>1</think>2<think>3", None, None),  # began to think again and never ended
        ("", None, None),
    ],
)
def test_scopes(text, after_think, boxed_only):
    assert in_scope(text, "full") == text
    assert in_scope(text, "after_think") == after_think
    assert in_scope(text, "boxed_only") == boxed_only
    assert len(SCOPES) == 3


def test_an_unknown_scope():
    with pytest.raises(ValueError, match=r"reward.scope = 'boxed' does not exist"):
        in_scope("", "boxed")


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        (r"\boxed{1} and later \boxed{2}", "1, 2"),
        (r"first \boxed{1}. Then we look at y, which is \boxed{2}.", "2"),
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\text{a}} } {", r"\text{a}"),
        (r"{ \boxed{7}", "7"),
        (r"\boxed{7} and \boxed{8", "7"),  # cut off
        (r"\boxed{8", None),
        (r"\fbox{3}", "3"),
        (r"\boxed 9$", "9"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\\boxed{5}", "5"),  # escaped once too often
        (r"$\boxed{1}$, $\boxed{2}$, and $\boxed{3}$", "1, 2, 3"),
        (r"$a = \boxed{1}$ and $b = \boxed{2}$", "1, 2"),
        (r"\boxed{4} \boxed{4}", "4"),
        (r"$\boxed{20}\%$", r"20\%"),
        (r"$\boxed{20}$ percent", r"20\%"),
        ("no box", None),
        ("", None),
    ],
)
def test_last_boxed(text, inside):
    assert last_boxed(text) == inside


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("x\n#### 1,234\n", "1,234"),
        ("The answer is not 12.", "not 12"),
        ("The answer is not 12 but 13.", "13"),
        ("The answer is 12.", "12"),
        ("The answer is 12. The other 13.", "12"),
        ("the final answer is $\\frac{1}{2}$. I hope it is correct.", r"\frac{1}{2}"),
        ("Answer: $1$, $2$ and $3$", "1, 2, 3"),
        ("**Final Answer:** 5 apples", "5 apples"),
        ("Final Answer: The largest $n$ is 34.", "34"),
        ("answer is 1\nwait, no: the answer is 2", "2"),
        (r"so \boxed{200} a month. Final answer: 10455", "10455"),  # the last word counts
        (r"Final answer: 7, that is \boxed{8}", "8"),
        (r"The answer is 7, boxed: \boxed{8}", "8"),
        ("I have no idea", None),
        ("", None),
    ],
)
def test_stated_answer(text, answer):
    assert stated_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("we get $x=1$ and so $y = 2$ here", "y = 2"),
        ("we get $x=1$ and so 17 here", "17"),
        ("it costs 1,000.50 in all", "1,000.50"),
        ("$1$ or $2$ or so", "1, 2"),
        ("nothing", None),
    ],
)
def test_last_expression(text, answer):
    assert last_expression(text) == answer


@pytest.mark.parametrize("text", ["12", r"\frac{1}{2}", "10 square units", "2xy + 3", "odd", "x=3"])
def test_stands_alone(text):
    assert stands_alone(text)


@pytest.mark.parametrize("text", ["", "so we have 3 of them", "a\nb", "x" * 2001])
def test_does_not_stand_alone(text):
    assert not stands_alone(text)
