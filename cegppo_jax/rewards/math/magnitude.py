"""Expression text -> may a computer algebra system see it? Asked before one does.

sympy computes 10^(10^10) when it is told to, factorials of millions and products of a billion
factors too, and no limit on time helps a thread. So the size of every intermediate value is
bounded here from the text alone, as log10 of its magnitude, and what could be too large is compared
as text only.
"""

from __future__ import annotations

import dataclasses
import math
import re

LONGEST_TEXT = 800  # characters
DEEPEST = 16  # brackets inside one another
LARGEST = 10_000.0  # decimal digits of any intermediate value
LARGEST_EXPANSION = 50  # n of (x + y)^n

_TOKEN = re.compile(r"\d+(?:\.\d+)?|\\[a-zA-Z]+|\\.|\*\*|!|[A-Za-z]|\S")
_OPENERS = "{(["
_CONSTANTS = frozenset("ei")
_FACTORIAL_LIKE = frozenset((r"\binom", r"\dbinom", r"\tbinom", r"\Gamma", r"\gamma"))


class _TooLargeError(Exception):
    pass


@dataclasses.dataclass
class _Item:
    """One operand: a number, a letter or a bracketed group."""

    size: float  # bound of log10 of its magnitude, at least that of 2
    symbolic: bool = False  # holds a letter, so that as an exponent it stays unevaluated
    is_sum: bool = False  # a group with + or - in it
    bracket: str = ""


def explodes(text: str) -> bool:
    """Expression text -> True when evaluating it could take forever, or all of memory.

    Worked examples: 2^{2^{10}}, 1000! and 2^{25} \\cdot 26! are harmless; 10^{10^{10}}, 10^9!,
    (x+y)^{1000}, \\prod_{k=1}^{10^8} k and anything longer than LONGEST_TEXT are not.
    """
    if len(text) > LONGEST_TEXT or _depth(text) > DEEPEST:
        return True
    tokens = _TOKEN.findall(text)
    try:
        position = 0
        while position < len(tokens):  # a closing bracket too many begins anew
            _, position = _sequence(tokens, position)
    except _TooLargeError:
        return True
    return False


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in text:
        depth += (character in "{([") - (character in "})]")
        deepest = max(deepest, depth)
    # Roots and fractions without braces nest as well: \sqrt\sqrt\sqrt 2
    run = max((len(run) // 5 for run in re.findall(r"(?:\\(?:sqrt|frac)\s*)+", text)), default=0)
    return deepest + run


def _checked(size: float) -> float:
    if not size <= LARGEST:
        raise _TooLargeError
    return size


def _power_of_ten(size: float) -> float:
    return 10.0 ** min(size, 300.0)


def _sequence(tokens: list[str], position: int) -> tuple[_Item, int]:
    """Tokens up to a closing bracket -> the operand that they form, the position behind."""
    whole = _Item(0.0)
    items: list[_Item] = []
    while position < len(tokens):
        token = tokens[position]
        if token in ("}", ")", "]"):
            position += 1
            break
        if token in ("^", "**"):
            tower: list[_Item] = []  # 2^3^4 is 2^(3^4), to be on the safe side
            while position < len(tokens) and tokens[position] in ("^", "**"):
                exponent, position = _operand(tokens, position + 1)
                tower.append(exponent)
            for base, exponent in zip(reversed(tower[:-1]), reversed(tower[1:]), strict=True):
                _raise_to(base, exponent)
            _raise_to(items[-1] if items else whole, tower[0])
        elif token == "_":
            _, position = _operand(tokens, position + 1)
            if items and items[-1].bracket == "(":  # (n)_{k}: math-verify reads permutations
                _factorial(items[-1])
        elif token == "!":
            if items:
                _factorial(items[-1])
            position += 1
        elif token in "+-" and items:
            whole.is_sum = True
            position += 1
        else:
            item, position = _operand(tokens, position)
            items.append(item)
    whole.size = _checked(sum(item.size for item in items))
    whole.symbolic = any(item.symbolic for item in items)
    return whole, position


def _operand(tokens: list[str], position: int) -> tuple[_Item, int]:
    """Tokens -> the one operand that begins here, the position behind."""
    least = math.log10(2)
    while position < len(tokens) and tokens[position] in "+-":
        position += 1
    if position >= len(tokens):
        return _Item(least), position
    token = tokens[position]
    if token in _OPENERS:
        item, position = _sequence(tokens, position + 1)
        item.bracket = token
        return item, position
    if token[0].isdigit():
        whole = token.partition(".")[0]
        size = math.log10(max(int(whole), 2)) if len(whole) < 16 else float(len(whole))
        return _Item(_checked(size)), position + 1
    if token in _FACTORIAL_LIKE:
        item, position = _operand(tokens, position + 1)
        _factorial(item)
        return item, position
    is_letter = token.isalpha()
    return _Item(least, symbolic=is_letter and token not in _CONSTANTS), position + 1


def _raise_to(base: _Item, exponent: _Item) -> None:
    if exponent.symbolic:
        return  # stays a power; what is inside the exponent has been checked
    times = _power_of_ten(exponent.size)
    if base.symbolic and base.is_sum and times > LARGEST_EXPANSION:
        raise _TooLargeError
    base.size = _checked(max(base.size, math.log10(2)) * times)


def _factorial(item: _Item) -> None:
    if not item.symbolic:
        n = _power_of_ten(item.size)
        item.size = _checked(n * math.log10(n + 1))
