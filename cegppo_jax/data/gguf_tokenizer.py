"""Metadata of a .gguf file -> its tokenizer, without the torch that transformers would ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.pre_tokenizers import PreTokenizer
from transformers import PreTrainedTokenizerFast

from cegppo_jax.data.model_files import open_gguf

# By llama.cpp's names: how text is cut before byte pairs are merged. ("smollm" as SmolLM2's own
# tokenizer.json has it, digits first; transformers' conversion of GGUF cuts two spaces before a
# digit otherwise.)
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3 = _QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)


def _by_pattern(pattern: str) -> PreTokenizer:
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


def _by_digits() -> PreTokenizer:
    digits = pre_tokenizers.Digits(individual_digits=True)
    return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])


PRE_TOKENIZERS = {
    "smollm": _by_digits,
    "qwen2": lambda: _by_pattern(_QWEN2),
    "llama-bpe": lambda: _by_pattern(_LLAMA3),
}
CONTROL, USER_DEFINED = 3, 4  # token types; all others are ordinary


def load_gguf_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """.gguf file -> its byte-level BPE tokenizer, special tokens and chat template included.

    Raises:
      ValueError: the file is not whole, its tokenizer is of another kind, or it cuts
        text in a way that is not known here.
    """
    fields = open_gguf(path).fields

    def contents(name: str) -> Any:
        return fields[name].contents() if name in fields else None

    kind, cut = contents("tokenizer.ggml.model"), contents("tokenizer.ggml.pre")
    if kind != "gpt2" or cut not in PRE_TOKENIZERS:
        raise ValueError(
            f"{path}: a tokenizer of kind {kind!r}, cut as {cut!r}, is not supported; kind 'gpt2' "
            f"with one of {sorted(PRE_TOKENIZERS)} is. Name another in problems.tokenizer"
        )
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    backend.pre_tokenizer = PRE_TOKENIZERS[str(cut)]()
    backend.decoder = decoders.ByteLevel()
    for kind_of, special in ((CONTROL, True), (USER_DEFINED, False)):
        added = [t for t, own in zip(tokens, types, strict=True) if own == kind_of]
        backend.add_tokens(
            [AddedToken(token, special=special, normalized=False) for token in added]
        )
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    ids = {ours: contents(f"tokenizer.ggml.{theirs}_token_id") for ours, theirs in names.items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=contents("tokenizer.chat_template"),
        clean_up_tokenization_spaces=False,
        **{f"{name}_token": tokens[int(i)] for name, i in ids.items() if i is not None},
    )
