"""Prompt stream -> a step's groups: prompts are drawn and sampled round after round, until enough
groups are useful or the step has had its rounds.

What a round costs besides its completions: a sampler that empties its slots at the end of each one.
Larger rounds keep it busier and leave more surplus, which carry_over keeps.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import jax

from cegppo_jax.models.decoder import Params
from cegppo_jax.rollout.collect import RolloutCost, collect_rollouts, rollout_metrics
from cegppo_jax.rollout.difficulty import (
    PROMPT_WEIGHTING,
    DifficultyStore,
    difficulty_metrics,
    observe,
    take_weighted,
)
from cegppo_jax.rollout.selection import GroupBuffer, StepGroups, choose, is_filled, seen
from cegppo_jax.run.build import KeyPurpose, Parts
from cegppo_jax.run.checkpoint import RunPosition


@dataclasses.dataclass(frozen=True)
class StepDraw:
    """What drawing a step's groups leaves."""

    groups: StepGroups
    next_prompt: int  # position in the stream, behind everything that was drawn
    difficulty: DifficultyStore  # which has seen the groups drawn
    metrics: dict[str, float]


def draw_groups(parts: Parts, params: Params, position: RunPosition) -> StepDraw:
    """Parameters and where the run stands -> the groups of the next step. Draws nothing when
    carried groups fill it.

    All rounds of a step draw with one key and weigh prompts by the store as it was before, so that
    a group does not depend on the round it was drawn in.
    """
    batch, version = parts.settings.batch, position.step
    weigh = PROMPT_WEIGHTING[batch.prompt_weighting]
    weight = partial(weigh, position.difficulty, batch.band, batch.difficulty)
    buffer = GroupBuffer(position.carried.groups, ())
    next_prompt, rounds, too_long, passed_over = position.next_prompt, 0, 0, 0
    costs: list[RolloutCost] = []
    for count in batch.draws:
        if is_filled(buffer, batch):
            break
        taken = take_weighted(parts.stream, next_prompt, count, weight)
        rollouts, cost = collect_rollouts(
            parts.sampler,
            params,
            taken.prompts,
            batch.samples_per_prompt,
            tokenizer=parts.problems.tokenizer,
            scorer=parts.scorer,
            sampling=parts.settings.sampling,
            key=jax.random.fold_in(parts.key(KeyPurpose.ROLLOUT), version + 1),
            policy_version=version,
        )
        buffer = dataclasses.replace(buffer, drawn=(*buffer.drawn, *rollouts))
        costs.append(cost)
        next_prompt, rounds = taken.next_position, rounds + 1
        too_long, passed_over = too_long + taken.too_long, passed_over + taken.passed_over
    difficulty = observe(position.difficulty, map(seen, buffer.drawn), batch.difficulty)
    metrics: dict[str, float] = {
        "rollout/prompts_skipped": too_long,
        "rollout/refill_rounds": max(0, rounds - 1),
    }
    if buffer.drawn:
        metrics |= rollout_metrics(buffer.drawn, sum(costs[1:], costs[0]))
        fitting = len(buffer.drawn) + passed_over
        metrics["difficulty/skipped_fraction"] = passed_over / fitting
    metrics |= difficulty_metrics(difficulty, batch.difficulty)
    return StepDraw(choose(buffer, batch, version), next_prompt, difficulty, metrics)
