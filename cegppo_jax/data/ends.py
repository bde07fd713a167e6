"""Finds the tokens that end a completion, from tokenizer and model files.

Chat models often have two: <|im_end|> closes the turn, <|endoftext|> the text. Each may be named in
only one place: the tokenizer's eos_token, config.json, generation_config.json, the metadata of a
.gguf file, or the chat template, which writes a token after an assistant's turn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from itertools import takewhile

from transformers import PreTrainedTokenizerBase

from cegppo_jax.data.chat_template import Message, render_messages

_QUESTION, _ANSWER, _NEXT = "probe-question-1", "probe-answer-2", "probe-next-3"


@dataclasses.dataclass(frozen=True)
class Ends:
    """The tokens that end a completion."""

    ids: tuple[int, ...]  # all of them, those of the model's files first
    taught: int  # the one after a solution that is imitated: the turn's end


def find_ends(
    tokenizer: PreTrainedTokenizerBase, of_files: Iterable[int], named: Sequence[str]
) -> Ends:
    """Finds the tokens that end a completion.

    Args:
      of_files: ids that the model's files name.
      named: the texts of further tokens (problems.ending_tokens). If there are any, the first one
        is taught. Otherwise it is the token with which the chat template closes an assistant's
        turn, or the tokenizer's eos_token if the template closes with none.

    Raises:
      ValueError: a named text is not one token; or none is named and the chat template closes turns
        with text that holds no special token, so that nothing would end a completion of that form.
    """
    of_files, eos = tuple(of_files), tokenizer.eos_token_id
    own = [_token_of(text, tokenizer) for text in named]
    closing = turn_closing(tokenizer)
    turn = _turn_end(closing, tokenizer, {*of_files, eos})
    if turn is None and closing.strip() and not named:
        raise ValueError(
            f"the chat template closes an assistant's turn with {closing.strip()!r}, which is no "
            "special token of the tokenizer: a completion of that form would never end. Save the "
            "tokenizer with it as a special token, or name the token that the model ends its turns "
            f"with: problems.ending_tokens = ({tokenizer.eos_token!r},)"
        )
    found = [*of_files, eos, *([] if turn is None else [turn]), *own]
    taught = own[0] if own else eos if turn is None else turn
    return Ends(tuple(dict.fromkeys(found)), taught)


def describe_ends(ids: Iterable[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """Returns one line with the text and id of each token that ends a completion."""
    names = [f"{tokenizer.convert_ids_to_tokens(one)} ({one})" for one in ids]
    return f"completions end with {' or '.join(names)}"


def turn_closing(tokenizer: PreTrainedTokenizerBase) -> str:
    """Returns the text that the chat template writes after an assistant's message; "" if it writes
    none or has no assistant.

    Worked examples: "<|im_end|>\\n" (Qwen), "<|eot_id|>" (Llama 3), " </s>" (Llama 2).

    Some templates close a turn only when another one follows. The text between the two is then the
    closing and the next header, and the header is the same as that of the first user's message.
    """
    messages = [_message("user", _QUESTION), _message("assistant", _ANSWER)]
    last = _rendered(messages, tokenizer).partition(_ANSWER)[2]
    if last.strip():
        return last
    talk = _rendered([*messages, _message("user", _NEXT)], tokenizer)
    header = talk.partition(_QUESTION)[0]
    between = talk.partition(_ANSWER)[2].partition(_NEXT)[0]
    pairs = zip(reversed(header), reversed(between), strict=False)
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return between[: len(between) - shared]


def _turn_end(
    closing: str, tokenizer: PreTrainedTokenizerBase, known: Collection[int]
) -> int | None:
    """Returns the first special token or known end in what closes a turn, or the added token
    that is all of it; else None.
    """
    added = {**tokenizer.added_tokens_decoder}
    added.pop(tokenizer.unk_token_id, None)  # special too, but it represents text
    tokens = tokenizer.encode(closing, add_special_tokens=False)
    for token in tokens:
        if token in known or (token in added and added[token].special):
            return int(token)
    tokens = tokenizer.encode(closing.strip(), add_special_tokens=False)
    return int(tokens[0]) if len(tokens) == 1 and tokens[0] in added else None


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _rendered(messages: list[Message], tokenizer: PreTrainedTokenizerBase) -> str:
    """Returns the text of messages; "" if the template refuses them."""
    try:
        return render_messages(messages, tokenizer, completion_follows=False)
    except ValueError:
        return ""


def _token_of(text: str, tokenizer: PreTrainedTokenizerBase) -> int:
    """Returns the id of a token's text. Raises ValueError unless it is exactly one known token."""
    tokens = tokenizer.encode(text, add_special_tokens=False)
    if len(tokens) != 1 or tokens[0] == tokenizer.unk_token_id:
        raise ValueError(
            f"problems.ending_tokens: {text!r} is not one token of the tokenizer, but "
            f"{tokenizer.convert_ids_to_tokens(tokens)}: name single tokens, as '<|im_end|>' is one"
        )
    return int(tokens[0])
