"""Properties of the verifiers: any gold answer is right in every place, what is changed is wrong,
and nothing raises.
"""

import random
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cegppo_jax.rewards.verifiers import EXAMPLES, VERIFIERS
from cegppo_jax.types import Outcome, Problem

MARKED = (
    r"So \boxed{%s}.", "So\n\\[\n\\boxed{%s}\n\\]\nis it.", "<think>7</think>\n<answer>%s</answer>",
    "<answer>\n%s\n</answer>", "so\n#### %s", r"<answer>\boxed{%s}</answer>",
    "I put it within \\boxed{}: \\boxed{%s}.\nThe final answer is in the box above.",
    "\\boxed{%s}\n(The final answer is a value between 0 and 999.)",
)  # fmt: skip
WRITTEN = (
    "The answer is %s.", "Answer: %s", "**Answer:** %s", "**Final Answer**\n%s", "%s",
    "So it is **%s**.", "So it is `%s`", "Final answer: %s\nI hope it is correct.",
    "\u7b54\u6848\u662f%s\u3002", "The answer is %s, as we have seen.",
)  # fmt: skip
FORMULAS = (
    "The answer is $%s$.",
    "Answer: \\(%s\\)",
    "The answer is\n\\[\n%s\n\\]\nand we are done.",
)
PLACES = st.sampled_from(MARKED + WRITTEN)

integers = st.integers(-(10**9), 10**9).map(str)
decimals = st.tuples(st.integers(-999, 999), st.integers(1, 999)).map(lambda p: f"{p[0]}.{p[1]}")
fractions = st.tuples(st.integers(1, 99), st.integers(2, 99))
numbers = integers | decimals
formulas = (
    fractions.map(lambda p: rf"\frac{{{p[0]}}}{{{p[1]}}}")
    | fractions.map(lambda p: rf"{p[0]}\sqrt{{{p[1]}}}")
    | fractions.map(lambda p: f"x^{{{p[0]}}}+{p[1]}")
    | fractions.map(lambda p: f"({p[0]}, {p[1]})")
    | fractions.map(lambda p: rf"\frac{{{p[0]}\pi}}{{{p[1]}}}")
)


def outcome(verifier, text, gold):
    return VERIFIERS[verifier](text, Problem("p", "?", gold, "s")).outcome


@given(PLACES, numbers)
@pytest.mark.parametrize("verifier", ["math", "gsm8k"])
def test_a_number_is_right_in_every_place(verifier, place, gold):
    assert outcome(verifier, place % gold, gold) is Outcome.CORRECT


@given(st.sampled_from(MARKED + WRITTEN + FORMULAS), formulas)
def test_a_formula_is_right_in_every_place(place, gold):
    assert outcome("math", place % gold, gold) is Outcome.CORRECT


@given(PLACES, st.integers(1000, 10**9))
@pytest.mark.parametrize("verifier", ["math", "gsm8k"])
def test_thousands_are_right_in_every_place(verifier, place, gold):
    assert outcome(verifier, place % f"{gold:,}", str(gold)) is Outcome.CORRECT
    assert outcome(verifier, place % str(gold), f"{gold:,}") is Outcome.CORRECT


@given(PLACES, st.sampled_from("ABCDEFGHIJ"), st.sampled_from(["%s", "(%s)", "%s.", r"\text{%s}"]))
def test_a_letter_is_right_in_every_place(place, gold, written):
    assert outcome("choice", place % (written % gold), gold) is Outcome.CORRECT
    other = "A" if gold != "A" else "B"
    assert outcome("choice", place % (written % gold), other) is Outcome.WRONG


@given(PLACES, st.lists(st.integers(1, 99), min_size=2, max_size=5), st.data())
def test_an_expression_is_right_in_every_place(place, given_numbers, data):
    signs = data.draw(st.lists(st.sampled_from("+-*"), min_size=5, max_size=5))
    text = "".join(f" {s} {n}" for s, n in zip(signs, given_numbers, strict=False))[3:]
    gold = f"{eval(text)}:{','.join(map(str, given_numbers))}"
    assert outcome("countdown", place % text, gold) is Outcome.CORRECT
    assert outcome("countdown", place % f"{text} = {eval(text)}", gold) is Outcome.CORRECT
    assert outcome("countdown", place % f"{text} + 1", gold) is Outcome.WRONG


def another_digit(text, seed):
    """Text -> the same with one digit changed, and its last digit if that changed nothing."""
    drawn = random.Random(seed)
    i = drawn.choice([i for i, character in enumerate(text) if character.isdigit()])
    digit = drawn.choice([one for one in string.digits[1:] if one != text[i]])
    return f"{text[:i]}{digit}{text[i + 1 :]}"


@given(PLACES, numbers, st.integers(0, 10**6))
@pytest.mark.parametrize("verifier", ["math", "gsm8k"])
def test_another_digit_is_wrong_in_every_place(verifier, place, gold, seed):
    other = another_digit(gold, seed)
    if float(other) == float(gold):
        return
    assert outcome(verifier, place % other, gold) is Outcome.WRONG


@given(PLACES, st.integers(1, 10**9))
@pytest.mark.parametrize("verifier", ["math", "gsm8k"])
def test_another_sign_is_wrong_in_every_place(verifier, place, gold):
    for sign in ("-", "\u2212", "negative "):
        assert outcome(verifier, place % f"{sign}{gold}", str(gold)) is Outcome.WRONG


@given(st.sampled_from(MARKED + WRITTEN + FORMULAS), st.integers(2, 99), st.integers(2, 99))
def test_another_exponent_is_wrong_in_every_place(place, one, other):
    expected = Outcome.CORRECT if one == other else Outcome.WRONG
    assert outcome("math", place % f"x^{{{one}}}", f"x^{{{other}}}") is expected
    for part in ("x", str(one), str(other)):  # no part of it is the answer
        assert outcome("math", place % f"x^{{{one}}}", part) is Outcome.WRONG


PIECES = [
    r"\boxed{", "}", "{", "<answer>", "</answer>", "#### ", "The answer is ", "Final answer: ", "$",
    r"\(", r"\)", r"\[", r"\]", "**", "`", "\n", " ", "42", "1,000", "-", "3/4", r"\frac{1}{2}",
    "^2", "B", "(b)", "A: ", "not ", "3+7 = 10", "million", "%", "\\", ".", "x = ", r"\begin{",
    r"\end{a}", "\u7b54\u6848\uff1a", "\uff14", "less than ", "or ", "\x00", "|", "=", ",",
    "<|end|>", "1e9",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=25).map("".join))
@settings(max_examples=200)
def test_nothing_raises(text):
    for name, verify in VERIFIERS.items():
        finding = verify(text, EXAMPLES[name].problem)
        assert (finding.answer is None) == (finding.outcome is Outcome.UNPARSED)
        assert finding.rule is None or finding.answer is not None
