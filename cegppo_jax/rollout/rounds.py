"""Draws a step's groups from the prompt stream: prompts are sampled round after round, until enough
groups are useful or the step has used up its rounds.

A round begins once it is certain that it is needed: at the end of the one before, or while that is
still being sampled, if the step would lack groups even if all those of unknown worth were useful.
So the sampler's slots are emptied once a step where much is dropped, and the same rounds are drawn
as if each waited for the scores of those before it. Larger rounds need fewer decisions and leave
more surplus, which carry_over keeps.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from functools import partial

import jax

from cegppo_jax.data.prompts import PromptStream
from cegppo_jax.models.decoder import Params
from cegppo_jax.rollout.actor import Actor, RolloutCost
from cegppo_jax.rollout.admission import ADMISSION_ORDERS
from cegppo_jax.rollout.carried import CarriedGroups
from cegppo_jax.rollout.collect import (
    SampledGroup,
    SampledRound,
    rollout_metrics,
    sample_round,
)
from cegppo_jax.rollout.difficulty import (
    PROMPT_WEIGHTING,
    DifficultyStore,
    difficulty_metrics,
    observe,
    take_weighted,
)
from cegppo_jax.rollout.selection import GroupBuffer, StepGroups, choose, is_filled, seen
from cegppo_jax.rollout.settings import BatchSettings
from cegppo_jax.sampling.filters import SamplingFilter
from cegppo_jax.types import Prompt, Rollout


@dataclasses.dataclass(frozen=True)
class GroupSource:
    """Where a run's groups come from."""

    actor: Actor
    stream: PromptStream
    batch: BatchSettings
    sampling: SamplingFilter
    key: jax.Array  # of all rollouts: a step's is folded in


@dataclasses.dataclass(frozen=True)
class DrawnRollouts:
    """All that was drawn for a step, scored, before any group is chosen."""

    rollouts: tuple[Rollout, ...]  # round after round, in the order of their prompts
    next_prompt: int  # position in the stream, after everything that was drawn
    metrics: dict[str, float]


@dataclasses.dataclass(frozen=True)
class StepDraw:
    """The result of drawing a step's groups."""

    groups: StepGroups
    next_prompt: int  # position in the stream, after everything that was drawn
    difficulty: DifficultyStore  # which has seen the groups drawn
    metrics: dict[str, float]


