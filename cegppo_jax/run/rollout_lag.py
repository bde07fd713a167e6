"""Which rollout a step trains on: its own, or the one that was drawn in the step before.

batch.rollout_lag_steps = 0: prompts -> groups -> mini-batches, one after the other. The devices
wait while the last completions are scored and while mini-batches are packed.

batch.rollout_lag_steps = 1: a step hands the devices the rollout of the step after it, and what the
policy says of its tokens, before its own updates. Beside them the host takes the scores of its own
rollout, which had a whole step to come in, and packs it:

    devices    rollout n+1 | old log-probs of n+1 | updates n     | rollout n+2 | ...
    host       its tokens  | scores, packing of n | reads old n+1 | its tokens  | ...
    verifiers  n and n+1   | n+1                  | n+1           | n+1 and n+2 | ...

One thread dispatches all programs, in an order that no clock decides: a step's rollout comes from
the policy before the step before it, always, and in a run's first step from the present one.
"""

from __future__ import annotations

import dataclasses
import time

from cegppo_jax.activity import LOGPROBS, ROLLOUT, SETTLING
from cegppo_jax.learner.ahead import OldPass, RolloutAhead, start_old_pass
from cegppo_jax.learner.minibatches import PreparedStep, make_minibatches, minibatches_of_known
from cegppo_jax.models.decoder import Params
from cegppo_jax.rollout.rounds import RolloutDraw, StepDraw, choose_groups, draw_groups
from cegppo_jax.run.build import TrainingRun
from cegppo_jax.run.position import RunPosition


@dataclasses.dataclass(frozen=True)
class ReadyStep:
    """What a step's updates start from."""

    drawn: StepDraw
    prepared: PreparedStep
    ahead: RolloutAhead | None  # the rollout of the next step
    preparing_seconds: float  # old log-probs and packing, without the rollout
    lagged: bool  # whether pi_old is an earlier policy than the one that the updates start from


def ready_step(
    run: TrainingRun, params: Params, position: RunPosition, reference: Params | None
) -> ReadyStep:
    """Returns the mini-batches of the step after `position`. `params` are those of the policy that
    its updates start from.
    """
    if run.settings.batch.rollout_lag_steps:
        return _of_the_step_before(run, params, position, reference)
    return _of_its_own(run, params, position, reference)


def _of_its_own(
    run: TrainingRun, params: Params, position: RunPosition, reference: Params | None
) -> ReadyStep:
    with run.activity.during(ROLLOUT):
        drawn = draw_groups(
            run.source,
            params,
            steps_done=position.step,
            next_prompt=position.next_prompt,
            carried=position.carried,
            difficulty=position.difficulty,
        )
    run.actor.sampler.release_copy()  # room for the update
    began = time.perf_counter()
    with run.activity.during(LOGPROBS):
        prepared = make_minibatches(
            drawn.groups, params, reference, run.learner.logprobs, run.minibatches, run.activity
        )
    return ReadyStep(drawn, prepared, None, time.perf_counter() - began, lagged=False)


def _of_the_step_before(
    run: TrainingRun, params: Params, position: RunPosition, reference: Params | None
) -> ReadyStep:
    step, ahead = position.step + 1, None
    own = position.ahead or _draw(run, params, position, step, position.next_prompt, None)
    if step < run.settings.steps:
        ahead = _draw(run, params, position, step + 1, own.next_prompt, own)
    run.actor.sampler.release_copy()  # room for the update
    drawn = choose_groups(
        run.settings.batch,
        own.drawn,
        steps_done=position.step,
        carried=position.carried,
        difficulty=position.difficulty,
    )
    began = time.perf_counter()
    with run.activity.during(LOGPROBS):
        old = own.old(run.activity)
        prepared = minibatches_of_known(
            drawn.groups, old, reference, run.learner.logprobs, run.minibatches, run.activity
        )
    return ReadyStep(drawn, prepared, ahead, time.perf_counter() - began, lagged=True)


def _draw(
    run: TrainingRun,
    params: Params,
    position: RunPosition,
    step: int,
    next_prompt: int,
    before: RolloutAhead | None,
) -> RolloutAhead:
    """Draws the rollout that `step` trains on, and starts its old log-probs. Only a further round
    waits for scores.

    The scores of the rollout `before` are taken once this one is drawn and before more is handed to
    the devices: hosts exchange them through the devices.
    """
    draw = RolloutDraw(
        run.source,
        step=step,
        policy_version=position.step,
        next_prompt=next_prompt,
        carried=position.carried,
        difficulty=position.difficulty,
    )
    passes: list[OldPass] = []
    refills = run.settings.batch.mode.refills
    with run.activity.during(ROLLOUT):
        for groups in draw.sample(params):
            if not refills:
                run.actor.sampler.release_copy()  # room for the log-probs, as for the update
            if before is not None:
                with run.activity.during(SETTLING):
                    _ = before.drawn
            with run.activity.during(LOGPROBS):
                passes.append(
                    start_old_pass(
                        groups, params, run.learner.logprobs, run.minibatches, run.activity
                    )
                )
    return RolloutAhead(draw, passes)
