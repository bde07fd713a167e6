"""The verifier `math`: every cause for which two spellings are one answer, and those that are not.

All cases are our own.
"""

import concurrent.futures
import time

import pytest

from cegppo_jax.rewards.math.answer import math_answer
from cegppo_jax.types import Outcome, Problem


def find(text, answer):
    return math_answer(text, Problem("p", "?", answer, "s"))


SAME = {
    "bare LaTeX": [
        (r"\frac{3}{7}", r"\dfrac37"),
        (r"5\sqrt{3}", r"\sqrt{75}"),
        (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt 2}"),
        ("sqrt(2)/2", r"\frac{1}{\sqrt{2}}"),
        (r"2\pi", "6.28318530718"),
        ("x^2 - 1", "(x-1)(x+1)"),
        (r"\cos(60^\circ)", "1/2"),
        ("3i - 2", "i(3 + 2i)"),
        ("|x - 1|", "|1 - x|"),
        (r"\sqrt{\frac{a}{b}}", r"\frac{\sqrt{ab}}{b}"),
    ],
    "layout": [
        (r"\left( 3, -4 \right)", "(3,-4)"),
        (r"$\displaystyle\tfrac{3}{4}$.", "3/4"),
        ("2\u22121", "1"),
        ("\u03c0/4", r"\frac{\pi}{4}"),
    ],
    "numbers": [
        ("12345", "12,345"),
        ("12345", r"12,\!345"),
        ("12345", "12{,}345"),
        ("12345", "12 345"),
        ("0.5", ".5"),
        ("3", "3.00"),
        ("1.5", r"1\frac{1}{2}"),
        ("-2.25", r"-2 \frac14"),
        ("2/3", r"\frac{4}{6}"),
        ("-2/3", "2/(-3)"),
        ("0.00025", r"2.5 \times 10^{-4}"),
        ("2.5e-4", "0.00025"),
        ("3.5", "3,5"),
        (r"\frac{2}{3}", "0.6667"),
        ("120", "5!"),
        (r"\sqrt{2}^{200}", "2^{100}"),
        ("1267650600228229401496703205376", "2^{100}"),
        ("0", r"\sqrt{3 + 2\sqrt{2}} - 1 - \sqrt{2}"),
        ("|x - y|", "|y - x|"),
    ],
    "percentages": [
        (r"35\%", "35%"),
        (r"35\%", "35"),
        (r"35\%", "0.35"),
        (r"35\%", "35 percent"),
        ("0.35", r"35\%"),
    ],
    "units and degrees": [
        (r"12 \text{ cm}", "12"),
        ("12", r"12\text{ cm}^2"),
        ("12", "12 square inches"),
        (r"12\ \mathrm{km}", "12 kilometers"),
        (r"45^\circ", "45"),
        ("45", "45 degrees"),
        (r"\$7.50", "7.5"),
        ("7", "7 apples"),
    ],
    "words": [
        (r"\text{odd}", "odd"),
        ("no solution", r"\text{No solution}"),
        (r"\textbf{Monday}", "Monday"),
    ],
    "choices": [
        ("C", r"\text{(C)}"),
        (r"\textbf{(C)}", "C"),
        ("42", r"\textbf{(C)}\ 42"),
        ("C", "(C) 42"),
    ],
    "equations": [
        ("3", "x = 3"),
        ("x = 3", "3"),
        ("x+1", "f(x) = x + 1"),
        ("5", "2 + 3 = 5"),
        ("11", r"x \approx 11"),
        (r"\frac{1}{3}", r"\frac{1}{3} \approx 0.33"),
        ("x + 2y = 3", "2x + 4y = 6"),
        ("(a,b) = (1,2)", "(1,2)"),
    ],
    "several answers": [
        ("1, 2", "2, 1"),
        ("1, 2", r"\{1, 2\}"),
        (r"1 \text{ and } 2", "x = 1, x = 2"),
        (r"3 \pm \sqrt{2}", r"3-\sqrt{2}, 3+\sqrt{2}"),
        ("(1,2), (3,4)", "(3,4), (1,2)"),
        ("x = 1, y = 2", "1, 2"),
        ("1, 2", "2, 1, 2"),
        ("(1, 2)", "1, 2"),
    ],
    "intervals and sets": [
        ("[0, 1)", r"\left[0, 1\right)"),
        ("[0.5, 1)", r"\left[\frac{1}{2}, 1\right)"),
        ("(2, 5]", r"2 < x \le 5"),
        (r"(3, \infty)", "x > 3"),
        ("x > 3", "3 < x"),
        (r"(-\infty, 1) \cup (2, \infty)", r"(2, \infty) \cup (-\infty, 1)"),
        (r"[1, 2]", r"x \in [1, 2]"),
        (r"\emptyset", r"\varnothing"),
    ],
    "matrices": [
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{bmatrix}1&2\\3&4.\end{bmatrix}"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", "(1, 2)"),
    ],
    "bases and times": [("1021_{3}", "1021_3"), ("8:30", r"8:30 \text{ a.m.}")],
}  # fmt: skip

