"""The problems of a run, from its settings: what to train on, what to hold out, with which
tokenizer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from fractions import Fraction

from transformers import PreTrainedTokenizerBase

from cegppo_jax.data.fields import FIELD_MAPS, FieldMap, change_fields
from cegppo_jax.data.mixture import MixtureSource, block_counts
from cegppo_jax.data.problem_files import TASK, load_problems, parse_task_name
from cegppo_jax.data.sources import FiniteSource, GeneratedSource, Source
from cegppo_jax.data.tasks.named_task import task_named
from cegppo_jax.data.tasks.table import Split, Task, held_out_set
from cegppo_jax.data.tokenizer import build_character_tokenizer, load_tokenizer
from cegppo_jax.types import Problem


@dataclasses.dataclass(frozen=True)
class ProblemSettings:
    """Where problems come from, and how they become prompts."""

    task: str  # a name in TASKS or "package.module:TASK"; "" for problem sets
    min_steps: int  # of the task
    max_steps: int
    bare_fraction: float  # share of tasks' solutions without the steps; only a warm start sees them
    train: tuple[str, ...]  # problem sets, "NAME" or "NAME=weight" (problem_files.py)
    held_out: tuple[str, ...]  # problem sets, one after the other
    fields: str  # where their rows have what: changes of the plain field map (fields.py)
    unanswered: str  # rows without an answer: "error" or "skip"
    # As model.pretrained; "": the pretrained model's, or the characters of the task's alphabet
    tokenizer: str
    template_options: tuple[str, ...]  # "name=value" for the chat template: "enable_thinking=false"
    # Texts of further tokens that end a completion, in addition to those that are found (ends.py)
    ending_tokens: tuple[str, ...]
    system_prompt: str  # "" for none
    instruction: str  # appended to every problem in the user's message; "" for none
    long_prompt_policy: str  # "error" or "skip"

    def __post_init__(self) -> None:
        if bool(self.task) == bool(self.held_out) or (self.task and self.train):
            raise ValueError(
                "problems: name either a built-in task, or problem sets in train and held_out; "
                f"found task = {self.task!r}, train = {self.train!r}, held_out = {self.held_out!r}"
            )
        if not 0 <= self.bare_fraction <= 1:
            raise ValueError(f"problems.bare_fraction = {self.bare_fraction}: must be in [0, 1]")
        _ = self.field_map, self.tasks  # made, to be checked, as are the weights
        names, weights = self.train_names, self.train_weights
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"problems.train names {repeated} more than once: give it one weight")
        if weights:
            block_counts(weights)

    @property
    def tasks(self) -> list[Task]:
        """The generated tasks among the problems."""
        named = [name for name in (*self.train_names, *self.held_out) if name.startswith(TASK)]
        tasks = [parse_task_name(name).task for name in named]
        return [self.generated, *tasks] if self.task else tasks

    @property
    def generated(self) -> Task:
        """The task of the setting `task`, which must not be ""."""
        return task_named("problems.task", self.task)

    @property
    def field_map(self) -> FieldMap:
        """Where the rows of problem sets hold what."""
        plain = dataclasses.replace(FIELD_MAPS["plain"], unanswered=self.unanswered)
        return change_fields(plain, self.fields) if self.fields else plain

    @property
    def train_names(self) -> tuple[str, ...]:
        """The problem sets to train on."""
        return tuple(split_weight(entry)[0] for entry in self.train)

    @property
    def train_weights(self) -> tuple[Fraction, ...]:
        """The weights of the problem sets to train on."""
        return tuple(split_weight(entry)[1] for entry in self.train)


@dataclasses.dataclass(frozen=True)
class Problems:
    """What train, evaluate and supervised read from."""

    train: Source
    held_out: list[Problem]
    tokenizer: PreTrainedTokenizerBase


def split_weight(entry: str) -> tuple[str, Fraction]:
    """Splits "a.jsonl=0.7" into ("a.jsonl", 7/10); without a number at the end the weight is 1."""
    name, equals, weight = entry.rpartition("=")
    try:
        return (name, Fraction(weight)) if equals else (entry, Fraction(1))
    except (ValueError, ZeroDivisionError):
        return entry, Fraction(1)  # the "=" is of the name: "a.jsonl?problem=question"


def open_tokenizer(settings: ProblemSettings, pretrained: str) -> PreTrainedTokenizerBase:
    """Opens the run's tokenizer; `pretrained` names the pretrained model ("": none).

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
    return build_character_tokenizer(settings.generated.alphabet)


