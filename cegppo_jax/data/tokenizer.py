"""Text -> token ids: tokenizers, all behind the transformers interface.

A toy policy and a real one differ only in the tokenizer that they are given. Both have a chat
template and an end-of-sequence token, so `tokenizer.apply_chat_template` is the one path from a
problem to a prompt.
"""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

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


def load_tokenizer(name_or_folder: str) -> PreTrainedTokenizerBase:
    """Hub id or local folder -> a tokenizer that prompts can be rendered with.

    Raises:
      ValueError: the tokenizer has no chat template, or no end-of-sequence token.
      OSError: transformers finds no tokenizer there.
    """
    tokenizer = AutoTokenizer.from_pretrained(name_or_folder)
    if tokenizer.chat_template is None:
        raise ValueError(
            f"the tokenizer of {name_or_folder!r} has no chat template: use an instruction-tuned "
            "model's tokenizer, or save one with tokenizer.chat_template set"
        )
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"the tokenizer of {name_or_folder!r} has no eos_token, so no completion could ever "
            "end: set tokenizer.eos_token and save it"
        )
    return tokenizer


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
