"""The verifier `gsm8k`: which number is the final one, and what it is equal to."""

from fractions import Fraction

import pytest

from cegppo_jax.rewards.numeric import final_number, numeric_answer
from cegppo_jax.types import Outcome, Problem


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2+2=4\n#### 4", "4"),
        ("#### 1,234", "1234"),
        ("#### $1,234.50", "2469/2"),
        ("#### -3", "-3"),
        ("#### 18.00", "18"),
        ("#### 25%", "25"),
        ("#### 0.1", "1/10"),
        ("so 3 * 4 = 12\nA: 12", "12"),
        ("A: 12 apples in 3 boxes", "12"),
        ("The answer is 5 + 3 = 8.", "8"),
        ("The answer is 8. He had 20 before.", "8"),
        ("The final answer is: $80", "80"),
        (r"thus \boxed{42}, and not 43", "42"),
        (r"\boxed{$1{,}5$} or rather \boxed{15}", "15"),
        ("first 7, then 9 apples", "9"),
        ("#### 5 \n wait\n#### 6", "6"),
        ("he has 3 left.", "3"),
        ("1e3", "1000"),
        (".5", "1/2"),
        ("A: many, of 7", "7"),
        ("#### none, but 6", "6"),
    ],
)
def test_final_number(text, number):
    assert final_number(text) == Fraction(number)


@pytest.mark.parametrize("text", ["", "none", "A:", "####", "x2", "9" * 2000])
def test_no_number(text):
    assert final_number(text) is None


@pytest.mark.parametrize(
    ("text", "answer", "outcome", "read"),
    [
        ("#### 1080", "1,080", Outcome.CORRECT, "1080"),
        ("A: 0.5", "1/2 is not read: .5", Outcome.CORRECT, "1/2"),
        ("#### 0.30", "0.3", Outcome.CORRECT, "3/10"),  # exact: floats have no 0.3
        ("#### 0.30000000000000001", "0.3", Outcome.WRONG, "30000000000000001/100000000000000000"),
        ("#### -18", "18", Outcome.WRONG, "-18"),
        ("#### 180", "18", Outcome.WRONG, "180"),
        ("1080 of 2000", "1080", Outcome.WRONG, "2000"),
        ("A: many", "1080", Outcome.UNPARSED, None),
    ],
)
def test_findings(text, answer, outcome, read):
    finding = numeric_answer(text, Problem("p", "?", answer, "s"))
    assert (finding.outcome, finding.answer) == (outcome, read)


@pytest.mark.parametrize(
    "text", ["9" * 200_000, "1," * 100_000, "answer is " * 20_000, "-" * 99_000]
)
def test_long_texts(text):
    finding = numeric_answer(text, Problem("p", "?", "77", "s"))
    assert finding.outcome is not Outcome.CORRECT
