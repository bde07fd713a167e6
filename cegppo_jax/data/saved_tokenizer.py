"""Saves a tokenizer in files that transformers 4 and 5, vLLM and SGLang all read.

transformers 5 writes a class ("TokenizersBackend") and a field (a list of extra_special_tokens)
that transformers 4 does not know. Both read the older names.
"""

from __future__ import annotations

import json
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from cegppo_jax.data.model_files import read_json

CONFIG = "tokenizer_config.json"
CLASS = "PreTrainedTokenizerFast"  # all of the tokenizer is in tokenizer.json
OF_VERSION_5 = ("backend", "is_local", "local_files_only")
# What tokenizers treat differently: digits, white space, accents in two spellings, other scripts.
SAMPLE = (
    "Compute 12345 + 6.7\n\n  \\frac{x}{2} isn't it?\t"
    "na\u00efve nai\u0308ve \u4e2d\u6587 \U0001f600"
)


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Writes tokenizer.json, tokenizer_config.json and chat_template.jinja. The chat template is
    also in tokenizer_config.json, where older programs look for it.
    """
    tokenizer.save_pretrained(folder)
    fields = read_json(folder / CONFIG)
    if tokenizer.is_fast:
        fields["tokenizer_class"] = CLASS
    extra = fields.pop("extra_special_tokens", None)
    if isinstance(extra, list):
        fields["additional_special_tokens"] = extra
    elif extra:  # names of tokens: both versions read an object
        fields["extra_special_tokens"] = extra
    for name in OF_VERSION_5:
        fields.pop(name, None)
    if isinstance(tokenizer.chat_template, str):
        fields["chat_template"] = tokenizer.chat_template
    (folder / CONFIG).write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")


def check_tokenizer_reads_back(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises ValueError unless transformers 4 and 5 can load the folder's tokenizer, and it does
    what `tokenizer` does.
    """
    fields = read_json(folder / CONFIG)
    extra = fields.get("extra_special_tokens")
    if fields.get("tokenizer_class") != CLASS or isinstance(extra, list):
        raise ValueError(
            f"{folder / CONFIG} cannot be read by transformers 4: tokenizer_class = "
            f"{fields.get('tokenizer_class')!r} is not {CLASS!r} (a tokenizer without a "
            f"tokenizer.json?), or extra_special_tokens = {extra!r} is a list"
        )
    if fields.get("chat_template") != tokenizer.chat_template:
        raise ValueError(f"{folder / CONFIG} has another chat template than the run's tokenizer")
    read = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    text = SAMPLE + "".join(tokenizer.all_special_tokens)
    for name, one, other in (
        ("vocabulary", read.get_vocab(), tokenizer.get_vocab()),
        ("special tokens", set(read.all_special_tokens), set(tokenizer.all_special_tokens)),
        ("named tokens", read.special_tokens_map, tokenizer.special_tokens_map),
        ("ids of a text", read.encode(text), tokenizer.encode(text)),
        ("chat template", read.chat_template, tokenizer.chat_template),
    ):
        if one != other:
            raise ValueError(
                f"{folder}: transformers reads the tokenizer with another {name}, as a "
                f"{type(read).__name__}. With models of some families it takes the family's own "
                "class whatever the files say: the run's tokenizer does not go with its model"
            )
