"""Verifiers: is the answer in a completion right? Pure functions of text, without jax.

A verifier sees what can be sent to a worker process: the completion's text and the problem. What
depends on tokens (lengths, limits) is handled elsewhere.

A verifier raises ValueError, whatever the text is, when it cannot read the problem's own answer:
nothing could be right then, and a run must not start (check_gold). Nor may a run start when an
answer can be read and still nothing could be right.
"""

from __future__ import annotations

import re
from functools import lru_cache

from cegppo_jax.import_path import named
from cegppo_jax.rewards.choice import choice
from cegppo_jax.rewards.countdown import countdown
from cegppo_jax.rewards.finding import Finding, Verifier, VerifierExample, unreadable
from cegppo_jax.rewards.forms import adapted
from cegppo_jax.rewards.gold import answer_forms, expression_for, stated_forms, sum_for
from cegppo_jax.rewards.math.answer import gold_answer, math_answer
from cegppo_jax.rewards.numeric import numeric_answer
from cegppo_jax.rewards.think_format import think_format
from cegppo_jax.types import Outcome, Problem

__all__ = ["EXAMPLES", "VERIFIERS", "Finding", "Verifier", "VerifierExample", "resolve_verifier"]

_DIGIT_SUM = re.compile(r"[1-9](?:\+[1-9])*")
_SUM_CONDITIONS = re.compile(r"([0-9]+):([0-9]+)=((?:[1-9]\+)*)")
_SIGNED_DIGITS = re.compile(r"([+-]?) ?([0-9]+|[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,3}(?: [0-9]{3})+)")


def final_answer(completion_text: str, problem: Problem) -> Finding:
    """Judges a completion by what follows the last run of '#' on its line.

    Worked examples for the answer "1042":

        ...;#1042            CORRECT          #### 1,042.          CORRECT
        #7 ... #1042         CORRECT, the last run counts
        #1042;8+1=9          WRONG, an answer is all of the rest of the line
        so it is 1042        UNPARSED         ####                 UNPARSED

    Both sides are normalised (normalise_answer) and compared as text, so whole numbers are
    compared as whole numbers and everything else exactly.

    Raises:
      ValueError: the problem's answer is empty.
    """
    gold = normalise_answer(problem.answer)
    if not gold:
        raise unreadable("final_answer", problem, "an answer that is not empty")
    _, mark, rest = completion_text.rpartition("#")
    answer = normalise_answer((rest.splitlines() or [""])[0])
    if not mark or not answer:
        return Finding(Outcome.UNPARSED, None)
    right = answer == gold
    return Finding(Outcome.CORRECT if right else Outcome.WRONG, answer)


def normalise_answer(text: str) -> str:
    """Returns the one spelling of an answer: " 1,042. " -> "1042", "-07" -> "-7", "x + 1" -> "x +
    1".

    Outer whitespace and a final full stop are removed, inner whitespace becomes one space. A whole
    number loses its plus sign, leading zeros and separators of thousands. A comma or space that
    does not separate thousands stays: "1,2" is a pair, not 12. Digits stay text, since int()
    refuses numbers of more than 4,300 digits.
    """
    text = " ".join(text.split()).removesuffix(".").rstrip()
    number = _SIGNED_DIGITS.fullmatch(text)
    if number is None:
        return text
    sign, digits = number.groups()
    digits = digits.replace(",", "").replace(" ", "").lstrip("0") or "0"
    return f"-{digits}" if sign == "-" and digits != "0" else digits


def digit_sum(completion_text: str, problem: Problem) -> Finding:
    """Judges whether a completion is a sum of digits from 1 to 9 that meets the conditions.

    The problem's answer holds the conditions, "<number of terms>:<value>=<how it begins>". The
    completion must be the sum and nothing else. Worked examples for the answer "5:23=3+":

        3+8+1+6+5       CORRECT           3+5+5+5+5        CORRECT
        3+8+1+6+6       WRONG, it is 24   3+8+7+5          WRONG, 4 terms
        8+3+1+6+5       WRONG, begins with 8
        3+8+0+7+5       UNPARSED, so are 3+20, 3+8+1+6+5=23, 3+8+1+6+, 8 + 1 and the empty text

    Raises:
      ValueError: the problem's answer is no such condition, so that nothing could be right.
    """
    conditions = _SUM_CONDITIONS.fullmatch(problem.answer)
    if conditions is None:
        raise unreadable("digit_sum", problem, "conditions like '5:23=3+' (task 'sums')")
    if not _DIGIT_SUM.fullmatch(completion_text):
        return Finding(Outcome.UNPARSED, None)
    terms, value, beginning = conditions.groups()
    digits = [int(digit) for digit in completion_text.split("+")]
    right = (
        len(digits) == int(terms)
        and sum(digits) == int(value)
        # with a plus appended, since all the terms may be given: "3" begins with "3+"
        and f"{completion_text}+".startswith(beginning)
    )
    return Finding(Outcome.CORRECT if right else Outcome.WRONG, completion_text)


