"""A .gguf file names its ends under several keys: all of them end completions."""

import gguf
import numpy as np
import pytest

from cegppo_jax.models.pretrained.open import open_pretrained

WIDTH, MLP, VOCABULARY = 8, 12, 16
LAYER = {
    "attn_norm": (WIDTH,),
    "attn_q": (WIDTH, WIDTH),
    "attn_k": (WIDTH, WIDTH),
    "attn_v": (WIDTH, WIDTH),
    "attn_output": (WIDTH, WIDTH),
    "ffn_norm": (WIDTH,),
    "ffn_gate": (MLP, WIDTH),
    "ffn_up": (MLP, WIDTH),
    "ffn_down": (WIDTH, MLP),
}


def written(path, ends):
    """A file of one layer whose metadata has these ends."""
    writer = gguf.GGUFWriter(str(path), "llama")
    for name, value in (
        ("block_count", 1),
        ("context_length", 64),
        ("embedding_length", WIDTH),
        ("feed_forward_length", MLP),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 2),
        ("vocab_size", VOCABULARY),
    ):
        writer.add_uint32(f"llama.{name}", value)
    writer.add_float32("llama.rope.freq_base", 10_000.0)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    for name, value in ends.items():
        add = writer.add_array if isinstance(value, list) else writer.add_uint32
        add(f"tokenizer.ggml.{name}", value)
    tensors = {f"blk.0.{name}": shape for name, shape in LAYER.items()}
    tensors |= {"token_embd": (VOCABULARY, WIDTH), "output_norm": (WIDTH,)}
    for name, shape in tensors.items():
        writer.add_tensor(f"{name}.weight", np.ones(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(path)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ({}, set()),
        ({"eos_token_id": 1}, {1}),
        ({"eos_token_id": 1, "eot_token_id": 9}, {1, 9}),
        ({"eos_token_id": 1, "eot_token_id": 9, "eom_token_id": 8}, {1, 8, 9}),
        ({"eos_token_id": 1, "eos_token_ids": [1, 9, 3]}, {1, 3, 9}),
        ({"eos_token_ids": [9]}, {9}),
        ({"eot_token_id": 9}, {9}),
    ],
)
def test_every_key_is_read(ends, expected, tmp_path):
    assert set(open_pretrained(written(tmp_path / "m.gguf", ends)).eos_ids) == expected


def test_an_end_beyond_the_vocabulary_is_refused(tmp_path):
    name = written(tmp_path / "m.gguf", {"eos_token_id": 1, "eot_token_id": VOCABULARY})
    with pytest.raises(ValueError, match=r"m.gguf: eos_token_id \[16\]"):
        open_pretrained(name)
