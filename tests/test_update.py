"""The update's invariants: meshes, micro-batches, packing, padding, order, on-policy,
recompilation.
"""

import dataclasses

import jax
import numpy as np
import pytest

from cegppo_jax.compilation import compiled_versions
from cegppo_jax.losses.contract import SurrogateKnobs
from cegppo_jax.losses.policy_loss import make_policy_loss
from cegppo_jax.losses.surrogates import SURROGATES
from cegppo_jax.optimizer import OptimizerSettings
from cegppo_jax.packing import PackedShape, TrainingSequence, pack, unpack
from cegppo_jax.sharding import MeshShape, make_mesh
from cegppo_jax.update import (
    ForwardSettings,
    TrainState,
    init_state,
    make_logprobs,
    make_update,
    state_shardings,
)

# Adam with a huge epsilon moves by rate * gradient / epsilon: parameters then show gradients, where
# the usual one shows little more than their signs.
RATE = 1e3
LINEAR = OptimizerSettings(
    learning_rate=RATE,
    warmup_steps=0,
    schedule="constant",
    decay_steps=0,
    beta1=0.0,
    beta2=0.0,
    epsilon=RATE,
    weight_decay=0.0,
    decay_norms_and_embeddings=False,
    max_grad_norm=float("inf"),
)
FORWARD = ForwardSettings(
    dtype="float32", rematerialise=True, scan_unroll=1, temperature=1.0, logprob_chunk_tokens=16
)
KNOBS = SurrogateKnobs(*(np.float32(value) for value in (0.2, 0.2, 0.5, 1.0)))
SHAPE = PackedShape(microbatches=4, rows=8, row_tokens=32)


@pytest.fixture(scope="module")
def sequences():
    random = np.random.default_rng(5)
    made = []
    for _ in range(24):
        prompt = random.integers(2, 32, size=random.integers(1, 7)).tolist()
        completion = random.integers(2, 32, size=random.integers(1, 14))
        logprobs = -random.random(len(completion)).astype(np.float32)
        made.append(TrainingSequence(prompt, completion, logprobs, float(random.normal())))
    return made


def state_on(mesh, model, params):
    """A state with the given parameters, laid out on the mesh."""
    state = init_state(mesh, model, LINEAR, jax.random.key(0))
    layout = state_shardings(mesh, model, LINEAR).params
    own = jax.tree.map(np.array, params)  # copies: the update donates its state
    return dataclasses.replace(state, params=jax.device_put(own, layout))


def old_logprobs_of(batch, mesh, model, params):
    """The policy's own, moved by up to 0.6 a token: both edges are passed. A function of the
    token's place in its
    sequence, so that every packing of the same sequences gets the same."""
    own = np.asarray(make_logprobs(mesh, model, FORWARD)(params, batch))
    moved = 0.6 * np.sin(7.0 * batch.sequence_ids + 3.0 * batch.positions)
    return (own + moved * batch.completion_mask).astype(np.float32)


def updated(mesh, model, params, batch, *, surrogate="ce_gppo", forward=FORWARD, old=None):
    """-> (parameters after one update, metrics)."""
    state = state_on(mesh, model, params)
    if old is None:
        old = old_logprobs_of(batch, mesh, model, params)
    loss = make_policy_loss(SURROGATES[surrogate])
    state, reductions = make_update(mesh, model, forward, LINEAR, loss)(state, batch, old, KNOBS)
    values = {name: r.result() for name, r in jax.device_get(reductions).items()}
    return jax.device_get(state.params), values


def assert_same_update(first, second, params):
    """Equal metrics, and equal gradients to float32 rounding of their size."""
    assert first[1].keys() == second[1].keys()
    for name, value in first[1].items():
        np.testing.assert_allclose(second[1][name], value, rtol=2e-4, atol=2e-6, err_msg=name)
    moves = [
        jax.tree.map(lambda new, old: np.asarray(new) - np.asarray(old), tree, params)
        for tree in (first[0], second[0])
    ]
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(moves[0]))
    assert largest > 1e-2
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5 * max(1, largest)), *moves)


@pytest.fixture(scope="module")
def reference(model, params, sequences):
    mesh = make_mesh(MeshShape(1, 1, 1), jax.devices()[:1])
    with jax.set_mesh(mesh):
        return updated(mesh, model, params, pack(sequences, SHAPE))