DIFFERENT = {
    "numbers": [
        ("12345", "12,346"),
        ("3", "3.01"),
        (r"\frac{1}{3}", "0.33"),  # two digits name no third
        ("2/3", "0.6666"),  # cut off, not rounded
        ("1.5", r"\frac{1}{2}"),
        ("100", "1"),
        ("1", "100"),
        ("1/2", "1/3"),
        ("-5", "5"),
        ("12", "1, 2"),
        ("12", "1 2"),
        ("12/5", "1 2/5"),
    ],
    "large and small numbers": [
        ("2^{100}", "2^{100} + 1"),
        ("1267650600228229401496703205377", "2^{100}"),
        (r"\binom{200}{100}", r"\binom{200}{100} + 1"),
        ("e^{100}", "e^{100} + 1"),
        (r"10^{20} + \sqrt{2}", r"10^{20} + \sqrt{3}"),
        (r"\frac{1}{2^{100}}", r"\frac{1}{2^{101}}"),
        ("e^{-100}", "e^{-101}"),
    ],
    "negations": [
        ("7", r"\text{not } 7"),
        ("7", r"7 \text{ incorrect}"),
        ("7", r"7 \text{ or more}"),
    ],
    "percentages": [(r"35\%", "3.5"), (r"35\%", r"0.35\%")],
    "units": [(r"12 \text{ cm}", r"12 \text{ km}"), ("3t", "3"), ("3", "3m + 1")],
    "formulas": [
        ("x^2 - 1", "(x-1)^2"),
        ("x", "y"),
        (r"\sqrt{2}", r"\sqrt{3}"),
        (r"4\sqrt{2}", "4"),
        (r"2\pi", "6"),
        ("ab", "ac"),
        ("|x|", "x"),
        ("x", "|x|"),
        (r"|x - y|", "x - y"),
    ],
    "words": [("odd", "even"), ("odd", "3"), ("no solution", "0"), ("A", "B")],
    "equations": [("x + y = 3", "3"), ("3", "x + y = 3"), ("x = 3", "y = 3"), ("2x = 4", "4")],
    "several answers": [
        ("1, 2", "1"),
        ("1", "1, 2"),
        ("1, 2", "1, 3"),
        ("(1, 2)", "(2, 1)"),
        (r"\pm 3", "3"),
        ("(1,2), (3,4)", "(1,2), (4,3)"),
    ],
    "intervals and sets": [
        ("[0, 1)", "[0, 1]"),
        ("(0, 1)", "[0, 1]"),
        ("[0, 1)", "[0, 2)"),
        ("x > 3", "x < 3"),
        ("x > 3", r"x \ge 3"),
        (r"(-\infty, 1) \cup (2, \infty)", r"(-\infty, 1)"),
    ],
    "matrices": [
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix}1&3\\2&4\end{pmatrix}"),
        (r"\begin{pmatrix} 1 & 2 \end{pmatrix}", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"),
    ],
    "bases and times": [("1021_{3}", "1021_4"), ("1021_3", "1021"), ("8:30", r"8:30 \text{ p.m.}")],
}  # fmt: skip


def pairs(cases):
    return [
        pytest.param(gold, other, id=f"{cause}: {gold} | {other}")
        for cause, rows in cases.items()
        for gold, other in rows
    ]


@pytest.mark.parametrize(("gold", "other"), pairs(SAME))
def test_the_same_answer(gold, other):
    """In a box, and spelt for votes as the gold answer itself is."""
    finding = find(f"so $$\\boxed{{{other}}}$$", gold)
    assert finding.outcome is Outcome.CORRECT
    assert finding.answer == find(f"\\boxed{{{gold}}}", gold).answer


