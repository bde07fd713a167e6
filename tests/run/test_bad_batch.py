"""An update whose gradient was not finite: kept, computed again to the bit, and explained."""

import dataclasses
import json
from types import SimpleNamespace

import bucket_server
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_recipe

from cegppo_jax.finite import NonFiniteError
from cegppo_jax.learner.minibatches import Minibatch
from cegppo_jax.losses.policy_loss import OldStatistics
from cegppo_jax.packing import TrainingSequence, pack, with_targets
from cegppo_jax.replay import replay
from cegppo_jax.reporting.step_metrics import values_of
from cegppo_jax.run.bad_batch import (
    FOLDER,
    PARAMS,
    UPDATE,
    BadUpdate,
    LeftOut,
    read_bad_update,
    save_bad_update,
)
from cegppo_jax.run.one_writer import writer_lock
from cegppo_jax.run.parts import policy_diagnosis
from cegppo_jax.run.saved_params import restore_params
from cegppo_jax.steering.guard import GuardAction
from cegppo_jax.steering.steer import Steering
from cegppo_jax.storage.mirror import opened_folder
from cegppo_jax.storage.strict_json import write_json

NONE = GuardAction.NONE


@pytest.fixture(scope="module")
def minibatch(tiny_run):
    """A mini-batch of the tiny run's shape in 2 micro-batches, and its old statistics."""
    shape = dataclasses.replace(tiny_run.minibatches.shape, microbatches=2)
    tokens = np.random.default_rng(0).integers(3, tiny_run.model.vocab_size, size=(20, 12))
    sequences = [TrainingSequence(row[:4], row[4:], n) for n, row in enumerate(tokens.tolist())]
    ones = np.linspace(-1, 1, 20, dtype=np.float32)
    batch = with_targets(pack(sequences, shape), advantages=ones, loss_weights=abs(ones) / 90)
    assert int(batch.num_microbatches) == 2
    return batch


def knobs_of(run):
    return run.knobs(Steering(run.settings.base_betas, 0.0, NONE))


def with_old(run, state, batch):
    with jax.set_mesh(run.mesh):
        logprobs, entropy = run.learner.logprobs(state.params, batch)[:2]
    return Minibatch(batch, OldStatistics(logprobs, entropy, None))


def poisoned(batch, microbatch):
    """The batch with an advantage too large for a gradient in float32, in one micro-batch."""
    advantages = np.array(batch.advantages)
    advantages[microbatch] *= 1e38
    weights = np.array(batch.loss_weights) * 1e6
    return dataclasses.replace(batch, advantages=advantages, loss_weights=weights)


