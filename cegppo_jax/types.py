"""The records that flow through a step, and the axis glossary.

    Problem -> Prompt -> Rollout (Completions, Scores) -> advantages -> PackedBatch -> update

Axes (capital letters in every docstring):
    P  prompts a step            G  samples a prompt (one group)     S  decode slots
    U  micro-batches             R  rows of a micro-batch            C  row length, in tokens
    T  cache length              V  vocabulary                       D  model width
    N  attention heads           K  key/value heads                  H  head size       L  layers
    B  sequences of a mini-batch, or rows of a call to the decoder
    Q  query tokens of a row in a call to the decoder                Tp padded prompt length
    n  length of a one-dimensional array, usually the tokens of one completion

Alignment: every training array is [U, R, C] (or [R, C] inside one micro-batch) and index (r, c)
is about *that* token: its log-probability is that of the token itself, given the tokens before it.
Only losses/logprobs.py shifts by one.

No jax here: verifiers run in worker processes that read these records. The device-side record,
PackedBatch, is in packing.py.
"""

from __future__ import annotations

import dataclasses
import enum

import numpy as np


@dataclasses.dataclass(frozen=True)
class Problem:
    """One verifiable problem from a source: its text, a known answer, perhaps a worked solution."""

    id: str
    problem: str
    answer: str
    source: str  # selects the verifier in a mixture; names the row in reports
    solution: str | None = None  # only the supervised warm start reads it


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A problem rendered by the chat template and tokenized."""

    problem: Problem
    tokens: tuple[int, ...]
    index: int  # position in the prompt stream: unique within a run, and the sampler's key counter


class StopReason(enum.StrEnum):
    """Why the sampler ended a completion. Nothing else infers it from token ids."""

    EOS = "eos"
    LENGTH = "length"


@dataclasses.dataclass(frozen=True)
class Completion:
    """One sampled continuation of a prompt."""

    prompt_index: int
    sample_index: int  # 0..G-1 within the group
    tokens: np.ndarray  # [n] int32, the ending EOS included when stop_reason is EOS
    sampler_logprobs: np.ndarray  # [n] float32, under the distribution it was drawn from
    stop_reason: StopReason
    policy_version: int  # the training step whose parameters drew it


@dataclasses.dataclass(frozen=True)
class TokenReadings:
    """What the trainer found at the tokens of one completion, before the step's first update."""

    entropies: np.ndarray  # [n] float32, nats
    log_rho: np.ndarray  # [n] float32, ln pi_old - ln pi_sampler
    advantage: float


class Outcome(enum.StrEnum):
    """What a verifier found. Only CORRECT and WRONG are statements about the answer itself."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSED = "unparsed"  # no answer could be read from the completion
    TIMED_OUT = "timed_out"  # the verifier was stopped at its time limit
    CRASHED = "crashed"  # the verifier raised an error, or its process died


# Outcomes that judge the answer. With any other the verifier came to no judgement: such a
# completion counts neither as right nor as wrong.
JUDGED = (Outcome.CORRECT, Outcome.WRONG, Outcome.UNPARSED)


@dataclasses.dataclass(frozen=True)
class Score:
    """A verifier's result: the reward that training sees, partial credit and bonuses included, and
    the outcome that metrics count.
    """

    reward: float
    outcome: Outcome
    answer: str | None  # as the verifier read and spelt it, for votes; None when unparsed
    rule: str | None = None  # where the verifier found it (rewards/extraction.py); None: no rule


@dataclasses.dataclass(frozen=True)
class Rollout:
    """One group: a prompt, its G completions and their scores."""

    prompt: Prompt
    completions: tuple[Completion, ...]
    texts: tuple[str, ...]  # the completions, decoded
    scores: tuple[Score, ...]