@pytest.mark.parametrize(("gold", "other"), pairs(DIFFERENT))
def test_another_answer(gold, other):
    finding = find(f"so $$\\boxed{{{other}}}$$", gold)
    assert finding.outcome is Outcome.WRONG
    assert finding.answer


@pytest.mark.parametrize(("gold", "other"), pairs(SAME) + pairs(DIFFERENT))
def test_each_answer_is_itself(gold, other):
    for one in (gold, other):
        assert find(f"\\boxed{{{one}}}", one).outcome is Outcome.CORRECT
        assert find(f"The answer is ${one}$.".replace(r"\$", ""), one).outcome is Outcome.CORRECT


@pytest.mark.parametrize(
    ("one", "other"),
    [("0.5", r"\frac{1}{2}"), (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}"), ("x(x+1)", "x^2+x"),
     ("2, 1", "1, 2"), ("5!", "120"), (r"7 \text{ cm}", "7")],
)  # fmt: skip
def test_wrong_answers_that_are_equal_vote_together(one, other):
    assert find(f"\\boxed{{{one}}}", "99").answer == find(f"\\boxed{{{other}}}", "99").answer


@pytest.mark.parametrize(
    "text", ["", "I do not know what to do here at all", r"\boxed{}", r"\boxed{$ $}", "\n"]
)
def test_unparsed(text):
    finding = find(text, "7")
    assert finding.outcome is Outcome.UNPARSED
    assert finding.answer is None


@pytest.mark.parametrize(
    "text",
    [
        "1000000^1000000^1000000", "10**10**10", "10^{10^{10}}", "9^9^9^9", "(10^9)!", "10^9!",
        "99999999!", "((20!)!)!", "(x+y)^{1000}", "e^{e^{e^{10}}}", r"\binom{10^8}{500}",
        "(100000000)_{5}", r"\prod_{k=1}^{10^8} k", r"\sum_{k=1}^{10^9} \frac{1}{k^k}",
        r"2^{n \cdot 10^{10^{10}}}", "(" * 300 + "1" + ")" * 300, r"\sqrt" * 200 + "2",
        r"\sqrt{" * 200 + "2" + "}" * 200, "1+" * 800, "9" * 11_000, "2^{-10^{10}}",
    ],
)  # fmt: skip
def test_explosions_are_harmless(text):
    begin = time.process_time()
    assert find(f"\\boxed{{{text}}}", "7").outcome is Outcome.WRONG
    assert find("7", text[:100] + "1").outcome is Outcome.WRONG
    assert time.process_time() - begin < 5


def test_an_explosion_is_still_itself():
    assert find(r"\boxed{10^{10^{10}}}", "10^{10^{10}}").outcome is Outcome.CORRECT


@pytest.mark.parametrize(
    "text",
    [
        "x" * 200_000, "9" * 200_000, r"\boxed{" * 28_000,
        r"\boxed{" * 25_000 + "8" + "}" * 25_000, r"\boxed{" * 200 + "8" + "}" * 200,
        r"\boxed{1}," * 20_000, "{" * 200_000,
        "$" * 200_000, "$1$ and " * 25_000, "the answer is " * 15_000, "-" * 200_000,
        "the final answer " * 12_000, r"\(" * 100_000, r"\[" * 100_000, "1," * 100_000,
        "#" * 200_000, " " * 200_000, "\\" * 200_000, "word " * 40_000, r"\frac" * 40_000,
        "x=" * 100_000, "answer is \\( 1 " * 13_000, "\u4f60" * 200_000,
        *(rf"\boxed{{{inside}}}" for inside in ("1 " * 90_000, "<" * 1_900, r"\pm 1" * 300,
          "x=" * 900, "-" * 1_900 + "5", "()" * 900, "1;" * 900)),
    ],
)  # fmt: skip
def test_long_completions_take_no_time(text):
    begin = time.process_time()
    assert find(text, "7").outcome is not Outcome.CORRECT
    assert time.process_time() - begin < 5


def test_any_thread_may_verify():
    """Neither signals nor shared state: many threads at once find what one finds."""
    cases = [case.values for case in pairs(SAME)[:12] + pairs(DIFFERENT)[:12]]
    texts = [(f"\\boxed{{{other}}}", gold) for gold, other in cases]
    expected = [find(*one) for one in texts]
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda one: find(*one), texts * 3)) == expected * 3
