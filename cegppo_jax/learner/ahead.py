"""A rollout that the step after the present one will train on (batch.rollout_lag_steps = 1).

It is drawn by the policy before the present step's updates. What that policy says of its tokens,
pi_old of their ratios, is computed straight after they are drawn, while its parameters are there:
for all groups, since scores that decide which of them train may come later.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cegppo_jax.activity import Activity
from cegppo_jax.distributed import read
from cegppo_jax.learner.completion_table import (
    MinibatchSettings,
    OldTokens,
    PackedGroups,
    completions_of,
    old_tokens,
)
from cegppo_jax.learner.forward import PolicyStatistics
from cegppo_jax.learner.minibatches import Minibatch, saying_what_compiles, training_sequences
from cegppo_jax.learner.update import Logprobs
from cegppo_jax.models.decoder import Params
from cegppo_jax.packing import pack
from cegppo_jax.rollout.carried import CarriedGroups, parted_by
from cegppo_jax.rollout.collect import Group
from cegppo_jax.rollout.rounds import DrawnRollouts, RolloutDraw

# Names in a checkpoint's arrays
OLD_LOGPROBS, OLD_ENTROPIES = "old_logprobs", "old_entropies"


@dataclasses.dataclass(frozen=True)
class OldPass:
    """Old log-probs and entropies of groups, which the devices may not have computed yet."""

    groups: Sequence[Group]
    packed: list[PackedGroups]

    def read(self, activity: Activity) -> OldTokens:
        """Waits for them. `activity` is told which part is waited for.

        Raises:
          NonFiniteError: a log-probability is not finite.
        """
        return old_tokens(self.groups, self.packed, activity)


def start_old_pass(
    groups: Sequence[Group],
    params: Params,
    logprobs: Logprobs,
    settings: MinibatchSettings,
    activity: Activity,
) -> OldPass:
    """Hands the devices the old log-probs of all groups, and waits for none. They are packed as
    mini-batches are, so that it is one program.
    """
    logprobs = saying_what_compiles(logprobs, settings, activity)
    packed: list[PackedGroups] = []
    row = 0
    for start in range(0, len(groups), settings.minibatch_prompts):
        sequences = training_sequences(groups[start : start + settings.minibatch_prompts])
        batch = pack(sequences, settings.shape, share_prompts=settings.share_prompts)
        rows = slice(row, row + len(sequences))
        packed.append(PackedGroups(batch, rows, logprobs(params, batch), None))
        row = rows.stop
    return OldPass(groups, packed)


class RolloutAhead:
    """A rollout with its old log-probs. Either may still be on its way, and is waited for where it
    is asked for.
    """

    def __init__(
        self, drawn: RolloutDraw | DrawnRollouts, old: Sequence[OldPass] | OldTokens
    ) -> None:
        self._drawn, self._old = drawn, old

    @property
    def next_prompt(self) -> int:
        """Position in the prompt stream after everything that was drawn. Nothing is waited for."""
        return self._drawn.next_prompt

    @property
    def drawn(self) -> DrawnRollouts:
        """All groups, with their scores."""
        if isinstance(self._drawn, RolloutDraw):
            self._drawn = self._drawn.scored
        return self._drawn

    def old(self, activity: Activity) -> OldTokens:
        """What the policy that drew them says of the tokens of all groups. Raises as
        OldPass.read.
        """
        if not isinstance(self._old, OldTokens):
            found = OldTokens([], [], [])
            for one in self._old:
                found = found.followed_by(one.read(activity))
            self._old = found
        return self._old

    def to_saved(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Returns values for JSON, and arrays [n] by name, from which `from_saved` rebuilds the
        same rollout, bit for bit.
        """
        drawn = self.drawn
        texts, arrays = CarriedGroups(drawn.rollouts).to_saved()
        old = self.old(Activity()).of_groups(drawn.rollouts)
        values = {"next_prompt": drawn.next_prompt, "metrics": drawn.metrics, "groups": texts}
        return values, arrays | {
            OLD_LOGPROBS: _flat(old.logprobs),
            OLD_ENTROPIES: _flat(old.entropies),
        }

    @classmethod
    def from_saved(
        cls, values: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> RolloutAhead:
        """Rebuilds the rollout that `to_saved` saved. Raises ValueError for malformed texts."""
        old = {name: arrays[name] for name in (OLD_LOGPROBS, OLD_ENTROPIES)}
        own = {name: array for name, array in arrays.items() if name not in old}
        rollouts = CarriedGroups.from_saved(values["groups"], own).groups
        completions = completions_of(rollouts)
        lengths = np.asarray([len(one.tokens) for one in completions], np.int64)
        parted = [parted_by(lengths, old[name]) for name in (OLD_LOGPROBS, OLD_ENTROPIES)]
        drawn = DrawnRollouts(rollouts, values["next_prompt"], dict(values["metrics"]))
        return cls(drawn, OldTokens(completions, *parted))

    def __eq__(self, other: object) -> bool:
        """Compares every bit. What is on its way is waited for."""
        return isinstance(other, RolloutAhead) and self._bits() == other._bits()

    def __hash__(self) -> int:
        return hash(self.drawn.next_prompt)

    def _bits(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        values, arrays = self.to_saved()
        del values["metrics"]  # of the clock too
        return values, {name: array.tobytes() for name, array in arrays.items()}


def lag_metrics(first: Minibatch, found: PolicyStatistics) -> dict[str, float]:
    """Returns how far the policy has moved from the one that drew a step's tokens, before the
    step's first update, over the tokens that train in it.

    Args:
      first: its mini-batch.
      found: what the update has found, [U, R, C] each: log-probs of the policy before it.
    """
    mask = first.batch.trained_mask
    log_ratio = (read(found[0]) - read(first.old.logprobs))[mask].astype(np.float64)
    if not log_ratio.size:
        return {}
    ratio = np.exp(log_ratio - log_ratio.max())
    return {
        "policy/lag_log_ratio_mean": float(np.abs(log_ratio).mean()),
        "policy/lag_ess_fraction": float(ratio.sum() ** 2 / (ratio**2).sum() / ratio.size),
    }


def _flat(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, np.float32), *arrays]).astype(np.float32)
