"""Fewer slots decode at the end of a rollout: the same samples, in fewer rows."""

import dataclasses
from unittest import mock

import jax
import numpy as np
import pytest
from sampler_cases import EOS, PLAIN, SETTINGS, sample, sampler_of, tokens_of

from cegppo_jax.sampling.sampler import Sampler
from cegppo_jax.sharding import MeshShape, make_mesh

LADDER = dataclasses.replace(SETTINGS, slots=16, slot_ladder=(2, 4))


def arguments():
    return {"sampling": PLAIN, "key": jax.random.key(3), "policy_version": 4}


def by_name(completions):
    return {(c.prompt_index, c.sample_index): c for c in completions}


@pytest.mark.parametrize(
    "changes",
    [
        {"slots": 16, "slot_ladder": (2, 4)},
        pytest.param({"slots": 64, "slot_ladder": (1, 32)}, marks=pytest.mark.slow),
        pytest.param({"slot_ladder": (1, 2, 3, 4, 5, 6, 7)}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_samples_do_not_depend_on_the_ladder(
    one_device, model, params, prompts, reference, changes
):
    other = sample(one_device, model, params, prompts, **changes)
    assert tokens_of(other) == tokens_of(reference)
    for name, completion in other.items():  # a product of other rows may be summed otherwise
        ours, theirs = completion.sampler_logprobs, reference[name].sampler_logprobs
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_slots_split_over_devices_are_narrowed(model, params, prompts, reference):
    mesh = make_mesh(MeshShape(2, 2, 2))
    with jax.set_mesh(mesh):
        other = sample(mesh, model, params, prompts, slot_ladder=(4,))
    assert tokens_of(other) == tokens_of(reference)


def test_each_chunk_decodes_the_fewest_slots_that_hold_what_runs(
    one_device, model, params, prompts
):
    sampler, chunks = sampler_of(one_device, model, LADDER), []
    programs, decode = sampler._programs, sampler._programs.decode

    def watched(copy, state, *rest):
        chunks.append((int(state.active.sum()), state.active.shape[0]))
        return decode(copy, state, *rest)

    with mock.patch.object(programs, "decode", watched):
        drawn = list(sampler.sample(params, prompts, 3, **arguments()))
    assert len(drawn) > 16  # so that some had to wait
    first_tail = next(place for place, (_, width) in enumerate(chunks) if width < 16)
    for place, (active, width) in enumerate(chunks):
        if place >= first_tail:
            assert width == min(count for count in LADDER.slot_counts if count >= active)
    assert {width for _, width in chunks} >= {4, 16}
    assert sampler._width == 16  # for the next rollout


def test_the_slots_that_remain_keep_every_bit(one_device, model):
    programs = sampler_of(one_device, model, LADDER)._programs
    drawn = np.random.default_rng(0)
    state = jax.tree.map(
        lambda leaf: jax.device_put(
            drawn.integers(0, 2, leaf.shape).astype(leaf.dtype), leaf.sharding
        ),
        programs.new_state(),
    )
    before = jax.tree.map(lambda leaf: np.array(leaf), state)
    order = np.asarray([5, 1, 14, 2], np.int32)
    after = programs.narrowed(state, order)
    jax.tree.map(lambda new, old: np.testing.assert_array_equal(new, old[order]), after, before)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.cache))


def test_nothing_recompiles_after_warm_up(one_device, model, params, prompts):
    sampler = Sampler(one_device, model, LADDER, EOS)
    sampler.warm_up(params, [PLAIN])
    compiled = sampler.compile_counts()
    assert (compiled["decode"], compiled["narrow"]) == (6, 2)  # 2 read lengths, 3 slot counts
    list(sampler.sample(params, prompts, 3, **arguments()))
    list(sampler.sample(params, prompts[:1], 1, **arguments()))
    assert sampler.compile_counts() == compiled


def test_a_rollout_left_in_its_tail_leaves_nothing_behind(
    one_device, model, params, prompts, reference
):
    sampler = sampler_of(one_device, model, LADDER)
    first = sampler.sample(params, prompts, 3, **arguments())
    while sampler._width == 16:
        next(first)
    first.close()
    again = by_name(sampler.sample(params, prompts, 3, **arguments()))
    assert tokens_of(again) == tokens_of(reference)


@pytest.mark.parametrize("ladder", [(4, 2), (2, 2), (16,), (0, 4)], ids=str)
def test_ladders_that_do_not_rise_below_the_slots_are_refused(one_device, model, ladder):
    settings = dataclasses.replace(LADDER, slot_ladder=ladder)
    with pytest.raises(ValueError, match=r"slot_ladder = .* sampler.slots = 16"):
        Sampler(one_device, model, settings, EOS)


def test_a_ladder_that_the_mesh_does_not_divide_is_refused(model):
    settings = dataclasses.replace(LADDER, slot_ladder=(4, 8))
    with pytest.raises(ValueError, match=r"slot_ladder = \(4, 8\).* data x fsdp = 8"):
        Sampler(make_mesh(MeshShape(4, 2, 1)), model, settings, EOS)
