"""What a command needs of memory is what its arrays take, and too little is refused beforehand."""

import dataclasses
import weakref

import jax
import jax.numpy as jnp
import pytest
import tiny_recipe

from cegppo_jax.run import memory
from cegppo_jax.run.build import build_run
from cegppo_jax.run.memory import (
    MemoryNeed,
    check_memory,
    container_memory,
    evaluation_need,
    float32_bytes,
    training_need,
    with_pages,
)
from cegppo_jax.run.settings import read_settings
from cegppo_jax.sampling.decode_copy import DecodeCopy
from cegppo_jax.sampling.sampler import Sampler
from cegppo_jax.sampling.settings import SamplerSettings
from cegppo_jax.sharding import MeshShape, make_mesh

SAMPLER = SamplerSettings(
    slots=8,
    prefill_prompts=8,
    max_prompt_tokens=8,
    max_completion_tokens=12,
    chunk_steps=4,
    cache_read_ladder=(10,),
    slot_ladder=(),
    dtype="bfloat16",
    attention="xla",
    cache="contiguous",
    page_tokens=128,
    pages=0,
)


def bytes_on(device, arrays):
    shards = [shard for leaf in jax.tree.leaves(arrays) for shard in leaf.addressable_shards]
    return sum(shard.data.nbytes for shard in shards if shard.device == device)


@pytest.mark.parametrize("shape", [MeshShape(8, 1, 1), MeshShape(2, 2, 2), MeshShape(1, 1, 8)])
def test_the_need_of_an_evaluation_is_what_lies_on_each_device(shape, model, params):
    mesh = make_mesh(shape)
    need = evaluation_need(model, SAMPLER, mesh)
    with jax.set_mesh(mesh):
        sampler = Sampler(mesh, model, SAMPLER, eos_ids=(1,))
        copy = sampler.decode_copy.of(params)
    for device in jax.devices():
        assert need.held["weights in bfloat16"] == bytes_on(device, copy)
        assert need.held["KV cache"] == bytes_on(device, sampler._state.cache)
    # On CPU matrices of bfloat16 are multiplied in float32
    copies = need.phases["decoding"]["a float32 copy for the CPU"]
    assert copies > 1.8 * need.held["weights in bfloat16"]
    float32 = dataclasses.replace(SAMPLER, dtype="float32")
    assert not evaluation_need(model, float32, mesh).phases["decoding"][
        "a float32 copy for the CPU"
    ]


def test_the_need_of_a_run_has_its_state(tiny_run):
    need = training_need(tiny_run.settings, tiny_run.model, tiny_run.mesh)
    whole = float32_bytes(tiny_run.model)
    assert need.held["weights in float32"] == whole  # data parallel: each device has all
    assert need.held["optimizer state"] == pytest.approx(2 * whole, rel=0.01)  # two moments
    assert need.phases["update"]["gradients"] == whole
    assert need.held["reference policy"] == 0
    config = tiny_recipe.get_config()
    config.loss.kl_place, config.loss.kl_coef = "loss", 0.1
    settings = read_settings(config)
    assert training_need(settings, tiny_run.model, tiny_run.mesh).held["reference policy"]


def test_the_peak_is_what_is_held_and_the_largest_phase():
    need = MemoryNeed({"weights": 10, "KV cache": 5}, {"a": {"x": 3}, "b": {"y": 4, "z": 2}})
    assert (need.total, need.largest_phase) == (21, {"y": 4, "z": 2})


def test_pages_are_as_many_as_memory_has_room_for(model):
    """Of 64 slots of 5 pages on two shards: up to 9 tenths of a device, and no more than 160."""
    mesh = make_mesh(MeshShape(1, 2, 1), jax.devices()[:2])
    asked = dataclasses.replace(SAMPLER, cache="paged", page_tokens=5, slots=64, dtype="float32")

    def need(sampler):
        return evaluation_need(model, sampler, mesh)

    def pages(capacity):
        return with_pages(asked, model, mesh, capacity, need)

    fewest = need(dataclasses.replace(asked, pages=10)).total
    assert pages(fewest).pages == 10  # what the check of memory refuses then
    assert pages(None).pages == 0  # all of them
    assert pages(1e12).pages == 320
    some = pages(1.2 * fewest / 0.9)
    assert 10 < some.pages < 320
    more = dataclasses.replace(some, pages=some.pages + 2)
    assert need(some).total <= 1.2 * fewest < need(more).total


def test_too_little_memory_is_refused_with_the_numbers(one_device, monkeypatch):
    need = MemoryNeed({"weights": 7_000_000_000}, {"decoding": {"working room": 2_000_000_000}})
    monkeypatch.setattr(memory, "available_memory", lambda mesh: (8_000_000_000, 1))
    with pytest.raises(ValueError, match=r"9 GB \(weights 7, working room 2\).*8 GB are free"):
        check_memory(need, one_device)
    monkeypatch.setattr(memory, "available_memory", lambda mesh: (10_000_000_000, 1))
    assert "9 GB" in check_memory(need, one_device)
    # devices of a CPU share its memory
    monkeypatch.setattr(memory, "available_memory", lambda mesh: (10_000_000_000, 8))
    with pytest.raises(ValueError, match="72 GB"):
        check_memory(need, one_device)
    monkeypatch.setattr(memory, "available_memory", lambda mesh: None)
    assert "9 GB" in check_memory(need, one_device)


def test_a_run_that_does_not_fit_does_not_start(monkeypatch):
    """Said before the sampler's slots are made."""
    monkeypatch.setattr(memory, "available_memory", lambda mesh: (10**8, 8))
    config = tiny_recipe.get_config()
    config.sampler.slots = 2**20
    with pytest.raises(ValueError, match=r"KV cache .* GB .* sampler.slots"):
        build_run(read_settings(config))


def test_a_container_s_limit_counts(tmp_path):
    assert container_memory(tmp_path / "none") == []
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("600\n")
    (tmp_path / "memory.stat").write_text("anon 400\ninactive_file 150\n")
    assert container_memory(tmp_path) == [550]
    (tmp_path / "memory.max").write_text("max\n")
    assert container_memory(tmp_path) == []


def test_a_leaf_is_let_go_before_the_next_one_is_asked_for(one_device, model, params):
    """What an evaluation holds: its decode copy, and one float32 leaf."""
    held = []

    def leaves():
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            assert not any(one() is not None for one in held)
            own = jnp.array(leaf, copy=True)
            held.append(weakref.ref(own))
            yield "/".join(key.key for key in path), own
            del own

    copy = DecodeCopy(one_device, model, jnp.dtype(jnp.bfloat16))
    given = copy.of_leaves(leaves())
    assert len(held) > 5
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), given, copy.of(params)))