def open_problems(
    settings: ProblemSettings, pretrained: str, held_out: int, held_out_seed: int
) -> Problems:
    """Opens the problems of a run.

    Args:
      pretrained: name of the pretrained model, for its tokenizer; "": none.
      held_out: number of held-out problems of `task`.
      held_out_seed: seed of that set; not the run's seed, so that all runs share it.

    Raises:
      ValueError: a problem set is malformed (with its row), two of them share an id, a held-out
        problem would be trained on, or a setting is wrong.
    """
    tokenizer = open_tokenizer(settings, pretrained)
    sets = held_out_sets(settings, held_out, held_out_seed)
    problems = [one for members in sets.values() for one in members]
    if settings.task:
        train: Source = GeneratedSource(
            task=settings.generated,
            split=Split.TRAIN,
            min_steps=settings.min_steps,
            max_steps=settings.max_steps,
            bare_fraction=settings.bare_fraction,
        )
        return Problems(train, problems, tokenizer)
    if not settings.train:
        raise ValueError("problems.train is empty: name the problem sets to train on")
    members = {name: open_source(name, settings) for name in settings.train_names}
    train = next(iter(members.values()))
    if len(members) > 1:
        train = MixtureSource(tuple(members.values()), settings.train_weights)
    _check_ids("problems.train", {name: one.known_problems for name, one in members.items()})
    for name, held in sets.items():
        _check_not_trained(members, name, held)
    return Problems(train, problems, tokenizer)


def held_out_sets(
    settings: ProblemSettings, held_out: int, held_out_seed: int
) -> dict[str, list[Problem]]:
    """Returns the problems to evaluate on by the names of their sets. Arguments as in
    open_problems.

    Raises:
      ValueError: a set is malformed, or two of them share an id.
    """
    if settings.task:
        steps = {"min_steps": settings.min_steps, "max_steps": settings.max_steps}
        return {settings.task: held_out_set(settings.generated, held_out, held_out_seed, **steps)}
    sets = {name: load_problems(name, settings.field_map) for name in settings.held_out}
    _check_ids("problems.held_out", sets)
    return sets


def open_source(name: str, settings: ProblemSettings) -> Source:
    """Returns the source of a problem set to train on.

    Raises:
      ValueError: see load_problems.
    """
    if not name.startswith(TASK):
        return FiniteSource(load_problems(name, settings.field_map))
    task, low, high, _ = parse_task_name(name)
    return GeneratedSource(
        task=task,
        split=Split.TRAIN,
        min_steps=low,
        max_steps=high,
        bare_fraction=settings.bare_fraction,
    )


def _check_ids(setting: str, sets: Mapping[str, Iterable[Problem]]) -> None:
    """Raises ValueError when two of the sets have a problem with the same id."""
    set_of_id: dict[str, str] = {}
    for name, problems in sets.items():
        for problem in problems:
            if set_of_id.setdefault(problem.id, name) != name:
                raise ValueError(
                    f"{setting}: {set_of_id[problem.id]!r} and {name!r} both have a problem with "
                    f"the id {problem.id!r}: give every problem a different id, or the sets "
                    "names or sources of their own"
                )


def _check_not_trained(members: dict[str, Source], name: str, held_out: list[Problem]) -> None:
    """Raises ValueError when a member has a problem of the held-out set `name`."""
    texts = {problem.problem for problem in held_out}
    for member, source in members.items():
        shared = texts & {problem.problem for problem in source.known_problems}
        if shared:
            raise ValueError(
                f"{len(shared)} problems of {name} are also in {member}, for example "
                f"{min(shared)[:80]!r}: a held-out problem must not be trained on "
                "(python -m cegppo_jax.decontaminate finds and removes them)"
            )