def test_both_edges_are_passed(reference):
    """The other tests would prove little on a batch without clipped tokens."""
    _, metrics = reference
    assert metrics["policy/clip_count_low"] > 10
    assert metrics["policy/clip_count_high"] > 10


def test_every_mesh_gives_the_single_device_update(reference, model, params, sequences, any_mesh):
    sharded = updated(any_mesh, model, params, pack(sequences, SHAPE))
    assert_same_update(reference, sharded, params)


@pytest.mark.parametrize(
    "shape",
    [
        PackedShape(microbatches=24, rows=1, row_tokens=32),
        PackedShape(microbatches=1, rows=32, row_tokens=32),
        PackedShape(microbatches=24, rows=1, row_tokens=16 * 2),
        PackedShape(microbatches=2, rows=6, row_tokens=64),
        PackedShape(microbatches=9, rows=8, row_tokens=32),
    ],
    ids=str,
)
def test_microbatches_rows_and_padding_change_nothing(
    reference, one_device, model, params, sequences, shape
):
    assert_same_update(
        reference, updated(one_device, model, params, pack(sequences, shape)), params
    )


def test_one_sequence_a_row_is_the_same_as_packed(reference, one_device, model, params, sequences):
    """Each sequence alone in its row, as an unpacked trainer would pad it."""
    alone = [pack([one], PackedShape(1, 1, 32)) for one in sequences]
    stacked = jax.tree.map(
        lambda *rows: np.concatenate(rows),
        *(dataclasses.replace(batch, num_microbatches=np.zeros(1, np.int32)) for batch in alone),
    )
    ids = np.arange(24)[:, None, None] * (stacked.segment_ids > 0) + 24 * (stacked.segment_ids == 0)
    padded = dataclasses.replace(
        stacked, sequence_ids=ids.astype(np.int32), num_microbatches=np.int32(24)
    )
    assert_same_update(reference, updated(one_device, model, params, padded), params)


def test_order_of_sequences_changes_nothing(one_device, model, params, sequences):
    """Old log-probs here are the policy's own, which do not depend on the order."""
    results = []
    for ordered in (sequences, sequences[::-1]):
        batch = pack(ordered, SHAPE)
        own = make_logprobs(one_device, model, FORWARD)(params, batch)
        results.append(updated(one_device, model, params, batch, old=own))
    assert_same_update(*results, params)


def test_on_policy_update_is_grpo_bitwise(one_device, model, params, sequences):
    batch = pack(sequences, SHAPE)
    # Same forward pass in the same shapes: the ratio is 1 up to one rounding of the compiler's.
    own = make_logprobs(one_device, model, FORWARD)(params, batch)
    ce_gppo, metrics = updated(one_device, model, params, batch, old=own)
    grpo, _ = updated(one_device, model, params, batch, old=own, surrogate="ppo_clip")
    assert metrics["policy/clip_count_low"] == metrics["policy/clip_count_high"] == 0
    jax.tree.map(np.testing.assert_array_equal, ce_gppo, grpo)


def test_clipped_tokens_make_the_difference(reference, one_device, model, params, sequences):
    """Off policy, CE-GPPO and PPO-clip differ: the equality above is not for lack of a method."""
    ppo, _ = updated(one_device, model, params, pack(sequences, SHAPE), surrogate="ppo_clip")
    gap = jax.tree.map(lambda a, b: np.abs(a - b).max(), ppo, reference[0])
    assert max(jax.tree.leaves(gap)) > 1e-3


