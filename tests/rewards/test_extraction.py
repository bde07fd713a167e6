"""Where answers stand: scopes, boxes, formulas, and the table of rules that all verifiers share."""

import time

import pytest

from cegppo_jax.rewards.extraction import RULES, SCOPES, Reader, in_scope, plain, read_answer
from cegppo_jax.rewards.latex_spans import find_boxes, find_formulas, joined_boxes
from cegppo_jax.rewards.verifiers import EXAMPLES, VERIFIERS
from cegppo_jax.types import Outcome, Problem

TEXT_VERIFIERS = ("math", "gsm8k", "choice", "countdown")


def find(verifier, text, gold):
    return VERIFIERS[verifier](text, Problem("p", "?", gold, "s"))


@pytest.mark.parametrize(
    ("text", "after_think", "boxed_only"),
    [
        (r"<think>\boxed{1}</think> so 2", " so 2", r"\boxed{1}"),
        (r"<think>\boxed{1} but", None, r"\boxed{1}"),
        (r"so \boxed{2}", None, r"\boxed{2}"),
        (r"\boxed{2}, \boxed{3}. Put it in \boxed{}", None, "\\boxed{2}, \\boxed{3}.\n\\boxed{}"),
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


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_each_rule_finds_what_its_example_says(rule):
    for verifier in ("math", "gsm8k"):
        finding = find(verifier, rule.example, "42")
        assert (finding.outcome, finding.rule) == (Outcome.CORRECT, rule.name)


def test_a_place_without_a_value_does_not_win():
    """The next place of the rule is tried, and then the next rule."""

    def digit(text):
        return text if text.isdigit() else None

    reader = Reader(whole=digit, alone=digit, stated=digit, last=digit)
    assert read_answer(r"\boxed{1} \boxed{x}", reader).value == "1"
    assert read_answer(r"\boxed{x} Answer: 2", reader).rule == "answer is"
    assert read_answer(r"\boxed{x} Answer: y", reader) is None


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
        (r"\boxed{4}. I put it within \boxed{}", "4"),
        (r"$\boxed{20}\%$", r"20\%"),
        (r"$\boxed{20}$ percent", r"20\%"),
        ("no box", None),
        ("", None),
    ],
)
def test_joined_boxes(text, inside):
    assert joined_boxes(text) == inside


def test_boxes_with_their_places():
    text = r"\boxed{1} or \boxed{\boxed{2}}"
    assert [(text[a:b], inside) for a, b, inside in find_boxes(text)] == [
        (r"\boxed{1}", "1"),
        (r"\boxed{\boxed{2}}", "2"),
    ]


@pytest.mark.parametrize(
    ("text", "formulas"),
    [
        (r"$x$ and \(y\) and \[z\] and $$w$$", ["x", "y", "z", "w"]),
        ("it costs $5 and not $6", []),
        ("$5 for all of us and then $x$", ["x"]),
        (r"\$5 and $x$", ["x"]),
        (r"$\text{some long words}$", [r"\text{some long words}"]),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", [r"\begin{pmatrix}1\\2\end{pmatrix}"]),
        ("$unclosed\n\n$x$", ["x"]),
    ],
)
def test_formulas(text, formulas):
    assert [inside for _, _, inside in find_formulas(text)] == formulas


def test_plain_text():
    assert plain("\uff14\uff12\u3002 \t \u22121\n \n\n<|im_end|>x\u3000") == "42. -1\n\nx"


# gold, completion, the rule that reads it; by any wrong rule the value would be another
RIGHT = [
    # remarks behind the answer
    ("42", "\\boxed{42}\nThe final answer is in the box above.", "box"),
    ("42", "\\boxed{42}\nNote: the final answer is an integer.", "box"),
    ("42", "\\boxed{42}\n(The final answer is a number between 0 and 999.)", "box"),
    ("42", "\\boxed{42}. The final answer is 2 digits long.", "box"),
    ("42", "\\boxed{42}\n\nThe final answer is written in its simplest form.", "box"),
    ("42", "\\boxed{42}\n\n#### Step 2. Check\nFine.", "box"),
    ("42", "\\boxed{7} a day. Final answer: $42$", "final answer"),
    ("42", "Final answer: 7, that is \\boxed{42}", "box"),
    # empty boxes and the echoed instruction
    ("42", "The answer is \\boxed{42}. I have put it within \\boxed{}.", "box"),
    ("42", "I must put it within \\boxed{}. 6*7 is 42. The answer is 42.", "answer is"),
    ("42", "Put it within \\boxed{your answer}: \\boxed{42}. \\boxed{\\ldots}", "box"),
    # tags
    (r"\frac{3}{4}", r"<answer>\frac{3}{4}</answer>", "tag"),
    (r"\pi", r"<answer> \pi </answer>", "tag"),
    ("1, 2", "<answer>1, 2</answer>", "tag"),
    ("Tuesday", "<answer>Tuesday</answer>", "tag"),
    (r"35\%", "<answer>35%</answer>", "tag"),
    ("42", "<think>\\boxed{5}</think><answer>The answer is \\boxed{42}.</answer>", "tag"),
    ("42", "<think>I use <answer> </answer> tags.</think> The answer is 42.", "answer is"),
    # several boxes
    ("3", r"\boxed{2} or rather \boxed{3}", "box"),
    ("12x-34", r"\boxed{12x-34} or \boxed{-34+12x}", "box"),
    ("2, 3", r"\boxed{2}, \boxed{3}", "box"),
    # how models end
    ("42", "**Final Answer**\n\\[ \\boxed{42} \\]", "box"),
    ("42", "Therefore, the answer is: $\\boxed{42}$.", "box"),
    ("42", "The final answer is $42$. I hope it is correct.", "answer is"),
    ("42", "Answer: $42$", "answer is"),
    ("42", "ANSWER: 42", "answer is"),
    ("42", "### Final Answer\n\n\\[\n42\n\\]", "answer is"),
    ("42", "**Answer:** 42", "answer is"),
    ("42", "The answer is\n\\[\n42\n\\]", "answer is"),
    ("42", "The answer is 42, which is an integer.", "answer is"),
    ("42", "The answer is 42 (since 6*7 = 42).", "answer is"),
    ("42", "The answer is 42. The answer is an integer.", "answer is"),
    ("72", "The answer is that Natalia sold 72 clips.", "answer is"),
    ("-42", "The answer is \u221242.", "answer is"),
    ("42", "\u7b54\u6848\u662f42\u3002", "answer is"),
    ("42", "\u7b54\u6848\uff1a\uff14\uff12", "answer is"),
    ("42", "So it is **42**.", "emphasis at the end"),
    ("42", "So it is `42`", "emphasis at the end"),
    (r"\frac{3}{4}", r"so we get \frac{3}{4}.", "last value"),
    (
        r"\left(\left(\frac{u}{v}\right)^{\frac{u}{v-u}}, \left(\frac{u}{v}\right)^{v}\right)",
        r"\left(\left(\frac{u}{v}\right)^{\frac{u}{v-u}}, \left(\frac{u}{v}\right)^{v}\right)",
        "whole text",
    ),
    (r"2+\sqrt{3}", r"so we get 2 + \sqrt{3}", "last value"),
]


