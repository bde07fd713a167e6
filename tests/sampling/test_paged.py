"""Pages instead of whole slots: the same samples, whatever the pages and their number."""

import dataclasses
import importlib.util
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from sampler_cases import EOS, PLAIN, SETTINGS, sample, sampler_of, tokens_of

from cegppo_jax.models.decoder import abstract_params
from cegppo_jax.planning.chips import open_topology
from cegppo_jax.sampling.programs import SamplerPrograms
from cegppo_jax.sampling.sampler import Sampler
from cegppo_jax.sampling.settings import chosen
from cegppo_jax.sampling.slots import Admissions
from cegppo_jax.sharding import MeshShape, make_mesh

PAGED = dataclasses.replace(SETTINGS, cache="paged")  # 6 pages of 4 a slot
DRY = {"slots": 16, "pages": 16}  # a third of what 16 slots may need; 3 sequences of the longest


def paged(mesh, model, params, prompts, **changes):
    return sample(mesh, model, params, prompts, cache="paged", **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        DRY,
        {"page_tokens": 7, "slot_ladder": (2, 4)},
        pytest.param({"pages": 6}, marks=pytest.mark.slow),  # one sequence of the longest
        pytest.param({"page_tokens": 1}, marks=pytest.mark.slow),
        pytest.param({"page_tokens": 128}, marks=pytest.mark.slow),
        pytest.param({"cache_read_ladder": ()}, marks=pytest.mark.slow),
        pytest.param({"chunk_steps": 12, "prefill_prompts": 1}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_pages_draw_what_slots_draw(one_device, model, params, prompts, reference, changes):
    other = paged(one_device, model, params, prompts, **changes)
    assert tokens_of(other) == tokens_of(reference)


def test_log_probabilities_are_the_same_to_the_bit(one_device, model, params, prompts, reference):
    """Of the same slots: in other rows, or fewer, XLA may sum a product in another order."""
    other = paged(one_device, model, params, prompts)
    for name, completion in other.items():
        np.testing.assert_array_equal(completion.sampler_logprobs, reference[name].sampler_logprobs)


def test_a_dry_pool_sends_the_youngest_back(one_device, model, params, prompts, reference):
    sampler = sampler_of(one_device, model, dataclasses.replace(PAGED, **DRY))
    before, arguments = sampler.preempted, {"sampling": PLAIN, "policy_version": 4}
    drawn = list(sampler.sample(params, prompts, 3, key=jax.random.key(3), **arguments))
    assert sampler.preempted > before
    assert tokens_of({(c.prompt_index, c.sample_index): c for c in drawn}) == tokens_of(reference)
    assert sampler._seats._book.held == 0  # every page has come back


@pytest.mark.parametrize("pages", [0, 32])
def test_shards_have_pages_of_their_own(model, params, prompts, reference, pages):
    mesh = make_mesh(MeshShape(2, 2, 2))
    with jax.set_mesh(mesh):
        other = paged(mesh, model, params, prompts, slots=16, pages=pages, slot_ladder=(4, 8))
    assert tokens_of(other) == tokens_of(reference)


def test_nothing_recompiles_after_warm_up(one_device, model, params, prompts):
    settings = dataclasses.replace(PAGED, slots=16, slot_ladder=(2, 4), pages=16)
    sampler, filters = Sampler(one_device, model, settings, EOS), [PLAIN]
    sampler.warm_up(params, filters)
    compiled = sampler.compile_counts()
    assert compiled == {"decode_copy": 1, "prefill": 1, "admit": 1, "decode": 6, "narrow": 2}
    for count in (12, 1):
        arguments = dict(sampling=PLAIN, key=jax.random.key(count), policy_version=0)
        list(sampler.sample(params, prompts[:count], 2, **arguments))
    assert sampler.compile_counts() == compiled


def test_a_rollout_that_was_left_early_leaves_no_page_behind(
    one_device, model, params, prompts, reference
):
    sampler = sampler_of(one_device, model, PAGED)
    arguments = dict(sampling=PLAIN, key=jax.random.key(3), policy_version=4)
    first = sampler.sample(params, prompts, 3, **arguments)
    next(first)
    first.close()
    assert sampler._seats._book.held == 0
    again = {
        (c.prompt_index, c.sample_index): c for c in sampler.sample(params, prompts, 3, **arguments)
    }
    assert tokens_of(again) == tokens_of(reference)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pages": 5}, r"pages = 5 .* at least 6: .* 24 tokens takes 6 pages of 4"),
        ({"page_tokens": 0}, "page_tokens = 0"),
        ({"attention": "splash"}, r"cache = 'paged' with sampler.dtype = 'float32'"),
        ({"attention": "splash", "dtype": "bfloat16"}, r"page_tokens = 4: .* multiple of 8"),
        (
            {"attention": "splash", "dtype": "bfloat16", "page_tokens": 8},
            "heads of 4: .* multiple of 128",
        ),
    ],
)
def test_impossible_pages_are_refused(one_device, model, changes, message):
    with pytest.raises(ValueError, match=message):
        Sampler(one_device, model, dataclasses.replace(PAGED, **changes), EOS)


