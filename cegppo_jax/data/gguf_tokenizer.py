"""Reads the tokenizer in a .gguf file, without torch, which transformers would need for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from tokenizers.pre_tokenizers import PreTokenizer
from transformers import PreTrainedTokenizerFast

from cegppo_jax.data.model_files import named_if_damaged, open_gguf

# How text is cut before byte pairs are merged. ("smollm" as SmolLM2's own tokenizer.json has it,
# digits first; transformers' conversion of GGUF cuts two spaces before a digit otherwise.)
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


@dataclasses.dataclass(frozen=True)
class Kind:
    """How a name in tokenizer.ggml.pre splits text, as in the models' tokenizer.json."""

    pre_tokenizer: Callable[[], PreTokenizer]
    composed: bool = False  # Unicode is brought to NFC first
    whole_words: bool = False  # a word that is in the vocabulary is not merged (ignore_merges)
    bos: bool = False  # a text begins with BOS where the file does not say


KINDS = {
    "smollm": Kind(_by_digits),
    "qwen2": Kind(lambda: _by_pattern(_QWEN2), composed=True),
    "llama-bpe": Kind(lambda: _by_pattern(_LLAMA3), whole_words=True, bos=True),
}
CONTROL, USER_DEFINED, UNUSED = 3, 4, 5  # token types; all others are ordinary
TYPES = range(1, 7)


def load_gguf_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """Loads the byte-level BPE tokenizer of a .gguf file, with special tokens and chat template.

    Raises:
      ValueError: the file is incomplete, its tokenizer is of another kind, or it splits text in an
        unknown way.
    """
    with named_if_damaged(path):
        return _tokenizer_of(open_gguf(path).fields, path)


def _tokenizer_of(fields: Mapping[str, Any], path: Path) -> PreTrainedTokenizerFast:

    def contents(name: str) -> Any:
        return fields[name].contents() if name in fields else None

    kind, cut = contents("tokenizer.ggml.model"), contents("tokenizer.ggml.pre")
    if kind != "gpt2" or cut not in KINDS:
        raise ValueError(
            f"{path}: a tokenizer of kind {kind!r}, cut as {cut!r}, is not supported; kind 'gpt2' "
            f"with one of {sorted(KINDS)} is. Name another in problems.tokenizer"
        )
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    wrong = [
        t for t, own in zip(tokens, types, strict=True) if own not in TYPES or not t or "\0" in t
    ]
    if wrong:
        raise ValueError(f"{path} is damaged: the token {wrong[0]!r:.60} cannot be one")
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    rules = KINDS[str(cut)]
    typed = enumerate(zip(tokens, types, strict=True))
    # Padding of the vocabulary ("[PAD151665]") is not a token.
    vocabulary = {token: i for i, (token, own) in typed if own != UNUSED}
    backend = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=rules.whole_words))
    if rules.composed:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = rules.pre_tokenizer()
    backend.decoder = decoders.ByteLevel()
    for kind_of, special in ((CONTROL, True), (USER_DEFINED, False)):
        added = [t for t, own in zip(tokens, types, strict=True) if own == kind_of]
        backend.add_tokens(
            [AddedToken(token, special=special, normalized=False) for token in added]
        )
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    ids = {ours: contents(f"tokenizer.ggml.{theirs}_token_id") for ours, theirs in names.items()}
    begins = contents("tokenizer.ggml.add_bos_token")
    if ids["bos"] is not None and (rules.bos if begins is None else begins):
        bos = tokens[int(ids["bos"])]
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos}:0 $A:0",
            pair=f"{bos}:0 $A:0 {bos}:1 $B:1",
            special_tokens=[(bos, int(ids["bos"]))],
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=contents("tokenizer.chat_template"),
        clean_up_tokenization_spaces=False,
        **{f"{name}_token": tokens[int(i)] for name, i in ids.items() if i is not None},
    )
