"""The sampler's programs: what a planner needs of them."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from sampler_cases import EOS, PLAIN, SETTINGS

from cegppo_jax.models.decoder import abstract_params
from cegppo_jax.sampling.programs import SamplerPrograms


def test_programs_are_lowered_from_shapes_alone(one_device, model):
    """No slot memory is made for it."""
    before = len(jax.live_arrays())
    programs = SamplerPrograms(one_device, model, SETTINGS, EOS)
    state = jax.eval_shape(programs.new_state)
    params, _ = abstract_params(model, unrolled=True)
    count = jax.ShapeDtypeStruct((), jnp.int32)
    lowered = programs.decode.lower(params, state, count, PLAIN, SETTINGS.cache_tokens)
    after, chunk = lowered.out_info
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    assert chunk.tokens.shape == (SETTINGS.chunk_steps, SETTINGS.slots)
    assert len(jax.live_arrays()) == before


@pytest.mark.parametrize(
    ("prompt", "completion", "places"),
    [(8, 12, 24), (8, 17, 24), (8, 18, 32), (5, 1020, 1024), (6, 1020, 1152), (4096, 16384, 20480)],
)
def test_a_cache_has_whole_tiles(prompt, completion, places):
    """And a place for each token but the last."""
    settings = dataclasses.replace(
        SETTINGS, max_prompt_tokens=prompt, max_completion_tokens=completion
    )
    assert settings.cache_tokens == places >= settings.max_sequence_tokens - 1
