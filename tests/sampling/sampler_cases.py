"""A small sampler, shared by the tests of sampling."""

import dataclasses
import functools

import jax

from cegppo_jax.sampling.filters import SamplingFilter
from cegppo_jax.sampling.sampler import Sampler
from cegppo_jax.sampling.settings import SamplerSettings

EOS = (1, 5)
SETTINGS = SamplerSettings(
    slots=8,
    prefill_prompts=8,
    max_prompt_tokens=8,
    max_completion_tokens=12,
    chunk_steps=4,
    cache_read_ladder=(10,),
    slot_ladder=(),
    dtype="float32",
    attention="xla",
    cache="contiguous",
    page_tokens=4,
    pages=0,
)
PLAIN = SamplingFilter(temperature=1.0, top_k=0, top_p=1.0)


@functools.cache
def sampler_of(mesh, model, settings=SETTINGS):
    """A sampler of those shapes, for all tests that do not count what compiles."""
    return Sampler(mesh, model, settings, EOS)


def sample(mesh, model, params, prompts, *, sampling=PLAIN, samples=3, **changes):
    """-> {(prompt index, sample index): Completion}."""
    sampler = sampler_of(mesh, model, dataclasses.replace(SETTINGS, **changes))
    key = jax.random.key(3)
    completions = list(
        sampler.sample(params, prompts, samples, sampling=sampling, key=key, policy_version=4)
    )
    found = {(c.prompt_index, c.sample_index): c for c in completions}
    assert len(found) == len(completions) == len(prompts) * samples
    return found


def tokens_of(completions):
    return {name: completion.tokens.tolist() for name, completion in completions.items()}
