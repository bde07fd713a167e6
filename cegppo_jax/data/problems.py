"""Settings -> the problems of a run: what to train on, what to hold out, with which tokenizer."""

from __future__ import annotations

import dataclasses

from transformers import PreTrainedTokenizerBase

from cegppo_jax.data.sources import FiniteSource, GeneratedSource, Source, read_jsonl
from cegppo_jax.data.tasks import TASKS, Split, held_out_set
from cegppo_jax.data.tokenizer import build_character_tokenizer, load_tokenizer
from cegppo_jax.types import Problem


@dataclasses.dataclass(frozen=True)
class ProblemSettings:
    """Where problems come from, and how they become prompts."""

    task: str  # a name in TASKS, or "" for files
    min_steps: int  # of a generated task
    max_steps: int
    bare_fraction: float  # share of its solutions without the steps; only a warm start sees them
    train_file: str  # jsonl, or "" with a task
    held_out_file: str
    # As model.pretrained; "": the pretrained model's, or the characters of the task's alphabet
    tokenizer: str
    template_options: tuple[str, ...]  # "name=value" for the chat template: "enable_thinking=false"
    system_prompt: str  # "" for none
    long_prompt_policy: str  # "error" or "skip"

    def __post_init__(self) -> None:
        if bool(self.task) == bool(self.held_out_file) or (self.task and self.train_file):
            raise ValueError(
                "problems: name either a built-in task, or train_file and held_out_file; found "
                f"task = {self.task!r}, train_file = {self.train_file!r}, held_out_file = "
                f"{self.held_out_file!r}"
            )
        if not 0 <= self.bare_fraction <= 1:
            raise ValueError(f"problems.bare_fraction = {self.bare_fraction}: it lies in [0, 1]")
        if self.task and self.task not in TASKS:
            raise ValueError(f"problems.task = {self.task!r} is none of {sorted(TASKS)}")


@dataclasses.dataclass(frozen=True)
class Problems:
    """What train, evaluate and supervised read from."""

    train: Source
    held_out: list[Problem]
    tokenizer: PreTrainedTokenizerBase


def open_tokenizer(settings: ProblemSettings, pretrained: str) -> PreTrainedTokenizerBase:
    """Settings and the name of the pretrained model ("": none) -> the run's tokenizer.

    Raises:
      ValueError: there is none, or see load_tokenizer.
    """
    name = settings.tokenizer or pretrained
    if name:
        return load_tokenizer(name, settings.template_options)
    if not settings.task:
        raise ValueError(
            "problems of files need a tokenizer: name one in problems.tokenizer, or a model in "
            "model.pretrained"
        )
    if settings.template_options:
        raise ValueError(
            f"problems.template_options = {settings.template_options}: the task's own chat "
            "template has no options"
        )
    return build_character_tokenizer(TASKS[settings.task].alphabet)


def open_problems(
    settings: ProblemSettings, pretrained: str, held_out: int, held_out_seed: int
) -> Problems:
    """Settings -> Problems.

    Args:
      pretrained: name of the pretrained model, for its tokenizer; "": none.
      held_out: number of held-out problems of a generated task.
      held_out_seed: of that set; not the run's seed, so that all runs share it.

    Raises:
      ValueError: a file is malformed (with its line), or a setting is.
    """
    tokenizer = open_tokenizer(settings, pretrained)
    problems = held_out_problems(settings, held_out, held_out_seed)
    if settings.task:
        train = GeneratedSource(
            task=TASKS[settings.task],
            split=Split.TRAIN,
            bare_fraction=settings.bare_fraction,
            min_steps=settings.min_steps,
            max_steps=settings.max_steps,
        )
        return Problems(train, problems, tokenizer)
    if not settings.train_file:
        raise ValueError("problems.train_file is empty: name the problems to train on")
    train_problems = read_jsonl(settings.train_file)
    shared = {p.problem for p in train_problems} & {p.problem for p in problems}
    if shared:
        raise ValueError(
            f"{len(shared)} problems of {settings.held_out_file} are also in "
            f"{settings.train_file}, for example "
            f"{min(shared)[:80]!r}: a held-out problem must not be trained on"
        )
    return Problems(FiniteSource(train_problems), problems, tokenizer)


def held_out_problems(
    settings: ProblemSettings, held_out: int, held_out_seed: int
) -> list[Problem]:
    """Settings -> the problems to evaluate on; the arguments are those of open_problems."""
    if settings.task:
        steps = {"min_steps": settings.min_steps, "max_steps": settings.max_steps}
        return held_out_set(TASKS[settings.task], held_out, held_out_seed, **steps)
    return read_jsonl(settings.held_out_file)
