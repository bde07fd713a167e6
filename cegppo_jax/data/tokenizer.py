"""Tokenizers, all with the interface of transformers.

A toy policy and a real one differ only in the tokenizer that they are given. Both have a chat
template and an end-of-sequence token, so `tokenizer.apply_chat_template` is the one path from a
problem to a prompt.
"""

from __future__ import annotations

import dataclasses
import json
import re
import unicodedata
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from cegppo_jax.data.gguf_tokenizer import load_gguf_tokenizer
from cegppo_jax.data.model_files import PACKAGE, hub_answers, locate_model
from cegppo_jax.storage.bucket import in_bucket
from cegppo_jax.storage.paths import local_path
from cegppo_jax.types import Completion, StopReason

PAD = "<|pad|>"
END = "<|end|>"
USER = "<|user|>"
ASSISTANT = "<|assistant|>"
UNKNOWN = "<|unknown|>"
MOST_BYTES = 4  # of a character in UTF-8, so that no more tokens spell it
INCOMPLETE = "\N{REPLACEMENT CHARACTER}"  # what half a character is decoded as
SPECIAL_TOKENS = (PAD, END, USER, ASSISTANT, UNKNOWN)

CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")

# A system message comes before the first <|user|> and needs no separate token.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}"
    "{% elif message['role'] == 'user' %}{{ '<|user|>' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '<|assistant|>' + message['content'] + '<|end|>' }}"
    "{% else %}{{ raise_exception('unknown role ' + message['role']) }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def build_character_tokenizer(characters: str) -> PreTrainedTokenizerFast:
    """Builds a tokenizer with one token for each character of an alphabet.

    Ids: the special tokens first (<|pad|> 0, <|end|> 1, <|user|> 2, <|assistant|> 3, <|unknown|>
    4), then the characters in the order given, so that the vocabulary has 5 + len(characters)
    entries.

    Args:
      characters: the alphabet, each character once; spaces and newlines are ordinary characters.

    Returns:
      A tokenizer whose decode(encode(text)) is exactly text, with a chat template.

    Raises:
      ValueError: the alphabet is empty or repeats a character.
    """
    if not characters:
        raise ValueError(
            "the alphabet is empty: name each character that problems and solutions use"
        )
    repeated = sorted({c for c in characters if characters.count(c) > 1})
    if repeated:
        raise ValueError(f"the alphabet repeats {repeated}: name each character once")
    vocabulary = {token: i for i, token in enumerate((*SPECIAL_TOKENS, *characters))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    # (?m) lets the dot match a newline in this regex dialect (Oniguruma), which has no (?s).
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("(?m)."), "isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        extra_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,  # the clean-up would decode " ." as "."
    )


@dataclasses.dataclass(frozen=True)
class TemplateOption:
    """A variable that the chat template reads besides the messages: ("enable_thinking", False)."""

    name: str
    value: Any  # what JSON can hold; lists are tuples

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"{self.name!r} is not the name of a variable")
        try:
            json.dumps(self.value, allow_nan=False)  # what Jinja would read as the name of nothing
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self.value!r} cannot be written as JSON: {error}") from error


def load_tokenizer(
    name: str, template_options: Sequence[TemplateOption] = ()
) -> PreTrainedTokenizerBase:
    """Loads a tokenizer that prompts can be rendered with.

    Args:
      name: a hub id, a folder, a .gguf file, the URL of one or "package:<name>" (model_files.py).
      template_options: become part of the template, so that the saved tokenizer renders the same
        prompts for everyone who uses it.

    Raises:
      ValueError: there is no tokenizer of that name, it has no chat template or end-of-sequence
        token, or the template does not read an option.
    """
    if in_bucket(name):
        name = str(locate_model(name))
    elif not name.startswith(PACKAGE):
        name = str(local_path("tokenizer", name))
    if name.startswith(PACKAGE) or name.endswith(".gguf"):
        tokenizer: PreTrainedTokenizerBase = load_gguf_tokenizer(locate_model(name))
    else:
        try:
            # Left out, trust_remote_code asks at the terminal whether to run the model's own code.
            # What is not here and has no answer from the hub must be in the cache.
            here_alone = not Path(name).is_dir() and not hub_answers()
            tokenizer = AutoTokenizer.from_pretrained(
                name, trust_remote_code=False, local_files_only=here_alone
            )
            tokenizer.decode(tokenizer.encode("1 + 1 = 2"))
        except Exception as error:  # a damaged file raises whatever it makes the reader stumble on
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"no tokenizer can be read at {name!r}, here or on the Hugging Face hub "
                f"({type(error).__name__}: {reason})"
            ) from error
    if tokenizer.chat_template is None:
        raise ValueError(
            f"the tokenizer of {name!r} has no chat template: use an instruction-tuned model's "
            "tokenizer (problems.tokenizer), or save one with tokenizer.chat_template set"
        )
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"the tokenizer of {name!r} has no eos_token, so no completion could ever end: set "
            "tokenizer.eos_token and save it"
        )
    if CONTROL.search(str(tokenizer.get_chat_template())):
        raise ValueError(
            f"the chat template of {name!r} is damaged: it has control characters, which no prompt "
            "should have"
        )
    # Of several templates the one named "default" is for chats without tools.
    tokenizer.chat_template = _with_options(tokenizer.get_chat_template(), template_options)
    return tokenizer


