"""Groups -> mini-batches ready for their updates: packed tokens, old log-probs, targets.

Groups carried from earlier steps train like those of their own step. Their old log-probs come from
the present policy, before the step's first update, so a ratio always compares this step's policy
with the one that its updates started from. The sampler's log-probs remain those of the policy that
drew the groups, so the mismatch metrics and the mismatch correction include staleness.

Groups that were drawn in the step before (batch.rollout_lag_steps = 1) come with the old log-probs
of the policy that drew them (ahead.py): a ratio then compares with that policy, from the first
update on, and the mismatch is that of the two programs alone.

The first mini-batch's update starts from the very policy that gives old log-probs. Where nothing
else needs them before it, they come out of that update, and no pass of their own is made.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from cegppo_jax.activity import Activity
from cegppo_jax.distributed import read
from cegppo_jax.learner.completion_table import (
    CompletionTable,
    MinibatchSettings,
    OldTokens,
    PackedGroups,
    completion_table,
    entropy_metrics,
    mean_of_tokens,
    old_tokens,
    reference_logprobs,
    table_metrics,
)
from cegppo_jax.learner.forward import PolicyStatistics
from cegppo_jax.learner.mismatch import mismatch_metrics
from cegppo_jax.learner.update import Logprobs
from cegppo_jax.losses.policy_loss import OldStatistics
from cegppo_jax.models.decoder import Params
from cegppo_jax.packing import (
    PackedBatch,
    TrainingSequence,
    by_token,
    pack,
    packing_efficiency,
    unpack,
)
from cegppo_jax.rollout.collect import Group
from cegppo_jax.rollout.selection import StepGroups
from cegppo_jax.types import Rollout, TokenReadings


@dataclasses.dataclass(frozen=True)
class Minibatch:
    """Everything that one update reads."""

    batch: PackedBatch
    old: OldStatistics


@dataclasses.dataclass(frozen=True)
class MeasuredStep:
    """What a step's mini-batches have shown."""

    metrics: dict[str, float]
    # Of the completions that train, by prompt and sample index
    readings: dict[tuple[int, int], TokenReadings]


@dataclasses.dataclass(frozen=True)
class PreparedStep:
    """A step's mini-batches. What they show may be known only after the first update."""

    minibatches: list[Minibatch]
    groups: StepGroups
    packed: list[PackedGroups]
    table: CompletionTable | None  # None: nothing trains
    old: OldTokens  # of the mini-batches whose old log-probs are known
    resting_entropies: list[np.ndarray]
    settings: MinibatchSettings
    update_finds_old: bool  # whether those of the first are not among them

    def with_first(self, found: PolicyStatistics) -> PreparedStep:
        """Returns the step with what the first update found.

        Raises:
          NonFiniteError: a log-probability is not finite.
        """
        first = dataclasses.replace(self.packed[0], old=found)
        groups = self.groups.trained[: self.settings.minibatch_prompts]
        old = old_tokens(groups, [first], Activity()).followed_by(self.old)
        packed = [first, *self.packed[1:]]
        minibatch = self.minibatches[0]
        filled = dataclasses.replace(minibatch.old, logprobs=found[0], entropy=found[1])
        minibatches = [dataclasses.replace(minibatch, old=filled), *self.minibatches[1:]]
        return dataclasses.replace(
            self, minibatches=minibatches, packed=packed, old=old, update_finds_old=False
        )

    def measured(self) -> MeasuredStep:
        """Returns metrics and readings, once all old log-probs are known. If no group trains, there
        is no metric but the entropy of all that was drawn, if the settings ask for it.
        """
        drawn, settings = self.resting_entropies, self.settings
        if self.table is None:
            return MeasuredStep(entropy_metrics("policy/rollout_entropy", drawn), {})
        table, old = self.table, self.old
        metrics = mismatch_metrics(old.log_rho, table.corrections)
        metrics |= table_metrics(table, old, settings)
        if drawn or not self.groups.resting:
            drawn = [*drawn, *old.entropies_of_prompts(self.groups.drawn)]
            metrics |= entropy_metrics("policy/rollout_entropy", drawn)
        efficiency = [packing_efficiency(packed.batch) for packed in self.packed]
        metrics["packing/efficiency"] = float(np.mean(efficiency))
        return MeasuredStep(metrics, table.readings(old))


def make_minibatches(
    step_groups: StepGroups,
    params: Params,
    reference: Params | None,
    logprobs: Logprobs,
    settings: MinibatchSettings,
    activity: Activity,
) -> PreparedStep:
    """Packs a step's groups into mini-batches of whole groups, with everything their losses need.

    Args:
      params: present parameters, which give the old log-probs.
      reference: the reference's parameters, if the loss or reward has a KL to it.
      activity: told what compiles, and which mini-batch is waited for.

    Returns:
      If no group trains, there is no mini-batch.

    Raises:
      NonFiniteError: a log-probability of the trainer or of the reference is not finite.
    """
    logprobs = saying_what_compiles(logprobs, settings, activity)
    resting = step_groups.resting if settings.measures_all else []
    resting_entropies = entropies_of(resting, params, logprobs, settings)
    trained = step_groups.trained
    if not trained:
        nothing = OldTokens([], [], [])
        return PreparedStep([], step_groups, [], None, nothing, resting_entropies, settings, False)
    packed = pack_groups(trained, params, reference, logprobs, settings)
    finds_old = settings.update_finds_old
    unknown = settings.minibatch_prompts if finds_old else 0
    old = old_tokens(trained[unknown:], packed[finds_old:], activity)
    given = reference_logprobs(trained, packed)
    table = completion_table(trained, None if finds_old else old, given, settings)
    minibatches = [
        Minibatch(table.fill(one.batch, one.rows, settings), given_statistics(one, settings))
        for one in packed
    ]
    return PreparedStep(
        minibatches, step_groups, packed, table, old, resting_entropies, settings, finds_old
    )


