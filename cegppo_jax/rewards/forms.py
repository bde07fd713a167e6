"""Functions that people have, in three forms -> Verifier.

The names of a function's parameters say which form it has; TRL and verl call by these names:

    form   parameters                                               how it is called
    ours   (text, problem)                                          by position, with a Problem
    TRL    completions, and any of TRL_COLUMNS or **columns         with lists of length 1
    verl   solution_str, and any of VERL_ARGUMENTS or **arguments   with one completion

What a verifier may return, whatever its form (TRL: in a list of one):

    Finding   as it is
    bool      True: CORRECT; False: WRONG
    number    partial credit: 0 earns a wrong answer's reward and 1 a right one's; numbers between
              and beyond lie on the same line, reward = (1 - credit) wrong + credit correct. CORRECT
              from 1 on, WRONG below. With reward.outcomes.wrong = 0 and correct = 1 the number is
              the reward.
    dict      verl's: "score" is such a number, "acc" says whether the answer is right (without it:
              score >= 1), "pred" is the answer as read

Where the function does not say what it read, the answer (for majority votes) is the text itself.
"""

from __future__ import annotations

import functools
import inspect
import numbers
from collections.abc import Callable, Mapping
from typing import Any

from cegppo_jax.import_path import check_takes
from cegppo_jax.rewards.finding import Finding, Verifier, judged
from cegppo_jax.types import Outcome, Problem

TRL_COLUMNS = ("prompts", "completions", "id", "problem", "answer", "source", "solution")
VERL_ARGUMENTS = ("data_source", "solution_str", "ground_truth", "extra_info")


def adapted(function: Callable[..., Any], place: str, name: str) -> Verifier:
    """Returns a verifier that calls a function of one of the three forms.

    Its attribute `examples` (self_test.py) is kept.

    Args:
      place, name: the setting that names it and its value, for messages.

    Raises:
      ValueError: it cannot be called with what its form gives it.
    """
    ask = _asker(function, place, name)

    @functools.wraps(function)
    def verify(text: str, problem: Problem) -> Finding:
        return finding_of(ask(text, problem), text)

    return verify


def is_ours(function: Callable[..., Any]) -> bool:
    """Whether a function is neither of TRL's form nor of verl's."""
    return not {"completions", "solution_str"} & parameters_of(function).keys()


def finding_of(found: Any, text: str) -> Finding:
    """What a verifier returned for a completion -> Finding.

    Raises:
      ValueError: it is none of what a verifier may return (above), or a number that is not finite
        or beyond MAX_CREDIT.
    """
    if isinstance(found, Finding):
        return found
    if isinstance(found, Mapping) and "score" in found:
        finding = finding_of(found["score"], str(found.get("pred", text)))
        if "acc" not in found:
            return finding
        right = judged(bool(found["acc"]), finding.answer or "")
        return Finding(right.outcome, finding.answer, credit=finding.credit)
    if hasattr(found, "item"):  # NumPy's and torch's scalars
        found = found.item()
    if isinstance(found, bool):
        return judged(found, text)
    if not isinstance(found, numbers.Real):
        raise ValueError(
            f"a verifier returned {found!r} of type {type(found).__name__}: it returns a "
            "Finding, a bool, or a number"
        )
    credit = float(found)
    return Finding(Outcome.CORRECT if credit >= 1 else Outcome.WRONG, text, credit=credit)


def parameters_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of a function; empty where Python does not know them (some written in C)."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


def _asker(function: Callable[..., Any], place: str, name: str) -> Callable[[str, Problem], Any]:
    """Function -> (text, problem) -> what it returns."""
    parameters = parameters_of(function)
    if is_ours(function):
        check_takes(place, name, function, "text, problem")
        return function
    offered = TRL_COLUMNS if "completions" in parameters else VERL_ARGUMENTS
    kinds = {one.kind for one in parameters.values()}
    takes_all = inspect.Parameter.VAR_KEYWORD in kinds
    variadic = {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}
    lacking = [
        one.name
        for one in parameters.values()
        if one.default is one.empty and one.kind not in variadic and one.name not in offered
    ]
    if lacking:
        raise ValueError(
            f"{place} = {name!r} asks for {lacking}, and a function with the parameter "
            f"{'completions' if offered is TRL_COLUMNS else 'solution_str'!r} is given {offered}"
        )
    passed = [one for one in offered if takes_all or one in parameters]
    if offered is VERL_ARGUMENTS:
        return lambda text, problem: function(
            **{one: value for one, value in _verl(text, problem).items() if one in passed}
        )
    chat = "dict" in str(parameters["completions"].annotation)

    def ask_trl(text: str, problem: Problem) -> Any:
        columns = _trl(text, problem, chat)
        found = function(**{one: columns[one] for one in passed})
        if not hasattr(found, "__len__") or len(found) != 1:
            raise ValueError(f"{name} returned {found!r} for 1 completion: a list of 1 number")
        return found[0]

    return ask_trl


def _trl(text: str, problem: Problem, chat: bool) -> dict[str, list[Any]]:
    """Keyword arguments of TRL's form: columns of a data set with one row.

    Args:
      chat: prompts and completions as lists of messages, which a function says that it wants by the
        annotation list[list[dict[str, str]]] of `completions`; otherwise texts.
    """
    prompt: Any = problem.problem
    completion: Any = text
    if chat:
        prompt = [{"role": "user", "content": prompt}]
        completion = [{"role": "assistant", "content": text}]
    row = {
        "prompts": prompt,
        "completions": completion,
        "id": problem.id,
        "problem": problem.problem,
        "answer": problem.answer,
        "source": problem.source,
        "solution": _solution(problem),
    }
    return {name: [value] for name, value in row.items()}


def _verl(text: str, problem: Problem) -> dict[str, Any]:
    """Keyword arguments of verl's form; extra_info has the keys of verl's own data sets."""
    extra = {"index": problem.id, "question": problem.problem, "answer": _solution(problem)}
    return {
        "data_source": problem.source,
        "solution_str": text,
        "ground_truth": problem.answer,
        "extra_info": extra,
    }


def _solution(problem: Problem) -> str:
    """Returns the worked solution, or the answer if there is none."""
    return problem.answer if problem.solution is None else problem.solution
