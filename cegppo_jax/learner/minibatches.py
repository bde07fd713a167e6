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
from collections.abc import Sequence

import jax
import numpy as np

from cegppo_jax.learner.advantages import AdvantageSettings, compute_advantages
from cegppo_jax.learner.mismatch import MismatchSettings, correction_weights, mismatch_metrics
from cegppo_jax.learner.update import Logprobs
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
    """Packs a step's groups into mini-batches of whole groups, with everything their losses need.

    Args:
      params: present parameters: they give the old log-probs.
      reference: the reference's parameters, where the KL to it is asked for.

    Returns:
      The mini-batches and their metrics. Where no group trains: no mini-batch, and no metric but
      the entropy of what was drawn, if it is asked for.
    """
    resting = step_groups.resting if settings.measures_all else []
    resting_entropies = entropies_of(resting, params, logprobs, settings)
    if not step_groups.trained:
        return [], entropy_metrics("policy/rollout_entropy", resting_entropies)
    batches = pack_groups(step_groups.trained, params, reference, logprobs, settings)
    table = completion_table(step_groups.trained, batches, settings)
    metrics = mismatch_metrics(table.log_rho, table.corrections) | table_metrics(table, settings)
    if resting or not step_groups.resting:
        drawn = [*resting_entropies, *table.entropies_of_prompts(step_groups.drawn)]
        metrics |= entropy_metrics("policy/rollout_entropy", drawn)
    metrics["packing/efficiency"] = float(
        np.mean([packing_efficiency(packed.batch) for packed in batches])
    )
    return [
        Minibatch(
            table.fill(packed.batch, packed.rows, settings),
            OldStatistics(
                packed.logprobs,
                packed.entropies,
                packed.ref_logprobs if settings.kl_place == "loss" else None,
            ),
        )
        for packed in batches
    ], metrics


@dataclasses.dataclass(frozen=True)
class PackedGroups:
    """The groups of one mini-batch, packed, and what the trainer says of their tokens."""

    batch: PackedBatch  # targets still 0
    rows: slice  # of its completions in the step's table
    logprobs: jax.Array  # [U, R, C] float32, of the present policy
    entropies: jax.Array  # [U, R, C] float32, nats
    ref_logprobs: jax.Array | None  # [U, R, C] float32, of the reference

    def by_completion(self, array: jax.Array) -> list[np.ndarray]:
        """Packed values [U, R, C] -> one array [n] a completion."""
        return unpack(np.asarray(array), self.batch, self.rows.stop - self.rows.start)


def pack_groups(
    groups: Sequence[Rollout],
    params: Params,
    reference: Params | None,
    logprobs: Logprobs,
    settings: MinibatchSettings,
) -> list[PackedGroups]:
    """Groups that train -> one PackedGroups a mini-batch, in their order."""
    packed, row = [], 0
    for start in range(0, len(groups), settings.minibatch_prompts):
        sequences = training_sequences(groups[start : start + settings.minibatch_prompts])
        batch = pack(sequences, settings.shape)
        own = logprobs(params, batch)
        ref = logprobs(reference, batch)[0] if reference is not None else None
        rows = slice(row, row + len(sequences))
        packed.append(PackedGroups(batch, rows, *own, ref))
        row = rows.stop
    return packed


