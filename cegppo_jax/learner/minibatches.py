"""Groups -> mini-batches ready for their updates: packed tokens, old log-probs, targets.

Groups carried from earlier steps train like those of their own step. Their old log-probs come from
the present policy, before the step's first update, so a ratio always compares this step's policy
with the one that its updates started from. The sampler's log-probs remain those of the policy that
drew the groups, so the mismatch metrics and the mismatch correction include staleness.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from cegppo_jax.activity import Activity
from cegppo_jax.distributed import read
from cegppo_jax.learner.completion_table import (
    MinibatchSettings,
    PackedGroups,
    completion_table,
    entropy_metrics,
    mean_of_tokens,
    table_metrics,
)
from cegppo_jax.learner.mismatch import mismatch_metrics
from cegppo_jax.learner.update import Logprobs
from cegppo_jax.losses.policy_loss import OldStatistics
from cegppo_jax.models.decoder import Params
from cegppo_jax.packing import (
    PackedBatch,
    TrainingSequence,
    pack,
    packing_efficiency,
    unpack,
)
from cegppo_jax.rollout.selection import StepGroups
from cegppo_jax.types import Rollout, TokenReadings


@dataclasses.dataclass(frozen=True)
class Minibatch:
    """Everything that one update reads."""

    batch: PackedBatch
    old: OldStatistics


@dataclasses.dataclass(frozen=True)
class PreparedStep:
    """A step's mini-batches, and what making them has shown."""

    minibatches: list[Minibatch]
    metrics: dict[str, float]
    # Of the completions that train, by prompt and sample index
    readings: dict[tuple[int, int], TokenReadings]


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
      If no group trains, there is no mini-batch, and no metric but the entropy of all that was
      drawn, if the settings ask for it.

    Raises:
      NonFiniteError: a log-probability of the trainer or of the reference is not finite.
    """
    logprobs = saying_what_compiles(logprobs, settings, activity)
    resting = step_groups.resting if settings.measures_all else []
    resting_entropies = entropies_of(resting, params, logprobs, settings)
    if not step_groups.trained:
        return PreparedStep([], entropy_metrics("policy/rollout_entropy", resting_entropies), {})
    batches = pack_groups(step_groups.trained, params, reference, logprobs, settings)
    table = completion_table(step_groups.trained, batches, settings, activity)
    metrics = mismatch_metrics(table.log_rho, table.corrections) | table_metrics(table, settings)
    if resting or not step_groups.resting:
        drawn = [*resting_entropies, *table.entropies_of_prompts(step_groups.drawn)]
        metrics |= entropy_metrics("policy/rollout_entropy", drawn)
    metrics["packing/efficiency"] = float(
        np.mean([packing_efficiency(packed.batch) for packed in batches])
    )
    minibatches = [
        Minibatch(
            table.fill(packed.batch, packed.rows, settings),
            OldStatistics(
                packed.logprobs,
                packed.entropies,
                packed.ref_logprobs if settings.kl_place == "loss" else None,
            ),
        )
        for packed in batches
    ]
    return PreparedStep(minibatches, metrics, table.readings())


def saying_what_compiles(
    logprobs: Logprobs, settings: MinibatchSettings, activity: Activity
) -> Logprobs:
    """Returns the same function; its first call, which compiles it, is a stage of the activity."""

    def told(params: Params, batch: PackedBatch) -> tuple[jax.Array, jax.Array]:
        with activity.compiling("log-probabilities", f"the log-probabilities: {settings.shape}"):
            return logprobs(params, batch)

    return told


def pack_groups(
    groups: Sequence[Rollout],
    params: Params,
    reference: Params | None,
    logprobs: Logprobs,
    settings: MinibatchSettings,
) -> list[PackedGroups]:
    """Packs the groups that train into one PackedGroups for each mini-batch, in order."""
    packed, row = [], 0
    for start in range(0, len(groups), settings.minibatch_prompts):
        sequences = training_sequences(groups[start : start + settings.minibatch_prompts])
        batch = pack(sequences, settings.shape, share_prompts=settings.share_prompts)
        own = logprobs(params, batch)
        ref = logprobs(reference, batch)[0] if reference is not None else None
        rows = slice(row, row + len(sequences))
        packed.append(PackedGroups(batch, rows, *own, ref))
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
    minibatches: Sequence[Minibatch], params: Params, logprobs: Logprobs
) -> float:
    """Returns the mean change of entropy over the tokens that train, from before the step's first
    update to after its last. `params` are those after the last update.
    """
    changes = []
    for minibatch in minibatches:
        _, entropy = logprobs(params, minibatch.batch)
        change = read(entropy) - read(minibatch.old.entropy)
        changes.append(change[minibatch.batch.trained_mask])
    return mean_of_tokens(changes)


def training_sequences(rollouts: Sequence[Rollout]) -> list[TrainingSequence]:
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
