"""The sampler's programs: what a planner needs of them."""

import jax
import jax.numpy as jnp
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
