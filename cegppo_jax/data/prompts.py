"""Turns problems into prompts: the chat template, the length limit, the stream that a run reads
from.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from cegppo_jax.data.chat_template import check_held, check_template, render_messages
from cegppo_jax.data.sources import Source
from cegppo_jax.data.tokenizer import check_text
from cegppo_jax.types import Problem, Prompt

LONG_PROMPT_POLICIES = ("error", "skip")
_check_fixed_text = functools.lru_cache(maxsize=8)(check_text)  # of all prompts of a run


def render_prompt(
    problem: Problem,
    tokenizer: PreTrainedTokenizerBase,
    system_prompt: str | None,
    instruction: str = "",
) -> tuple[int, ...]:
    """Returns the token ids [n] after which the policy's completion starts.

    Worked example with the character tokenizer: "7+5" -> <|user|> 7 + 5 <|assistant|>

    Args:
      problem: its `problem` text becomes the user's message.
      tokenizer: of the policy, with a chat template.
      system_prompt: the system message, or None for none.
      instruction: appended unchanged to the problem in the user's message.

    Raises:
      ValueError: the tokenizer would change a text (check_text), or the chat template refuses the
        messages or does not contain what they say (check_held).
    """
    fixed = {}
    messages = [{"role": "user", "content": problem.problem + instruction}]
    if instruction:
        fixed["the instruction"] = instruction
    if system_prompt is not None:
        fixed["the system prompt"] = system_prompt
        messages.insert(0, {"role": "system", "content": system_prompt})
    check_text(problem.problem, tokenizer, f"problem {problem.id!r}")
    for what, part in fixed.items():
        _check_fixed_text(part, tokenizer, what)
    try:
        text = render_messages(messages, tokenizer, completion_follows=True)
    except ValueError as error:
        raise ValueError(
            f"the chat template refuses the prompt of problem {problem.id!r}: {error}"
        ) from error
    parts = {f"problem {problem.id!r}": problem.problem} | fixed
    check_held(text, parts | {"the problem with its instruction": messages[-1]["content"]})
    return tuple(tokenizer.encode(text, add_special_tokens=False))


def render_evaluation_prompts(
    problems: Sequence[Problem],
    tokenizer: PreTrainedTokenizerBase,
    system_prompt: str | None,
    max_prompt_tokens: int,
    instruction: str = "",
) -> list[Prompt]:
    """Renders problems as prompts in the same order; Prompt.index is the place in the list.

    Raises:
      ValueError: a prompt is over-long (an evaluation that left problems out would flatter the
        policy), or see check_template and render_prompt.
    """
    check_template(tokenizer, system_prompt is not None)
    prompts = []
    for index, problem in enumerate(problems):
        tokens = render_prompt(problem, tokenizer, system_prompt, instruction)
        if len(tokens) > max_prompt_tokens:
            raise ValueError(_too_long(problem, len(tokens), max_prompt_tokens))
        prompts.append(Prompt(problem=problem, tokens=tokens, index=index))
    return prompts


class Draw(NamedTuple):
    """The result of take().

    Every position is either a prompt or skipped. In a stream read from 0, the number skipped so far
    is therefore next_position minus the number of prompts taken, and need not be saved.
    """

    prompts: list[Prompt]
    next_position: int
    skipped: int  # over-long prompts skipped in this call


class PromptLengths(NamedTuple):
    """The result of validate()."""

    checked: int  # prompts
    too_long: int  # of those, longer than max_prompt_tokens
    longest_tokens: int  # the longest of all, the over-long included


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptStream:
    """A source's problems as prompts, a function of (seed, position): endless and without state."""

    source: Source
    tokenizer: PreTrainedTokenizerBase
    seed: int
    system_prompt: str | None
    max_prompt_tokens: int
    long_prompt_policy: str  # "error": an over-long prompt stops the run; "skip": it is skipped
    instruction: str = ""

    def __post_init__(self) -> None:
        if self.long_prompt_policy not in LONG_PROMPT_POLICIES:
            raise ValueError(
                f"long_prompt_policy is {self.long_prompt_policy!r}: "
                f"choose one of {LONG_PROMPT_POLICIES}"
            )
        if self.max_prompt_tokens < 1:
            raise ValueError(f"max_prompt_tokens is {self.max_prompt_tokens}: must be at least 1")

    def render(self, problem: Problem) -> tuple[int, ...]:
        """Returns the tokens [n] of a problem's prompt (render_prompt)."""
        return render_prompt(problem, self.tokenizer, self.system_prompt, self.instruction)

    def validate(self) -> PromptLengths:
        """Checks prompts before a run: all of a finite source, the first ones of a generated
        source.

        Raises:
          ValueError: a prompt cannot be rendered (check_template, render_prompt); with policy
            "error" one is over-long; with "skip" all are.
        """
        check_template(self.tokenizer, self.system_prompt is not None)
        problems = self.source.problems_to_check(self.seed)
        lengths = [len(self.render(problem)) for problem in problems]
        too_long = [i for i, length in enumerate(lengths) if length > self.max_prompt_tokens]
        if too_long and self.long_prompt_policy == "error":
            first = too_long[0]
            raise ValueError(
                f"{_too_long(problems[first], lengths[first], self.max_prompt_tokens)}, or skip "
                f"over-long prompts ({len(too_long)} of the {len(problems)} checked)"
            )
        if len(too_long) == len(problems):
            raise ValueError(
                f"all {len(problems)} prompts checked are longer than max_prompt_tokens = "
                f"{self.max_prompt_tokens}, the shortest has {min(lengths)}: raise the limit"
            )
        return PromptLengths(len(problems), len(too_long), max(lengths))

    def take(self, position: int, count: int) -> Draw:
        """Returns the next `count` prompts from a position on, and the position to continue from.

        Prompt.index is the position in the stream. Taking 3 and then 5 prompts gives the same as
        taking 8.

        Raises:
          ValueError: position or count is below 0; a prompt cannot be rendered; with policy "error"
            one is over-long; with "skip" no prompt fits.
        """
        if position < 0 or count < 0:
            raise ValueError(f"position is {position} and count is {count}: neither may be below 0")
        patience = self.source.patience
        prompts: list[Prompt] = []
        skipped = in_a_row = 0
        while len(prompts) < count:
            problem = self.source.problem_at(self.seed, position)
            tokens = self.render(problem)
            if len(tokens) <= self.max_prompt_tokens:
                prompts.append(Prompt(problem=problem, tokens=tokens, index=position))
                in_a_row = 0
            elif self.long_prompt_policy == "error":
                raise ValueError(
                    f"{_too_long(problem, len(tokens), self.max_prompt_tokens)}, "
                    "or skip over-long prompts"
                )
            else:
                skipped, in_a_row = skipped + 1, in_a_row + 1
            position += 1
            if in_a_row >= patience:
                raise ValueError(
                    f"{in_a_row} prompts in a row are longer than max_prompt_tokens = "
                    f"{self.max_prompt_tokens}, the last has {len(tokens)}: raise the limit"
                )
        return Draw(prompts, position, skipped)


def _too_long(problem: Problem, length_tokens: int, max_prompt_tokens: int) -> str:
    """The message about one over-long prompt, to which callers add what else can be done."""
    return (
        f"the prompt of problem {problem.id!r} has {length_tokens} tokens and max_prompt_tokens is "
        f"{max_prompt_tokens}: raise the limit, or remove the problem"
    )
