"""The arithmetic and the memory traffic that a work needs at least, by formulas.

Symbols as in cegppo_jax/types.py; a multiply-add is 2 FLOPs:

    body   = L (D H (N + 2 K) + N H D + 3 D mlp)     weights of all layers; head = V D
    pass   = 2 body x tokens + 2 head x tokens that are predicted + 4 N H L x pairs
    pairs  = of a query and a key that it sees: n (n + 1) / 2 of a prompt of n tokens,
             m n + m (m + 1) / 2 more of a completion of m tokens after it

Counted for a group is its prompt once, and the head only at completion tokens. A backward pass is
two forward ones; nothing is computed again. A decode step reads all weights, and the keys and
values of each sequence so far. AdamW reads four arrays of the size of the weights (weights,
gradient, two moments) and writes three. `plain` counts as is usual: every sequence for itself, with
its prompt, and the head at every token.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from cegppo_jax.models.config import ModelConfig

# Groups of a step: the tokens of a prompt, and of each of its completions
Lengths = Sequence[tuple[int, Sequence[int]]]


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of a work, with one kind of matrix product."""

    name: str
    flops: float
    bytes: float
    rows: str  # of its products: "thin" (a row a slot) | "wide" (a row a token of a micro-batch)
    plain_flops: float


@dataclasses.dataclass(frozen=True)
class Cost:
    """Counts for one model and one type of numbers."""

    model: ModelConfig
    itemsize: int  # bytes of a number, of decode weights and cache

    @property
    def body(self) -> int:
        """Weights of the layers' matrices."""
        m = self.model
        attention = m.width * m.head_size * (m.heads + 2 * m.kv_heads)
        return m.layers * (attention + m.heads * m.head_size * m.width + 3 * m.width * m.mlp_width)

    @property
    def head(self) -> int:
        """Weights of the output head."""
        return self.model.vocab_size * self.model.width

    def forward(self, tokens: int, predicted: int, pairs: float) -> float:
        """FLOPs of a forward pass."""
        m = self.model
        products = 2 * self.body * tokens + 2 * self.head * predicted
        return products + 4 * m.heads * m.head_size * m.layers * pairs

    def of_groups(self, groups: Lengths) -> tuple[float, float]:
        """Returns FLOPs of a forward pass over all sequences, and the plain count."""
        tokens = pairs = predicted = all_tokens = all_pairs = 0
        for prompt, completions in groups:
            tokens += prompt + sum(completions)
            pairs += triangle(prompt) + sum(prompt * n + triangle(n) for n in completions)
            predicted += sum(completions)
            all_tokens += sum(prompt + n for n in completions)
            all_pairs += sum(triangle(prompt + n) for n in completions)
        plain = self.forward(all_tokens, all_tokens, all_pairs)
        return self.forward(tokens, predicted, pairs), plain

    def generation(self, groups: Lengths, slots: int) -> list[Part]:
        """Prefill of each prompt once, then decode steps of up to `slots` sequences."""
        m, drawn = self.model, [n for _, completions in groups for n in completions]
        prefill = sum(self.forward(n, 0, triangle(n)) for n, _ in groups)
        alone = sum(len(own) * self.forward(n, 0, triangle(n)) for n, own in groups)
        pairs = sum(prompt * n + triangle(n) for prompt, own in groups for n in own)
        decode = self.forward(sum(drawn), sum(drawn), pairs)
        steps = max(max(drawn), -(-sum(drawn) // slots))
        weights = self.itemsize * (self.body + self.head)
        cached = self.itemsize * 2 * m.kv_heads * m.head_size * m.layers
        return [
            Part("prefill", prefill, weights, "wide", alone),
            Part("decode", decode, steps * weights + cached * pairs, "thin", decode),
        ]

    def logprobs(self, groups: Lengths) -> list[Part]:
        """One forward pass."""
        flops, plain = self.of_groups(groups)
        return [Part("logprobs", flops, 4 * (self.body + self.head), "wide", plain)]

    def update(self, groups: Lengths, updates: int) -> list[Part]:
        """Forward and backward passes, and the optimizer."""
        flops, plain = self.of_groups(groups)
        weights = self.body + self.head * (1 if self.model.tied_embeddings else 2)
        return [
            Part("gradient", 3 * flops, 4 * weights, "wide", 3 * plain),
            Part("optimizer", 0.0, updates * 7 * 4 * weights, "wide", 0.0),
        ]

    def step(self, groups: Lengths, slots: int, updates: int) -> list[Part]:
        """Generation, old log-probabilities and updates. Those of the first mini-batch are needed
        for nothing: its ratio is 1.
        """
        later = groups[len(groups) // updates :]
        old = self.logprobs(later) if later else []
        return [*self.generation(groups, slots), *old, *self.update(groups, updates)]


def triangle(n: int) -> float:
    """n (n + 1) / 2."""
    return n * (n + 1) / 2