VERIFIERS: dict[str, Verifier] = {
    "final_answer": final_answer,
    "digit_sum": digit_sum,
    "math": math_answer,
    "gsm8k": numeric_answer,
    "countdown": countdown,
    "choice": choice,
    "format": think_format,
}

# Of verifiers that do not read every scope: those that they do.
SCOPES_READ: dict[str, tuple[str, ...]] = {
    "final_answer": ("full", "after_think"),
    "digit_sum": ("full", "after_think"),
    "format": ("full",),
}


def _example(answer: str, right: str, wrong: str) -> VerifierExample:
    return VerifierExample(Problem("example", "?", answer, "example"), right, wrong)


EXAMPLES: dict[str, VerifierExample] = {
    "final_answer": _example("42", "6*7=42;#42", "6*7=43;#43"),
    "digit_sum": _example("2:7=3+", "3+4", "3+5"),
    "math": _example(r"\frac{\sqrt{2}}{2}", r"so \boxed{1/\sqrt2}", r"so \boxed{\sqrt2}"),
    "gsm8k": _example("1080", r"so \boxed{1,080}", r"so \boxed{1,081}"),
    "countdown": _example("98:44,19,35", r"\boxed{44+19+35}", r"\boxed{44+54}"),
    "choice": _example("B", r"so \boxed{\text{B}}", r"so \boxed{\text{C}}"),
    "format": _example("", "<think>1+1</think>2", "<think>1+1"),
}


@lru_cache(maxsize=256)
def resolve_verifier(name: str, place: str = "verifier") -> Verifier:
    """Returns the function of a verifier's name, or of "package.module:function".

    Names, unlike functions, mean the same in every process.

    Args:
      name: in VERIFIERS, or the import path of a user's own function: (completion text, problem),
        or in the form of TRL's or verl's reward functions; it returns a Finding, a bool or a number
        (forms.py).
      place: the setting that names it, for messages.

    Raises:
      ValueError: there is no such verifier, or it takes something else.
    """
    verify = named(place, name, VERIFIERS)
    return adapted(verify, place, name) if ":" in name else verify


def check_gold(problem: Problem, verifier: str) -> None:
    """Refuses an answer that its verifier cannot read. If the verifier is one of VERIFIERS, also
    refuses an answer that could never be found right, because no completion that gives this very
    answer is.

    Nothing more can be checked for a user's verifier, which may want completions of any form.

    Raises:
      ValueError: with the problem's id, and the verifiers that could find it right.
    """
    resolve_verifier(verifier)("", problem)
    if verifier not in VERIFIERS or can_be_right(problem, verifier):
        return
    conditions = verifier in ("digit_sum", "countdown")
    others = [] if conditions else [one for one in ("gsm8k", "math") if _suits(problem, one)]
    remedy = "no answer meets these conditions: remove the problem"
    if not conditions:
        remedy = "not even one that gives this very answer: let the field hold only the answer"
    if others:
        remedy += f", or choose the verifier {' or '.join(map(repr, others))}"
    raise ValueError(
        f"verifier {verifier!r} can find no completion right for {problem.answer!r}, the answer of "
        f"problem {problem.id!r} of source {problem.source!r}; {remedy}"
    )


def can_be_right(problem: Problem, verifier: str) -> bool:
    """Whether one of VERIFIERS that can read a problem's answer finds a completion right that
    gives it.
    """
    answer, texts = problem.answer, answer_forms(problem.answer)
    if verifier == "format":  # reads no answer
        return True
    if verifier == "math":  # the same text is the same answer; to find that out takes its time
        gold = gold_answer(answer)
        return any(gold_answer(text) == gold for text in stated_forms(gold))
    if verifier == "digit_sum":
        terms, _, rest = answer.partition(":")
        value, _, beginning = rest.partition("=")
        texts = iter([sum_for(int(terms), int(value), beginning)])
    if verifier == "countdown":
        target, _, numbers = answer.partition(":")
        expression = expression_for(int(target), [int(one) for one in numbers.split(",")])
        if not expression:
            return expression is not None  # "": not searched
        texts = answer_forms(expression)
    return any(VERIFIERS[verifier](text, problem).outcome is Outcome.CORRECT for text in texts)


def _suits(problem: Problem, verifier: str) -> bool:
    try:
        VERIFIERS[verifier]("", problem)
    except ValueError:
        return False
    return can_be_right(problem, verifier)