def minibatches_of_known(
    step_groups: StepGroups,
    known: OldTokens,
    reference: Params | None,
    logprobs: Logprobs,
    settings: MinibatchSettings,
    activity: Activity,
) -> PreparedStep:
    """As make_minibatches, for groups whose old log-probs are `known`, those that do not train
    included. Only the reference's are computed.
    """
    logprobs = saying_what_compiles(logprobs, settings, activity)
    resting_entropies = known.of_groups(step_groups.resting).entropies
    trained = step_groups.trained
    if not trained:
        nothing = OldTokens([], [], [])
        return PreparedStep([], step_groups, [], None, nothing, resting_entropies, settings, False)
    packed = pack_groups(trained, None, reference, logprobs, settings)
    old = known.of_groups(trained)
    table = completion_table(trained, old, reference_logprobs(trained, packed), settings)
    minibatches = []
    for one in packed:
        given = dataclasses.replace(
            given_statistics(one, settings),
            logprobs=by_token(old.logprobs[one.rows], one.batch),
            entropy=by_token(old.entropies[one.rows], one.batch),
        )
        minibatches.append(Minibatch(table.fill(one.batch, one.rows, settings), given))
    return PreparedStep(
        minibatches, step_groups, packed, table, old, resting_entropies, settings, False
    )


def given_statistics(packed: PackedGroups, settings: MinibatchSettings) -> OldStatistics:
    """Returns what an update is given: zeros where it finds the old log-probs itself."""
    nothing = np.zeros(packed.batch.tokens.shape, np.float32)
    logprobs, entropies = packed.old or (nothing, nothing)
    in_loss = settings.kl_place == "loss"
    return OldStatistics(logprobs, entropies, packed.ref_logprobs if in_loss else None)


def saying_what_compiles(
    logprobs: Logprobs, settings: MinibatchSettings, activity: Activity
) -> Logprobs:
    """Returns the same function; its first call, which compiles it, is a stage of the activity."""

    def told(params: Params, batch: PackedBatch) -> PolicyStatistics:
        with activity.compiling("log-probabilities", f"the log-probabilities: {settings.shape}"):
            return logprobs(params, batch)

    return told


def pack_groups(
    groups: Sequence[Rollout],
    params: Params | None,
    reference: Params | None,
    logprobs: Logprobs,
    settings: MinibatchSettings,
) -> list[PackedGroups]:
    """Packs the groups that train into one PackedGroups for each mini-batch, in order. The first
    has no old log-probs if its update finds them, and none has without `params`.
    """
    packed: list[PackedGroups] = []
    row = 0
    for start in range(0, len(groups), settings.minibatch_prompts):
        sequences = training_sequences(groups[start : start + settings.minibatch_prompts])
        batch = pack(sequences, settings.shape, share_prompts=settings.share_prompts)
        unknown = settings.update_finds_old and not packed
        own = None if unknown or params is None else logprobs(params, batch)
        ref = logprobs(reference, batch)[0] if reference is not None else None
        rows = slice(row, row + len(sequences))
        packed.append(PackedGroups(batch, rows, own, ref))
        row = rows.stop
    return packed


def entropies_of(
    groups: Sequence[Rollout], params: Params, logprobs: Logprobs, settings: MinibatchSettings
) -> list[np.ndarray]:
    """Returns the entropy at each token of groups that do not train, one array [n] a completion. It
    costs as much as the old log-probs of groups that train.
    """
    found: list[np.ndarray] = []
    for start in range(0, len(groups), settings.minibatch_prompts):
        sequences = training_sequences(groups[start : start + settings.minibatch_prompts])
        batch = pack(sequences, settings.shape, share_prompts=settings.share_prompts)
        _, entropy = logprobs(params, batch)
        found += unpack(read(entropy), batch, len(sequences))
    return found


def mean_entropy_change(
    minibatches: Sequence[Minibatch],
    before: Sequence[jax.Array | np.ndarray],
    params: Params,
    logprobs: Logprobs,
) -> float:
    """Returns the mean change of entropy over the tokens that train, from before the step's first
    update to after its last.

    Args:
      before: entropies [U, R, C] before the first update, of each mini-batch.
      params: those after the last update.
    """
    changes = []
    for minibatch, at_start in zip(minibatches, before, strict=True):
        _, entropy = logprobs(params, minibatch.batch)
        change = read(entropy) - read(at_start)
        changes.append(change[minibatch.batch.trained_mask])
    return mean_of_tokens(changes)


def training_sequences(rollouts: Sequence[Group]) -> list[TrainingSequence]:
    """Returns the sequences of the rollouts, group after group."""
    return [
        TrainingSequence(
            rollout.prompt.tokens,
            completion.tokens,
            draw_id=rollout.prompt.index * len(rollout.completions) + completion.sample_index,
        )
        for rollout in rollouts
        for completion in rollout.completions
    ]
