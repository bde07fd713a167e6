"""Text -> token ids: tokenizers, all behind the transformers interface.

A toy policy and a real one differ only in the tokenizer that they are given. Both have a chat
template and an end-of-sequence token, so `tokenizer.apply_chat_template` is the one path from a
problem to a prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from cegppo_jax.data.gguf_tokenizer import load_gguf_tokenizer
from cegppo_jax.data.model_files import PACKAGE, locate_model

PAD = "<|pad|>"
END = "<|end|>"
USER = "<|user|>"
ASSISTANT = "<|assistant|>"
UNKNOWN = "<|unknown|>"
SPECIAL_TOKENS = (PAD, END, USER, ASSISTANT, UNKNOWN)

# A system message stands before the first <|user|> and needs no token of its own.
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
    """Alphabet -> a tokenizer with one token for each character.

    Ids: the special tokens first (<|pad|> 0, <|end|> 1, <|user|> 2, <|assistant|> 3, <|unknown|>
    4), then the characters in the order given, so that the vocabulary has 5 + len(characters)
    entries.

    Args:
      characters: the alphabet, each character once; spaces and newlines are characters like others.

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


def load_tokenizer(name: str, template_options: Sequence[str] = ()) -> PreTrainedTokenizerBase:
    """Name of a model or tokenizer -> a tokenizer that prompts can be rendered with.

    Args:
      name: a hub id, a folder, a .gguf file or "package:<name>" (model_files.py).
      template_options: what the chat template is to be told besides the messages, "name=value" with
        a value in JSON: "enable_thinking=false". They become part of the template, so that whoever
        uses the saved tokenizer renders the same prompts.

    Raises:
      ValueError: there is no tokenizer of that name, it has no chat template or end-of-sequence
        token, or the template does not read an option.
    """
    if name.startswith(PACKAGE) or name.endswith(".gguf"):
        tokenizer: PreTrainedTokenizerBase = load_gguf_tokenizer(locate_model(name))
    else:
        try:
            # Left out, trust_remote_code asks at the terminal whether to run the model's own code.
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
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
    # Of several templates the one named "default" is for chats without tools.
    tokenizer.chat_template = _told(tokenizer.get_chat_template(), template_options)
    return tokenizer


def _told(template: str, options: Sequence[str]) -> str:
    """Chat template -> the template with options set ahead of it."""
    told = ""
    for option in options:
        name, equals, value = option.partition("=")
        if not (name.isidentifier() and equals):
            raise ValueError(
                f"problems.template_options: {option!r} is not of the form 'name=value'"
            )
        if not re.search(rf"\b{name}\b", template):
            raise ValueError(f"problems.template_options: the chat template does not read {name!r}")
        try:
            read = json.loads(value)
            json.dumps(read, allow_nan=False)  # what Jinja would read as the name of nothing
        except ValueError as error:
            raise ValueError(
                f"problems.template_options: {value!r} of {option!r} is not JSON, as false, 3 or "
                f'"text" are: {error}'
            ) from error
        told += f"{{%- set {name} = {read!r} %}}"
    # The empty text keeps the template's own first line from being trimmed with the block.
    return told + "{{ '' }}" * bool(told) + template


def ending_tokens(tokenizer: PreTrainedTokenizerBase, named: Iterable[int]) -> tuple[int, ...]:
    """Tokenizer and the ids that a model's files name -> every token that ends a completion, in the
    files' order.

    Chat models often have two: <|im_end|> closes the turn, <|endoftext|> the text.
    """
    return tuple(dict.fromkeys((*named, tokenizer.eos_token_id)))


def encode_text(text: str, tokenizer: PreTrainedTokenizerBase, owner: str) -> tuple[int, ...]:
    """Plain text -> its token ids, no special tokens added.

    Args:
      text: a worked solution, say. Special tokens in it are refused (check_text).
      tokenizer: of the policy.
      owner: what the text is, for messages: "solution of problem 'x'".

    Raises:
      ValueError: see check_text.
    """
    check_text(text, tokenizer, owner)
    return tuple(tokenizer.encode(text, add_special_tokens=False))


def check_text(text: str, tokenizer: PreTrainedTokenizerBase, owner: str) -> None:
    """Refuse text that the tokenizer would change in silence.

    Raises:
      ValueError: the text spells out a special token (the tokenizer would read it as the token,
        which ends the turn or opens another one), or has a character that the vocabulary does not
        know.
    """
    for token in tokenizer.added_tokens_decoder.values():
        if token.special and token.content in text:
            raise ValueError(
                f"{owner} contains the special token {token.content!r}, which would be read as "
                "that token and not as text: remove it"
            )
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown not in tokenizer.encode(text, add_special_tokens=False):
        return
    for character in text:
        if unknown in tokenizer.encode(character, add_special_tokens=False):
            raise ValueError(
                f"{owner} has the character {character!r}, which the tokenizer's vocabulary of "
                f"{len(tokenizer)} tokens does not know: remove it, or add it to the alphabet"
            )
    raise ValueError(f"{owner} has text that the tokenizer does not know: {text!r}")
