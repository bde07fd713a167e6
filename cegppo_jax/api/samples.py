"""Sampled completions by hand: their rewards, and the batch that trains on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from cegppo_jax.import_path import check_takes
from cegppo_jax.learner.advantages import AdvantageSettings, compute_advantages
from cegppo_jax.losses.aggregation import AggregationSettings, loss_weights, positive_lm_weights
from cegppo_jax.packing import (
    PackedBatch,
    PackedShape,
    TrainingSequence,
    completion_places,
    pack,
    with_targets,
)
from cegppo_jax.rewards.finding import Finding, Verifier
from cegppo_jax.rewards.forms import adapted, is_ours
from cegppo_jax.rewards.scoring import RewardValues, credited
from cegppo_jax.rewards.verifiers import resolve_verifier
from cegppo_jax.sampling.filters import SamplingFilter
from cegppo_jax.types import Completion, Problem, Prompt, StopReason

# Prompts have room for a multiple of so many tokens, and rows are such a multiple: few shapes, few
# compilations.
PROMPT_MULTIPLE, ROW_MULTIPLE = 16, 32


def round_up(number: int, multiple: int) -> int:
    """Returns the next multiple: 17, 16 -> 32."""
    return -(-number // multiple) * multiple


@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
    """G completions of each of P prompts. `print` shows them as text."""

    prompts: tuple[Prompt, ...]  # P
    completions: tuple[tuple[Completion, ...], ...]  # [P][G]
    texts: tuple[tuple[str, ...], ...]  # [P][G], decoded
    sampling: SamplingFilter  # that they were drawn with
    max_tokens: int  # the limit of a completion

    @property
    def shape(self) -> tuple[int, int]:
        """(P, G)."""
        return len(self.completions), len(self.completions[0])

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each completion, the ending one included: [P, G] int."""
        return np.asarray([[len(one.tokens) for one in group] for group in self.completions])

    def pack(self, rows: int) -> PackedBatch:
        """Returns the P G sequences, group after group, in rows: [U, `rows`, C], in which a prompt
        stands once. C depends on the limits alone: samples drawn alike are packed into one shape.
        """
        prompts, samples = self.shape
        sequences = [
            TrainingSequence(prompt.tokens, one.tokens, draw_id=place * samples + sample)
            for place, (prompt, group) in enumerate(
                zip(self.prompts, self.completions, strict=True)
            )
            for sample, one in enumerate(group)
        ]
        longest_prompt = max(len(prompt.tokens) for prompt in self.prompts)
        longest = round_up(longest_prompt, PROMPT_MULTIPLE) + self.max_tokens
        shape = PackedShape.holding(
            prompts * samples,
            max_sequence_tokens=longest,
            rows=rows,
            row_tokens=round_up(longest, ROW_MULTIPLE),
        )
        return pack(sequences, shape, share_prompts=True)

    def __repr__(self) -> str:
        prompts, samples = self.shape
        ended = sum(
            one.stop_reason is StopReason.EOS for group in self.completions for one in group
        )
        return (
            f"Samples({prompts} prompts x {samples}: {self.lengths.sum():,} tokens, "
            f"{ended} of {prompts * samples} completions ended by themselves)"
        )

    def __str__(self) -> str:
        lines = []
        for prompt, texts in zip(self.prompts, self.texts, strict=True):
            lines.append(f"> {prompt.problem.problem}")
            lines += [f"  [{sample}] {text}" for sample, text in enumerate(texts)]
        return "\n".join(lines)


def score(
    samples: Samples,
    answers: Any,
    verifier: str | Callable[..., Any] = "math",
    *,
    correct: float = 1.0,
    wrong: float = -1.0,
) -> np.ndarray:
    """Rewards completions by their answers. Runs in this process: nothing stops a verifier that
    hangs.

    Args:
      answers: P right answers, one for each prompt; what is not text is written as text.
      verifier: a name ("math", "gsm8k", "choice", "final_answer", ...), "package.module:function",
        or a function: of (completion text, answer), or in the form of TRL or verl. It returns a
        Finding, a bool, or a number, partial credit from 0 for wrong to 1 for right
        (rewards/forms.py).
      correct, wrong: rewards of right and of all other completions.

    Returns:
      rewards [P, G] float32.

    Raises:
      ValueError: the answers are not P, the verifier takes other arguments, cannot read one of the
        answers or returns something else, or correct is not above wrong.
    """
    values = RewardValues(
        correct=correct, wrong=wrong, unparsed=wrong, timed_out=wrong, crashed=wrong
    )
    found = findings(samples, answers, verifier)
    return np.asarray([[credited(one, values) for one in group] for group in found], np.float32)


def listed(answers: Any) -> list[Any]:
    """Returns a single answer as a list of one, and several, in whatever collection, as a list."""
    single = isinstance(answers, str) or not isinstance(answers, Iterable)
    return [answers] if single or getattr(answers, "ndim", 1) == 0 else list(answers)


