"""final_answer: what it reads, what it normalises, and what it must not take for right."""

import pickle

import pytest

from cegppo_jax.rewards.verifiers import VERIFIERS, Finding, final_answer, normalise_answer
from cegppo_jax.types import Outcome, Problem


def find(text, answer):
    return final_answer(text, Problem("p", "?", answer, "s"))


@pytest.mark.parametrize(
    ("text", "answer", "read"),
    [
        ("7+5=2;2*3=6;6-6=0;#0", "0", "0"),
        ("so 6*7 = 42\n#### 42", "42", "42"),
        ("#### 42\nI hope this is right.", "42", "42"),
        ("# 1\n## 2\n#3", "3", "3"),  # the last run counts
        ("#1,234,567.", "1234567", "1234567"),
        ("#1234567", "1,234,567", "1234567"),
        ("# 12 345", "12345", "12345"),
        ("#007", "7", "7"),
        ("#+7", "7", "7"),
        ("#- 7 .", "-7", "-7"),
        ("#-0", "0", "0"),
        ("#  x  +  1 . ", "x + 1", "x + 1"),
        ("#" + "9" * 5000, "9" * 5000, "9" * 5000),  # more digits than int() takes
    ],
)
def test_correct(text, answer, read):
    assert find(text, answer) == Finding(Outcome.CORRECT, read)


@pytest.mark.parametrize(
    ("text", "answer", "read"),
    [
        ("#7", "8", "7"),
        ("#7#8", "7", "8"),
        ("#-7", "7", "-7"),
        ("#70", "7", "70"),
        ("#7;8+1=9", "7", "7;8+1=9"),
        ("#7 8", "7", "7 8"),
        ("#0123456789", "7", "123456789"),  # naming every digit is no answer
        ("#1,2", "12", "1,2"),  # a pair
        ("#1 2", "12", "1 2"),
        ("#12,34", "1234", "12,34"),
        ("#1,0000", "10000", "1,0000"),
        ("#7.0", "7", "7.0"),  # not a whole number: exact text only
        ("#--7", "7", "--7"),
        ("#\u0667", "7", "\u0667"),  # a digit outside ASCII
        ("#X", "x", "X"),
    ],
)
def test_wrong(text, answer, read):
    assert find(text, answer) == Finding(Outcome.WRONG, read)


@pytest.mark.parametrize(
    "text", ["", "7", "the answer is 7", "#", "7#", "####  \n7", "# .", "7 #\t"]
)
def test_unparsed(text):
    assert find(text, "7") == Finding(Outcome.UNPARSED, None)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("", ""),
        (".", ""),
        ("0.5", "0.5"),
        ("7..", "7."),
        ("00", "0"),
        ("-1,000", "-1000"),
        ("1,000,00", "1,000,00"),
        ("\tabc\n def", "abc def"),
    ],
)
def test_normalise_answer(text, normal):
    assert normalise_answer(text) == normal


@pytest.mark.parametrize("answer", ["0", "-3", "1,000", "x^2", "(1, 2)", "3.14", " 7. ", "1e5"])
def test_gold_against_itself_is_right(answer):
    for mark in ("#", "####", "text\n## "):
        assert find(mark + answer, answer).outcome is Outcome.CORRECT


@pytest.mark.parametrize("verify", VERIFIERS.values(), ids=VERIFIERS.keys())
def test_verifiers_can_be_sent_to_a_worker_process(verify):
    """By name, with the problem, and the finding back."""
    problem = Problem("p", "?", "7", "s")
    sent, item = pickle.loads(pickle.dumps((verify, problem)))
    finding = sent("#7", item)
    assert pickle.loads(pickle.dumps(finding)) == verify("#7", problem)
    assert finding.outcome is Outcome.CORRECT
