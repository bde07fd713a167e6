"""Fewer key/value heads than tensor shards: each shard computes and caches a copy of the one that
its queries read, and nothing else changes.
"""

import dataclasses

import jax
import numpy as np
import pytest
from sampler_cases import sample, tokens_of
from update_cases import (
    FORWARD,
    TINY_MODEL,
    assert_same_update,
    batch_of,
    old_statistics_of,
    tiny_params,
    updated,
)

import cegppo_jax as cg
from cegppo_jax.models.decoder import abstract_params, init_params
from cegppo_jax.models.kv_cache import CACHE_AXES, empty_cache
from cegppo_jax.run.checks import check_mesh_divides
from cegppo_jax.sharding import MeshShape, make_mesh, named_sharding, tree_shardings

MANY_SHARDS = MeshShape(data=1, fsdp=2, tensor=4)  # for the 2 key/value heads of TINY_MODEL


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MANY_SHARDS)


@pytest.fixture(scope="module")
def alone():
    return make_mesh(MeshShape(1, 1, 1), jax.devices()[:1])


def test_a_model_has_copies_only_where_its_heads_are_too_few(mesh):
    assert TINY_MODEL.on(mesh).kv_copies == 2
    enough = dataclasses.replace(TINY_MODEL, kv_heads=4)
    assert enough.on(mesh) == enough
    assert TINY_MODEL.on(make_mesh(MeshShape(2, 2, 2))) == TINY_MODEL


def test_a_shard_caches_the_head_that_its_queries_read(mesh):
    cache = empty_cache(TINY_MODEL.on(mesh), slots=2, length=8, dtype=np.float32)
    sharding = named_sharding(mesh, *CACHE_AXES)
    assert sharding.shard_shape(cache[0].keys.shape) == (1, 1, 8, TINY_MODEL.head_size)


@pytest.mark.parametrize("attention", ["xla", "splash_interpreted"])
def test_the_update_is_that_of_a_single_device(mesh, alone, attention):
    batch, params = batch_of(), tiny_params()
    old = old_statistics_of(batch, alone, TINY_MODEL, params)
    single = updated(alone, TINY_MODEL, params, batch, old=old)
    forward = dataclasses.replace(FORWARD, attention=attention)
    many = updated(mesh, TINY_MODEL.on(mesh), params, batch, old=old, forward=forward)
    assert_same_update(single, many, params)


def test_the_samples_are_those_of_a_single_device(mesh, alone, prompts):
    found = [
        sample(one, TINY_MODEL.on(one), tiny_params(), prompts[:6], samples=2)
        for one in (alone, mesh)
    ]
    assert tokens_of(found[1]) == tokens_of(found[0])


def test_a_saved_policy_has_each_head_once(mesh, alone, tmp_path):
    small = cg.random_policy(alphabet="0123456789+-*=#", mesh=alone)
    few = dataclasses.replace(TINY_MODEL, vocab_size=len(small.tokenizer))
    model = few.on(mesh).with_tokens(small.tokenizer.get_vocab().values())
    assert model.kv_copies == 2
    _, specs = abstract_params(model, unrolled=False)
    init = jax.jit(init_params, static_argnums=0, out_shardings=tree_shardings(mesh, specs))
    with jax.set_mesh(mesh):
        params = init(model, jax.random.key(1))
    policy = dataclasses.replace(small, params=params, model=model, mesh=mesh)
    cg.save(policy, tmp_path / "saved", dtype="float32")
    again = cg.load(tmp_path / "saved", mesh=alone)
    assert (again.model.kv_heads, again.model.kv_copies) == (2, 1)
    assert jax.tree.map(np.shape, again.params) == jax.tree.map(np.shape, policy.params)
    jax.tree.map(np.testing.assert_array_equal, again.params, policy.params)
    many = cg.load(tmp_path / "saved", mesh=mesh)
    assert many.model == policy.model


def test_a_mesh_that_neither_divides_is_refused(mesh):
    three = dataclasses.replace(TINY_MODEL, heads=12, kv_heads=3)
    with pytest.raises(ValueError, match=r"model\.kv_heads = 3 .* tensor = 4"):
        check_mesh_divides(None, three.on(mesh), mesh)
