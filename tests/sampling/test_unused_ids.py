"""Ids of a padded vocabulary that no token has: never drawn, and the trainer's distribution is the
sampler's.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cegppo_jax.losses.logprobs import (
    UNUSED_LOGIT,
    mask_unused,
    statistics_of_logits,
    token_statistics,
)
from cegppo_jax.models.attention.mask import SegmentMask
from cegppo_jax.models.decoder import Decoder, output_head, run_decoder
from cegppo_jax.sampling.filters import SamplingFilter, filter_logits
from cegppo_jax.sampling.sampler import Sampler
from cegppo_jax.sampling.settings import SamplerSettings

RANGES = ((3, 5), (9, 12))
USED = [0, 1, 2, 5, 6, 7, 8]


def test_ids_become_ranges(model):
    small = dataclasses.replace(model, vocab_size=8)
    assert small.with_tokens([0, 1, 2, 3, 4, 6]).unused_ids == ((5, 6), (7, 8))
    assert small.with_tokens(range(8)).unused_ids == ()
    assert small.with_tokens([2, 40]).unused_ids == ((0, 2), (3, 8))


def test_the_rest_is_a_softmax_over_the_tokens_that_exist():
    logits = jnp.asarray(np.random.default_rng(0).normal(0, 3, (2, 12)), jnp.float32)
    masked = mask_unused(logits, RANGES)
    expected = jax.nn.log_softmax(logits[:, jnp.asarray(USED)])
    for place, token in enumerate(USED):
        actual = statistics_of_logits(masked, jnp.full(2, token)).logprobs
        np.testing.assert_allclose(actual, expected[:, place], atol=1e-6)
    statistics = statistics_of_logits(masked, jnp.asarray([3, 3]))
    assert np.isfinite(statistics.logprobs).all()
    assert statistics.logprobs.max() < UNUSED_LOGIT / 2
    probabilities = np.exp(np.asarray(expected, np.float64))
    entropy = -(probabilities * expected).sum(-1)
    np.testing.assert_allclose(statistics.entropy, entropy, rtol=1e-5)


def test_gradients_are_finite_and_zero_at_unused_ids():
    logits = jnp.asarray(np.random.default_rng(1).normal(0, 3, 12), jnp.float32)

    def loss(logits):
        masked = mask_unused(logits, RANGES)
        found = statistics_of_logits(masked, jnp.asarray(2), differentiate_entropy=True)
        return found.logprobs + found.entropy

    gradient = np.asarray(jax.grad(loss)(logits))
    assert np.isfinite(gradient).all()
    assert (gradient[[3, 4, 9, 10, 11]] == 0).all()
    assert (gradient[USED] != 0).all()


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), [(1, 0, 1), (0, 0, 1), (0.5, 3, 0.9)])
def test_no_filter_brings_them_back(temperature, top_k, top_p):
    logits = jnp.full((1, 12), -5.0).at[0, 3].set(50.0).at[0, 11].set(40.0)
    filtered = filter_logits(mask_unused(logits, RANGES), SamplingFilter(temperature, top_k, top_p))
    probabilities = np.asarray(jax.nn.softmax(filtered))[0]
    assert probabilities[[3, 4, 9, 10, 11]].max() == 0
    assert probabilities.sum() == pytest.approx(1)


@pytest.mark.slow
def test_the_sampler_draws_what_the_trainer_computes(model, params, prompts, one_device):
    """An unused id with the largest logit by far: without the mask nearly every token would be it.
    Log-probabilities of the drawn tokens are the trainer's.
    """
    used = dataclasses.replace(model, unused_ids=((5, 6), (24, 32)))
    table = params["embedding"].at[jnp.asarray([5, 30])].mul(8.0)
    params = params | {"embedding": table}
    settings = SamplerSettings(
        slots=8, prefill_prompts=4, max_prompt_tokens=8, max_completion_tokens=8, chunk_steps=4,
        cache_read_ladder=(), slot_ladder=(), dtype="float32", attention="xla",
        cache="contiguous", page_tokens=128, pages=0,
    )  # fmt: skip
    allowed = [
        dataclasses.replace(p, tokens=tuple(t if t < 24 and t != 5 else 6 for t in p.tokens))
        for p in prompts
    ]

    def drawn(model):
        sampler = Sampler(one_device, model, settings, eos_ids=(1,))
        return list(
            sampler.sample(
                params, allowed, 2, sampling=SamplingFilter(1.0, 0, 1.0), key=jax.random.key(0),
                policy_version=0,
            )
        )  # fmt: skip

    plain = np.concatenate([c.tokens for c in drawn(model)])
    assert np.isin(plain, [5, *range(24, 32)]).mean() > 0.2
    by_index = {p.index: p for p in allowed}
    for one in drawn(used):
        assert not np.isin(one.tokens, [5, *range(24, 32)]).any()
        prompt = by_index[one.prompt_index].tokens
        tokens = jnp.asarray([[*prompt, *one.tokens.tolist()]])
        positions = jnp.arange(tokens.shape[1])[None]
        decoder = Decoder(used, jnp.dtype("float32"), unrolled=False)
        mask = SegmentMask(jnp.ones_like(tokens))
        hidden, _ = run_decoder(decoder, params, tokens, positions, mask)
        found = token_statistics(
            hidden, output_head(params), tokens, temperature=1.0, chunk_tokens=tokens.shape[1],
            differentiate_entropy=False, unused_ids=used.unused_ids,
        )  # fmt: skip
        np.testing.assert_allclose(
            found.logprobs[0, len(prompt) :], one.sampler_logprobs, atol=2e-5
        )