@dataclasses.dataclass(frozen=True)
class CompletionTable:
    """A step's completions: a row each, group after group, and a column a concern. B rows.

    A column of lists has one array [n] a completion, a number a token; the others are [B].
    """

    completions: list[Completion]
    entropies: list[np.ndarray]  # float32, nats, before the step's first update
    log_rho: list[np.ndarray]  # float32, ln pi_old - ln pi_sampler
    corrections: list[np.ndarray]  # float32, weights against sampler/trainer mismatch
    kl_penalties: np.ndarray  # float64, taken off the reward for the KL to the reference; 0: none
    advantages: np.ndarray  # float32, of rewards less all penalties
    lengths: np.ndarray  # int, tokens
    trains: np.ndarray  # bool; False: masked as over-long
    correct: np.ndarray  # bool, the verifier's outcome

    def entropies_of_prompts(self, groups: Sequence[Rollout]) -> list[np.ndarray]:
        """Entropies of the completions that belong to some groups."""
        fresh = {group.prompt.index for group in groups}
        pairs = zip(self.entropies, self.completions, strict=True)
        return [entropy for entropy, one in pairs if one.prompt_index in fresh]

    def fill(self, batch: PackedBatch, rows: slice, settings: MinibatchSettings) -> PackedBatch:
        """A mini-batch's packed tokens and its rows of the table -> the batch with its targets.

        Masked completions count in no denominator: the others are weighed as if alone.
        """
        trains, lengths = self.trains[rows], self.lengths[rows]
        weights, lm_weights = np.zeros(len(lengths), np.float32), None
        if trains.any():
            weights[trains] = loss_weights(lengths[trains], settings.aggregation)
        if settings.positive_lm:
            lm_weights = np.zeros(len(lengths), np.float32)
            if trains.any():
                correct = self.correct[rows][trains]
                lm_weights[trains] = positive_lm_weights(
                    lengths[trains], correct, settings.aggregation
                )
        return with_targets(
            batch,
            advantages=self.advantages[rows],
            loss_weights=weights,
            lm_weights=lm_weights,
            corrections=self.corrections[rows],
        )


def completion_table(
    groups: Sequence[Rollout], batches: Sequence[PackedGroups], settings: MinibatchSettings
) -> CompletionTable:
    """Groups that train and their packed statistics -> the step's table, column by column."""
    completions = [completion for group in groups for completion in group.completions]
    old = [row for packed in batches for row in packed.by_completion(packed.logprobs)]
    log_rho = [
        trainer - completion.sampler_logprobs
        for trainer, completion in zip(old, completions, strict=True)
    ]
    lengths = np.asarray([len(completion.tokens) for completion in completions])
    truncated = np.asarray([c.stop_reason is StopReason.LENGTH for c in completions])
    kl_penalties = kl_in_reward(old, batches, settings)
    rewards = rewards_of(groups).astype(np.float64)
    added = overlong_penalty(lengths, settings.overlong) - kl_penalties
    advantages = compute_advantages(rewards + added.reshape(rewards.shape), settings.advantage)
    outcomes = [score.outcome for group in groups for score in group.scores]
    return CompletionTable(
        completions=completions,
        entropies=[row for packed in batches for row in packed.by_completion(packed.entropies)],
        log_rho=log_rho,
        corrections=correction_weights(log_rho, settings.mismatch),
        kl_penalties=kl_penalties,
        advantages=advantages.ravel(),
        lengths=lengths,
        trains=kept(truncated, settings.overlong),
        correct=np.asarray([outcome is Outcome.CORRECT for outcome in outcomes]),
    )


def kl_in_reward(
    old: Sequence[np.ndarray], batches: Sequence[PackedGroups], settings: MinibatchSettings
) -> np.ndarray:
    """Old log-probs, one array [n] a completion -> kl_coef times the KL to the reference, [B]
    float64; 0 where the KL is not in the reward.
    """
    if settings.kl_place != "reward":
        return np.zeros(len(old))
    reference = [row for one in batches for row in one.by_completion(one.ref_logprobs)]
    pairs = zip(old, reference, strict=True)
    kl = np.asarray([kl_of_sequence(settings.kl_estimator, *pair) for pair in pairs])
    return settings.kl_coef * kl


def table_metrics(table: CompletionTable, settings: MinibatchSettings) -> dict[str, float]:
    """The step's table -> its metrics."""
    metrics = {"reward/overlong_masked_fraction": float(1 - table.trains.mean())}
    if settings.kl_place == "reward":
        metrics["reward/kl_penalty_mean"] = float(table.kl_penalties.mean())
    pairs = zip(table.entropies, table.trains, strict=True)
    return metrics | entropy_metrics("policy/old_entropy", [own for own, trains in pairs if trains])


def entropy_metrics(name: str, entropies: Sequence[np.ndarray]) -> dict[str, float]:
    """Entropies, one array [n] a completion -> their mean over all tokens; nothing of nothing."""
    return {name: mean_of_tokens(entropies)} if entropies else {}


def mean_of_tokens(completions: Sequence[np.ndarray]) -> float:
    """Arrays of a number a token, one array a completion -> mean over all tokens."""
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
