"""A step's completions as a table: one row a completion, one column a concern.

Everything that needs all completions of a step at once happens here, on the host: the correction of
sampler/trainer mismatch, penalties in the reward, advantages and how the loss weighs each
completion.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from cegppo_jax.activity import Activity
from cegppo_jax.distributed import read
from cegppo_jax.finite import check_logprobs
from cegppo_jax.learner.advantages import AdvantageSettings, compute_advantages
from cegppo_jax.learner.forward import PolicyStatistics
from cegppo_jax.learner.mismatch import MismatchSettings, correction_weights
from cegppo_jax.losses.aggregation import AggregationSettings, loss_weights, positive_lm_weights
from cegppo_jax.losses.kl import kl_of_sequence
from cegppo_jax.packing import PackedBatch, PackedShape, unpack, with_targets
from cegppo_jax.rewards.overlong import OverlongSettings, kept, overlong_penalty
from cegppo_jax.rollout.collect import Group, rewards_of
from cegppo_jax.types import Completion, Outcome, Rollout, StopReason, TokenReadings


@dataclasses.dataclass(frozen=True)
class MinibatchSettings:
    """How completions become mini-batches."""

    shape: PackedShape
    share_prompts: bool
    minibatch_prompts: int
    advantage: AdvantageSettings
    aggregation: AggregationSettings
    overlong: OverlongSettings
    mismatch: MismatchSettings
    positive_lm: bool  # whether the loss has an LM term on correct completions
    kl_place: str  # of the KL to the reference: "none" | "loss" | "reward"
    kl_estimator: str
    kl_coef: float
    measures_all: bool  # whether the entropy of groups that do not train is also measured

    @property
    def update_finds_old(self) -> bool:
        """Whether the old log-probs of a step's first mini-batch may come from its own update,
        whose forward pass they are: nothing that an update needs is made from old log-probs.
        """
        corrected = self.mismatch.correction != "none"
        return not (self.measures_all or corrected or self.kl_place == "reward")


@dataclasses.dataclass(frozen=True)
class PackedGroups:
    """The packed groups of one mini-batch, and the trainer's statistics of their tokens."""

    batch: PackedBatch  # targets still 0
    rows: slice  # of its completions in the step's table
    # Of pi_old; None: its own update finds them, or they are known already
    old: PolicyStatistics | None
    ref_logprobs: jax.Array | None  # [U, R, C] float32, of the reference

    def by_completion(self, array: jax.Array) -> list[np.ndarray]:
        """Unpacks values [U, R, C] into one array [n] a completion."""
        return unpack(read(array), self.batch, self.rows.stop - self.rows.start)


@dataclasses.dataclass(frozen=True)
class OldTokens:
    """What pi_old says of completions: one array [n] float32 a completion."""

    completions: list[Completion]
    logprobs: list[np.ndarray]  # ln pi_old
    entropies: list[np.ndarray]  # nats

    def of_groups(self, groups: Sequence[Group]) -> OldTokens:
        """Returns those of some groups' completions, group after group."""
        places = {(c.prompt_index, c.sample_index): i for i, c in enumerate(self.completions)}
        completions = completions_of(groups)
        own = [places[one.prompt_index, one.sample_index] for one in completions]
        return OldTokens(
            completions, [self.logprobs[i] for i in own], [self.entropies[i] for i in own]
        )

    def followed_by(self, later: OldTokens) -> OldTokens:
        """Returns those of these completions and of later ones."""
        return OldTokens(
            self.completions + later.completions,
            self.logprobs + later.logprobs,
            self.entropies + later.entropies,
        )

    @property
    def log_rho(self) -> list[np.ndarray]:
        """Ln pi_old - ln pi_sampler."""
        pairs = zip(self.logprobs, self.completions, strict=True)
        return [trainer - completion.sampler_logprobs for trainer, completion in pairs]

    def entropies_of_prompts(self, groups: Sequence[Rollout]) -> list[np.ndarray]:
        """Returns the entropies [n] of the completions that belong to the given groups."""
        fresh = {group.prompt.index for group in groups}
        pairs = zip(self.entropies, self.completions, strict=True)
        return [entropy for entropy, one in pairs if one.prompt_index in fresh]


