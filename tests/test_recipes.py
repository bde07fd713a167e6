"""Every recipe's model and step in shapes alone: the published config.json is read, an update and a
decode step are traced on a mesh; nothing is computed or downloaded.
"""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cegppo_jax.learner.optimizer import make_optimizer
from cegppo_jax.learner.train_state import TrainState
from cegppo_jax.losses.contract import Knobs
from cegppo_jax.losses.policy_loss import OldStatistics
from cegppo_jax.models.decoder import abstract_params
from cegppo_jax.models.kv_cache import LayerCache
from cegppo_jax.models.pretrained.huggingface_config import model_config
from cegppo_jax.packing import PackedShape, pack
from cegppo_jax.run.checks import check_rows_fit
from cegppo_jax.run.parts import policy_learner
from cegppo_jax.run.settings import read_evaluate_settings, read_settings
from cegppo_jax.sampling.slots import SlotState, decode_chunk
from cegppo_jax.sharding import MeshShape, make_mesh, tree_shardings
from configs import gsm8k_evaluation, math_evaluation, paper_scale, presets

QWEN2 = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151643,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.44.0",
    "use_cache": True,
    "use_mrope": False,
    "use_sliding_window": False,
    "num_hidden_layers": 28,
    "max_window_layers": 21,
    "sliding_window": 4096,
}
# As on the Hugging Face hub, and the parameters that their cards tell, in billions.
PUBLISHED = {
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": (
        QWEN2
        | {
            "hidden_size": 1536,
            "intermediate_size": 8960,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
            "vocab_size": 151936,
        },
        1.78,
    ),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": (
        QWEN2
        | {
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152064,
        },
        7.62,
    ),
    "Qwen/Qwen3-8B": (
        {
            "model_type": "qwen3",
            "architectures": ["Qwen3ForCausalLM"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": 151643,
            "eos_token_id": 151645,
            "head_dim": 128,
            "hidden_act": "silu",
            "hidden_size": 4096,
            "initializer_range": 0.02,
            "intermediate_size": 12288,
            "max_position_embeddings": 40960,
            "max_window_layers": 36,
            "num_attention_heads": 32,
            "num_hidden_layers": 36,
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-6,
            "rope_scaling": None,
            "rope_theta": 1000000,
            "sliding_window": None,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "transformers_version": "4.51.0",
            "use_cache": True,
            "use_sliding_window": False,
            "vocab_size": 151936,
        },
        8.19,
    ),
}
RECIPES = ("r1_distill_qwen_1p5b", "r1_distill_qwen_7b", "qwen3_8b")
METHODS = ("ce_gppo", "grpo", "dapo", "cispo", "gspo")


def recipe(name, variant="ce_gppo"):
    return importlib.import_module(f"configs.{name}").get_config(variant)


def of_shape(shape, dtype):
    return jax.ShapeDtypeStruct(shape, dtype)


def published(config):
    fields, billions = PUBLISHED[config.model.pretrained]
    return model_config(fields, config.model.pretrained), billions


@pytest.mark.parametrize("name", RECIPES)
def test_the_published_model_lies_on_the_mesh(name):
    config = recipe(name)
    settings = read_settings(config)
    model, billions = published(config)
    mesh = make_mesh(settings.mesh)
    assert dict(mesh.shape) == {"data": 1, "fsdp": 8, "tensor": 1}
    check_rows_fit(settings, mesh)
    shapes, specs = abstract_params(model, unrolled=False)
    count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))
    assert count / 1e9 == pytest.approx(billions, abs=0.005)
    shardings = tree_shardings(mesh, specs)
    held = sum(
        int(np.prod(sharding.shard_shape(leaf.shape)))
        for leaf, sharding in zip(jax.tree.leaves(shapes), jax.tree.leaves(shardings), strict=True)
    )
    assert held < 1.01 * count / 8  # norms and biases alone are whole everywhere
    assert settings.sampler.max_sequence_tokens <= model.max_tokens


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", RECIPES)
def test_an_update_is_traced(name, method):
    config = recipe(name, method)
    settings, (model, _) = read_settings(config), published(config)
    batch = settings.batch
    mesh = make_mesh(settings.mesh)
    params, _ = abstract_params(model, unrolled=False)
    state = TrainState(
        params,
        jax.eval_shape(make_optimizer(settings.optimizer).init, params),
        of_shape((), jnp.int32),
        of_shape((), jnp.int32),
    )
    shape = PackedShape.holding(
        batch.minibatch_sequences,
        max_sequence_tokens=settings.sampler.max_sequence_tokens,
        rows=batch.rows_per_microbatch,
        row_tokens=batch.row_tokens,
    )
    assert (shape.microbatches, shape.rows, shape.row_tokens) == (8, 16, 20480)
    packed = jax.eval_shape(lambda: pack([], shape))
    old = OldStatistics(packed.advantages, packed.advantages, None)
    numbers = (*settings.loss.numbers, "entropy_coef")
    knobs = Knobs(**dict.fromkeys(numbers, of_shape((), jnp.float32)))
    with jax.set_mesh(mesh):
        update = policy_learner(settings, mesh, model).update
        first = of_shape((), bool)
        after, reductions, found = jax.eval_shape(update, state, packed, old, knobs, first)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )
    assert "policy/entropy" in reductions
    assert [one.shape for one in found] == [packed.tokens.shape] * 2