def _with_options(template: str, options: Sequence[TemplateOption]) -> str:
    """Returns a chat template that sets the options first."""
    for option in options:
        if not re.search(rf"\b{option.name}\b", template):
            raise ValueError(
                f"problems.template_options: the chat template does not read {option.name!r}"
            )
    settings = "".join(f"{{%- set {option.name} = {option.value!r} %}}" for option in options)
    # The empty text keeps the template's own first line from being trimmed with the block.
    return settings + "{{ '' }}" * bool(settings) + template


def encode_text(text: str, tokenizer: PreTrainedTokenizerBase, owner: str) -> tuple[int, ...]:
    """Returns the token ids [n] of plain text, without added special tokens.

    Args:
      text: a worked solution, say. Special tokens in it are refused (check_text).
      tokenizer: of the policy.
      owner: what the text is, for messages: "solution of problem 'x'".

    Raises:
      ValueError: see check_text.
    """
    check_text(text, tokenizer, owner)
    return tuple(tokenizer.encode(text, add_special_tokens=False))


def completion_text(completion: Completion, tokenizer: PreTrainedTokenizerBase) -> str:
    """Returns a completion's text, without special tokens and without the token that ended it,
    which some tokenizers do not mark as special.
    """
    ended = completion.stop_reason is StopReason.EOS
    tokens = completion.tokens[:-1] if ended else completion.tokens
    return str(tokenizer.decode(tokens, skip_special_tokens=True))


def token_texts(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> list[str]:
    """Returns the text that each token adds, special tokens spelt out; joined, they are the whole
    text. Of a character that several tokens spell, the last one has it and the others have "".
    """
    found: list[str] = []
    start = read = 0  # the window that is decoded again: its first token, its first unread token
    for end in range(1, len(tokens) + 1):
        before = str(tokenizer.decode(list(tokens[start:read]), skip_special_tokens=False))
        text = str(tokenizer.decode(list(tokens[start:end]), skip_special_tokens=False))
        waits = text.endswith(INCOMPLETE) and end - read < MOST_BYTES and end < len(tokens)
        if waits:
            found.append("")
            continue
        found.append(text[len(before) :])
        start, read = read, end
    return found


def check_text(text: str, tokenizer: PreTrainedTokenizerBase, owner: str) -> None:
    """Refuses text that its tokens do not reproduce.

    Raises:
      ValueError: the text spells out a special token (the tokenizer would read it as the token,
        which ends the turn or opens another one), has a character that the vocabulary lacks, or
        comes back changed from its tokens (holds_words), as from a tokenizer that drops unknown
        characters, lowers the case or reads "x²" as "x2".
    """
    for token in tokenizer.added_tokens_decoder.values():
        if token.special and token.content in text:
            raise ValueError(
                f"{owner} contains the special token {token.content!r}, which would be read as "
                "that token and not as text: remove it"
            )
    tokens = tokenizer.encode(text, add_special_tokens=False)
    unknown = tokenizer.unk_token_id
    if unknown is not None and unknown in tokens:
        for character in text:
            if unknown in tokenizer.encode(character, add_special_tokens=False):
                raise ValueError(
                    f"{owner} has the character {character!r}, which the tokenizer's vocabulary of "
                    f"{len(tokenizer)} tokens does not know: remove it, or add it to the alphabet"
                )
        raise ValueError(f"{owner} has text that the tokenizer does not know: {text!r}")
    read = str(tokenizer.decode(tokens, clean_up_tokenization_spaces=False))
    if not holds_words(read, text):
        old, new = text.strip(), read.strip()
        first = next((i for i in range(len(old)) if old[i : i + 1] != new[i : i + 1]), len(old))
        raise ValueError(
            f"{owner} is changed by the tokenizer: from character {first} on, "
            f"{old[first : first + 40]!r} becomes {new[first : first + 40]!r}. Remove what it "
            "cannot write, or choose another tokenizer (problems.tokenizer)"
        )


def holds_words(read: str, text: str) -> bool:
    """Whether a text that came back from its tokens contains all of the original: the same
    characters other than whitespace, and whitespace wherever the original has some. Canonically
    equivalent spellings are equal (Qwen's tokenizers compose accents).

    Worked examples: "7 + 5" holds "7+5", and "a b" holds "a b"; "ab" does not hold "a b", nor "x2"
    "x²".
    """
    words, read_words = (unicodedata.normalize("NFC", one).split() for one in (text, read))
    gaps, read_gaps = (set(accumulate(map(len, one))) for one in (words, read_words))
    return "".join(words) == "".join(read_words) and gaps <= read_gaps
