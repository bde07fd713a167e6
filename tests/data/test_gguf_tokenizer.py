"""Tokenizers of .gguf files: ids are those of the models' own tokenizer.json, kind by kind."""

import gguf
import pytest
from tokenizers.pre_tokenizers import ByteLevel

from cegppo_jax.data.gguf_tokenizer import load_gguf_tokenizer
from cegppo_jax.models.config import ModelConfig

NORMAL, CONTROL, UNUSED = 1, 3, 5
BYTES = sorted(ByteLevel.alphabet())


def gguf_file(folder, pre, words=("xy",), merges=(("x", "y"),), padding=0, **metadata):
    """A file whose vocabulary is every byte, some words, two special tokens and padding."""
    specials = ["<|begin|>", "<|end|>"]
    padded = [f"[PAD{i}]" for i in range(padding)]
    tokens = [*BYTES, *words, *specials, *padded]
    types = [NORMAL] * (len(BYTES) + len(words)) + [CONTROL] * 2 + [UNUSED] * padding
    writer = gguf.GGUFWriter(folder / "model.gguf", "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(tokens.index("<|begin|>"))
    writer.add_eos_token_id(tokens.index("<|end|>"))
    for name, value in metadata.items():
        getattr(writer, f"add_{name}")(value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return folder / "model.gguf"


def tokens_of(tokenizer, text):
    return tokenizer.convert_ids_to_tokens(tokenizer.encode(text, add_special_tokens=False))


@pytest.mark.parametrize(
    ("pre", "expected"),
    [("llama-bpe", ["Ġxyz"]), ("qwen2", ["Ġ", "xy", "z"]), ("smollm", ["Ġ", "xy", "z"])],
)
def test_a_word_that_no_merge_makes_is_a_token_of_llama_3_alone(pre, expected, tmp_path):
    """ "Ġxyz" is in the vocabulary, and the merges stop at "xy"."""
    path = gguf_file(tmp_path, pre, words=["xy", "Ġxyz"], merges=[("x", "y")])
    assert tokens_of(load_gguf_tokenizer(path), " xyz") == expected


@pytest.mark.parametrize(
    ("pre", "composes"), [("qwen2", True), ("llama-bpe", False), ("smollm", False)]
)
def test_unicode_is_composed_for_qwen2_alone(pre, composes, tmp_path):
    tokenizer = load_gguf_tokenizer(gguf_file(tmp_path, pre))
    decomposed, composed = "nai\u0308ve", "na\u00efve"
    assert (tokenizer.encode(decomposed) == tokenizer.encode(composed)) == composes
    assert tokenizer.decode(tokenizer.encode(composed, add_special_tokens=False)) == composed


@pytest.mark.parametrize(
    ("pre", "metadata", "begins"),
    [
        ("llama-bpe", {}, True),
        ("llama-bpe", {"add_bos_token": False}, False),
        ("qwen2", {}, False),
        ("qwen2", {"add_bos_token": True}, True),
        ("smollm", {"add_bos_token": False}, False),
    ],
)
def test_a_text_begins_with_bos_where_the_model_has_it(pre, metadata, begins, tmp_path):
    tokenizer = load_gguf_tokenizer(gguf_file(tmp_path, pre, **metadata))
    assert (tokenizer.encode("a")[0] == tokenizer.bos_token_id) == begins
    assert tokenizer.bos_token_id not in tokenizer.encode("a", add_special_tokens=False)


def test_padding_of_the_vocabulary_is_no_token(tmp_path):
    tokenizer = load_gguf_tokenizer(gguf_file(tmp_path, "qwen2", padding=5))
    count = len(BYTES) + 3
    assert len(tokenizer) == count
    model = ModelConfig(count + 5, 8, 1, 2, 1, 4, 8, 1e4, 1e-6, tied_embeddings=True)
    used = model.with_tokens(tokenizer.get_vocab().values())
    assert used.unused_ids == ((count, count + 5),)


@pytest.mark.parametrize("pre", ["default", "deepseek-r1-qwen", "gpt-2", "tekken", "llama4"])
def test_another_way_of_cutting_text_is_refused_by_name(pre, tmp_path):
    with pytest.raises(ValueError, match=rf"cut as '{pre}'"):
        load_gguf_tokenizer(gguf_file(tmp_path, pre))