def findings(
    samples: Samples, answers: Any, verifier: str | Callable[..., Any]
) -> list[list[Finding]]:
    """Returns what a verifier finds in each completion, [P][G]. Arguments and errors as of
    `score`.
    """
    answers = listed(answers)
    if len(answers) != len(samples.prompts):
        raise ValueError(f"{len(answers)} answers for {len(samples.prompts)} prompts: one for each")
    verify = _verifier(verifier)
    problems = [
        dataclasses.replace(prompt.problem, answer=str(answer))
        for prompt, answer in zip(samples.prompts, answers, strict=True)
    ]
    return [
        [verify(text, problem) for text in texts]
        for problem, texts in zip(problems, samples.texts, strict=True)
    ]


def _verifier(verifier: str | Callable[..., Any]) -> Verifier:
    if isinstance(verifier, str):
        return resolve_verifier(verifier)
    name = getattr(verifier, "__name__", repr(verifier))
    if not is_ours(verifier):
        return adapted(verifier, "verifier", name)

    check_takes("verifier", name, verifier, "text, answer")

    def by_answer(text: str, problem: Problem) -> Any:
        return verifier(text, problem.answer)

    return adapted(by_answer, "verifier", name)


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """Samples with their advantages and loss weights: what one update trains on."""

    samples: Samples
    rewards: np.ndarray  # [P, G] float32
    advantages: np.ndarray  # [P, G] float32
    loss_weights: np.ndarray  # [P, G] float32, of each token of the completion in the loss
    lm_weights: np.ndarray | None  # [P, G] float32, in the LM loss on correct completions

    def pack(self, rows: int) -> PackedBatch:
        """Returns the sequences in rows, with their targets: [U, `rows`, C]."""
        return with_targets(
            self.samples.pack(rows),
            advantages=self.advantages.ravel(),
            loss_weights=self.loss_weights.ravel(),
            lm_weights=None if self.lm_weights is None else self.lm_weights.ravel(),
        )

    def __repr__(self) -> str:
        prompts, samples = self.samples.shape
        idle = int((self.advantages == 0).all(axis=1).sum())
        return (
            f"Batch({prompts} prompts x {samples}: mean reward {self.rewards.mean():.3f}, "
            f"{self.samples.lengths.sum():,} tokens, {idle} groups without an "
            "advantage)"
        )


def batch(
    samples: Samples,
    rewards: Any,
    *,
    advantage: str = "group_normalised",
    aggregation: str = "token_mean",
    correct: Any = None,
) -> Batch:
    """Turns samples and their rewards into a batch.

    Args:
      rewards: [P, G].
      advantage: a name in learner/advantages.py: ADVANTAGES.
      aggregation: a name in losses/aggregation.py: AGGREGATIONS.
      correct: [P, G] bool, which completions the LM loss of positive_lm_coef is on.

    Raises:
      ValueError: arrays of another shape, rewards that are not finite, or samples of a filtered
        distribution (greedy, top-k, top-p), which a policy gradient is not for.
    """
    rewards = np.asarray(rewards, np.float32)
    for name, array in ("rewards", rewards), ("correct", correct):
        if array is not None and np.shape(array) != samples.shape:
            raise ValueError(
                f"{name} of shape {np.shape(array)} for samples [P, G] = {samples.shape}"
            )
    if not np.isfinite(rewards).all():
        raise ValueError(
            f"{(~np.isfinite(rewards)).sum()} of {rewards.size} rewards are not finite"
        )
    if not samples.sampling.keeps_full_support:
        raise ValueError(
            f"samples drawn with {samples.sampling}: a policy gradient needs the full softmax "
            "(temperature above 0, top_k = 0, top_p = 1)"
        )
    settings = AdvantageSettings(advantage, std_ddof=0, std_epsilon=1e-6, pass_k=samples.shape[1])
    lengths = samples.lengths.ravel()
    aggregate = AggregationSettings(
        aggregation, samples.max_tokens, emulated_microbatch_sequences=1
    )
    lm_weights = None
    if correct is not None:
        right = np.asarray(correct, bool).ravel()
        lm_weights = positive_lm_weights(lengths, right, aggregate).reshape(samples.shape)
    return Batch(
        samples,
        rewards,
        compute_advantages(rewards, settings),
        loss_weights(lengths, aggregate).reshape(samples.shape),
        lm_weights,
    )


def spread(
    name: str, values: Sequence[np.ndarray], packed: PackedBatch, lengths: np.ndarray
) -> np.ndarray:
    """Values of completion tokens, an array [n] a completion -> [U, R, C] float32, 0 elsewhere.

    Args:
      lengths: tokens of each completion.

    Raises:
      ValueError: the values are of other completions.
    """
    given, expected = [len(one) for one in values], lengths.ravel().tolist()
    if given != expected:
        raise ValueError(
            f"{name} are of {len(given)} completions with {sum(given):,} tokens, and the batch has "
            f"{len(expected)} with {sum(expected):,}: take them from policy.logprobs of its samples"
        )
    flat = np.zeros(np.shape(packed.tokens), np.float32).ravel()
    flat[np.concatenate(completion_places(packed, len(given)))] = np.concatenate(list(values))
    return flat.reshape(np.shape(packed.tokens))