def test_pages_that_the_shards_cannot_share_are_refused(model):
    settings = dataclasses.replace(PAGED, pages=13)
    with pytest.raises(ValueError, match=r"pages = 13 .* data x fsdp = 2 of at least 12"):
        Sampler(make_mesh(MeshShape(1, 2, 4)), model, settings, EOS)


@pytest.mark.parametrize(
    ("platform", "dtype", "head_size", "expected"),
    [
        ("tpu", "bfloat16", 128, "paged"),
        ("tpu", "float32", 128, "contiguous"),
        ("tpu", "bfloat16", 64, "contiguous"),
        ("cpu", "bfloat16", 128, "contiguous"),
        ("gpu", "bfloat16", 128, "contiguous"),
    ],
)
def test_auto_is_paged_where_the_kernel_serves(platform, dtype, head_size, expected):
    mesh = SimpleNamespace(devices=np.array([SimpleNamespace(platform=platform)]))
    asked = {"cache": "auto", "attention": "auto", "dtype": dtype, "page_tokens": 128}
    found = chosen(mesh, dataclasses.replace(SETTINGS, **asked), head_size)
    assert found.cache == expected
    assert chosen(mesh, found, head_size) == found
    # A kernel reads what is filled: no rung of the ladder is compiled for it
    assert found.read_lengths == ((24,) if expected == "paged" else (10, 24))


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu, the compiler of TPUs, is not installed (extra `tpu`)",
)
def test_a_tpu_decodes_and_admits_on_its_pages_in_place(model):
    """Compiled for a real topology: donated pages, no second copy of a layer's."""
    mesh = make_mesh(MeshShape(1, 2, 2), open_topology("v5p:2x2x1").devices)
    wide = dataclasses.replace(model, heads=4, kv_heads=2, head_size=128)
    changes = {"cache": "auto", "attention": "auto", "dtype": "bfloat16", "page_tokens": 128}
    settings = dataclasses.replace(PAGED, **changes, slots=32, pages=640)
    programs = SamplerPrograms(mesh, wide, settings, EOS)
    assert programs.paged
    state = jax.eval_shape(programs.new_state)
    params, _ = abstract_params(wide, unrolled=True)
    copies, table = programs.paged_shapes()
    prompts = jax.ShapeDtypeStruct((8, 8), np.int32)
    column = jax.ShapeDtypeStruct((32,), np.int32)
    with jax.set_mesh(mesh):
        prefix = programs.prefill.eval_shape(params, prompts)
        key = jax.eval_shape(lambda: jax.random.key(0))
        admissions = Admissions(*(column,) * 6)
        admitting = programs.admit.lower(state, prefix, admissions, key, *copies)
        decoding = programs.decode.lower(params, state, np.int32(0), PLAIN, 24, *table)
    layer = 2 * 1 * (1 + 320) * 128 * 128 * 2  # keys and values of a device's head and pages
    for lowered in (admitting, decoding):
        compiled = lowered.compile()
        memory = compiled.memory_analysis()
        assert memory.alias_size_in_bytes > 2 * layer
        assert memory.temp_size_in_bytes < layer / 4
    assert "%paged_attention" in compiled.as_text()
