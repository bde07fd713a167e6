"""The update's invariants: meshes, micro-batches, packing, padding, order, on-policy,
recompilation; for every method.
"""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from update_cases import (
    ADVANTAGES,
    DRAWS_SEED,
    FORWARD,
    GIVEN,
    KNOBS,
    LINEAR,
    RATE,
    SEQUENCES,
    SHAPE,
    TINY_MODEL,
    assert_same_update,
    batch_of,
    compiled,
    full_batch_of,
    knobs_with,
    largest,
    moves_of,
    old_statistics_of,
    own_statistics,
    run,
    state_on,
    tiny_params,
    updated,
)

from cegppo_jax.compilation import compiled_versions
from cegppo_jax.learner.train_state import TrainState
from cegppo_jax.learner.update import BatchNeeds, make_logprobs, make_update
from cegppo_jax.losses.contract import token_level
from cegppo_jax.losses.policy_loss import OldStatistics, make_policy_loss
from cegppo_jax.losses.reduce import neutral
from cegppo_jax.losses.selection import SELECTIONS
from cegppo_jax.losses.surrogates import SURROGATES
from cegppo_jax.losses.wrappers import WRAPPERS, wrapped
from cegppo_jax.models.decoder import init_params
from cegppo_jax.packing import PackedShape, pack, unpack, with_targets
from cegppo_jax.sharding import MeshShape, make_mesh

NO_NEEDS = BatchNeeds(selections=(), draws=False, seed=0)
CE_GPPO = make_policy_loss(SURROGATES["ce_gppo"], None, "half")


@pytest.fixture(scope="module")
def params(model):
    """Half as large again as at initialisation: far from uniform, and not so far that float32's
    rounding grows beyond the tolerances.
    """
    return jax.tree.map(lambda leaf: 1.5 * leaf, init_params(model, jax.random.key(1)))


def old_and_update(mesh, model, params, batch):
    old = old_statistics_of(batch, mesh, model, params)
    return updated(mesh, model, params, batch, old=old)


@pytest.fixture(scope="module")
def old(model, params):
    """Of the sequences as they are packed first."""
    mesh = mesh_of(MeshShape(1, 1, 1))
    with jax.set_mesh(mesh):
        return old_statistics_of(batch_of(), mesh, model, params)


@pytest.fixture(scope="module")
def reference(model, params, old):
    mesh = mesh_of(MeshShape(1, 1, 1))
    with jax.set_mesh(mesh):
        return updated(mesh, model, params, batch_of(), old=old)


def test_both_edges_are_passed(reference):
    """The other tests would prove little on a batch without clipped tokens."""
    _, metrics = reference
    assert metrics["policy/clip_count_low"] > 10
    assert metrics["policy/clip_count_high"] > 10


def test_every_mesh_gives_the_single_device_update(reference, model, params, any_mesh):
    assert_same_update(reference, old_and_update(any_mesh, model, params, batch_of()), params)


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(PackedShape(24, rows=1, row_tokens=32), marks=pytest.mark.slow),
        pytest.param(PackedShape(1, rows=32, row_tokens=32), marks=pytest.mark.slow),
        PackedShape(microbatches=2, rows=6, row_tokens=64),
        PackedShape(microbatches=9, rows=8, row_tokens=32),
    ],
    ids=str,
)
def test_microbatches_rows_and_padding_change_nothing(reference, one_device, model, params, shape):
    other = old_and_update(one_device, model, params, batch_of(shape=shape))
    assert_same_update(reference, other, params)


def test_one_sequence_a_row_is_the_same_as_packed(reference, one_device, model, params):
    """Each sequence alone in its row, as an unpacked trainer would pad it."""
    alone = [pack([one], PackedShape(1, 1, 32)) for one in SEQUENCES]
    stacked = jax.tree.map(
        lambda *rows: np.concatenate(rows),
        *(dataclasses.replace(batch, num_microbatches=np.zeros(1, np.int32)) for batch in alone),
    )
    ids = np.arange(24)[:, None, None] * (stacked.segment_ids > 0) + 24 * (stacked.segment_ids == 0)
    padded = dataclasses.replace(
        stacked, sequence_ids=ids.astype(np.int32), num_microbatches=np.int32(24)
    )
    tokens = stacked.completion_mask.sum()
    filled = with_targets(padded, advantages=ADVANTAGES, loss_weights=np.full(24, 1 / tokens))
    assert_same_update(reference, old_and_update(one_device, model, params, filled), params)