@pytest.mark.parametrize(("gold", "text", "rule"), RIGHT)
def test_math_reads_the_right_place(gold, text, rule):
    finding = find("math", text, gold)
    assert (finding.outcome, finding.rule) == (Outcome.CORRECT, rule)


@pytest.mark.parametrize(
    ("gold", "text"),
    [
        ("999", "\\boxed{42}\n(The final answer is a number between 0 and 999.)"),
        ("4", r"<answer>\frac{3}{4}</answer>"),
        ("4", r"so we get \frac{3}{4}."),
        ("4", r"The answer is \frac{3}{4}."),
        ("2", r"\boxed{2} or rather \boxed{3}"),
        ("3", r"so we get 2\sqrt{3}"),
        ("5", r"<think>\boxed{5}</think><answer>7</answer>"),
        ("12", "The answer is not 12."),
    ],
)
def test_math_reads_no_other_place(gold, text):
    assert find("math", text, gold).outcome is Outcome.WRONG


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("less than 7", "less than 7"),
        ("The answer is less than $7$.", "less than $7$"),
        ("The answer is negative 7.", "negative 7"),
        ("So it is 7 at least.", "7 at least"),
        ("The answer is multiples of 7.", "multiples of 7"),
        ("So it is 7 squared.", "7 squared"),
        ("They are 3 million.", "3 million"),
        ("The answer is 12,500 dollars.", "12,500 dollars"),
        ("we get $x=1$ and so $y = 2$ here", "y = 2"),
        ("it costs 1,000.50 in all", "1,000.50"),
        ("$1$ or $2$ or so", "1, 2"),
        ("it is 3 1/2", "3 1/2"),
    ],
)
def test_math_cuts_no_word_off_that_changes_a_value(text, read):
    from cegppo_jax.rewards.math.answer import MATH

    assert read_answer(text, MATH).value == read


N = 100_000
NASTY = [
    " ", "\n", "\t", "\r\n", " \n", "9", "1,", "1 ", "{", "}", "<answer>", "<answer></answer>",
    "<answer>1</answer>", r"\boxed{", r"\boxed{}", r"\boxed{1},", r"\boxed{1} and ", r"\boxed 1 ",
    "$", "$1$ and ", r"\(", r"\[", r"\begin{", "the answer is ", "The final answer is ",
    "answer\n", "answer is \\( 1 ", "|", "**", "`", "__", "#", "####", "#### 1\n", "-", "1+", "(",
    "\\", r"\frac{1}{", "x=", "A or ", "A: 1\n", "less than ", "\u7b54\u6848\u662f", "\u4f60",
    "<|", "1% ", "1/", "^", "boxed", "negative ", "1 million ", "\x00", "3 x ", "x_",
]  # fmt: skip


@pytest.mark.parametrize("piece", NASTY)
def test_no_text_takes_long(piece):
    """0.2 s a text where the machine does nothing else (experiments/verifiers.md has the figures);
    a search that is not linear takes minutes.
    """
    for text in ((piece * N)[:N], f"The answer is {piece * N}"[:N], f"7. {(piece * N)[:N]}"):
        for name in VERIFIERS:
            begin = time.process_time()
            VERIFIERS[name](text, EXAMPLES[name].problem)
            assert time.process_time() - begin < 3, name


def test_what_stands_before_many_newlines_is_read():
    assert find("gsm8k", "So she has 7." + "\n" * 32_000, "7").outcome is Outcome.CORRECT
    assert find("countdown", "3+7 = 10" + "\n" * 32_000, "10:3,7").outcome is Outcome.CORRECT