def test_metrics_are_exact(one_device, model, params, sequences):
    """Against NumPy on the unpacked tokens."""
    batch = pack(sequences, SHAPE)
    own = np.asarray(make_logprobs(one_device, model, FORWARD)(params, batch))
    old = old_logprobs_of(batch, one_device, model, params)
    _, metrics = updated(one_device, model, params, batch, old=old)
    mask = np.asarray(batch.completion_mask)
    log_ratio, advantages = (own - old)[mask], np.asarray(batch.advantages)[mask]
    ratio = np.exp(log_ratio)
    low, high = (ratio < 0.8) & (advantages < 0), (ratio > 1.2) & (advantages > 0)
    weight = np.where(low, 0.5 * 0.8, np.where(high, 1.2, ratio))
    expected = {
        "policy/loss": -(weight * advantages).mean(),
        "policy/clip_count_low": low.sum(),
        "policy/clip_count_high": high.sum(),
        "policy/clip_fraction_low": low.mean(),
        "policy/clip_fraction_high": high.mean(),
        "policy/ratio_max": ratio.max(),
        "policy/ratio_min": ratio.min(),
        "policy/kl_old": (ratio - 1 - log_ratio).mean(),
        "policy/sampler_gap_mean": np.abs(old - batch.sampler_logprobs)[mask].mean(),
        "policy/sampler_gap_max": np.abs(old - batch.sampler_logprobs)[mask].max(),
        "update/learning_rate": RATE,
        "update/skipped": 0,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_gradient_that_is_not_finite_changes_nothing_and_is_counted(
    one_device, model, params, sequences
):
    batch = pack(sequences, SHAPE)
    old = np.full(batch.tokens.shape, np.nan, np.float32)
    after, metrics = updated(one_device, model, params, batch, old=old)
    assert metrics["update/skipped"] == 1
    jax.tree.map(np.testing.assert_array_equal, after, jax.device_get(params))


def test_a_skipped_update_keeps_the_optimizers_state(one_device, model, params, sequences):
    """NaN moments would ruin the run one step later."""
    adam = dataclasses.replace(LINEAR, beta1=0.9, beta2=0.999)
    update = make_update(one_device, model, FORWARD, adam, make_policy_loss(SURROGATES["ce_gppo"]))
    batch = pack(sequences, SHAPE)
    broken = np.full(batch.tokens.shape, np.nan, np.float32)
    state = state_on(one_device, model, params)
    before = jax.device_get(state.optimizer_state)
    state, _ = update(state, batch, broken, KNOBS)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.optimizer_state), before)
    assert int(state.updates) == 1


def test_the_schedule_counts_rollout_steps(one_device, model, params, sequences):
    """Two updates of one step have one learning rate; the next step has the next."""
    warming = dataclasses.replace(LINEAR, learning_rate=1.0, warmup_steps=4)
    update = make_update(
        one_device, model, FORWARD, warming, make_policy_loss(SURROGATES["ce_gppo"])
    )
    batch = pack(sequences, SHAPE)
    old = old_logprobs_of(batch, one_device, model, params)
    state = state_on(one_device, model, params)
    rates = []
    for new_step in (False, False, True):
        state = dataclasses.replace(state, step=state.step + int(new_step))
        state, reductions = update(state, batch, old, KNOBS)
        rates.append(jax.device_get(reductions)["update/learning_rate"].result())
    assert rates == [0.25, 0.25, 0.5]


def test_nothing_recompiles_for_another_mix_of_lengths(one_device, model, params, sequences):
    logprobs = make_logprobs(one_device, model, FORWARD)
    loss = make_policy_loss(SURROGATES["ce_gppo"])
    update = make_update(one_device, model, FORWARD, LINEAR, loss)
    state = state_on(one_device, model, params)
    used = set()
    for count, knobs in ((24, KNOBS), (1, KNOBS), (13, jax.tree.map(lambda k: k / 2, KNOBS))):
        batch = pack(sequences[:count], SHAPE)
        used.add(int(batch.num_microbatches))
        state, _ = update(state, batch, logprobs(state.params, batch), knobs)
    assert len(used) > 1
    assert compiled_versions(update) == compiled_versions(logprobs) == 1
    assert isinstance(state, TrainState)
    assert int(state.updates) == 3


def test_packed_logprobs_are_those_of_each_sequence_alone(one_device, model, params, sequences):
    logprobs = make_logprobs(one_device, model, FORWARD)
    batch = pack(sequences, SHAPE)
    packed = unpack(logprobs(params, batch), batch, len(sequences))
    alone_shape = PackedShape(1, 1, 32)
    alone_logprobs = make_logprobs(one_device, model, FORWARD)
    for index, one in enumerate(sequences[:6]):
        alone = pack([one], alone_shape)
        [expected] = unpack(alone_logprobs(params, alone), alone, 1)
        np.testing.assert_allclose(packed[index], expected, rtol=1e-4, atol=1e-5)
