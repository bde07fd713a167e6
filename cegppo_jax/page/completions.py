"""The page's browser of completions: which are shown, and each as a card."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from cegppo_jax.page.arms import Arm
from cegppo_jax.page.tokens import coloured_tokens, tokens_of_sample

# Of the whole page, so that a browser opens it at once; runs share them.
MOST_COMPLETIONS = 400
MOST_TOKENS = 60_000


@dataclasses.dataclass(frozen=True)
class Card:
    """One completion to show. Texts are the model's: to be escaped, but for `tokens`."""

    run: str
    sample: dict[str, Any]  # a line of samples.jsonl
    tokens: str | None  # HTML; None: the line has no readings


@dataclasses.dataclass(frozen=True)
class Completions:
    """What the browser shows."""

    cards: list[Card]
    written: int  # completions in all samples.jsonl

    def values(self, name: str) -> list[Any]:
        """Returns the distinct values of a field, sorted, for a menu."""
        return sorted({card.run if name == "run" else card.sample[name] for card in self.cards})

    @property
    def coloured(self) -> bool:
        """Whether any completion has readings of its tokens."""
        return any(card.tokens for card in self.cards)


def browse(arms: Sequence[Arm]) -> Completions:
    """Chooses the completions of all runs that the page shows, whole steps evenly spread."""
    runs = [(arm, run) for arm in arms for run in arm.runs]
    cards = []
    for arm, run in runs:
        rule = run.settings.get("loss.high_probability", "half")
        limits = MOST_COMPLETIONS // len(runs), MOST_TOKENS // len(runs)
        for sample in spread(run.samples, *limits):
            tokens = tokens_of_sample(sample, rule)
            html = None if tokens is None else coloured_tokens(tokens)
            cards.append(Card(arm.run_name(run), sample, html))
    return Completions(cards, sum(len(run.samples) for _, run in runs))


def spread(samples: Sequence[dict[str, Any]], most: int, most_tokens: int) -> list[dict[str, Any]]:
    """Returns the completions of as many steps as fit, evenly spread, the last one among them; of
    one step alone, the first that fit.
    """
    steps = sorted({sample["step"] for sample in samples})
    for count in range(len(steps), 0, -1):
        last = len(steps) - 1
        kept = {steps[last - round(i * last / max(count - 1, 1))] for i in range(count)}
        chosen = [sample for sample in samples if sample["step"] in kept]
        if len(chosen) <= most and sum(map(_size, chosen)) <= most_tokens:
            return chosen
    chosen, tokens = [], 0
    for sample in samples:
        if sample["step"] == steps[-1] and len(chosen) < most:
            tokens += _size(sample)
            if tokens > most_tokens:
                break
            chosen.append(sample)
    return chosen


def _size(sample: dict[str, Any]) -> int:
    return len(sample.get("token_texts", ())) or sample["tokens"]