def test_an_update_that_was_left_out_is_computed_again_to_the_last_bit(
    minibatch, tiny_run, tmp_path
):
    """By way of files, as a run that ends leaves them, after an update that was good."""
    learner, knobs = tiny_run.learner, knobs_of(tiny_run)
    with jax.set_mesh(tiny_run.mesh):
        state = tiny_run.initial_state(learner)
        taken, results = [], []
        for batch in (minibatch, poisoned(minibatch, 1), poisoned(minibatch, 0)):
            one = with_old(tiny_run, state, batch)
            state, reductions, _ = learner.update(
                state, one.batch, one.old, knobs, np.bool_(not taken)
            )
            taken.append(one)
            results.append(values_of(jax.device_get(reductions)))
    assert [one["update/skipped"] for one in results] == [0, 1, 1]
    write_json(tmp_path / "config.json", tiny_config())
    left_out = LeftOut(2, tmp_path)
    step = SimpleNamespace(
        state=state, action=NONE, updates=results, minibatches=taken, knobs=knobs, finds_old=True
    )
    assert "2 of 3 updates left out" in left_out.message(1, step)
    with jax.set_mesh(tiny_run.mesh), pytest.raises(NonFiniteError, match="update 2 of step 1"):
        left_out.check(False, 0, state.params)
    lines, changed = replay(tmp_path / FOLDER)
    assert changed == []
    assert lines[0].startswith("update 2 of step 1: loss ")
    assert "micro-batch 2 of 2: " in lines[1]
    write_json(tmp_path / FOLDER / UPDATE, read_changed(tmp_path / FOLDER / UPDATE))
    assert [line.split(":")[0] for line in replay(tmp_path / FOLDER)[1]] == ["update/loss"]
    (tmp_path / FOLDER / "batch.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match="is damaged"):
        read_bad_update(tmp_path / FOLDER)


def test_in_a_bucket_the_update_that_was_kept_last_is_read(minibatch, tiny_run):
    """Its parameters are arrays, which Orbax writes and reads there, and does not write over."""
    nothing = np.zeros(minibatch.tokens.shape, np.float32)
    one = Minibatch(minibatch, OldStatistics(nothing, nothing, None))
    with bucket_server.serving() as url, jax.set_mesh(tiny_run.mesh):
        params = tiny_run.initial_state(tiny_run.learner).params
        with opened_folder("--workdir", f"{url}/run") as folder, writer_lock(folder) as lock:
            lock.hold()
            write_json(folder / "config.json", tiny_config())
            for step in (1, 2):
                scaled = jax.tree.map(lambda leaf, by=step: leaf * by, params)
                bad = BadUpdate(step, 1, 0, one, knobs_of(tiny_run), False, {"update/loss": 1.0})
                save_bad_update(folder, bad, scaled)
                lock.push()
        with opened_folder("FOLDER", f"{url}/run/{FOLDER}") as folder:
            assert read_bad_update(folder).step == 2
            assert not (folder / PARAMS).exists()
            found = restore_params(folder / PARAMS, tiny_run.learner.state_layout().params)
    jax.tree.map(np.testing.assert_array_equal, found, scaled)


def tiny_config():
    return tiny_recipe.get_config().to_dict() | {"command": "train"}


def read_changed(path):
    """The description of an update with one number of another last bit."""
    described = json.loads(path.read_text())
    loss = np.float64(float.fromhex(described["values"]["update/loss"]))
    described["values"]["update/loss"] = float(np.nextafter(loss, 1e300)).hex()
    return described


@pytest.mark.parametrize("what", ["nothing", "gradient", "logprobs"])
def test_what_is_not_finite_first_is_named(what, minibatch, tiny_run):
    knobs = knobs_of(tiny_run)
    diagnose = policy_diagnosis(tiny_run.settings, tiny_run.mesh, tiny_run.model)
    with jax.set_mesh(tiny_run.mesh):
        state = tiny_run.initial_state(tiny_run.learner)
        one, params = with_old(tiny_run, state, minibatch), state.params
        if what == "gradient":
            one = dataclasses.replace(one, batch=poisoned(minibatch, 1))
        elif what == "logprobs":
            params = jax.tree.map(lambda leaf: leaf * jnp.float32(np.nan), params)
        words = diagnose(params, 0, one.batch, one.old, knobs, False)
    expected = {
        "nothing": "the gradients of all 2 micro-batches are finite",
        "gradient": "micro-batch 2 of 2: its loss is ",
        "logprobs": "micro-batch 1 of 2: 128 log-probabilities of the policy are not finite",
    }
    assert expected[what] in words


def test_a_rollback_or_a_good_update_ends_a_row(tmp_path, tiny_run):
    left_out = LeftOut(9, tmp_path)

    def step(action, *skipped):
        updates = [
            {"update/skipped": int(one), "update/loss": 1.0, "update/grad_norm": 1.0}
            for one in skipped
        ]
        state = SimpleNamespace(updates=10)
        batches = [f"batch {n}" for n in range(len(skipped))]
        left_out.message(
            5,
            SimpleNamespace(
                state=state,
                action=action,
                updates=updates,
                minibatches=batches,
                knobs=None,
                finds_old=False,
            ),
        )
        return left_out.first and (left_out.first.update, left_out.first.updates)

    assert step(NONE, False, True, True) == (2, 8)
    assert step(NONE, True) == (2, 8)  # still the first of the row
    assert step(NONE, True, False) is None
    assert step(NONE, True) == (1, 9)
    assert step(GuardAction.ROLLBACK_LOW) is None
