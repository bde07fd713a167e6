"""Decides which groups train in a step, which wait for the next, and why the others are dropped.

    mode (batch.dynamic_sampling)   candidates            drawn on   left over
    none                            all groups            no         nothing
    filter                          useful groups         no         dropped as surplus
    refill                          useful groups         yes        dropped as surplus
    carry_over                      carried, then useful  yes        waits until it is stale

The first trained_prompts candidates train, cut to whole mini-batches. Candidates are in the order
of their prompts, so the same groups train however a step was divided into rounds.

Every group is counted: drawn + carried_in = trained + all dropped + carried_out.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence

import numpy as np

from cegppo_jax.rollout.difficulty import Seen, UsefulBand
from cegppo_jax.rollout.settings import BatchSettings
from cegppo_jax.types import JUDGED, Outcome, Rollout


class GroupVerdict(enum.StrEnum):
    """What a group's share of right completions makes of it: useful, or the reason to drop it."""

    USEFUL = "useful"
    TOO_EASY = "too_easy"
    TOO_HARD = "too_hard"
    UNJUDGED = "unjudged"  # no completion was judged


def seen(group: Rollout) -> Seen:
    """Returns a group's problem, its counts of right and of judged completions, and the tokens of
    these.
    """
    outcomes = [score.outcome for score in group.scores]
    lengths = [
        len(completion.tokens)
        for completion, outcome in zip(group.completions, outcomes, strict=True)
        if outcome in JUDGED
    ]
    right = outcomes.count(Outcome.CORRECT)
    return Seen(group.prompt.problem.id, right, len(lengths), sum(lengths))


def group_verdict(group: Rollout, band: UsefulBand) -> GroupVerdict:
    """Returns the group_verdict on a group. It uses the verifier's outcomes, not the rewards, which
    penalties change.

    Worked example, limits 0 and 1, R right, W wrong, - timed out:

        R W W W  useful      R R R -  too easy: all that were judged are right
        W W - -  too hard    R W - -  useful                - - - -  unjudged
    """
    _, correct, judged, _ = seen(group)
    if not judged:
        return GroupVerdict.UNJUDGED
    if band.holds(correct, judged):
        return GroupVerdict.USEFUL
    return GroupVerdict.TOO_HARD if correct / judged <= band.low else GroupVerdict.TOO_EASY


def version_of(group: Rollout) -> int:
    """Returns the training step whose parameters drew the group."""
    return group.completions[0].policy_version


@dataclasses.dataclass(frozen=True)
class GroupBuffer:
    """The groups that a step has so far, while it draws more."""

    carried: tuple[Rollout, ...]  # useful ones of earlier steps, the oldest first
    drawn: tuple[Rollout, ...]  # of this step, in the order of their prompts


@dataclasses.dataclass(frozen=True)
class GroupCounts:
    """Where a step's groups came from and what became of them, each a metric rollout/groups_*."""

    drawn: int
    carried_in: int
    useful: int  # of those drawn
    trained: int
    dropped_too_easy: int
    dropped_too_hard: int
    dropped_unjudged: int
    dropped_surplus: int  # useful, but not room for them
    dropped_stale: int
    carried_out: int

    @property
    def balance(self) -> int:
        """Groups that came in minus groups that went out: 0, unless some were lost."""
        dropped = sum(n for name, n in vars(self).items() if name.startswith("dropped_"))
        return self.drawn + self.carried_in - self.trained - dropped - self.carried_out


@dataclasses.dataclass(frozen=True)
class StepGroups:
    """What becomes of a step's groups."""

    drawn: tuple[Rollout, ...]  # in this step, in the order of their prompts
    trained: tuple[Rollout, ...]  # whole mini-batches, carried groups first
    carried: tuple[Rollout, ...]  # to the next step, the oldest first
    counts: GroupCounts
    starved: bool  # fewer candidates than trained_prompts

    @property
    def resting(self) -> list[Rollout]:
        """Groups that were drawn in this step and do not train in it."""
        trained = {group.prompt.index for group in self.trained}
        return [group for group in self.drawn if group.prompt.index not in trained]

    def left_behind(self) -> StepGroups:
        """Returns what remains after a rollback: no group trains or waits, since all were drawn by
        the policy that is abandoned.
        """
        counts = self.counts
        stale = counts.dropped_stale + counts.trained + counts.carried_out
        counts = dataclasses.replace(counts, trained=0, carried_out=0, dropped_stale=stale)
        return dataclasses.replace(self, trained=(), carried=(), counts=counts)


