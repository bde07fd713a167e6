"""Model FLOPs, by arithmetic: what the mathematics of a decoder needs, whatever a program computes.

A product of [m, k] and [k, n] takes 2 m k n. Norms, rotations and the softmax are left out, as
usual. XLA's cost_analysis counts the body of a loop once, so it cannot give these.
"""

from __future__ import annotations

from collections.abc import Iterable

from cegppo_jax.models.config import ModelConfig

TRAINING = 3  # forward, and twice as much backward


def layer_weights(model: ModelConfig) -> int:
    """Returns the entries of a layer's matrices."""
    projections = 2 * model.heads + 2 * model.kv_heads  # query and output, key and value
    return model.width * (projections * model.head_size + 3 * model.mlp_width)


def token_flops(model: ModelConfig, *, head: bool) -> float:
    """Returns the FLOPs of a token's forward pass without attention scores; `head`: with logits."""
    return 2.0 * model.layers * layer_weights(model) + head * head_flops(model)


def head_flops(model: ModelConfig) -> float:
    """Returns the FLOPs of a token's logits."""
    return 2.0 * model.width * model.vocab_size


def pair_flops(model: ModelConfig) -> float:
    """Returns the FLOPs of one query that attends to one key, in all layers and heads: a score and
    a mixed value.
    """
    return 4.0 * model.layers * model.heads * model.head_size


def causal_pairs(lengths: Iterable[int]) -> float:
    """Returns the (query, key) pairs of sequences in which a token sees itself and what precedes
    it.
    """
    return float(sum(n * (n + 1) // 2 for n in map(int, lengths)))


def forward_flops(model: ModelConfig, lengths: Iterable[int], *, head: bool) -> float:
    """Returns the FLOPs of a forward pass over sequences of these lengths."""
    known = [int(n) for n in lengths]
    return token_flops(model, head=head) * sum(known) + pair_flops(model) * causal_pairs(known)


def computed_again(
    model: ModelConfig, rows: int, row_tokens: int, logits: float, rematerialise: str
) -> float:
    """Returns the FLOPs that the backward pass of so many rows, with logits at so many tokens,
    computes a second time by trainer.rematerialise: all, all but attention, or nothing that counts.
    """
    if rematerialise not in ("full", "all_but_attention"):
        return 0.0
    whole = forward_flops(model, [row_tokens], head=False) * rows + head_flops(model) * logits
    attention = pair_flops(model) * causal_pairs([row_tokens]) * rows
    return whole - attention * (rematerialise == "all_but_attention")


def trained_flops(
    model: ModelConfig, prompt: int, prompts: int, completions: Iterable[int]
) -> float:
    """Returns the FLOPs of a forward pass over so many prompts of `prompt` tokens, each once, and
    the completions that continue them; only completion tokens have logits.
    """
    lengths = [int(n) for n in completions]
    pairs = prompts * causal_pairs([prompt]) + causal_pairs(lengths) + prompt * sum(lengths)
    tokens = prompts * prompt + sum(lengths)
    of_logits = head_flops(model) * sum(lengths)
    return token_flops(model, head=False) * tokens + of_logits + pair_flops(model) * pairs


def decode_flops(model: ModelConfig, tokens: float, context: float) -> float:
    """Returns the FLOPs of so many decoded tokens that attend to `context` places in all."""
    return token_flops(model, head=True) * tokens + pair_flops(model) * context
