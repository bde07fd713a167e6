"""Texts -> sampled completions, their rewards, and the batch that trains on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from cegppo_jax.learner.advantages import AdvantageSettings, compute_advantages
from cegppo_jax.losses.aggregation import AggregationSettings, loss_weights
from cegppo_jax.packing import PackedBatch, PackedShape, TrainingSequence, pack, with_targets
from cegppo_jax.rewards.finding import Finding, Verifier
from cegppo_jax.rewards.verifiers import resolve_verifier
from cegppo_jax.types import Completion, Outcome, Problem, Prompt

ROW_MULTIPLE = 32  # rows are this many tokens, or a multiple: few shapes, few compilations


@dataclasses.dataclass(frozen=True)
class Samples:
    """G completions of each of P prompts."""

    prompts: tuple[Prompt, ...]  # P
    completions: tuple[tuple[Completion, ...], ...]  # [P][G]
    texts: tuple[tuple[str, ...], ...]  # [P][G], decoded
    temperature: float  # that they were drawn at
    max_tokens: int  # the limit of a completion

    def sequences(self) -> list[TrainingSequence]:
        """The P G sequences that a trainer packs, group after group."""
        return [
            TrainingSequence(prompt.tokens, one.tokens, draw_id=place * len(group) + sample)
            for place, (prompt, group) in enumerate(
                zip(self.prompts, self.completions, strict=True)
            )
            for sample, one in enumerate(group)
        ]

    def __str__(self) -> str:
        lines = []
        for prompt, texts in zip(self.prompts, self.texts, strict=True):
            lines.append(f"> {prompt.problem.problem}")
            lines += [f"  [{sample}] {text}" for sample, text in enumerate(texts)]
        return "\n".join(lines)


def score(
    samples: Samples,
    answers: Sequence[str],
    verifier: str | Callable[[str, str], Finding | bool | float] = "math",
    *,
    correct: float = 1.0,
    wrong: float = -1.0,
) -> np.ndarray:
    """Rewards completions by their answers. Runs in this process: nothing stops a verifier that
    hangs.

    Args:
      answers: P right answers, one for each prompt.
      verifier: a name ("math", "gsm8k", "choice", "final_answer", ...), "package.module:function",
        or a function (completion text, answer) -> a Finding, bool, or number (the reward itself).
      correct, wrong: rewards of right and of all other completions.

    Returns:
      rewards [P, G] float32.

    Raises:
      ValueError: the answers are not P, or the verifier cannot read one of them.
    """
    if len(answers) != len(samples.prompts):
        raise ValueError(f"{len(answers)} answers for {len(samples.prompts)} prompts: one for each")
    rewards = []
    for prompt, texts, answer in zip(samples.prompts, samples.texts, answers, strict=True):
        problem = dataclasses.replace(prompt.problem, answer=answer)
        rewards.append([_reward(verifier, text, problem, correct, wrong) for text in texts])
    return np.asarray(rewards, np.float32)


def _reward(
    verifier: str | Callable[..., Finding | bool | float],
    text: str,
    problem: Problem,
    correct: float,
    wrong: float,
) -> float:
    if isinstance(verifier, str):
        named: Verifier = resolve_verifier(verifier)
        found: Finding | bool | float = named(text, problem)
    else:
        found = verifier(text, problem.answer)
    if isinstance(found, Finding):
        found = found.outcome is Outcome.CORRECT
    if isinstance(found, bool | np.bool_):
        return correct if found else wrong
    return float(found)


@dataclasses.dataclass(frozen=True)
class Batch:
    """Samples packed for an update, with their advantages and loss weights."""

    samples: Samples
    rewards: np.ndarray  # [P, G] float32
    advantages: np.ndarray  # [P, G] float32
    packed: PackedBatch  # [U, R, C]


def batch(
    samples: Samples,
    rewards: np.ndarray,
    *,
    advantage: str = "group_normalised",
    aggregation: str = "token_mean",
    rows: int = 8,
) -> Batch:
    """Packs samples and their rewards into a batch.

    Args:
      rewards: [P, G].
      advantage: a name in learner/advantages.py: ADVANTAGES.
      aggregation: a name in losses/aggregation.py: AGGREGATIONS.
      rows: R, of a micro-batch: fewer need less memory.

    Raises:
      ValueError: the rewards are not [P, G].
    """
    rewards = np.asarray(rewards, np.float32)
    expected = len(samples.prompts), len(samples.completions[0])
    if rewards.shape != expected:
        raise ValueError(f"rewards of shape {rewards.shape} for samples [P, G] = {expected}")
    settings = AdvantageSettings(advantage, std_ddof=0, std_epsilon=1e-6, pass_k=expected[1])
    advantages = compute_advantages(rewards, settings)
    sequences = samples.sequences()
    lengths = np.asarray([len(one.completion_tokens) for one in sequences])
    weights = loss_weights(
        lengths,
        AggregationSettings(aggregation, samples.max_tokens, emulated_microbatch_sequences=1),
    )
    packed = with_targets(
        pack(sequences, shape_of(sequences, rows)),
        advantages=advantages.ravel(),
        loss_weights=weights,
    )
    return Batch(samples, rewards, advantages, packed)


def shape_of(sequences: Sequence[TrainingSequence], rows: int) -> PackedShape:
    """Returns a shape that holds the sequences: rows as long as the longest, rounded up."""
    longest = max(map(len, sequences))
    return PackedShape.holding(
        len(sequences),
        max_sequence_tokens=longest,
        rows=rows,
        row_tokens=-(-longest // ROW_MULTIPLE) * ROW_MULTIPLE,
    )
