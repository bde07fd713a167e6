"""Multiple choice: which letter is chosen, and which letters are words."""

import pytest

from cegppo_jax.rewards.choice import choice
from cegppo_jax.types import Outcome, Problem


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        (r"\boxed{B}", "B"),
        (r"\boxed{\text{B}}", "B"),
        (r"\boxed{\textbf{(B)}\ 12}", "B"),
        (r"A or B? \boxed{\mathrm{B}}", "B"),
        ("(B)", "B"),
        ("B.", "B"),
        ("B", "B"),
        ("**B**", "B"),
        ("B) blue", "B"),
        ("B. It cannot be A or C", "B"),
        ("The answer is B", "B"),
        ("The answer is (B).", "B"),
        ("The correct answer is: B, not A", "B"),
        ("The answer is for sure B", "B"),
        ("Answer: **B**", "B"),
        ("#### B", "B"),
        ("The answer is A. No, the answer is B.", "B"),
        ("It is not A because of that, so I think it's B", "B"),
        ("therefore (J)", "J"),
        ("Answer: I", "I"),
        ("Answer: A", "A"),
        ("The answer is a tricky one, I think: B", "B"),
    ],
)
def test_letters(text, letter):
    finding = choice(text, Problem("p", "?", letter, "s"))
    assert (finding.outcome, finding.answer) == (Outcome.CORRECT, letter)
    other = choice(text, Problem("p", "?", "H", "s"))
    assert (other.outcome, other.answer) == (Outcome.WRONG, letter)


@pytest.mark.parametrize(
    "text", ["", "A good question", "I think so", "K", "Because", "b", r"\boxed{12}", "X" * 200_000]
)
def test_no_letter(text):
    assert choice(text, Problem("p", "?", "A", "s")).outcome is Outcome.UNPARSED


@pytest.mark.parametrize("answer", ["B", "(B)", "B.", "(B) blue", r"\text{B}", r"\textbf{(B)}"])
def test_answers_that_name_a_letter(answer):
    assert choice("B", Problem("p", "?", answer, "s")).outcome is Outcome.CORRECT
