"""Arithmetic word problems with one- and two-digit numbers, in English: within reach of a small
pretrained model, with the answer form of GSM8K.
"""

from __future__ import annotations

import random
import string

from cegppo_jax.data.tasks.worked import Worked

LARGEST = 99  # every number, given or reached

NAMES = (
    *("Ada", "Ben", "Chloe", "Dev", "Ella", "Finn", "Grace", "Hugo"),
    *("Iris", "Jack", "Kofi", "Lena", "Mei", "Noah", "Olga", "Paul"),
)
ITEMS = (
    *("apples", "books", "cards", "coins", "marbles", "pens"),
    *("shells", "stamps", "buttons", "stickers", "beads", "pebbles"),
)
PLACES = ("in a drawer", "at the market", "on the way home", "under the bed")

# What happens to the items: (sentence, sign); {b} items come or go ...
SINGLE = (
    ("{name} finds {b} more {place}.", 1),
    ("{name} buys {b} more.", 1),
    ("A friend gives {name} {b} more.", 1),
    ("{name} gives {b} of them to a friend.", -1),
    ("{name} loses {b} of them {place}.", -1),
    ("{name} sells {b} of them.", -1),
)
# ... {k} times {b} do, both 2 at least ...
MULTIPLE = (
    ("{name} buys {k} bags with {b} {items} in each.", 1),
    ("{k} friends give {name} {b} {items} each.", 1),
    ("{name} gives {b} {items} to each of {k} friends.", -1),
)
# ... or half of them go.
HALVES = ("{name} gives half of them to a friend.", "{name} sells half of them.")

QUESTION = "How many {items} does {name} have now?"

# Every character of these texts, and what solutions write.
_TEXTS = (
    *(*NAMES, *ITEMS, *PLACES, *HALVES, QUESTION, " has ."),
    *(text for text, _ in (*SINGLE, *MULTIPLE)),
)
ALPHABET = "".join(sorted({*"".join(_TEXTS), *string.digits, *"+-*/=,#\n"} - {*"{}_"}))


def draw_word_problem(rng: random.Random, steps: int) -> Worked:
    """Draw a story of as many changes: a sum, a difference, a product that comes or goes, a half.

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
        sentence, line, value = _change(rng, value)
        lines.append(line)
        sentences.append(sentence.format(name=name, items=items, place=rng.choice(PLACES)))
    question = QUESTION.format(items=items, name=name)
    return Worked(
        problem=" ".join([*sentences, question]),
        answer=str(value),
        solution="\n".join([*lines, f"#### {value}"]),
        bare_solution=f"#### {value}",
    )


def _change(rng: random.Random, value: int) -> tuple[str, str, int]:
    """Returns one sentence with its numbers, how it is worked out, and the new value."""
    kind = rng.random()
    if kind < 0.1 and value >= 4 and value % 2 == 0:
        return rng.choice(HALVES), f"{value}/2={value // 2}", value // 2
    multiple = [(text, sign) for text, sign in MULTIPLE if _room(value, sign) >= 4]
    if kind < 0.4 and multiple:
        text, sign = rng.choice(multiple)
        times = rng.randint(2, min(5, _room(value, sign) // 2))
        each = rng.randint(2, min(9, _room(value, sign) // times))
        moved = times * each
        sentence, line = _filled(text, b=each, k=times), f"{times}*{each}={moved}, "
    else:
        text, sign = rng.choice([one for one in SINGLE if _room(value, one[1]) >= 1])
        moved = rng.randint(1, min(30, _room(value, sign)))
        sentence, line = _filled(text, b=moved), ""
    after = value + sign * moved
    return sentence, f"{line}{value}{'+' if sign > 0 else '-'}{moved}={after}", after


def _filled(text: str, **numbers: int) -> str:
    """Fills in a sentence's numbers; the names stay open."""
    for name, number in numbers.items():
        text = text.replace(f"{{{name}}}", str(number))
    return text


def _room(value: int, sign: int) -> int:
    """Returns how far a value may still move in a direction."""
    return LARGEST - value if sign > 0 else value
