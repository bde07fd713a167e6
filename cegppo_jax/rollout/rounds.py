"""Draws a step's groups from the prompt stream: prompts are sampled round after round, until enough
groups are useful or the step has used up its rounds.

Beyond its completions, a round costs the time in which the sampler empties its slots at the end.
Larger rounds keep it busier and leave more surplus, which carry_over keeps.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import jax

from cegppo_jax.data.prompts import PromptStream
from cegppo_jax.models.decoder import Params
from cegppo_jax.rollout.actor import Actor, RolloutCost
from cegppo_jax.rollout.admission import ADMISSION_ORDERS
from cegppo_jax.rollout.carried import CarriedGroups
from cegppo_jax.rollout.collect import collect_rollouts, rollout_metrics
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


@dataclasses.dataclass(frozen=True)
class GroupSource:
    """Where a run's groups come from."""

    actor: Actor
    stream: PromptStream
    batch: BatchSettings
    sampling: SamplingFilter
    key: jax.Array  # of all rollouts: a step's is folded in


@dataclasses.dataclass(frozen=True)
class StepDraw:
    """The result of drawing a step's groups."""

    groups: StepGroups
    next_prompt: int  # position in the stream, after everything that was drawn
    difficulty: DifficultyStore  # which has seen the groups drawn
    metrics: dict[str, float]


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

    All rounds of a step use the same key, and weigh prompts by the difficulty store as it was
    before the step, so a group does not depend on the round in which it was drawn.

    Args:
      steps_done: rollout steps finished so far, the version of `params`.
      next_prompt: position in the prompt stream.
      carried: useful groups left over from earlier steps.
      difficulty: what is known of each problem before this step.
    """
    batch, version = source.batch, steps_done
    weigh = PROMPT_WEIGHTING[batch.prompt_weighting]
    weight = partial(weigh, difficulty, batch.band, batch.difficulty)
    buffer = GroupBuffer(carried.groups, ())
    rounds, too_long, passed_over = 0, 0, 0
    cost = RolloutCost()
    for count in batch.draws:
        if is_filled(buffer, batch):
            break
        taken = take_weighted(source.stream, next_prompt, count, weight)
        rollouts = collect_rollouts(
            source.actor,
            params,
            ADMISSION_ORDERS[batch.admission](difficulty, taken.prompts),
            batch.samples_per_prompt,
            sampling=source.sampling,
            key=jax.random.fold_in(source.key, version + 1),
            policy_version=version,
            cost=cost,
        )
        rollouts.sort(key=lambda group: group.prompt.index)  # as the stream has them
        buffer = dataclasses.replace(buffer, drawn=(*buffer.drawn, *rollouts))
        next_prompt, rounds = taken.next_position, rounds + 1
        too_long, passed_over = too_long + taken.too_long, passed_over + taken.passed_over
    difficulty = observe(difficulty, map(seen, buffer.drawn), batch.difficulty)
    metrics: dict[str, float] = {
        "rollout/prompts_skipped": too_long,
        "rollout/refill_rounds": max(0, rounds - 1),
    }
    if buffer.drawn:
        metrics |= rollout_metrics(buffer.drawn, cost)
        fitting = len(buffer.drawn) + passed_over
        metrics["difficulty/skipped_fraction"] = passed_over / fitting
    metrics |= difficulty_metrics(difficulty, batch.difficulty)
    return StepDraw(choose(buffer, batch, version), next_prompt, difficulty, metrics)
