"""Renders messages by the tokenizer's chat template, and checks that the template leaves nothing
out.
"""

from __future__ import annotations

import datetime
import functools
import re

from transformers import PreTrainedTokenizerBase

# Llama 3.2 and SmolLM3 templates write today's date into the prompt: a run resumed tomorrow would
# see other prompts. This is the date that Llama 3.2's falls back to.
TEMPLATE_DATE = datetime.datetime(2024, 7, 26)

# What templates have been seen to change: case, markup, quotes, braces, backslashes, line breaks,
# runs of spaces, letters outside ASCII.
PROBE = "{name} < B & c > \"D\" 'e' {{f}} \\g\n\n  \u00e9  {name} ends."

_REMEDY = (
    "Choose another tokenizer (problems.tokenizer), or save it with a chat_template that writes "
    "message['content'] as it is; content is text here, no list of parts"
)

Message = dict[str, str]  # role, content


def render_messages(
    messages: list[Message], tokenizer: PreTrainedTokenizerBase, *, completion_follows: bool
) -> str:
    """Returns the template's text of messages, followed by the assistant's header if a completion
    follows.

    Raises:
      ValueError: the template refuses the messages, fails on them, or asks for today's date in a
        way that cannot be held fixed.
    """
    template = without_today(str(tokenizer.chat_template))
    try:
        return str(
            tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=completion_follows,
                date_string=TEMPLATE_DATE.strftime("%d %b %Y"),
                chat_template=template,
            )
        )
    except Exception as error:  # a template is a program: it can fail in any way
        takes_none = any(message["role"] == "system" for message in messages)
        raise ValueError(
            f"{str(error) or type(error).__name__}"
            + " (some templates take no system prompt)" * takes_none
        ) from error


@functools.cache
def without_today(template: str) -> str:
    """Replaces calls of strftime_now('...') in a chat template by TEMPLATE_DATE.

    Raises:
      ValueError: it asks for the date in another way.
    """
    dated = re.sub(
        r"strftime_now\s*\(\s*(['\"])(.*?)\1\s*\)",
        lambda call: repr(TEMPLATE_DATE.strftime(call[2])),
        template,
    )
    if re.search(r"strftime_now\s*\(", dated):
        raise ValueError(
            "the chat template asks for today's date (strftime_now) in a format that is not "
            "written out, so that prompts would change with the day: write a date into the "
            "template and save the tokenizer"
        )
    return dated


def check_template(tokenizer: PreTrainedTokenizerBase, with_system_prompt: bool) -> None:
    """Refuses a chat template that leaves out or changes what a message says. It is tried before a
    run, on messages made for the purpose; check_held then looks at each prompt.

    Raises:
      ValueError: with what is lost, and the remedy.
    """
    place = f" of {tokenizer.name_or_path}" if tokenizer.name_or_path else ""
    owner = f"the chat template{place}"
    system, user = PROBE.format(name="System probe"), PROBE.format(name="User probe")
    messages = [{"role": "user", "content": user}]
    if with_system_prompt:
        messages.insert(0, {"role": "system", "content": system})
    try:
        text = render_messages(messages, tokenizer, completion_follows=True)
    except ValueError as error:
        raise ValueError(f"{owner} refuses a prompt: {error!s:.300}") from error
    if "user probe" not in text.lower():
        raise ValueError(
            f"{owner} leaves out the problem: {user!r} as the user's message gives the "
            f"prompt {_shown(text)}. {_REMEDY}"
        )
    if with_system_prompt and "system probe" not in text.lower():
        raise ValueError(
            f"{owner} leaves out the system prompt (problems.system_prompt): set it to "
            "'' and say the same in problems.instruction, or use a tokenizer whose template has a "
            "system role"
        )
    for what, content in (("problem", user), ("system prompt", system)):
        if content in (message["content"] for message in messages) and content not in text:
            raise ValueError(
                f"{owner} changes the text of the {what}: {content!r} gives the prompt "
                f"{_shown(text)}. {_REMEDY}"
            )


def check_held(text: str, parts: dict[str, str]) -> None:
    """Refuses a rendered prompt that does not contain its parts unchanged. Whitespace around a part
    does not count, since the templates of Llama 3 and Gemma trim messages.

    Args:
      text: the rendered prompt.
      parts: what each is -> its text: "problem 'x'", "the instruction", "the system prompt".

    Raises:
      ValueError: with the part that is lost, and the remedy.
    """
    for what, part in parts.items():
        if part.strip() not in text:
            raise ValueError(
                f"the chat template leaves out or changes the text of {what}: the prompt is "
                f"{_shown(text)}. {_REMEDY}"
            )


def _shown(text: str) -> str:
    """Returns a prompt for a message, without its middle if it is long."""
    return repr(text if len(text) <= 400 else f"{text[:200]} ... {text[-200:]}")