class RolloutDraw:
    """The rollout of one step. Scores are waited for where a further round depends on them, and
    where they are asked for.
    """

    def __init__(
        self,
        source: GroupSource,
        *,
        step: int,
        policy_version: int,
        next_prompt: int,
        carried: CarriedGroups,
        difficulty: DifficultyStore,
    ) -> None:
        """All rounds use the same key, and weigh prompts by the same difficulty store, so a group
        does not depend on the round in which it was drawn.

        Args:
          step: the rollout step that trains on it, from 1.
          policy_version: rollout steps behind the policy that draws.
          next_prompt: position in the prompt stream.
          carried: useful groups left over from earlier steps, which leave room for fewer.
          difficulty: what is known of each problem.
        """
        self._source, self._step, self._version = source, step, policy_version
        self._carried, self._difficulty = carried, difficulty
        self.next_prompt = next_prompt  # after everything that is drawn
        self._rounds: list[SampledRound] = []  # several may have become one
        self._begun = 0
        self._too_long, self._passed_over = 0, 0
        self._cost = RolloutCost()

    def sample(self, params: Params) -> Iterator[list[SampledGroup]]:
        """Samples with the policy of `params`. Yields the groups of a round, or of several that ran
        into one another, in the order of their prompts, before their scores are waited for.
        """
        source, batch = self._source, self._source.batch
        while self._begun < len(batch.draws) and self._lacks_groups((), 0):
            sampled = sample_round(
                source.actor,
                params,
                self._take_prompts(),
                batch.samples_per_prompt,
                sampling=source.sampling,
                key=jax.random.fold_in(source.key, self._step),
                policy_version=self._version,
                cost=self._cost,
                further=self._further if self._begun < len(batch.draws) else None,
            )
            self._rounds.append(sampled)
            yield sorted(sampled.groups, key=_place)

    def _take_prompts(self) -> list[Prompt]:
        """Begins a round: returns its prompts, in the order in which they are sampled."""
        batch, difficulty = self._source.batch, self._difficulty
        weigh = PROMPT_WEIGHTING[batch.prompt_weighting]
        weight = partial(weigh, difficulty, batch.band, batch.difficulty)
        count = batch.draws[self._begun]
        taken = take_weighted(self._source.stream, self.next_prompt, count, weight)
        self._begun += 1
        self.next_prompt = taken.next_position
        self._too_long += taken.too_long
        self._passed_over += taken.passed_over
        return ADMISSION_ORDERS[batch.admission](difficulty, taken.prompts)

    def _lacks_groups(self, scored: Sequence[Rollout], unknown: int) -> bool:
        """Whether the step needs more groups than those that are drawn, `scored` among them, even
        if all of the `unknown` ones are useful.
        """
        buffer = GroupBuffer(self._carried.groups, (*self._rollouts(), *scored))
        return not is_filled(buffer, self._source.batch, unknown)

    def _further(self, scored: Sequence[Rollout], unknown: int) -> Sequence[Prompt] | None:
        """Returns the prompts of the next round, if it is certain to be needed; () if not yet, and
        None after the last.
        """
        if self._begun == len(self._source.batch.draws):
            return None
        return self._take_prompts() if self._lacks_groups(scored, unknown) else ()

    def _rollouts(self) -> tuple[Rollout, ...]:
        return tuple(
            group for sampled in self._rounds for group in sorted(sampled.scored, key=_place)
        )

    @functools.cached_property
    def scored(self) -> DrawnRollouts:
        """What was drawn, once all has its scores."""
        rollouts, passed_over = self._rollouts(), self._passed_over
        metrics: dict[str, float] = {
            "rollout/prompts_skipped": self._too_long,
            "rollout/refill_rounds": max(0, self._begun - 1),
        }
        if rollouts:
            metrics |= rollout_metrics(rollouts, self._cost)
            metrics["difficulty/skipped_fraction"] = passed_over / (len(rollouts) + passed_over)
        return DrawnRollouts(rollouts, self.next_prompt, metrics)


def _place(group: SampledGroup | Rollout) -> int:
    return group.prompt.index


def choose_groups(
    batch: BatchSettings,
    drawn: DrawnRollouts,
    *,
    steps_done: int,
    carried: CarriedGroups,
    difficulty: DifficultyStore,
) -> StepDraw:
    """Decides what becomes of a step's rollout, and of groups left over from earlier steps.

    Args:
      steps_done: rollout steps finished so far, the version of the policy that is to train.
      difficulty: what was known of each problem before.
    """
    difficulty = observe(difficulty, map(seen, drawn.rollouts), batch.difficulty)
    metrics = drawn.metrics | difficulty_metrics(difficulty, batch.difficulty)
    groups = choose(GroupBuffer(carried.groups, drawn.rollouts), batch, steps_done)
    return StepDraw(groups, drawn.next_prompt, difficulty, metrics)


def draw_groups(
    source: GroupSource,
    params: Params,
    *,
    steps_done: int,
    next_prompt: int,
    carried: CarriedGroups,
    difficulty: DifficultyStore,
) -> StepDraw:
    """Draws the groups of one step with the policy of `params`. Draws nothing if carried groups
    fill the step.

    Args:
      steps_done: rollout steps finished so far, the version of `params`.
      next_prompt: position in the prompt stream.
      carried: useful groups left over from earlier steps.
      difficulty: what is known of each problem before this step.
    """
    draw = RolloutDraw(
        source,
        step=steps_done + 1,
        policy_version=steps_done,
        next_prompt=next_prompt,
        carried=carried,
        difficulty=difficulty,
    )
    for _ in draw.sample(params):
        pass
    return choose_groups(
        source.batch, draw.scored, steps_done=steps_done, carried=carried, difficulty=difficulty
    )
