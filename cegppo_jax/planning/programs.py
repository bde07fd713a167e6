"""The programs of a training run as shapes: what train compiles, to be compiled without weights,
caches or hardware.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cegppo_jax.learner.learner import Learner
from cegppo_jax.losses.contract import Knobs
from cegppo_jax.losses.policy_loss import OldStatistics
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.models.decoder import abstract_params
from cegppo_jax.packing import pack
from cegppo_jax.run.memory import leaf_bytes
from cegppo_jax.run.parts import minibatch_settings, policy_learner
from cegppo_jax.run.settings import RunSettings
from cegppo_jax.sampling.programs import SamplerPrograms
from cegppo_jax.sampling.slots import Admissions

# What stays on a device from one program to the next
WEIGHTS, OPTIMIZER, REFERENCE = "weights in float32", "optimizer state", "reference policy"
SLOTS, COPY, PREFIX = "slots' cache", "decode copy", "prefix cache"
# Phases of a step
EMPTY, PREFILL, ADMIT = "empty slots", "prefill", "admit"
DECODE, LOGPROBS, UPDATE = "decode", "old log-probs", "update"


@dataclasses.dataclass(frozen=True)
class PlannedProgram:
    """A jitted function, its arguments as shapes, and what lies beside it in memory."""

    name: str
    phase: str  # of a step: several programs may share one
    jitted: Any
    arguments: tuple[Any, ...]
    takes: tuple[str, ...]  # residents among its arguments
    beside: tuple[str, ...]  # residents that are not
    makes: str = ""  # the resident that it returns, or a part of


@dataclasses.dataclass(frozen=True)
class RunPrograms:
    """A run's programs on a mesh, and the bytes a device of what stays between them."""

    mesh: Mesh
    programs: tuple[PlannedProgram, ...]
    residents: Mapping[str, int]


def plan_programs(
    settings: RunSettings, model: ModelConfig, mesh: Mesh, eos_ids: tuple[int, ...]
) -> RunPrograms:
    """Returns the programs that train compiles for these settings. Nothing is allocated."""
    sampler = SamplerPrograms(mesh, model, settings.sampler, eos_ids)
    learner = policy_learner(settings, mesh, model)
    state = learner.state_layout()
    with jax.set_mesh(mesh):
        slots = jax.eval_shape(sampler.new_state)
        copies = _copy_programs(sampler, state.params)
        copy = _decode_copy(sampler, model, settings)
        prompts = settings.sampler.prefill_prompts, settings.sampler.max_prompt_tokens
        tokens = jax.ShapeDtypeStruct(prompts, np.int32)
        prefix = sampler.prefill.eval_shape(copy, tokens)
    reference = (REFERENCE,) if settings.loss.kl_place != "none" else ()
    trained = (WEIGHTS, OPTIMIZER, *reference)
    column = jax.ShapeDtypeStruct((settings.sampler.slots,), np.int32)
    fields = (column,) * len(dataclasses.fields(Admissions))
    key = jax.eval_shape(lambda: jax.random.key(0))
    entering, _ = sampler.paged_shapes()
    programs = [
        *(
            PlannedProgram(name, COPY, copy_of, (leaf,), (), (*trained, SLOTS, COPY), makes=COPY)
            for name, copy_of, leaf in copies
        ),
        PlannedProgram("empty slots", EMPTY, sampler.new_state, (), (), trained, makes=SLOTS),
        # The last prompts' prefix cache is there while the next one is computed
        PlannedProgram(
            PREFILL,
            PREFILL,
            sampler.prefill,
            (copy, tokens),
            (COPY,),
            (*trained, SLOTS, PREFIX),
            makes=PREFIX,
        ),
        PlannedProgram(
            ADMIT,
            ADMIT,
            sampler.admit,
            (slots, prefix, Admissions(*fields), key, *entering),
            (SLOTS, PREFIX),
            (*trained, COPY),
        ),
        *_decodes(sampler, settings, copy, slots, (*trained, PREFIX)),
        *_learner_programs(settings, learner, state, reference),
    ]
    trees = {
        WEIGHTS: state.params,
        OPTIMIZER: (state.optimizer_state, state.step, state.updates),
        REFERENCE: state.params,
        SLOTS: slots,
        COPY: copy,
        PREFIX: prefix,
    }
    residents = {name: _device_bytes(tree) for name, tree in trees.items()}
    return RunPrograms(mesh, tuple(programs), residents)


def decode_name(read_length: int) -> str:
    """Returns the name of the decode program of a rung."""
    return f"decode, reads {read_length:,}"


def _decodes(
    sampler: SamplerPrograms,
    settings: RunSettings,
    copy: Any,
    slots: Any,
    beside: tuple[str, ...],
) -> Iterator[PlannedProgram]:
    fewest = jax.ShapeDtypeStruct((), np.int32)
    _, table = sampler.paged_shapes()
    for length in sampler.settings.read_lengths:
        arguments = (copy, slots, fewest, settings.sampling, length, *table)
        name = decode_name(length)
        yield PlannedProgram(name, DECODE, sampler.decode, arguments, (COPY, SLOTS), beside)


def _learner_programs(
    settings: RunSettings, learner: Learner, state: Any, reference: tuple[str, ...]
) -> Iterator[PlannedProgram]:
    packed = pack([], minibatch_settings(settings).shape)
    batch = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), packed)
    statistic = jax.ShapeDtypeStruct(packed.tokens.shape, np.float32)
    needs_reference = settings.loss.kl_place == "loss"
    old = OldStatistics(statistic, statistic, statistic if needs_reference else None)
    number = jax.ShapeDtypeStruct((), np.float32)
    names = {*settings.loss.numbers, "beta_low", "beta_high", "entropy_coef"}
    knobs = Knobs(**dict.fromkeys(names, number))
    yield PlannedProgram(
        LOGPROBS,
        LOGPROBS,
        learner.logprobs,
        (state.params, batch),
        (WEIGHTS,),
        (OPTIMIZER, SLOTS, *reference),
    )
    is_old = jax.ShapeDtypeStruct((), np.bool_)
    arguments = (state, batch, old, knobs, is_old)
    takes, beside = (WEIGHTS, OPTIMIZER), (SLOTS, *reference)
    yield PlannedProgram(UPDATE, UPDATE, learner.update, arguments, takes, beside)


def _copy_programs(sampler: SamplerPrograms, params: Any) -> list[tuple[str, Any, Any]]:
    """Returns name, jitted copy and stacked leaf of each leaf of the parameters."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    by_path = {tuple(key.key for key in path): leaf for path, leaf in leaves}
    return [
        (f"copy of {'/'.join(path)}", copy, by_path[path])
        for path, copy in sampler.decode_copy.copies.items()
    ]


def _decode_copy(sampler: SamplerPrograms, model: ModelConfig, settings: RunSettings) -> Any:
    """Returns shapes and layouts of the decode copy."""
    dtype = jnp.dtype(settings.sampler.dtype)
    shapes, _ = abstract_params(model, unrolled=True)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(
            leaf.shape, dtype if leaf.ndim > 1 else leaf.dtype, sharding=sharding
        ),
        shapes,
        sampler.decode_copy.layout,
    )


def _device_bytes(tree: Any) -> int:
    """Returns the bytes a device of a tree of shapes with shardings."""
    leaves = jax.tree.leaves(tree)
    return sum(leaf_bytes(leaves, [leaf.sharding for leaf in leaves]))
