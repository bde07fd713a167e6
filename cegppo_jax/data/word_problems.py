"""(rng, steps) -> an arithmetic word problem of one- and two-digit numbers, in English: within the
reach of a small pretrained model, and with the answer form of GSM8K.
"""

from __future__ import annotations

import random
import string

from cegppo_jax.data.worked import Worked

LARGEST = 99  # every number, given or reached

NAMES = ("Ada", "Ben", "Chloe", "Dev", "Ella", "Finn", "Grace", "Hugo", "Iris", "Jack")
ITEMS = ("apples", "books", "cards", "coins", "marbles", "pens", "shells", "stamps")
PLACES = ("in a drawer", "at the market", "on the way home", "under the bed")

# What happens to n items: (sentence, sign); {b} is how many.
CHANGES = (
    ("{name} finds {b} more {place}.", 1),
    ("{name} buys {b} more.", 1),
    ("A friend gives {name} {b} more.", 1),
    ("{name} gives {b} of them to a friend.", -1),
    ("{name} loses {b} of them {place}.", -1),
    ("{name} sells {b} of them.", -1),
)
BAGS = "{name} buys {k} bags with {b} {items} in each."

QUESTION = "How many {items} does {name} have now?"

# Every character of these texts, and what solutions write.
_TEXTS = (*NAMES, *ITEMS, *PLACES, *(text for text, _ in CHANGES), BAGS, QUESTION, " has .")
ALPHABET = "".join(sorted({*"".join(_TEXTS), *string.digits, *"+-*=,#\n"} - {*"{}_"}))


def draw_word_problem(rng: random.Random, steps: int) -> Worked:
    """Draw a story of as many changes, each by addition, subtraction or a product that is added.

    Worked example, steps = 2 (a product counts as one):

        problem   Ada has 12 pens. Ada buys 3 bags with 4 pens in each. Ada sells 5 of them. How
                  many pens does Ada have now?
        solution  3*4=12, 12+12=24
                  24-5=19
                  #### 19
        answer    19

    No number is negative or above LARGEST.
    """
    name, items = rng.choice(NAMES), rng.choice(ITEMS)
    value = rng.randint(5, 30)
    sentences, lines = [f"{name} has {value} {items}."], []
    for _ in range(steps):
        sentence, line, value = _change(rng, name, items, value)
        sentences.append(sentence)
        lines.append(line)
    question = QUESTION.format(items=items, name=name)
    return Worked(
        problem=" ".join([*sentences, question]),
        answer=str(value),
        solution="\n".join([*lines, f"#### {value}"]),
        bare_solution=f"#### {value}",
    )


def _change(rng: random.Random, name: str, items: str, value: int) -> tuple[str, str, int]:
    """-> one sentence, how it is worked, and the new value."""
    if rng.random() < 0.25 and value + 4 <= LARGEST:
        bags = rng.randint(2, min(5, (LARGEST - value) // 2))
        each = rng.randint(2, min(9, (LARGEST - value) // bags))
        after = value + bags * each
        sentence = BAGS.format(name=name, k=bags, b=each, items=items)
        return sentence, f"{bags}*{each}={bags * each}, {value}+{bags * each}={after}", after
    template, sign = rng.choice([c for c in CHANGES if _room(value, c[1]) >= 1])
    amount = rng.randint(1, min(30, _room(value, sign)))
    after = value + sign * amount
    sentence = template.format(name=name, b=amount, place=rng.choice(PLACES))
    return sentence, f"{value}{'+' if sign > 0 else '-'}{amount}={after}", after


def _room(value: int, sign: int) -> int:
    """How far a value may still move in a direction."""
    return LARGEST - value if sign > 0 else value
