"""The weight of each sequence's tokens in the loss, from completion lengths.

    loss = sum over all tokens t of weight(sequence of t) * loss_t

One weight a sequence decides how per-token losses become one number. It is computed on the host for
the whole mini-batch, so packing, padding, micro-batches and devices cannot matter. For B sequences
of lengths len_i:

    aggregation             weight of sequence i               source (arXiv)
    token_mean              1 / sum of lengths                 DAPO 2503.14476, CE-GPPO 2509.20712
    sequence_mean           1 / (B len_i)                      GRPO 2402.03300
    constant_length         1 / (B max_completion_tokens)      Dr.GRPO 2503.20783
    microbatch_token_mean   (k_j / B) / sum of lengths in j    CE-GPPO's official code

where j is the micro-batch of k_j sequences that i is in.

Worked example, lengths 1, 3, 4 with max_completion_tokens = 8 and micro-batches of 2:

    token_mean              1/8    1/8    1/8
    sequence_mean           1/3    1/9    1/12
    constant_length         1/24   1/24   1/24
    microbatch_token_mean   1/6    1/6    1/12      (2/3) / 4 and (1/3) / 4

Sequences that take no part in the loss are not in `lengths`, so B and the sums leave them out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from cegppo_jax.import_path import named_function, tried


@dataclasses.dataclass(frozen=True)
class AggregationSettings:
    """Which aggregation, and its numbers."""

    name: str  # in AGGREGATIONS, or "package.module:function"
    max_completion_tokens: int  # divisor of constant_length: the sampler's limit
    emulated_microbatch_sequences: int  # k of microbatch_token_mean

    def __post_init__(self) -> None:
        aggregation_named(self.name)
        if not self.max_completion_tokens >= 1:
            raise ValueError(
                f"sampler.max_completion_tokens = {self.max_completion_tokens}: at least 1"
            )
        if not self.emulated_microbatch_sequences >= 1:
            raise ValueError(
                "loss.emulated_microbatch_sequences = "
                f"{self.emulated_microbatch_sequences}: at least 1"
            )
        lengths = np.asarray([1, self.max_completion_tokens])
        tried("loss.aggregation", self.name, lambda: loss_weights(lengths, self))


def aggregation_named(name: str) -> Aggregation:
    """Returns the aggregation of a name in AGGREGATIONS, or a user's from
    "package.module:function": a function (lengths [B] int64, AggregationSettings) -> weights [B].

    Raises:
      ValueError: there is none, or it takes other arguments.
    """
    return named_function("loss.aggregation", name, AGGREGATIONS, "lengths, settings")


def loss_weights(lengths: np.ndarray, settings: AggregationSettings) -> np.ndarray:
    """Returns the weight [B] float32 in the loss of each token of the mini-batch's sequences, from
    their completion tokens [B].

    Raises:
      ValueError: no sequence, one without a token, or one longer than constant_length's divisor; a
        user's aggregation gave another shape, or what is not a finite number of at least 0.
    """
    lengths = _checked(lengths)
    weights = np.asarray(aggregation_named(settings.name)(lengths, settings), np.float32)
    if weights.shape != lengths.shape or not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError(
            f"loss.aggregation = {settings.name!r} gave {weights.ravel()[:8].tolist()} for the "
            f"lengths {lengths.tolist()[:8]}: one finite weight of at least 0 for each"
        )
    return weights


def positive_lm_weights(
    lengths: np.ndarray, is_positive: np.ndarray, settings: AggregationSettings
) -> np.ndarray:
    """Returns the weight [B] float32 of each token in the language-model loss on right completions
    (Klear-Reasoner, arXiv 2508.07629, section 3.2.3), from completion tokens [B] and who is right
    [B] bool.

        loss_lm = - sum over all tokens t of weight(sequence of t) * log pi(t)

    Mean over the tokens of right completions; 0 for all others, and for all when none is right.
    With a user's aggregation it is that mean too, over all tokens.

    Raises:
      ValueError: no sequence, one without a token, or is_positive of another shape.
    """
    lengths, is_positive = _checked(lengths), np.asarray(is_positive, bool)
    if is_positive.shape != lengths.shape:
        raise ValueError(
            f"is_positive of shape {is_positive.shape} does not fit {len(lengths)} sequences"
        )
    positive = POSITIVE_LM.get(settings.name, positive_token_mean)
    return positive(lengths, is_positive, settings).astype(np.float32)


def token_mean(lengths: np.ndarray, settings: AggregationSettings) -> np.ndarray:
    """Returns 1 / sum of lengths, [B]: every token of the mini-batch weighs the same (DAPO,
    arXiv 2503.14476; CE-GPPO, arXiv 2509.20712, eq. 8).
    """
    del settings
    return np.full(len(lengths), 1 / lengths.sum())


def sequence_mean(lengths: np.ndarray, settings: AggregationSettings) -> np.ndarray:
    """Returns 1 / (B len_i), [B]: the mean over sequences of each one's token mean (GRPO, arXiv
    2402.03300). A token of a long completion weighs less than one of a short completion.
    """
    del settings
    return 1 / (len(lengths) * lengths)


def constant_length(lengths: np.ndarray, settings: AggregationSettings) -> np.ndarray:
    """Returns 1 / (B max_completion_tokens), [B]: a constant, so neither a completion's length
    nor the others' changes the weight of a token (Dr.GRPO, arXiv 2503.20783). The weights of all
    tokens sum to the mean share of the limit in use, not to 1.
    """
    limit = settings.max_completion_tokens
    if lengths.max() > limit:
        raise ValueError(
            f"a completion of {lengths.max()} tokens is longer than the sampler's limit, "
            f"max_completion_tokens = {limit}, which constant_length divides by"
        )
    return np.full(len(lengths), 1 / (len(lengths) * limit))


def microbatch_token_mean(lengths: np.ndarray, settings: AggregationSettings) -> np.ndarray:
    """Returns (k_j / B) / sum of lengths in j, [B], where j is the micro-batch of the sequence: the
    official CE-GPPO code's "token-mean".

    It takes the mean over the tokens of one micro-batch on one device and weights it by the
    micro-batch's share of the sequences. Here micro-batches are emulated: consecutive sequences,
    emulated_microbatch_sequences each, the last perhaps fewer, whatever the hardware does. 1 is
    sequence_mean, B or more is token_mean; the official recipe runs with 1 to 2.
    """
    return _microbatch_means(lengths, np.ones(len(lengths), bool), settings)


def positive_token_mean(
    lengths: np.ndarray, is_positive: np.ndarray, settings: AggregationSettings
) -> np.ndarray:
    """Returns 1 / tokens of all right completions, and 0 for the others, [B]: a global mean
    (arXiv 2508.07629, section 3.2.3).
    """
    del settings
    tokens = lengths[is_positive].sum()
    return is_positive / max(tokens, 1)  # no right completion: 0 / 1


def positive_microbatch_token_mean(
    lengths: np.ndarray, is_positive: np.ndarray, settings: AggregationSettings
) -> np.ndarray:
    """Returns (k_j / B) / tokens of right completions in j, and 0 for the others, [B]: the official
    CE-GPPO code.

    k_j counts all sequences of micro-batch j: a right completion next to a wrong one weighs as much
    as two right ones together. Micro-batches without a right completion are lost, so the weights of
    all tokens can sum to less than 1.
    """
    return _microbatch_means(lengths, is_positive, settings)


def _microbatch_means(
    lengths: np.ndarray, counted: np.ndarray, settings: AggregationSettings
) -> np.ndarray:
    """Returns (k_j / B) / counted tokens of j for sequences that are counted, and 0 for the
    others, [B].
    """
    microbatch = np.arange(len(lengths)) // settings.emulated_microbatch_sequences
    share = np.bincount(microbatch) / len(lengths)
    tokens = np.bincount(microbatch, weights=lengths * counted)
    return counted * (share / np.maximum(tokens, 1))[microbatch]


def _checked(lengths: np.ndarray) -> np.ndarray:
    """Returns lengths [B] int64. Raises ValueError unless they are lengths of B >= 1 sequences."""
    lengths = np.asarray(lengths)
    if lengths.ndim != 1 or not len(lengths):
        raise ValueError(f"lengths of shape {lengths.shape}: one a sequence, of 1 sequence or more")
    if not np.issubdtype(lengths.dtype, np.integer):
        raise ValueError(f"lengths are whole numbers of tokens, found {lengths.dtype}")
    if lengths.min() < 1:
        raise ValueError(
            f"sequence {lengths.argmin()} of {len(lengths)} has {lengths.min()} completion tokens: "
            "a sequence in the loss has 1 or more"
        )
    return lengths.astype(np.int64)


# Lengths [B] int64 -> weights [B] float64
Aggregation = Callable[[np.ndarray, AggregationSettings], np.ndarray]

AGGREGATIONS: dict[str, Aggregation] = {
    "token_mean": token_mean,
    "sequence_mean": sequence_mean,
    "constant_length": constant_length,
    "microbatch_token_mean": microbatch_token_mean,
}

# Lengths [B] int64, is_positive [B] bool -> weights [B] float64, for the aggregation of that name
PositiveAggregation = Callable[[np.ndarray, np.ndarray, AggregationSettings], np.ndarray]

POSITIVE_LM: dict[str, PositiveAggregation] = {
    "token_mean": positive_token_mean,
    "sequence_mean": positive_token_mean,
    "constant_length": positive_token_mean,
    "microbatch_token_mean": positive_microbatch_token_mean,
}
