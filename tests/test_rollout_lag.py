"""batch.rollout_lag_steps = 1: whose log-probs are old, and what a checkpoint holds between."""

import dataclasses
import hashlib
import json
import signal

import child_runs
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_recipe
from altered_run import altered
from test_resume import assert_same_run, last_position, saved

from cegppo_jax import train as story
from cegppo_jax.reporting.metrics import Phase, read_metrics, without_clock
from cegppo_jax.rewards.workers.scorer import InProcessScorer
from cegppo_jax.run.build import build_run, minibatch_settings
from cegppo_jax.run.position import RunPosition
from cegppo_jax.run.settings import read_settings
from cegppo_jax.run.stopping import EXIT_CODE
from cegppo_jax.steering.steer import START
from cegppo_jax.types import Outcome, Score

LAG = "--config.batch.rollout_lag_steps=1"


def by_lot(text, problem):
    """Right or wrong by lot, so that an untrained policy has something to learn."""
    right = hashlib.blake2b(f"{text}{problem.id}".encode()).digest()[0] % 2 == 0
    return Score(float(right), Outcome.CORRECT if right else Outcome.WRONG, None)


@pytest.fixture(scope="module")
def lagged(tiny_run):
    """The tiny run with a lag, and its first two steps: parameters before each, and what it was."""
    settings = tiny_run.settings
    batch = dataclasses.replace(settings.batch, rollout_lag_steps=1)
    settings = dataclasses.replace(settings, batch=batch)
    run = altered(
        tiny_run,
        settings=settings,
        scorer=InProcessScorer(by_lot, None),
        minibatches=minibatch_settings(settings),
    )
    before, taken = [], []
    with jax.set_mesh(run.mesh):
        state, position = run.initial_state(run.learner), RunPosition(0, 0, START)
        for _ in range(2):
            before.append(jax.tree.map(jnp.copy, state.params))
            taken.append(story.train_step(run, state, position, None))
            state, position = taken[-1].state, taken[-1].position
    return run, before, taken


def test_old_log_probs_are_of_the_policy_that_drew_and_the_ratio_sees_how_it_moved(lagged):
    """Step 2 trains on what step 0's policy has drawn, and starts from step 1's."""
    run, (drew, started), (_, second) = lagged
    assert {c.policy_version for group in second.rollouts for c in group.completions} == {0}
    moved = []
    for minibatch in second.minibatches:
        mask = minibatch.batch.trained_mask
        own, entropies = run.learner.logprobs(drew, minibatch.batch)
        np.testing.assert_array_equal(minibatch.old.logprobs[mask], np.asarray(own)[mask])
        np.testing.assert_array_equal(minibatch.old.entropy[mask], np.asarray(entropies)[mask])
        later, _ = run.learner.logprobs(started, minibatch.batch)
        moved.append((np.asarray(later) - np.asarray(own))[mask])
    values, ratios = second.values, np.exp(moved[0])
    # Against the sampler's nothing but rounding: the mismatch has no staleness in it
    assert values["policy/sampler_gap_max"] < 1e-4
    assert values["policy/lag_log_ratio_mean"] == pytest.approx(np.abs(moved[0]).mean(), rel=1e-3)
    assert values["policy/lag_log_ratio_mean"] > 1e-3
    ess = ratios.sum() ** 2 / (ratios**2).sum() / ratios.size
    assert values["policy/lag_ess_fraction"] == pytest.approx(ess, rel=1e-3)
    first_update = second.updates[0]
    assert first_update["policy/ratio_max"] == pytest.approx(ratios.max(), rel=1e-3)


def test_a_step_after_a_checkpoint_has_the_bits_of_the_one_without(lagged):
    """The policy that drew the rollout ahead is gone: the checkpoint has all that it said."""
    run, _, (_, second) = lagged
    scalars, arrays = second.position.to_saved()
    position = RunPosition.from_saved(json.loads(json.dumps(scalars)), arrays)
    assert position == second.position
    assert position.ahead.old(run.activity).completions  # and it is not empty
    with jax.set_mesh(run.mesh):
        state = jax.tree.map(jnp.copy, second.state)
        on, again = (
            story.train_step(run, own, at, None)
            for own, at in ((second.state, second.position), (state, position))
        )
    for one, other in zip(jax.tree.leaves(on.state), jax.tree.leaves(again.state), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
    assert on.updates == again.updates
    assert without_clock(on.values) == without_clock(again.values)
    assert on.position == again.position


def test_without_a_lag_a_checkpoint_names_no_rollout_ahead():
    scalars, arrays = RunPosition(3, 24, START).to_saved()
    assert "ahead" not in scalars
    assert not [name for name in arrays if name.startswith("ahead")]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"batch.dynamic_sampling": "carry_over"}, ("rollout_lag_steps = 1", "'carry_over'")),
        (
            {"steering.guard.floor": 0.1, "steering.guard.rollback": True},
            ("rollout_lag_steps = 1", "guard.rollback"),
        ),
        ({"batch.rollout_lag_steps": 2}, ("rollout_lag_steps = 2", "from 0 to 1")),
    ],
)
def test_what_does_not_go_with_a_lag_is_refused_by_name(changes, named):
    config = tiny_recipe.get_config()
    config.update_from_flattened_dict({"batch.rollout_lag_steps": 1} | changes)
    with pytest.raises(ValueError) as raised:
        read_settings(config)
    assert all(words in str(raised.value) for words in named)


# All that is remembered between steps: the store that weighs prompts, refills, the controller, and
# verifiers in other processes
EVERYTHING = (
    LAG,
    "--config.steps=6",
    "--config.batch.dynamic_sampling=refill",
    "--config.batch.trained_prompts=4",
    "--config.batch.minibatch_prompts=2",
    "--config.batch.refill_prompts=4",
    "--config.batch.max_refills=2",
    "--config.batch.prompt_weighting=difficulty",
    "--config.reward.pool.workers=1",
    "--config.steering.controller.enabled=True",
    "--config.steering.controller.entropy_low=1.5",
    "--config.steering.controller.entropy_high=1.5",
    "--config.loss.kl_place=reward",
    "--config.loss.kl_coef=0.01",
)


@pytest.mark.slow
def test_a_run_with_a_lag_killed_and_stopped_ends_as_the_uninterrupted_one(compile_cache, tmp_path):
    """Killed in step 4, after the checkpoint of step 2, and stopped in step 5: both with a rollout
    ahead.
    """
    expected, workdir, options = tmp_path / "one", tmp_path / "cut", {"cache": compile_cache}
    child_runs.finish(expected, *EVERYTHING, **options)
    lines = [line for line in read_metrics(expected) if line["phase"] == Phase.RL][1:]
    assert [line["rollout/staleness_mean_steps"] for line in lines[:4]] == [0, 1, 1, 1]
    assert sum(line["rollout/refill_rounds"] for line in lines) > 0
    assert len({line["steering/beta_low"] for line in lines}) > 2

    def past_a_checkpoint():
        return saved(workdir)[-1:] == [2] and last_position(workdir) == (Phase.RL, 3)

    child_runs.kill_when(past_a_checkpoint, workdir, *EVERYTHING, **options)
    code, errors = child_runs.stopped(
        signal.SIGTERM,
        lambda: last_position(workdir) == (Phase.RL, 4),
        workdir,
        *EVERYTHING,
        **options,
    )
    assert code == EXIT_CODE, errors
    printed = child_runs.finish(workdir, *EVERYTHING, **options)
    assert "resumed from the checkpoint of step" in printed
    assert_same_run(workdir, expected, build_run(read_settings(tiny_recipe.get_config())))
