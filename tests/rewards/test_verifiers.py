"""Verifiers: what they read, what they normalise, and what they must not take for right."""

import itertools
import pickle
import re

import pytest

from cegppo_jax.rewards.verifiers import (
    EXAMPLES,
    VERIFIERS,
    Finding,
    check_gold,
    digit_sum,
    final_answer,
    normalise_answer,
    resolve_verifier,
)
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


def find_sum(text, conditions):
    return digit_sum(text, Problem("p", "?", conditions, "s"))


@pytest.mark.parametrize(
    ("text", "conditions"),
    [
        ("3+8+1+6+5", "5:23=3+"),
        ("3+5+5+5+5", "5:23=3+"),  # another right answer
        ("3+1+1+9+9", "5:23=3+"),
        ("3+9", "2:12=3+"),
        ("8+3+1+6+5", "5:23="),  # nothing told of how it begins
        ("3+8+1+6+5", "5:23=3+8+"),
        ("3+8", "2:11=3+8+"),  # all of it told
        ("7", "1:7="),
        ("7", "1:7=7+"),
        ("+".join("9" * 12), "12:108=9+"),
    ],
)
def test_digit_sum_correct(text, conditions):
    assert find_sum(text, conditions) == Finding(Outcome.CORRECT, text)


@pytest.mark.parametrize(
    ("text", "conditions"),
    [
        ("3+8+1+6+6", "5:23=3+"),  # 24
        ("3+8+1+6+4", "5:23=3+"),  # 22
        ("3+8+7+5", "5:23=3+"),  # 23 in 4 terms
        ("3+8+1+6+4+1", "5:23=3+"),  # 23 in 6 terms
        ("8+3+1+6+5", "5:23=3+"),  # 23 in 5 terms, begins with 8
        ("3+1+8+6+5", "5:23=3+8+"),
        ("3", "5:23=3+"),
        ("3", "2:11=3+8+"),  # the beginning of the beginning
        ("9+9", "5:23=3+"),
    ],
)
def test_digit_sum_wrong(text, conditions):
    assert find_sum(text, conditions) == Finding(Outcome.WRONG, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "+",
        "3+8+0+7+5",  # no 0
        "3+20",  # no number of two digits
        "3+8+1+6+5=23",
        "3+8+1+6+5+",
        "3+8+1+6+5\n",
        " 3+8+1+6+5",
        "3 + 8 + 1 + 6 + 5",
        "+3+8+1+6+5",
        "3++8+1+6+5",
        "38165",
        "3+8+1+6+\u0665",  # a digit outside ASCII
        "5:23=3+8+1+6+5",
        "#3+8+1+6+5",
        "3+8+1+6+5 3+8+1+6+5",
    ],
)
def test_digit_sum_unparsed(text):
    assert find_sum(text, "5:23=3+") == Finding(Outcome.UNPARSED, None)


def test_digit_sum_finds_every_right_answer_and_no_other():
    """All texts of 1 to 4 terms against "3:12=5+": of 7,380, the 6 that are right."""
    right = [
        text
        for terms in range(1, 5)
        for digits in itertools.product("123456789", repeat=terms)
        if find_sum(text := "+".join(digits), "3:12=5+").outcome is Outcome.CORRECT
    ]
    assert right == ["5+1+6", "5+2+5", "5+3+4", "5+4+3", "5+5+2", "5+6+1"]


@pytest.mark.parametrize("conditions", ["23", "5:23", "5:23=3", "5:23=0+", ":23=", "5:23=3+\n", ""])
def test_digit_sum_refuses_an_answer_that_is_no_condition(conditions):
    """For all texts: a run with the wrong verifier must stop and not see wrong answers only."""
    for text in ("3+8+1+6+5", "", "#7"):
        with pytest.raises(ValueError, match=r"verifier 'digit_sum' cannot read .* of problem 'p'"):
            find_sum(text, conditions)


@pytest.mark.parametrize("name", sorted(VERIFIERS))
def test_verifiers_can_be_sent_to_a_worker_process(name):
    """By name, with the problem, and the finding back."""
    problem, text = EXAMPLES[name].problem, EXAMPLES[name].right
    sent_name, item = pickle.loads(pickle.dumps((name, problem)))
    finding = resolve_verifier(sent_name)(text, item)
    assert pickle.loads(pickle.dumps(finding)) == VERIFIERS[name](text, problem)
    assert finding.outcome is Outcome.CORRECT


def test_every_verifier_has_an_example():
    assert set(VERIFIERS) == set(EXAMPLES)


@pytest.mark.parametrize("name", sorted(VERIFIERS))
def test_examples_are_right_and_wrong(name):
    example = EXAMPLES[name]
    assert VERIFIERS[name](example.right, example.problem).outcome is Outcome.CORRECT
    assert VERIFIERS[name](example.wrong, example.problem).outcome is Outcome.WRONG
    check_gold(example.problem, name)


