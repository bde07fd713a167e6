"""Rollouts -> mini-batches ready for their updates: packed tokens, old log-probs, advantages,
weights.

Everything that needs all completions of a step at once happens here, on the host: the correction of
sampler/trainer mismatch, penalties in the reward, advantages and how the loss weighs each
completion.

Groups carried from earlier steps train as those of their own step do: their old log-probs are the
present policy's, of before the step's first update, so that a ratio is always of this step's policy
to what its updates started from. The sampler's log-probs stay those of the policy that drew them:
the metrics of mismatch, and its correction, then see staleness as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np

from cegppo_jax.finite import check_logprobs
from cegppo_jax.learner.advantages import AdvantageSettings, compute_advantages
from cegppo_jax.learner.mismatch import MismatchSettings, correction_weights, mismatch_metrics
from cegppo_jax.losses.aggregation import AggregationSettings, loss_weights, positive_lm_weights
from cegppo_jax.losses.kl import kl_of_sequence
from cegppo_jax.losses.policy_loss import OldStatistics
from cegppo_jax.models.decoder import Params
from cegppo_jax.packing import (
    PackedBatch,
    PackedShape,
    TrainingSequence,
    pack,
    packing_efficiency,
    unpack,
    with_targets,
)
from cegppo_jax.rewards.overlong import OverlongSettings, kept, overlong_penalty
from cegppo_jax.rollout.collect import rewards_of
from cegppo_jax.rollout.selection import StepGroups
from cegppo_jax.types import Completion, Outcome, Rollout, StopReason

# (parameters, batch) -> log-probabilities and entropies [U, R, C]
Logprobs = Callable[[Params, PackedBatch], tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Minibatch:
    """What one update reads."""

    batch: PackedBatch
    old: OldStatistics


@dataclasses.dataclass(frozen=True)
class MinibatchSettings:
    """How completions become mini-batches."""

    shape: PackedShape
    minibatch_prompts: int
    advantage: AdvantageSettings
    aggregation: AggregationSettings
    overlong: OverlongSettings
    mismatch: MismatchSettings
    positive_lm: bool  # whether the loss has an LM term on correct completions
    kl_place: str  # of the KL to the reference: "none" | "loss" | "reward"
    kl_estimator: str
    kl_coef: float
    measures_all: bool  # whether the entropy of groups that do not train is asked for as well


def make_minibatches(
    step_groups: StepGroups,
    params: Params,
    reference: Params | None,
    logprobs: Logprobs,
    settings: MinibatchSettings,
) -> tuple[list[Minibatch], dict[str, float]]:
    """Groups of a step, the present parameters, the reference's -> mini-batches, metrics.

    A mini-batch holds whole groups. No group that trains: no mini-batch, and no metric but, if
    asked for, the entropy of what was drawn.

    Raises:
      NonFiniteError: trainer or reference gives a completion's token no finite log-probability.
    """
    groups, resting = step_groups.trained, step_groups.resting
    others = entropies_of(resting, params, logprobs, settings) if settings.measures_all else []
    if not groups:
        return [], {"policy/rollout_entropy": mean_of_tokens(others)} if others else {}
    size = settings.minibatch_prompts
    parts = [groups[start : start + size] for start in range(0, len(groups), size)]
    batches = [pack(training_sequences(part), settings.shape) for part in parts]
    old = [logprobs(params, batch) for batch in batches]
    ref = [logprobs(reference, batch)[0] for batch in batches] if reference is not None else None
    samples = len(groups[0].completions)
    counts = [len(part) * samples for part in parts]
    old_logprobs = by_completion(batches, [pair[0] for pair in old], counts)
    entropies = by_completion(batches, [pair[1] for pair in old], counts)
    completions = [completion for group in groups for completion in group.completions]
    check_all_finite(groups, old_logprobs, "trainer")
    ref_logprobs = by_completion(batches, ref, counts) if ref is not None else None
    if ref_logprobs is not None:
        check_all_finite(groups, ref_logprobs, "reference")
    log_rho = [
        trainer - completion.sampler_logprobs
        for trainer, completion in zip(old_logprobs, completions, strict=True)
    ]
    corrections = correction_weights(log_rho, settings.mismatch)
    penalties = np.zeros(len(completions))
    metrics = mismatch_metrics(log_rho, corrections)
    metrics |= rollout_entropy(step_groups, completions, entropies, others)
    if settings.kl_place == "reward":
        assert ref_logprobs is not None
        both = zip(old_logprobs, ref_logprobs, strict=True)
        kl = np.asarray([kl_of_sequence(settings.kl_estimator, *pair) for pair in both])
        penalties -= settings.kl_coef * kl
        metrics["reward/kl_penalty_mean"] = float(settings.kl_coef * kl.mean())
    targets = completion_targets(groups, penalties, settings)
    metrics["reward/overlong_masked_fraction"] = float(1 - targets.trains.mean())
    if targets.trains.any():
        kept_ones = [own for own, trains in zip(entropies, targets.trains, strict=True) if trains]
        metrics["policy/old_entropy"] = mean_of_tokens(kept_ones)
    per = size * samples
    in_loss = ref if ref is not None and settings.kl_place == "loss" else [None] * len(batches)
    minibatches = []
    for i, batch in enumerate(batches):
        own = slice(i * per, (i + 1) * per)
        filled = targets.fill(batch, own, corrections[own], settings)
        minibatches.append(Minibatch(filled, OldStatistics(*old[i], in_loss[i])))
    metrics["packing/efficiency"] = float(np.mean([packing_efficiency(b) for b in batches]))
    return minibatches, metrics


def check_all_finite(groups: Sequence[Rollout], logprobs: Sequence[np.ndarray], whose: str) -> None:
    """Groups and log-probabilities, an array a completion. Raises NonFiniteError for the first that
    is not finite.
    """
    owners = [(group.prompt.problem.id, one) for group in groups for one in group.completions]
    for own, (problem_id, completion) in zip(logprobs, owners, strict=True):
        check_logprobs(own, whose, problem_id, completion.sample_index, 0)


def by_completion(
    batches: Sequence[PackedBatch], packed: Sequence[jax.Array], counts: Sequence[int]
) -> list[np.ndarray]:
    """Mini-batches, one [U, R, C] and the completions in each -> one array a completion."""
    return [
        values
        for batch, array, count in zip(batches, packed, counts, strict=True)
        for values in unpack(np.asarray(array), batch, count)
    ]


def rollout_entropy(
    step_groups: StepGroups,
    completions: Sequence[Completion],
    entropies: Sequence[np.ndarray],
    others: list[np.ndarray],
) -> dict[str, float]:
    """Entropies of the completions that train, and of the others that were drawn -> the mean over
    what this step drew; nothing where others were drawn and not asked for.
    """
    fresh = {group.prompt.index for group in step_groups.drawn}
    pairs = zip(entropies, completions, strict=True)
    drawn = others + [own for own, completion in pairs if completion.prompt_index in fresh]
    if drawn and (others or not step_groups.resting):
        return {"policy/rollout_entropy": mean_of_tokens(drawn)}
    return {}


def mean_of_tokens(completions: Sequence[np.ndarray]) -> float:
    """Arrays of a number a token, one a completion -> mean over all tokens."""
    return float(np.concatenate(completions).mean(dtype=np.float64))


def entropies_of(
    groups: Sequence[Rollout], params: Params, logprobs: Logprobs, settings: MinibatchSettings
) -> list[np.ndarray]:
    """Groups that do not train -> the entropy at each token, an array a completion: as much work as
    the old log-probs of groups that do.
    """
    found: list[np.ndarray] = []
    for start in range(0, len(groups), settings.minibatch_prompts):
        sequences = training_sequences(groups[start : start + settings.minibatch_prompts])
        batch = pack(sequences, settings.shape)
        _, entropy = logprobs(params, batch)
        found += unpack(np.asarray(entropy), batch, len(sequences))
    return found


def mean_entropy_change(
    minibatches: Sequence[Minibatch], params: Params, logprobs: Logprobs
) -> float:
    """Mini-batches of a step, the parameters after its updates -> mean change of entropy over the
    tokens that train, since before the first update.
    """
    changes = []
    for minibatch in minibatches:
        _, entropy = logprobs(params, minibatch.batch)
        change = np.asarray(entropy) - np.asarray(minibatch.old.entropy)
        changes.append(change[minibatch.batch.trained_mask])
    return mean_of_tokens(changes)


def training_sequences(rollouts: Sequence[Rollout]) -> list[TrainingSequence]:
    """Rollouts -> sequences, group after group."""
    return [
        TrainingSequence(
            rollout.prompt.tokens,
            completion.tokens,
            draw_id=rollout.prompt.index * len(rollout.completions) + completion.sample_index,
        )
        for rollout in rollouts
        for completion in rollout.completions
    ]


@dataclasses.dataclass(frozen=True)
class Targets:
    """What training makes of each completion of a step, [B] each, group after group."""

    advantages: np.ndarray  # float32
    lengths: np.ndarray  # int
    trains: np.ndarray  # bool; False: masked as over-long
    correct: np.ndarray  # bool

    def fill(
        self,
        batch: PackedBatch,
        own: slice,
        corrections: Sequence[np.ndarray],
        settings: MinibatchSettings,
    ) -> PackedBatch:
        """A mini-batch's packed tokens and its range of completions -> the batch with its targets.

        Masked completions count in no denominator: the others are weighed as if alone.
        """
        trains, lengths = self.trains[own], self.lengths[own]
        weights, lm_weights = np.zeros(len(lengths), np.float32), None
        if trains.any():
            weights[trains] = loss_weights(lengths[trains], settings.aggregation)
        if settings.positive_lm:
            lm_weights = np.zeros(len(lengths), np.float32)
            if trains.any():
                correct = self.correct[own][trains]
                lm_weights[trains] = positive_lm_weights(
                    lengths[trains], correct, settings.aggregation
                )
        return with_targets(
            batch,
            advantages=self.advantages[own],
            loss_weights=weights,
            lm_weights=lm_weights,
            corrections=corrections,
        )


def completion_targets(
    groups: Sequence[Rollout], penalties: np.ndarray, settings: MinibatchSettings
) -> Targets:
    """Groups and what is added to their rewards [B] -> advantages and who trains."""
    rewards = rewards_of(groups).astype(np.float64)
    completions = [completion for group in groups for completion in group.completions]
    lengths = np.asarray([len(completion.tokens) for completion in completions])
    truncated = np.asarray([c.stop_reason is StopReason.LENGTH for c in completions])
    added = penalties + overlong_penalty(lengths, settings.overlong)
    advantages = compute_advantages(rewards + added.reshape(rewards.shape), settings.advantage)
    outcomes = [score.outcome for group in groups for score in group.scores]
    return Targets(
        advantages.ravel(),
        lengths,
        kept(truncated, settings.overlong),
        np.asarray([outcome is Outcome.CORRECT for outcome in outcomes]),
    )