@dataclasses.dataclass(frozen=True)
class CompletionTable:
    """A step's completions: B rows, group after group, and one column for each concern.

    Columns that are lists have one array [n] a completion, a number for each token; the others are
    [B].
    """

    completions: list[Completion]
    corrections: list[np.ndarray]  # float32, weights against sampler/trainer mismatch
    kl_penalties: np.ndarray  # float64, taken off the reward for the KL to the reference; 0: none
    advantages: np.ndarray  # float32, of rewards less all penalties
    lengths: np.ndarray  # int, tokens
    trains: np.ndarray  # bool; False: masked as over-long
    correct: np.ndarray  # bool, the verifier's outcome

    def readings(self, old: OldTokens) -> dict[tuple[int, int], TokenReadings]:
        """Returns what is known of each completion's tokens, by prompt and sample index."""
        columns = zip(self.completions, old.entropies, old.log_rho, self.advantages, strict=True)
        return {
            (one.prompt_index, one.sample_index): TokenReadings(
                entropies, log_rho, float(advantage)
            )
            for one, entropies, log_rho, advantage in columns
        }

    def fill(self, batch: PackedBatch, rows: slice, settings: MinibatchSettings) -> PackedBatch:
        """Adds the targets of its rows of the table to a mini-batch's packed tokens [U, R, C].

        Masked completions count in no denominator: the others are weighted as if they were alone.
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


def old_tokens(
    groups: Sequence[Group], batches: Sequence[PackedGroups], activity: Activity
) -> OldTokens:
    """Reads the old statistics of mini-batches where they are known. `activity` is told which
    mini-batch is waited for.

    Raises:
      NonFiniteError: a log-probability is not finite.
    """
    logprobs, entropies = [], []
    for number, packed in enumerate(batches, 1):
        activity.at(f"{number} of {len(batches)}")
        assert packed.old is not None
        logprobs += packed.by_completion(packed.old[0])
        entropies += packed.by_completion(packed.old[1])
    check_all_finite(groups, logprobs, "trainer")
    return OldTokens(completions_of(groups), logprobs, entropies)


def completion_table(
    groups: Sequence[Rollout],
    old: OldTokens | None,
    reference: Sequence[np.ndarray] | None,
    settings: MinibatchSettings,
) -> CompletionTable:
    """Builds the step's table, column by column, from the groups that train.

    Args:
      old: None where the settings need none of it (update_finds_old).
      reference: its log-probs, one array [n] a completion; None: there is no reference.
    """
    completions = completions_of(groups)
    lengths = np.asarray([len(completion.tokens) for completion in completions])
    truncated = np.asarray([c.stop_reason is StopReason.LENGTH for c in completions])
    if old is None:
        kl_penalties = np.zeros(len(completions))
        corrections = [np.ones(n, np.float32) for n in lengths]
    else:
        kl_penalties = kl_in_reward(old.logprobs, reference, settings)
        corrections = correction_weights(old.log_rho, settings.mismatch)
    rewards = rewards_of(groups).astype(np.float64)
    added = overlong_penalty(lengths, settings.overlong) - kl_penalties
    advantages = compute_advantages(rewards + added.reshape(rewards.shape), settings.advantage)
    outcomes = [score.outcome for group in groups for score in group.scores]
    return CompletionTable(
        completions=completions,
        corrections=corrections,
        kl_penalties=kl_penalties,
        advantages=advantages.ravel(),
        lengths=lengths,
        trains=kept(truncated, settings.overlong),
        correct=np.asarray([outcome is Outcome.CORRECT for outcome in outcomes]),
    )


def completions_of(groups: Sequence[Group]) -> list[Completion]:
    """Returns the completions, group after group."""
    return [completion for group in groups for completion in group.completions]


def reference_logprobs(
    groups: Sequence[Rollout], batches: Sequence[PackedGroups]
) -> list[np.ndarray] | None:
    """Returns the reference's log-probs, one array [n] a completion, or None without a reference.
    Raises NonFiniteError if one is not finite.
    """
    packed = [(one, one.ref_logprobs) for one in batches if one.ref_logprobs is not None]
    if not packed:
        return None
    found = [row for one, logprobs in packed for row in one.by_completion(logprobs)]
    check_all_finite(groups, found, "reference")
    return found


def check_all_finite(groups: Sequence[Group], logprobs: Sequence[np.ndarray], whose: str) -> None:
    """Raises NonFiniteError for the first log-prob that is not finite; there is one array [n] a
    completion.
    """
    owners = [(group.prompt.problem.id, one) for group in groups for one in group.completions]
    for own, (problem_id, completion) in zip(logprobs, owners, strict=True):
        check_logprobs(own, whose, problem_id, completion.sample_index, 0)


def kl_in_reward(
    old: Sequence[np.ndarray], reference: Sequence[np.ndarray] | None, settings: MinibatchSettings
) -> np.ndarray:
    """Returns kl_coef times the KL to the reference, [B] float64, from old and reference log-probs
    (one array [n] a completion); 0 if the KL is not in the reward.
    """
    if settings.kl_place != "reward" or reference is None:
        return np.zeros(len(old))
    pairs = zip(old, reference, strict=True)
    kl = np.asarray([kl_of_sequence(settings.kl_estimator, *pair) for pair in pairs])
    return settings.kl_coef * kl


def table_metrics(
    table: CompletionTable, old: OldTokens, settings: MinibatchSettings
) -> dict[str, float]:
    """Returns the metrics of the step's table."""
    metrics = {"reward/overlong_masked_fraction": float(1 - table.trains.mean())}
    if settings.kl_place == "reward":
        metrics["reward/kl_penalty_mean"] = float(table.kl_penalties.mean())
    pairs = zip(old.entropies, table.trains, strict=True)
    return metrics | entropy_metrics("policy/old_entropy", [own for own, trains in pairs if trains])


def entropy_metrics(name: str, entropies: Sequence[np.ndarray]) -> dict[str, float]:
    """Returns the mean entropy over all tokens of the completions (one array [n] each) as a metric;
    no metric if there are no completions.
    """
    return {name: mean_of_tokens(entropies)} if entropies else {}


def mean_of_tokens(completions: Sequence[np.ndarray]) -> float:
    """Returns the mean over all tokens; there is one array [n] a completion."""
    return float(np.concatenate(completions).mean(dtype=np.float64))