@pytest.mark.parametrize("name", sorted(VERIFIERS))
@pytest.mark.parametrize(
    "text", ["", " \n", "\u03c0\u4f60\U0001f642", "#", "\\boxed{", "<think>", "x" * 200_000]
)
def test_an_answer_is_none_exactly_when_unparsed(name, text):
    finding = VERIFIERS[name](text, EXAMPLES[name].problem)
    assert (finding.answer is None) == (finding.outcome is Outcome.UNPARSED)
    assert finding.outcome is not Outcome.CORRECT


def test_a_verifier_of_the_users_own():
    """Named, as in a config, and found again in a process that has only the name."""
    name = "cegppo_jax.rewards.numeric:numeric_answer"
    own = resolve_verifier(name)
    assert own.__wrapped__ is VERIFIERS["gsm8k"]
    example = EXAMPLES["gsm8k"]
    for text in (example.right, example.wrong, ""):
        assert own(text, example.problem) == VERIFIERS["gsm8k"](text, example.problem)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("maths", "'maths' does not exist: did you mean 'math'?"),
        ("no_such_module:f", "module 'no_such_module' cannot be imported"),
        (":f", "module '' cannot be imported"),
        ("cegppo_jax.types:nothing", "module 'cegppo_jax.types' has no 'nothing'"),
        ("cegppo_jax.rewards.extraction:SCOPES", "is of type tuple and cannot be called"),
    ],
)
def test_verifiers_that_are_not_there(name, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        resolve_verifier(name, "reward.verifier")
    assert str(caught.value).startswith("reward.verifier = ")


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("final_answer", " . "),
        ("digit_sum", "23"),
        ("math", ""),
        ("math", "$\\boxed{}$"),
        ("math", "-"),
        ("math", "x" * 2001),
        ("gsm8k", "twelve"),
        ("countdown", "98"),
        ("countdown", "98:"),
        ("countdown", "98:1, 2"),
        ("choice", "K"),
        ("choice", "blue"),
    ],
)
def test_an_answer_that_its_verifier_cannot_read_stops_a_run(name, answer):
    with pytest.raises(ValueError, match=f"verifier '{name}' cannot read .* of problem 'p7'"):
        check_gold(Problem("p7", "?", answer, "s"), name)


GSM8K_GOLD = "Tom buys 4.\n#### 24"


@pytest.mark.parametrize(
    ("name", "answer", "message"),
    [
        ("final_answer", GSM8K_GOLD, "choose the verifier 'gsm8k' or 'math'"),
        ("final_answer", "Tom buys 4. #### 1,024", "choose the verifier 'gsm8k' or 'math'"),
        ("final_answer", "#7", "'gsm8k' or 'math'"),
        ("final_answer", "6 * 4 = 24\nso 24", "let the field hold"),
        ("final_answer", "C#", "let the field hold"),
        ("digit_sum", "2:19=", "no answer meets these conditions"),
        ("digit_sum", "3:2=", "no answer meets these conditions"),
        ("digit_sum", "2:9=3+4+", "no answer meets these conditions"),
        ("digit_sum", "1:7=3+4+", "no answer meets these conditions"),
        ("countdown", "1000:1,2", "no answer meets these conditions"),
        ("countdown", "7:2,2,2,100", "no answer meets these conditions"),
        ("countdown", "7:8", "no answer meets these conditions"),
    ],
)
def test_an_answer_that_nothing_can_match_stops_a_run(name, answer, message):
    with pytest.raises(
        ValueError, match=f"verifier '{name}' can find no .* problem 'p7'"
    ) as caught:
        check_gold(Problem("p7", "?", answer, "s"), name)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        *[("final_answer", one) for one in ("24", "1,024", " 7. ", "x + 1", "blue cheese", "C")],
        *[("gsm8k", one) for one in (GSM8K_GOLD, "1,080", "$18.00", "12 apples and 3 pears")],
        *[("math", one) for one in (GSM8K_GOLD, r"\frac{1}{2}", r"so \boxed{7}", "x=1 or x=2")],
        *[("choice", one) for one in ("B", "(B) blue", r"\text{C}", "A. A good one")],
        *[("digit_sum", one) for one in ("5:23=3+", "1:7=", "2:18=", "3:3=", "2:11=3+8+")],
        *[("countdown", one) for one in ("98:44,19,35", "24:3,3,8,8", "7:7", "5:1,2,3,4,5,6")],
        ("format", ""),
    ],
)
def test_an_answer_that_can_be_right_starts_a_run(name, answer):
    """24 = 8 / (3 - 8 / 3); six numbers are not searched."""
    check_gold(Problem("p7", "?", answer, "s"), name)