@pytest.mark.parametrize("name", RECIPES)
def test_a_decode_step_is_traced(name):
    config = recipe(name)
    settings, (model, _) = read_settings(config), published(config)
    sampler = settings.sampler
    params, _ = abstract_params(model, unrolled=True)
    cache = of_shape(
        (sampler.slots, model.kv_heads, sampler.cache_tokens, model.head_size), jnp.bfloat16
    )
    integers, flags = of_shape((sampler.slots,), jnp.int32), of_shape((sampler.slots,), bool)
    state = SlotState(
        cache=(LayerCache(cache, cache),) * model.layers,
        last_tokens=integers,
        positions=integers,
        completion_tokens=integers,
        token_limits=integers,
        active=flags,
        key_data=of_shape((sampler.slots, 2), jnp.uint32),
    )
    with jax.set_mesh(make_mesh(settings.mesh)):
        after, chunk = jax.eval_shape(
            lambda params, state: decode_chunk(
                params,
                state,
                np.int32(0),
                settings.sampling,
                sampler.cache_tokens,
                model=model,
                dtype=jnp.bfloat16,
                attention="xla",
                eos_ids=(151643,),
                steps=sampler.chunk_steps,
            ),
            params,
            state,
        )
    assert after.cache[0].keys.shape == cache.shape
    assert chunk.tokens.shape == (64, 256)


def test_variants_have_the_papers_betas():
    betas = {name: (recipe(name).loss.beta_low, recipe(name).loss.beta_high) for name in RECIPES}
    assert betas["r1_distill_qwen_1p5b"] == (0.5, 1.0)
    assert betas["r1_distill_qwen_7b"] == (0.75, 1.0)
    official = recipe("r1_distill_qwen_7b", "ce_gppo_official")
    assert (official.loss.wrappers, official.batch.prompts) == (("dual_clip",), 256)
    assert official.loss.beta_low == 0.75


@pytest.mark.parametrize("name", sorted(paper_scale.EVALUATIONS))
def test_evaluations_are_the_papers(name):
    settings = read_evaluate_settings(math_evaluation.get_config(name))
    assert settings.evaluation.samples_per_problem == (4 if name == "math500" else 32)
    sampling = settings.evaluation.sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0.6, 0, 0.95)
    longest = 32768 if name.startswith("aime") else 16384
    assert settings.sampler.max_completion_tokens == longest


def test_the_evaluation_for_a_cpu_loads():
    settings = read_evaluate_settings(gsm8k_evaluation.get_config())
    settings.sampler.check(make_mesh(MeshShape(1, 1, 1), jax.devices()[:1]))
    assert settings.reward.verifier == "gsm8k"


def test_an_unknown_variant_is_an_error_that_names_the_others():
    with pytest.raises(ValueError, match=r"no preset 'ppo'; there are \['ce_gppo_1p5b'"):
        recipe("qwen3_8b", "ppo")
    with pytest.raises(ValueError, match=r"no evaluation 'aime26'; there are \['aime24'"):
        math_evaluation.get_config("aime26")
    assert set(METHODS) - {"ce_gppo"} <= presets.METHODS.keys()
