"""The programs of a plan are those that training runs, and their memory is added up once."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny_recipe

from cegppo_jax.learner.minibatches import OldStatistics
from cegppo_jax.packing import pack
from cegppo_jax.planning.compiling import compile_run
from cegppo_jax.planning.programs import (
    ADMIT,
    COPY,
    DECODE,
    LOGPROBS,
    OPTIMIZER,
    PREFILL,
    PREFIX,
    SLOTS,
    UPDATE,
    WEIGHTS,
    plan_programs,
)
from cegppo_jax.run.settings import read_settings
from cegppo_jax.sampling.slots import Admissions
from cegppo_jax.sharding import MeshShape, make_mesh
from cegppo_jax.steering.betas import Betas
from cegppo_jax.steering.steer import Steering


@pytest.fixture(scope="module")
def planned(tiny_run):
    settings, ends = tiny_run.settings, tiny_run.ends.ids
    return plan_programs(settings, tiny_run.model, tiny_run.mesh, ends)


def arguments_of_a_run(run):
    """-> what training calls each program with, by phase; of decode the longest read."""
    sampler, settings = run.actor.sampler, run.settings
    state = run.learner.new_state(jax.random.key(0))
    copy = sampler.decode_copy.of(state.params)
    sizes = settings.sampler
    tokens = np.zeros((sizes.prefill_prompts, sizes.max_prompt_tokens), np.int32)
    prefix = sampler._programs.prefill(copy, tokens)
    column = np.zeros(sizes.slots, np.int32)
    nobody = Admissions(*(column,) * len(dataclasses.fields(Admissions)))
    batch = pack([], run.minibatches.shape)
    statistic = np.zeros(batch.tokens.shape, np.float32)
    knobs = run.knobs(Steering(Betas(0.5, 1.0), 0.0, None))
    read = sizes.read_lengths[-1]
    least = np.int32(0)
    return {
        PREFILL: (sampler._programs.prefill, (copy, tokens)),
        ADMIT: (sampler._programs.admit, (sampler._state, prefix, nobody, jax.random.key(1))),
        DECODE: (sampler._programs.decode, (copy, sampler._state, least, settings.sampling, read)),
        LOGPROBS: (run.learner.logprobs, (state.params, batch)),
        UPDATE: (
            run.learner.update,
            (state, batch, OldStatistics(statistic, statistic, None), knobs, np.True_),
        ),
    }


def test_they_are_the_very_programs_of_training(planned, tiny_run):
    with jax.set_mesh(tiny_run.mesh):
        for phase, (jitted, arguments) in arguments_of_a_run(tiny_run).items():
            one = [program for program in planned.programs if program.phase == phase][-1]
            from_shapes = one.jitted.lower(*one.arguments).as_text()
            assert from_shapes == jitted.lower(*arguments).as_text(), phase


def test_every_leaf_and_every_rung_is_planned(planned, tiny_run):
    phases = [one.phase for one in planned.programs]
    leaves = jax.tree.leaves(tiny_run.learner.state_layout().params)
    assert phases.count(COPY) == len(leaves)
    assert phases.count(DECODE) == len(tiny_run.settings.sampler.read_lengths) == 2


def test_residents_are_counted_once_and_a_split_mesh_holds_less(tiny_run):
    settings = dataclasses.replace(
        read_settings(tiny_recipe.get_config()), mesh=MeshShape(1, -1, 1)
    )
    whole, split = (
        plan_programs(settings, tiny_run.model, make_mesh(settings.mesh, devices), (1,))
        for devices in (jax.devices()[:1], jax.devices())
    )
    weights = 4 * sum(leaf.size for leaf in jax.tree.leaves(tiny_run.learner.state_layout().params))
    assert whole.residents[WEIGHTS] == whole.residents[COPY] == weights
    assert split.residents[WEIGHTS] < 0.3 * weights
    assert split.residents[COPY] == weights
    assert split.residents[SLOTS] == whole.residents[SLOTS] // 8
    model, sizes = tiny_run.model, settings.sampler
    place = 2 * model.layers * model.kv_heads * model.head_size * 4
    of_slots = sizes.slots * (sizes.cache_tokens * place + 4 * 4 + 1 + 2 * 4)
    assert whole.residents[SLOTS] == of_slots
    assert whole.residents[PREFIX] == sizes.prefill_prompts * sizes.max_prompt_tokens * place

    said = []
    compiled = {one.name: one for one in compile_run(whole, said.append)}
    assert len(said) == len(compiled)
    update, logprobs = compiled[UPDATE].memory, compiled[LOGPROBS].memory
    state = {WEIGHTS: weights, OPTIMIZER: 2 * weights + 2 * 4, SLOTS: of_slots}
    assert update.residents == pytest.approx(state, rel=0.01)
    assert logprobs.residents == update.residents
    assert compiled[PREFILL].memory.residents.keys() == {*state, COPY, PREFIX}
    packed = pack([], tiny_run.minibatches.shape)
    batch = sum(leaf.nbytes for leaf in jax.tree.leaves(packed))
    # An update reads a part of the batch's fields; also two old statistics, and the knobs
    statistic = packed.tokens.size * 4
    assert statistic < logprobs.batch <= batch
    assert 4 * statistic < update.batch <= batch + 2 * statistic + 200
    assert update.total == (
        sum(update.residents.values())
        + update.batch
        + update.results
        + update.temporary
        + update.code
    )