def candidates(buffer: GroupBuffer, batch: BatchSettings) -> list[Rollout]:
    """Returns the groups that may train, in their order."""
    if not batch.mode.selects:
        return list(buffer.drawn)
    useful = [
        group for group in buffer.drawn if group_verdict(group, batch.band) is GroupVerdict.USEFUL
    ]
    return [*buffer.carried, *useful]


def is_filled(buffer: GroupBuffer, batch: BatchSettings, unknown: int = 0) -> bool:
    """Whether no more groups need to be drawn, if all of the `unknown` ones beside the buffer's are
    useful.
    """
    return len(candidates(buffer, batch)) + unknown >= batch.trained_prompts


def choose(buffer: GroupBuffer, batch: BatchSettings, version: int) -> StepGroups:
    """Decides what becomes of each group, given the version of the policy that trains.

    A group's staleness is the step's version minus its own. A group that would be too stale in the
    next step is not carried over.

    Worked example, carry_over, trained_prompts = 4, minibatch_prompts = 2, max_staleness_steps = 1,
    version 7, letters with the version that drew them: carried a6 b6, useful c7 d7 e7

        trained a6 b6 c7 d7, carried e7

    Without c7, the candidates a6 b6 d7 e7 all train. Without c7, d7 and e7, a6 b6 train. With a6 b6
    c7 alone, a6 b6 train and c7 waits for step 8, where it is first.
    """
    mode, in_hand = batch.mode, candidates(buffer, batch)
    verdicts = [group_verdict(group, batch.band) for group in buffer.drawn]
    number = min(len(in_hand), batch.trained_prompts)
    number -= number % batch.minibatch_prompts
    trained, left = tuple(in_hand[:number]), in_hand[number:]
    oldest = version + 1 - batch.max_staleness_steps
    fresh = tuple(group for group in left if mode.carries and version_of(group) >= oldest)
    dropped = len(left) - len(fresh)
    counts = GroupCounts(
        drawn=len(buffer.drawn),
        carried_in=len(buffer.carried),
        useful=verdicts.count(GroupVerdict.USEFUL),
        trained=len(trained),
        dropped_too_easy=mode.selects * verdicts.count(GroupVerdict.TOO_EASY),
        dropped_too_hard=mode.selects * verdicts.count(GroupVerdict.TOO_HARD),
        dropped_unjudged=mode.selects * verdicts.count(GroupVerdict.UNJUDGED),
        dropped_surplus=0 if mode.carries else dropped,
        dropped_stale=dropped if mode.carries else 0,
        carried_out=len(fresh),
    )
    starved = len(in_hand) < batch.trained_prompts
    return StepGroups(buffer.drawn, trained, fresh, counts, starved)


def group_metrics(groups: StepGroups, version: int) -> dict[str, float]:
    """Returns metrics of what became of a step's groups. `version` is that of the policy that
    trained.
    """
    counts = {f"groups_{name}": n for name, n in dataclasses.asdict(groups.counts).items()}
    metrics: dict[str, float] = {f"rollout/{name}": n for name, n in counts.items()}
    metrics["rollout/starved"] = int(groups.starved)
    if groups.trained:
        metrics["rollout/staleness_mean_steps"] = mean_staleness(groups.trained, version)
    return metrics


def mean_staleness(groups: Sequence[Rollout], version: int) -> float:
    """Returns the mean number of steps since the groups were drawn, for a policy of `version`."""
    return float(np.mean([version - version_of(group) for group in groups]))
