"""Packs ragged sequences into rows of one static shape."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import flax.struct
import numpy as np

from cegppo_jax.row_filling import first_fit, first_fit_sharing
from cegppo_jax.sharding import Leaf


@flax.struct.dataclass
class PackedBatch:
    """The sequences of one mini-batch in rows of one static shape.

    Worked example, C = 8: prompt "a b" with completion "c d", and prompt "e" with completion "f".

        tokens           a b c d e f 0 0
        segment_ids      1 1 1 1 2 2 0 0    0 is padding; attention stays within equal ids
        positions        0 1 2 3 0 1 0 0
        completion_mask  0 0 1 1 0 1 0 0    1 exactly on sampled tokens, the EOS included
        sequence_ids     0 0 0 0 1 1 2 2    unique in the mini-batch; padding: the last id + 1
        prompt_segments  1 1 1 1 2 2 0 0    attention also reaches this segment
        predictors       0 0 1 2 0 4 0 0    the place whose hidden state predicts this token

    A prompt that completions of a row share stands there once, as a segment that belongs to no
    sequence. Prompt "a b" with completions "c d" and "e":

        tokens           a b c d e 0 0 0
        segment_ids      1 1 2 2 3 0 0 0
        prompt_segments  1 1 1 1 1 0 0 0
        positions        0 1 2 3 2 0 0 0
        completion_mask  0 0 1 1 1 0 0 0
        sequence_ids     2 2 0 0 1 2 2 2
        predictors       0 0 1 2 1 0 0 0
    """

    tokens: Leaf  # [U, R, C] int32
    segment_ids: Leaf  # [U, R, C] int32
    prompt_segments: Leaf  # [U, R, C] int32
    predictors: Leaf  # [U, R, C] int32
    positions: Leaf  # [U, R, C] int32
    completion_mask: Leaf  # [U, R, C] bool
    sequence_ids: Leaf  # [U, R, C] int32
    advantages: Leaf  # [U, R, C] float32, the sequence's own on completion tokens, else 0
    # [U, R, C] float32: the loss is the sum of these times the tokens' losses (aggregation.py)
    loss_weights: Leaf
    lm_weights: Leaf  # [U, R, C] float32, those of the language-model loss on correct completions
    corrections: Leaf  # [U, R, C] float32, of sampler/trainer mismatch (mismatch.py); 1: none
    draw_ids: Leaf  # [U, R, C] int32, the sequence's number in the run: random draws count by it
    num_microbatches: Leaf  # [] int32, how many of the U are in use: a traced loop bound

    @property
    def trained_mask(self) -> Leaf:
        """Completion tokens of completions that train, [U, R, C] bool. Over-long completions
        that are masked have weight 0.
        """
        return self.completion_mask & (self.loss_weights > 0)


@dataclasses.dataclass(frozen=True)
class PackedShape:
    """The static shape of a mini-batch: [microbatches, rows, row_tokens]."""

    microbatches: int  # U, enough for the worst mix of lengths
    rows: int  # R, of a micro-batch
    row_tokens: int  # C

    def __str__(self) -> str:
        rows = f"{self.rows} rows of {self.row_tokens:,} tokens"
        return f"up to {self.microbatches} micro-batches of {rows}"

    @classmethod
    def holding(
        cls, sequences: int, *, max_sequence_tokens: int, rows: int, row_tokens: int
    ) -> PackedShape:
        """Returns the smallest shape that holds any `sequences` sequences of up to
        `max_sequence_tokens`.

        First-fit opens a row only when the sequence fits in no other: each earlier row then holds
        more than row_tokens - max_sequence_tokens tokens, hence at least floor(row_tokens /
        max_sequence_tokens) sequences.

        Raises:
          ValueError: a row is shorter than the longest sequence.
        """
        per_row = row_tokens // max_sequence_tokens
        if not per_row:
            raise ValueError(
                f"rows of {row_tokens} tokens cannot hold a sequence of {max_sequence_tokens} "
                "(longest prompt + "
                "longest completion): raise batch.row_tokens or lower the limits"
            )
        worst_rows = -(-sequences // per_row)
        return cls(-(-worst_rows // rows), rows, row_tokens)


@dataclasses.dataclass(frozen=True)
class TrainingSequence:
    """A prompt and its completion, as the trainer sees them."""

    prompt_tokens: Sequence[int]  # at least one
    completion_tokens: Sequence[int] | np.ndarray  # [n] int32
    draw_id: int  # unique in the run

    def __len__(self) -> int:
        return len(self.prompt_tokens) + len(self.completion_tokens)


def pack(
    sequences: Sequence[TrainingSequence], shape: PackedShape, *, share_prompts: bool = False
) -> PackedBatch:
    """Packs sequences into a PackedBatch of NumPy arrays [U, R, C]; unused rows of the static shape
    are padding.

    Advantages and weights are 0 until `with_targets` fills them in, since they may depend on the
    log-probs of the packed tokens.

    Args:
      share_prompts: whether a prompt stands once for all its completions in a row. They are
        computed the same way, but for rounding.

    Raises:
      ValueError: the sequences need more rows than the shape has, or one of them has no prompt.
    """
    if any(not len(sequence.prompt_tokens) for sequence in sequences):
        raise ValueError("a sequence without a prompt token cannot be packed: nothing predicts it")
    lengths = [len(sequence) for sequence in sequences]
    if share_prompts:
        prompts = [tuple(sequence.prompt_tokens) for sequence in sequences]
        rows = first_fit_sharing(prompts, lengths, shape.row_tokens)
    else:
        rows = first_fit(lengths, shape.row_tokens)
    capacity = shape.microbatches * shape.rows
    if len(rows) > capacity:
        raise ValueError(
            f"{len(sequences)} sequences need {len(rows)} rows of {shape.row_tokens} tokens, but "
            "the batch holds "
            f"{shape.microbatches} micro-batches x {shape.rows} rows = {capacity}"
        )
    flat = (capacity, shape.row_tokens)
    nothing = np.zeros(flat, np.float32)
    arrays = {name: np.zeros(flat, np.int32) for name in _INTEGERS}
    arrays["sequence_ids"] += len(sequences)
    completion_mask = np.zeros(flat, bool)
    for row, members in enumerate(rows):
        start = 0
        for piece in _pieces(sequences, members, share_prompts):
            places, count = slice(start, start + len(piece.tokens)), np.arange(len(piece.tokens))
            arrays["tokens"][row, places] = piece.tokens
            arrays["segment_ids"][row, places] = piece.segment
            arrays["prompt_segments"][row, places] = piece.prompt_segment
            arrays["positions"][row, places] = piece.position + count
            arrays["predictors"][row, places] = np.maximum(start + count - 1, 0)
            arrays["predictors"][row, places][:1] = piece.predictor  # of no token: nothing
            arrays["sequence_ids"][row, places] = piece.sequence
            arrays["draw_ids"][row, places] = piece.draw_id
            completion_mask[row, places] = piece.is_completion
            start = places.stop

    def by_microbatch(array: np.ndarray) -> np.ndarray:
        return array.reshape(shape.microbatches, shape.rows, shape.row_tokens)

    return PackedBatch(
        **{name: by_microbatch(array) for name, array in arrays.items()},
        completion_mask=by_microbatch(completion_mask),
        advantages=by_microbatch(nothing),
        loss_weights=by_microbatch(nothing),
        lm_weights=by_microbatch(nothing),
        corrections=by_microbatch(completion_mask).astype(np.float32),
        num_microbatches=np.asarray(-(-len(rows) // shape.rows), np.int32),
    )


_INTEGERS = (
    *("tokens", "segment_ids", "prompt_segments", "predictors"),
    *("positions", "sequence_ids", "draw_ids"),
)


@dataclasses.dataclass(frozen=True)
class _Piece:
    """A prompt or a completion in a row."""

    tokens: Sequence[int] | np.ndarray  # [n] int32
    segment: int
    prompt_segment: int
    position: int  # of the first token
    predictor: int  # of the first token: its place in the row
    sequence: int
    draw_id: int
    is_completion: bool


def _pieces(
    sequences: Sequence[TrainingSequence], members: Sequence[int], share_prompts: bool
) -> Iterator[_Piece]:
    """Yields the pieces of a row from left to right. A prompt that is shared belongs to nobody."""
    nobody, start, segment = len(sequences), 0, 0
    ends: dict[tuple[int, ...], tuple[int, int]] = {}  # of shared prompts: segment and last place
    for index in members:
        one = sequences[index]
        prompt, length = tuple(one.prompt_tokens), len(one.prompt_tokens)
        owner, draw_id = (nobody, 0) if share_prompts else (index, one.draw_id)
        if prompt not in ends or not share_prompts:
            segment += 1
            yield _Piece(one.prompt_tokens, segment, segment, 0, 0, owner, draw_id, False)
            start += length
            ends[prompt] = segment, start - 1
        prompt_segment, last = ends[prompt]
        segment += share_prompts
        yield _Piece(
            one.completion_tokens, segment, prompt_segment, length, last, index, one.draw_id, True
        )
        start += len(one.completion_tokens)


def with_targets(
    batch: PackedBatch,
    *,
    advantages: np.ndarray,
    loss_weights: np.ndarray,
    lm_weights: np.ndarray | None = None,
    corrections: Sequence[np.ndarray] | None = None,
) -> PackedBatch:
    """Writes numbers of the sequences, [B] float32 each, to their completion tokens in the batch.

    Args:
      corrections: one array [n] a sequence, of its completion tokens; None: 1 everywhere.
    """
    mask, ids = np.asarray(batch.completion_mask), np.asarray(batch.sequence_ids)

    def spread(values: np.ndarray) -> np.ndarray:
        padded = np.append(np.asarray(values, np.float32), np.float32(0))
        return np.where(mask, padded[ids], np.float32(0))

    filled = {"advantages": spread(advantages), "loss_weights": spread(loss_weights)}
    if lm_weights is not None:
        filled["lm_weights"] = spread(lm_weights)
    if corrections is not None:
        filled["corrections"] = by_token(corrections, batch)
    return dataclasses.replace(batch, **filled)


def by_token(values: Sequence[np.ndarray], batch: PackedBatch) -> np.ndarray:
    """Returns values of completion tokens, one array [n] a sequence, at their places in the batch,
    [U, R, C] float32, and 0 elsewhere: what `unpack` takes apart.
    """
    shape = np.shape(batch.completion_mask)
    flat = np.zeros(np.prod(shape), np.float32)
    flat[np.concatenate(completion_places(batch, len(values)))] = np.concatenate(values)
    return flat.reshape(shape)


def completion_places(batch: PackedBatch, count: int) -> list[np.ndarray]:
    """Returns for each of `count` sequences the flat indices [n] of its completion tokens."""
    flat = np.flatnonzero(np.asarray(batch.completion_mask))
    ids = np.asarray(batch.sequence_ids).ravel()[flat]
    ends = np.cumsum(np.bincount(ids, minlength=count))
    return np.split(flat[np.argsort(ids, kind="stable")], ends[:-1])


def unpack(values: np.ndarray, batch: PackedBatch, count: int) -> list[np.ndarray]:
    """Unpacks values [U, R, C] into one array [n] a sequence, of its completion tokens, in the
    sequences' order.
    """
    flat = np.asarray(values).ravel()
    return [flat[places] for places in completion_places(batch, count)]


def packing_efficiency(batch: PackedBatch) -> float:
    """Returns used tokens / all tokens of the micro-batches in use."""
    used = np.asarray(batch.segment_ids)[: int(batch.num_microbatches)]
    return float((used > 0).mean())