@pytest.mark.parametrize("row_tokens", [32, 64, 128])
def test_a_prompt_shared_by_its_completions_changes_nothing(one_device, model, params, row_tokens):
    """Groups of four: each prompt with the completions of four sequences."""
    sequences = tuple(
        dataclasses.replace(one, prompt_tokens=SEQUENCES[4 * (index // 4)].prompt_tokens)
        for index, one in enumerate(SEQUENCES)
    )
    shape = PackedShape(microbatches=4, rows=8, row_tokens=row_tokens)
    own, shared = (
        old_and_update(
            one_device, model, params, batch_of(sequences, shape, share_prompts=share_prompts)
        )
        for share_prompts in (False, True)
    )
    assert_same_update(own, shared, params)


def test_order_of_sequences_changes_nothing(reference, one_device, model, params):
    other = old_and_update(one_device, model, params, batch_of(SEQUENCES[::-1]))
    assert_same_update(reference, other, params)


# Every method, as one program: compiling each in each layout would take minutes. The loss is a
# switch over all of them, whose number comes with the knobs.


# A sequence's ratio, a geometric mean, stays closer to 1 than its tokens'.
CLOSE = knobs_with(clip_low=0.03, clip_high=0.03)
# Name -> (method, KL estimator, knobs)
CASES = {
    name: (method, None, KNOBS if method.level is token_level else CLOSE)
    for name, method in SURROGATES.items()
}
CASES |= {
    f"{name}(ce_gppo)": (wrapped(SURROGATES["ce_gppo"], [name]), None, KNOBS) for name in WRAPPERS
}
CASES["everything"] = (
    wrapped(SURROGATES["ce_gppo"], list(WRAPPERS)),
    "k3",
    knobs_with(kl_coef=0.3, entropy_coef=0.1, positive_lm_coef=0.2),
)
LOSSES = [make_policy_loss(method, kl, "surprisal") for method, kl, _ in CASES.values()]
ASKING = dataclasses.replace(FORWARD, rematerialise="none", differentiate_entropy=True)


def any_loss(inputs, knobs):
    """The loss of the chosen case; counts of the others' events are there and 0."""
    shapes = [jax.eval_shape(loss, inputs, knobs)[1] for loss in LOSSES]
    all_names = neutral({name: shape for one in shapes for name, shape in one.items()})

    def branch(loss):
        def value_and_all_names(inputs, knobs):
            value, reductions = loss(inputs, knobs)
            return value, all_names | reductions

        return value_and_all_names

    return jax.lax.switch(knobs.chosen, [branch(loss) for loss in LOSSES], inputs, knobs)


def mesh_of(shape):
    return make_mesh(shape, jax.devices()[: shape.data * shape.fsdp * shape.tensor])


@functools.cache
def program_of(mesh, rows):
    """-> the compiled update of all cases; `rows`: the shape [U, R, C] of its batches."""
    batch = full_batch_of(SEQUENCES, PackedShape(*rows))
    nothing = np.zeros(rows, np.float32)
    needs = BatchNeeds(tuple(SELECTIONS), draws=True, seed=DRAWS_SEED)
    update = make_update(mesh, TINY_MODEL, ASKING, LINEAR, any_loss, needs)
    state, old = state_on(mesh, TINY_MODEL, tiny_params()), OldStatistics(*[nothing] * 3)
    return compiled(update, state, batch, old, KNOBS.replace(chosen=np.int32(0)), GIVEN)


def all_cases(mesh, params, batch):
    """-> {case: (parameters after one update, metrics)}"""
    old = old_statistics_of(batch, mesh, TINY_MODEL, params)
    update = program_of(mesh, batch.tokens.shape)
    results = {}
    for place, (name, (_, _, knobs)) in enumerate(CASES.items()):
        chosen = knobs.replace(chosen=np.int32(place))  # its place in CASES
        state, reductions, _ = update(state_on(mesh, TINY_MODEL, params), batch, old, chosen, GIVEN)
        values = {n: r.result() for n, r in jax.device_get(reductions).items()}
        results[name] = jax.device_get(state.params), values
    return results


# The reference; each sequence in another row and micro-batch, which takes no other program; other
# rows, row length and micro-batches as well; eight devices.
LAYOUTS = {
    "reference": (MeshShape(1, 1, 1), SEQUENCES, SHAPE),
    "reordered": (MeshShape(1, 1, 1), SEQUENCES[::-1], SHAPE),
    "repacked": (MeshShape(1, 1, 1), SEQUENCES[::-1], PackedShape(12, 2, 48)),
    "sharded": (MeshShape(2, 2, 2), SEQUENCES, PackedShape(3, 4, 32)),
}


@functools.cache
def updates_in(layout):
    """-> {case: its update}, computed when a test asks for the layout."""
    shape, sequences, packed = LAYOUTS[layout]
    mesh = mesh_of(shape)
    with jax.set_mesh(mesh):
        return all_cases(mesh, tiny_params(), full_batch_of(sequences, packed))


@pytest.fixture(scope="module")
def methods():
    """-> {case: its update}, of the reference."""
    return updates_in("reference")


@pytest.mark.parametrize(
    "layout",
    ["reordered", *(pytest.param(n, marks=pytest.mark.slow) for n in ("repacked", "sharded"))],
)
@pytest.mark.parametrize("case", CASES)
def test_no_method_depends_on_the_layout(methods, case, layout):
    assert_same_update(methods[case], updates_in(layout)[case], tiny_params())


@pytest.mark.parametrize("case", CASES)
def test_every_method_clips_or_counts_here(methods, case):
    """What sets a method apart happens on this batch, so that the test above can see it."""
    _, metrics = methods[case]
    assert metrics["policy/clip_count_low"] > 10
    assert metrics["policy/clip_count_high"] > 10
    method, _, _ = CASES[case]
    events = {
        **{"clip_cov": ["covariance"], "kl_cov": ["covariance"]},
        **{"dppo_tv": ["divergence_mask"], "dppo_kl": ["divergence_mask"]},
        **{"dual_clip(ce_gppo)": ["dual_clip"], "entropy_ratio(ce_gppo)": ["entropy_ratio"]},
        **{"top_entropy(ce_gppo)": ["low_entropy"]},
        **{"stochastic_preservation(ce_gppo)": ["not_preserved"]},
        "everything": ["dual_clip", "entropy_ratio", "low_entropy", "not_preserved"],
    }.get(case, [])
    counts = {name for name in metrics if name.endswith("_count") and metrics[name]}
    assert counts == {f"policy/{event}_count" for event in events}
    assert bool(method.selections or method.draws) == (
        case in ("clip_cov", "kl_cov", "everything")
        or case.startswith(("top_entropy", "stochastic_preservation"))
    )


def test_no_two_methods_make_the_same_update(methods):
    """Only gspo and gspo_token do, where all tokens of a sequence have one advantage (arXiv
    2507.18071, section 4.3).
    """
    moves = {
        name: np.concatenate(
            [leaf.ravel() for leaf in jax.tree.leaves(moves_of(after, tiny_params()))]
        )
        for name, (after, _) in methods.items()
    }
    names = list(moves)
    for place, one in enumerate(names):
        for other in names[:place]:
            same = {one, other} == {"gspo", "gspo_token"}
            assert (np.abs(moves[one] - moves[other]).max() < 1e-3) == same, (one, other)


@pytest.mark.parametrize(
    "case",
    [
        "ce_gppo",
        pytest.param("clip_cov", marks=pytest.mark.slow),
        pytest.param("stochastic_preservation(ce_gppo)", marks=pytest.mark.slow),
    ],
)
def test_a_method_in_the_switch_is_the_method_itself(methods, one_device, case):
    method, _, knobs = CASES[case]
    batch, params = full_batch_of(), tiny_params()
    old = old_statistics_of(batch, one_device, TINY_MODEL, params)
    loss = make_policy_loss(method, None, "surprisal")
    own = updated(
        one_device, TINY_MODEL, params, batch, old=old, method=method, knobs=knobs, loss=loss
    )
    switched, metrics = methods[case]
    assert_same_update(own, (switched, {name: metrics[name] for name in own[1]}), params)


def test_on_policy_update_is_grpo_bitwise(one_device, model, params):
    batch = batch_of()
    # Same forward pass in the same shapes: the ratio is 1 up to one rounding of the compiler's.
    logprobs, entropy = make_logprobs(one_device, model, FORWARD)(params, batch)
    old = OldStatistics(logprobs, entropy, None)

    def jitted(function, *arguments):
        return function(*arguments)

    ce_gppo, metrics = updated(one_device, model, params, batch, old=old, run=jitted)
    grpo, _ = updated(
        one_device, model, params, batch, old=old, method=SURROGATES["ppo_clip"], run=jitted
    )
    assert metrics["policy/clip_count_low"] == metrics["policy/clip_count_high"] == 0
    jax.tree.map(np.testing.assert_array_equal, ce_gppo, grpo)


@pytest.mark.parametrize("name", ["ce_gppo", pytest.param("clip_cov", marks=pytest.mark.slow)])
def test_a_first_update_finds_its_old_statistics_and_reads_none(one_device, model, params, name):
    batch, method = batch_of(), SURROGATES[name]
    own = own_statistics(batch, one_device, model, params)
    given = updated(one_device, model, params, batch, old=OldStatistics(*own, None), method=method)
    needs = BatchNeeds(method.selections, method.draws, DRAWS_SEED)
    loss = make_policy_loss(method, None, "half")
    update = make_update(one_device, model, FORWARD, LINEAR, loss, needs)
    state = state_on(one_device, model, params)
    state, reductions, found = run(update, state, batch, broken_statistics(batch), KNOBS, np.True_)
    metrics = {name: r.result() for name, r in jax.device_get(reductions).items()}
    assert metrics["policy/ratio_min"] == metrics["policy/ratio_max"] == 1
    assert metrics["policy/entropy_change"] == metrics["policy/kl_old"] == 0
    assert_same_update(given, (jax.device_get(state.params), metrics), params)
    for ours, theirs in zip(found, own, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_clipped_tokens_make_the_difference(reference, one_device, model, params, old):
    """Off policy, CE-GPPO and PPO-clip differ: the equality above is not for lack of a method."""
    batch = batch_of()
    ppo, _ = updated(one_device, model, params, batch, old=old, method=SURROGATES["ppo_clip"])
    assert largest(moves_of(ppo, reference[0])) > 1e-3


def test_metrics_are_exact(reference, one_device, model, params, old):
    """Against NumPy on the unpacked tokens."""
    batch = batch_of()
    own, own_entropy = own_statistics(batch, one_device, model, params)
    _, metrics = reference
    mask = np.asarray(batch.completion_mask)
    log_ratio, advantages = (own - old.logprobs)[mask], np.asarray(batch.advantages)[mask]
    entropy, entropy_change = own_entropy[mask], (own_entropy - old.entropy)[mask]
    ratio = np.exp(log_ratio)
    low, high = (ratio < 0.8) & (advantages < 0), (ratio > 1.2) & (advantages > 0)
    weight = np.where(low, 0.5 * 0.8, np.where(high, 1.2, ratio))
    expected = {
        "update/loss": -(weight * advantages).mean(),
        "policy/clip_count_low": low.sum(),
        "policy/clip_count_high": high.sum(),
        "policy/clip_fraction_low": low.mean(),
        "policy/clip_fraction_high": high.mean(),
        "policy/ratio_max": ratio.max(),
        "policy/ratio_min": ratio.min(),
        "policy/kl_old": (ratio - 1 - log_ratio).mean(),
        "policy/entropy": entropy.mean(),
        "policy/entropy_change": entropy_change.mean(),
        "update/learning_rate": RATE,
        "update/skipped": 0,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    others = metrics.keys() - expected.keys()
    assert {name for name in others if not name.startswith("budget/")} == {
        *("update/grad_norm", "update/grad_norm_max")
    }


def broken_statistics(batch):
    return OldStatistics(*(np.full(batch.tokens.shape, np.nan, np.float32) for _ in range(2)), None)


def test_a_gradient_that_is_not_finite_changes_nothing_and_is_counted(one_device, model, params):
    batch = batch_of()
    after, metrics = updated(one_device, model, params, batch, old=broken_statistics(batch))
    assert metrics["update/skipped"] == 1
    jax.tree.map(np.testing.assert_array_equal, after, jax.device_get(params))


def test_a_skipped_update_keeps_the_optimizers_state(one_device, model, params):
    """NaN moments would ruin the run one step later."""
    adam = dataclasses.replace(LINEAR, beta1=0.9, beta2=0.999)
    update = make_update(one_device, model, FORWARD, adam, CE_GPPO, NO_NEEDS)
    batch = batch_of()
    state = state_on(one_device, model, params)
    before = jax.device_get(state.optimizer_state)
    state, *_ = run(update, state, batch, broken_statistics(batch), KNOBS, GIVEN)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.optimizer_state), before)
    assert int(state.updates) == 1


def test_the_schedule_counts_rollout_steps(one_device):
    """Two updates of one step have one learning rate; the next step has the next."""
    model, params = TINY_MODEL, tiny_params()
    warming = dataclasses.replace(LINEAR, learning_rate=1.0, warmup_steps=4)
    update = make_update(one_device, model, FORWARD, warming, CE_GPPO, NO_NEEDS)
    batch = batch_of()
    old = old_statistics_of(batch, one_device, model, params)
    state = state_on(one_device, model, params)
    rates = []
    for new_step in (False, False, True):
        state = dataclasses.replace(state, step=state.step + int(new_step))
        state, reductions, _ = update(state, batch, old, KNOBS, GIVEN)
        rates.append(jax.device_get(reductions)["update/learning_rate"].result())
    assert rates == [0.25, 0.25, 0.5]


@pytest.mark.parametrize("case", [pytest.param("ce_gppo", marks=pytest.mark.slow), "everything"])
def test_nothing_recompiles_for_another_mix_of_lengths(one_device, case):
    method, kl_estimator, _ = CASES[case]
    params = tiny_params()
    logprobs = make_logprobs(one_device, TINY_MODEL, FORWARD)
    loss = make_policy_loss(method, kl_estimator, "half")
    needs = BatchNeeds(method.selections, method.draws, seed=0)
    update = make_update(one_device, TINY_MODEL, ASKING, LINEAR, loss, needs)
    state = state_on(one_device, TINY_MODEL, params)
    used = set()
    for count, knobs in ((24, KNOBS), (1, KNOBS), (13, jax.tree.map(lambda k: k / 2, KNOBS))):
        batch = batch_of(SEQUENCES[:count], PackedShape(6, 2, 32))
        used.add(int(batch.num_microbatches))
        own = logprobs(state.params, batch)
        ref = logprobs(state.params, batch)[0] if kl_estimator else None
        state, *_ = update(state, batch, OldStatistics(*own, ref), knobs, GIVEN)
    assert len(used) > 1
    assert compiled_versions(update) == compiled_versions(logprobs) == 1
    assert isinstance(state, TrainState)
    assert int(state.updates) == 3


def test_packed_statistics_are_those_of_each_sequence_alone(one_device, model, params):
    statistics = make_logprobs(one_device, model, FORWARD)
    batch = batch_of()
    packed = [unpack(values, batch, 24) for values in statistics(params, batch)]
    alone_shape = PackedShape(1, 1, 32)
    alone_statistics = make_logprobs(one_device, model, FORWARD)
    for index, one in enumerate(SEQUENCES[:6]):
        alone = pack([one], alone_shape)
        for values, ours in zip(alone_statistics(params, alone), packed, strict=True):
            [expected] = unpack(values, alone, 1)
            np.testing.assert_allclose(ours[index], expected, rtol=1e-4, atol=1e-5)
