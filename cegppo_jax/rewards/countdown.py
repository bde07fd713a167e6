"""The verifier `countdown`: does an expression reach the target with the given numbers?"""

from __future__ import annotations

import ast
import re
from collections import Counter
from fractions import Fraction

from cegppo_jax.rewards.extraction import Reader, read_answer
from cegppo_jax.rewards.finding import UNPARSED, Finding, judged, unreadable
from cegppo_jax.types import Problem

_CONDITIONS = re.compile(r"(-?\d{1,9}):(\d{1,9}(?:,\d{1,9})*)")
_FRACTION = re.compile(r"\\[dtc]?frac ?\{([^{}]*)\} ?\{([^{}]*)\}")
_TIMES = re.compile(r"(?<=[\d)]) ?[xX] ?(?=[\d(])")
_SIGNS = {
    r"\times": "*", r"\cdot": "*", r"\div": "/", r"\left": "", r"\right": "", r"\,": "", r"\ ": "",
    "\u00d7": "*", "\u22c5": "*", "\u00b7": "*", "\u00f7": "/", "\u2212": "-", "[": "(", "]": ")",
    "{": "(", "}": ")", "$": "", "`": "", r"\(": "", r"\)": "",
}  # fmt: skip
_EXPRESSION = re.compile(r"[\d+\-*/() ]*\d[\d+\-*/() ]*")
_RUN = re.compile(r"[\d+\-*/()= ]+")
_BULLET = re.compile(r"^[-*+] ")
_CALCULATES = re.compile(r"\d[ )]*[+\-*/]")
_LONGEST = 200  # characters of an expression: dozens of numbers
_LONGEST_TAIL = 5000  # of a completion, that is searched for its last expression


def countdown(completion_text: str, problem: Problem) -> Finding:
    """Accepts any expression that uses each given number exactly once and has the target as its
    value.

    The problem's answer holds the conditions, "<target>:<number>,<number>,...". extraction.RULES
    find the expression; it may be one side of an equation. It may use +, -, *, / and
    brackets, also in LaTeX; values are exact fractions. Worked examples for the answer
    "98:44,19,35":

        <answer>44 + 19 + 35</answer>     CORRECT      35 + 19 + 44 = 98      CORRECT
        44 + 54                           WRONG        44 + 19 + 35 + 0       WRONG
        44 + 19 = 63                      WRONG        it is 98 indeed        UNPARSED
        <answer>44^2</answer>             UNPARSED, like everything that is not such an expression

    Raises:
      ValueError: the problem's answer is no such condition, so that nothing could be right.
    """
    conditions = _CONDITIONS.fullmatch(problem.answer)
    if conditions is None:
        raise unreadable("countdown", problem, "conditions like '98:44,19,35' (target:numbers)")
    target, given = Fraction(int(conditions[1])), Counter(map(int, conditions[2].split(",")))
    reading = read_answer(completion_text, EXPRESSION)
    if reading is None:
        return UNPARSED
    tree, spelling = reading.value
    numbers = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    try:
        right = Counter(numbers) == given and _value(tree) == target
    except ZeroDivisionError:
        right = False
    return judged(right, spelling, reading.rule)


def _whole(text: str) -> tuple[ast.expr, str] | None:
    return _read_side(_in_ascii(text)) if len(text) <= 10 * _LONGEST else None


def _alone(text: str) -> tuple[ast.expr, str] | None:
    text = _BULLET.sub("", text)
    return _whole(text) if _CALCULATES.search(_in_ascii(text[: 10 * _LONGEST])) else None


def _last(text: str) -> tuple[ast.expr, str] | None:
    """Returns the last expression of a text that calculates and is not cut out of something
    longer, such as "44.0+19", "2^3+1" or "abs(4)+1".
    """
    for line in reversed(text[-_LONGEST_TAIL:].splitlines()):
        line = _BULLET.sub("", _in_ascii(line))
        for run in reversed(list(_RUN.finditer(line))):
            before, behind = line[: run.start()][-1:], line[run.end() :][:2]
            cut = run[0][0] not in " =" and (before.isalnum() or before in tuple(".^_"))
            if cut or (re.match(r"[\w^]|\.\d", behind) and run[0][-1] not in " ="):
                continue
            if _CALCULATES.search(run[0]) and (expression := _read_side(run[0])) is not None:
                return expression
    return None


def _in_ascii(text: str) -> str:
    text = _TIMES.sub("*", _FRACTION.sub(r"((\1)/(\2))", text))
    for sign, plain in _SIGNS.items():
        text = text.replace(sign, plain)
    return text


def _read_side(text: str) -> tuple[ast.expr, str] | None:
    """Reads "44+19*35", "44+19 = 63" or "63 = 44+19" and returns the side that calculates."""
    sides = [side.strip() for side in text.strip(" *.").split("=")]
    side = next((side for side in sides if re.search(r"[+\-*/]", side.lstrip("-"))), sides[0])
    if len(side) > _LONGEST or not _EXPRESSION.fullmatch(side):
        return None
    try:
        tree = ast.parse(side, mode="eval").body
    except (SyntaxError, RecursionError, MemoryError):
        return None
    if not all(isinstance(node, _ALLOWED) for node in ast.walk(tree)):
        return None
    return tree, side.replace(" ", "")


_ALLOWED = (ast.BinOp, ast.UnaryOp, ast.Constant, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.USub)


def _value(node: ast.expr) -> Fraction:
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Add):
            return left + right
        if isinstance(node.op, ast.Sub):
            return left - right
        return left * right if isinstance(node.op, ast.Mult) else left / right
    if isinstance(node, ast.UnaryOp):
        return -_value(node.operand)
    assert isinstance(node, ast.Constant)
    assert isinstance(node.value, int)
    return Fraction(node.value)


EXPRESSION = Reader(whole=_whole, alone=_alone, stated=_last, last=_last)
