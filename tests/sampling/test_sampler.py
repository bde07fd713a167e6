"""The sampler's invariants: log-probs, layout, stopping, recompilation."""

import dataclasses
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import compiled_well
from sampler_cases import EOS, PLAIN, SETTINGS, sample, sampler_of, tokens_of

from cegppo_jax.finite import NonFiniteError
from cegppo_jax.learner.forward import ForwardSettings
from cegppo_jax.learner.update import make_logprobs
from cegppo_jax.models.attention.mask import SegmentMask
from cegppo_jax.models.decoder import Decoder, output_head
from cegppo_jax.packing import PackedShape, TrainingSequence, pack, unpack
from cegppo_jax.sampling.filters import SamplingFilter
from cegppo_jax.sampling.sampler import Sampler
from cegppo_jax.sharding import MeshShape, make_mesh
from cegppo_jax.types import StopReason


@pytest.mark.parametrize(
    "changes",
    [
        {"slots": 64},
        {"chunk_steps": 12},
        {"prefill_prompts": 1},
        pytest.param({"slots": 1}, marks=pytest.mark.slow),
        pytest.param({"chunk_steps": 1}, marks=pytest.mark.slow),
        pytest.param({"cache_read_ladder": ()}, marks=pytest.mark.slow),
        pytest.param({"max_prompt_tokens": 11}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_samples_do_not_depend_on_shapes(one_device, model, params, prompts, reference, changes):
    other = sample(one_device, model, params, prompts, **changes)
    assert tokens_of(other) == tokens_of(reference)


def test_samples_do_not_depend_on_admission_order(one_device, model, params, prompts, reference):
    other = sample(one_device, model, params, prompts[::-1])
    assert tokens_of(other) == tokens_of(reference)


def test_samples_do_not_depend_on_the_company(one_device, model, params, prompts, reference):
    alone = sample(one_device, model, params, prompts[4:5], samples=1)
    index = prompts[4].index
    assert tokens_of(alone)[index, 0] == tokens_of(reference)[index, 0]


def test_every_mesh_draws_what_one_device_draws(model, params, prompts, reference, any_mesh):
    sharded = sample(any_mesh, model, params, prompts)
    assert tokens_of(sharded) == tokens_of(reference)
    for name, completion in sharded.items():
        np.testing.assert_allclose(
            completion.sampler_logprobs, reference[name].sampler_logprobs, rtol=1e-4, atol=1e-5
        )


def test_samples_of_a_group_differ(prompts, reference):
    groups = [[reference[p.index, s].tokens.tolist() for s in range(3)] for p in prompts]
    assert all(group[0] != group[1] for group in groups)


@pytest.mark.parametrize("attention", ["xla", "splash"])
def test_sampler_logprobs_are_the_trainers(
    one_device, model, params, prompts, reference, attention
):
    """Of the same tolerance with kernels (interpreted) in prefill and trainer: 2e-5 nats."""
    if attention != "xla":
        reference = sample(one_device, model, params, prompts, attention=attention)
    by_index = {prompt.index: prompt for prompt in prompts}
    sequences = [
        TrainingSequence(by_index[c.prompt_index].tokens, c.tokens, draw_id=0)
        for c in reference.values()
    ]
    shape = PackedShape.holding(len(sequences), max_sequence_tokens=20, rows=4, row_tokens=40)
    batch = pack(sequences, shape)
    forward = ForwardSettings(
        dtype="float32",
        rematerialise="none",
        scan_unroll=1,
        temperature=1.0,
        logprob_chunk_tokens=20,
        differentiate_entropy=False,
        attention=attention,
    )
    logprobs, _ = make_logprobs(one_device, model, forward)(params, batch)
    for ours, completion in zip(
        unpack(logprobs, batch, len(sequences)), reference.values(), strict=True
    ):
        np.testing.assert_allclose(ours, completion.sampler_logprobs, rtol=1e-4, atol=2e-5)


def test_greedy_is_the_argmax_of_the_full_forward(one_device, model, params, prompts):
    greedy = sample(
        one_device, model, params, prompts, samples=1, sampling=SamplingFilter(0.0, 0, 1.0)
    )
    decoder = Decoder(model, jnp.float32, unrolled=False)
    whole = [(*p.tokens, *greedy[p.index, 0].tokens) for p in prompts]
    tokens = jnp.array([[*ids, *[0] * (20 - len(ids))] for ids in whole])
    positions = jnp.broadcast_to(jnp.arange(20), tokens.shape)
    mask = SegmentMask(jnp.ones_like(tokens))
    hidden, _ = decoder.apply({"params": params}, tokens, positions, mask)
    best = jnp.argmax(hidden @ output_head(params), axis=-1)
    for prompt, ids, row in zip(prompts, whole, best, strict=True):
        completion = greedy[prompt.index, 0]
        np.testing.assert_array_equal(row[len(prompt.tokens) - 1 : len(ids) - 1], completion.tokens)
        np.testing.assert_array_equal(completion.sampler_logprobs, 0)


def test_completions_end_where_they_say(reference):
    reasons = {reason: 0 for reason in StopReason}
    for completion in reference.values():
        reasons[completion.stop_reason] += 1
        assert completion.policy_version == 4
        assert completion.tokens.dtype == np.int32
        assert len(completion.sampler_logprobs) == len(completion.tokens)
        assert not np.isin(completion.tokens[:-1], EOS).any()
        if completion.stop_reason is StopReason.EOS:
            assert completion.tokens[-1] in EOS
        else:
            assert len(completion.tokens) == 12
            assert completion.tokens[-1] not in EOS
    assert min(reasons.values()) > 2  # both reasons were seen


def test_an_eos_at_the_limit_is_an_eos(one_device, model, params, prompts, reference):
    """The last allowed token may be the EOS: the sampler knows, a length test would call it
    truncated.
    """
    name, ended = next(
        (name, c)
        for name, c in reference.items()
        if c.stop_reason is StopReason.EOS and len(c.tokens) > 1
    )
    limit = len(ended.tokens)
    limited = sample(
        one_device,
        model,
        params,
        prompts,
        max_completion_tokens=limit,
        cache_read_ladder=(),
    )
    assert limited[name].stop_reason is StopReason.EOS
    assert limited[name].tokens.tolist() == ended.tokens.tolist()


@pytest.mark.parametrize(
    "shape",
    [pytest.param(MeshShape(8, 1, 1), marks=pytest.mark.slow), MeshShape(2, 2, 2)],
    ids=str,
)
def test_nothing_recompiles_after_warm_up(shape, model, params, prompts):
    mesh = make_mesh(shape)
    with jax.set_mesh(mesh):
        check_nothing_recompiles(Sampler(mesh, model, SETTINGS, EOS), params, prompts)


def check_nothing_recompiles(sampler, params, prompts):
    filters = [PLAIN, SamplingFilter(0.6, 0, 0.95)]
    sampler.warm_up(params, filters)
    compiled = sampler.compile_counts()
    assert compiled == {"decode_copy": 1, "prefill": 1, "admit": 1, "decode": 4, "narrow": 0}
    for count, sampling in ((12, filters[0]), (1, filters[1]), (5, filters[0])):
        arguments = dict(sampling=sampling, key=jax.random.key(count), policy_version=0)
        list(sampler.sample(params, prompts[:count], 2, **arguments))
    assert sampler.compile_counts() == compiled


def test_a_chunk_writes_into_the_slots_memory(one_device, model, params):
    """No second cache: its buffers are donated, and a read of all of it works in place."""
    sampler = sampler_of(one_device, model, dataclasses.replace(SETTINGS, slots=64))
    copy, state = sampler.decode_copy.of(params), sampler._state
    cache = sum(leaf.nbytes for leaf in jax.tree.leaves(state.cache))
    for length in sampler._settings.read_lengths:
        chunk = compiled_well(
            sampler._programs.decode.lower(copy, state, np.int32(0), PLAIN, length)
        )
        memory = chunk.memory_analysis()
        assert memory.alias_size_in_bytes >= cache
        assert memory.output_size_in_bytes < 1.1 * cache
    assert memory.temp_size_in_bytes < cache / 2  # of the whole cache; a rung works in a copy


def test_a_rollout_that_was_left_early_leaves_nothing_behind(
    one_device, model, params, prompts, reference
):
    sampler = sampler_of(one_device, model)
    arguments = dict(sampling=PLAIN, key=jax.random.key(3), policy_version=4)
    first = sampler.sample(params, prompts, 3, **arguments)
    next(first)
    first.close()
    again = {
        (c.prompt_index, c.sample_index): c for c in sampler.sample(params, prompts, 3, **arguments)
    }
    assert tokens_of(again) == tokens_of(reference)


def test_a_rollout_that_is_left_and_not_closed_loses_its_slots(
    one_device, model, params, prompts, reference
):
    """As a traceback keeps it after an interrupt: its end must not touch the next one's slots."""
    sampler = sampler_of(one_device, model)
    arguments = {"sampling": PLAIN, "key": jax.random.key(3), "policy_version": 4}
    left = sampler.sample(params, prompts, 3, **arguments)
    stopped = sampler.sample(params, prompts, 3, **arguments)
    next(left)
    next(stopped)
    with pytest.raises(RuntimeError, match="another rollout"):
        list(left)
    whole = sampler.sample(params, prompts, 3, **arguments)
    drawn = [next(whole)]
    stopped.close()
    drawn += whole
    found = {(one.prompt_index, one.sample_index): one for one in drawn}
    assert tokens_of(found) == tokens_of(reference)


def test_temperature_of_the_logprobs_is_the_samplers(one_device, model, params, prompts):
    cool = SamplingFilter(temperature=0.5, top_k=0, top_p=1.0)
    drawn = sample(one_device, model, params, prompts[:2], samples=1, sampling=cool)
    forward = ForwardSettings(
        dtype="float32",
        rematerialise="none",
        scan_unroll=1,
        temperature=0.5,
        logprob_chunk_tokens=20,
        differentiate_entropy=False,
        attention="xla",
    )
    completions = [drawn[p.index, 0] for p in prompts[:2]]
    sequences = [
        TrainingSequence(p.tokens, completion.tokens, draw_id=0)
        for p, completion in zip(prompts[:2], completions, strict=True)
    ]
    batch = pack(sequences, PackedShape(1, 2, 20))
    logprobs, _ = make_logprobs(one_device, model, forward)(params, batch)
    for ours, completion in zip(unpack(logprobs, batch, 2), completions, strict=True):
        np.testing.assert_allclose(ours, completion.sampler_logprobs, rtol=1e-4, atol=2e-5)


def test_the_next_chunk_is_decoding_when_completions_are_yielded(
    one_device, model, params, prompts, reference
):
    """All run from the start, so one of n tokens ends in chunk n / 4, rounded up."""
    sampler = sampler_of(one_device, model, dataclasses.replace(SETTINGS, slots=64))
    arguments = dict(sampling=PLAIN, key=jax.random.key(3), policy_version=4)
    chunks = max(-(-len(one.tokens) // 4) for one in reference.values())
    assert chunks == 3
    programs, decode, started = sampler._programs, sampler._programs.decode, []

    def counted(*given):
        started.append(given)
        return decode(*given)

    ended_in = set()
    with mock.patch.object(programs, "decode", counted):
        for one in sampler.sample(params, prompts, 3, **arguments):
            chunk = -(-len(one.tokens) // 4)
            assert len(started) == min(chunk + 1, chunks)
            ended_in.add(chunk)
    assert ended_in == {1, 2, 3}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slots": 12}, r"slots = 12 .* data x fsdp = 8"),
        ({"prefill_prompts": 0}, "prefill_prompts = 0"),
        ({"cache_read_ladder": (10, 24)}, "below the cache length 24"),
        ({"cache_read_ladder": (12, 10)}, "must rise"),
        ({"cache_read_ladder": (0, 10)}, "from 1 at least"),
    ],
)
def test_impossible_shapes_are_refused(model, changes, message):
    mesh = make_mesh(MeshShape(4, 2, 1))
    with pytest.raises(ValueError, match=message):
        Sampler(mesh, model, dataclasses.replace(SETTINGS, **changes), EOS)


def test_long_prompts_and_no_eos_are_refused(one_device, model, params, prompts):
    long = dataclasses.replace(prompts[0], tokens=(2,) * 9)
    with pytest.raises(ValueError, match=r"'p0' has 9 tokens.* 1 to 8"):
        sample(one_device, model, params, [long])
    with pytest.raises(ValueError, match="at least one EOS"):
        Sampler(one_device, model, SETTINGS, ())


@pytest.mark.parametrize("value", [np.nan, 3e38])
def test_weights_that_give_no_probabilities_end_the_first_chunk(
    one_device, model, params, prompts, value
):
    """NaN, and weights that are finite and overflow."""
    scale = params["final_norm"]["scale"]
    broken = params | {"final_norm": {"scale": jnp.full_like(scale, value)}}
    with pytest.raises(NonFiniteError) as raised:
        sample(one_device, model, broken, prompts)
    assert f"prompt {prompts[0].problem.id!r}, sample 0" in str(raised.value)
    assert "at token 0 of" in str(raised.value)


def test_a_rollout_after_one_that_ended_so_is_as_any(one_device, model, params, prompts, reference):
    sampler = sampler_of(one_device, model)
    arguments = {"sampling": PLAIN, "key": jax.random.key(3), "policy_version": 4}
    broken = params | {
        "final_norm": {"scale": jnp.full_like(params["final_norm"]["scale"], np.nan)}
    }
    with pytest.raises(NonFiniteError):
        list(sampler.sample(broken, prompts, 3, **arguments))
    found = {
        (c.prompt_index, c.sample_index): c for c in sampler.sample(params, prompts, 3, **arguments)
    }
    assert tokens_of(found) == tokens_of(reference)
