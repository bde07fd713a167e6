"""The problems of a run, from its settings: what to train on, what to hold out, with which
tokenizer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from cegppo_jax import short_forms
from cegppo_jax.data.fields import FIELD_MAPS, FieldChanges, FieldMap, change_fields
from cegppo_jax.data.mixture import MixtureSource, block_counts
from cegppo_jax.data.problem_files import ProblemSet, load_problems
from cegppo_jax.data.sources import FiniteSource, GeneratedSource, Source
from cegppo_jax.data.tasks.named_task import task_named
from cegppo_jax.data.tasks.table import Split, Task, held_out_set
from cegppo_jax.data.tokenizer import TemplateOption, build_character_tokenizer, load_tokenizer
from cegppo_jax.read_settings import SHORT, SHORT_ENTRY
from cegppo_jax.types import Problem


@dataclasses.dataclass(frozen=True)
class ProblemSettings:
    """Where problems come from, and how they become prompts."""

    task: str  # a name in TASKS or "package.module:TASK"; "" for problem sets
    min_steps: int  # of the task
    max_steps: int
    bare_fraction: float  # share of tasks' solutions without the steps; only a warm start sees them
    train: tuple[ProblemSet, ...] = dataclasses.field(
        metadata={SHORT_ENTRY: short_forms.weighted_problem_set}
    )
    held_out: tuple[ProblemSet, ...] = dataclasses.field(  # one after the other
        metadata={SHORT_ENTRY: short_forms.problem_set}
    )
    # Where their rows have what: changes of the plain field map
    fields: FieldChanges = dataclasses.field(metadata={SHORT: short_forms.field_changes})
    unanswered: str  # rows without an answer: "error" or "skip"
    # As model.pretrained; "": the pretrained model's, or the characters of the task's alphabet
    tokenizer: str
    template_options: tuple[TemplateOption, ...] = dataclasses.field(
        metadata={SHORT_ENTRY: short_forms.json_pair}
    )
    # Texts of further tokens that end a completion, in addition to those that are found (ends.py)
    ending_tokens: tuple[str, ...]
    system_prompt: str  # "" for none
    instruction: str  # appended to every problem in the user's message; "" for none
    long_prompt_policy: str  # "error" or "skip"

    def __post_init__(self) -> None:
        if bool(self.task) == bool(self.held_out) or (self.task and self.train):
            raise ValueError(
                "problems: name either a built-in task, or problem sets in train and held_out; "
                f"found task = {self.task!r}, train = {[one.label for one in self.train]}, "
                f"held_out = {[one.label for one in self.held_out]}"
            )
        if not 0 <= self.bare_fraction <= 1:
            raise ValueError(f"problems.bare_fraction = {self.bare_fraction}: must be in [0, 1]")
        _ = self.field_map, self.tasks  # made, to be checked
        _check_once("problems.train", self.train, ": give it one weight")
        _check_once("problems.held_out", self.held_out, "")
        if self.train:
            block_counts(tuple(one.weight for one in self.train))
        if counted := [one.label for one in self.train if one.problems is not None]:
            raise ValueError(
                f"problems.train: {counted} have a number of problems, and a task that is trained "
                "on has no end: leave it out"
            )
        if weighted := [one.label for one in self.held_out if one.weight != 1]:
            raise ValueError(f"problems.held_out: {weighted} have a weight: leave it out")

    @property
    def tasks(self) -> list[Task]:
        """The generated tasks among the problems."""
        tasks = [one.generated.task for one in (*self.train, *self.held_out) if one.task]
        return [self.generated, *tasks] if self.task else tasks

    @property
    def generated(self) -> Task:
        """The task of the setting `task`, which must not be ""."""
        return task_named("problems.task", self.task)

    @property
    def field_map(self) -> FieldMap:
        """Where the rows of problem sets hold what."""
        plain = dataclasses.replace(FIELD_MAPS["plain"], unanswered=self.unanswered)
        return change_fields("problems.fields", plain, self.fields)


@dataclasses.dataclass(frozen=True)
class Problems:
    """What train, evaluate and supervised read from."""

    train: Source
    held_out: list[Problem]
    tokenizer: PreTrainedTokenizerBase


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
    members = {one: open_source(one, settings) for one in settings.train}
    train = next(iter(members.values()))
    if len(members) > 1:
        train = MixtureSource(tuple(members.values()), tuple(one.weight for one in members))
    _check_ids("problems.train", {one: source.known_problems for one, source in members.items()})
    for one, held in sets.items():
        _check_not_trained(members, one, held)
    return Problems(train, problems, tokenizer)


def held_out_sets(
    settings: ProblemSettings, held_out: int, held_out_seed: int
) -> dict[ProblemSet, list[Problem]]:
    """Returns the problems to evaluate on by their sets. Arguments as in
    open_problems.

    Raises:
      ValueError: a set is malformed, or two of them share an id.
    """
    if settings.task:
        steps = {"min_steps": settings.min_steps, "max_steps": settings.max_steps}
        problems = held_out_set(settings.generated, held_out, held_out_seed, **steps)
        return {ProblemSet(task=settings.task): problems}
    sets = {one: load_problems(one, settings.field_map) for one in settings.held_out}
    _check_ids("problems.held_out", sets)
    return sets


def open_source(problem_set: ProblemSet, settings: ProblemSettings) -> Source:
    """Returns the source of a problem set to train on.

    Raises:
      ValueError: see load_problems.
    """
    if problem_set.name:
        return FiniteSource(load_problems(problem_set, settings.field_map))
    task, low, high = problem_set.generated
    return GeneratedSource(
        task=task,
        split=Split.TRAIN,
        min_steps=low,
        max_steps=high,
        bare_fraction=settings.bare_fraction,
    )


def _check_once(setting: str, sets: Sequence[ProblemSet], advice: str) -> None:
    """Raises ValueError when a set is named twice, whatever its weight."""
    unweighted = [one.unweighted for one in sets]
    if repeated := sorted({one.label for one in unweighted if unweighted.count(one) > 1}):
        raise ValueError(f"{setting} names {repeated} more than once{advice}")


def _check_ids(setting: str, sets: Mapping[ProblemSet, Iterable[Problem]]) -> None:
    """Raises ValueError when two of the sets have a problem with the same id."""
    set_of_id: dict[str, ProblemSet] = {}
    for own, problems in sets.items():
        for problem in problems:
            if (other := set_of_id.setdefault(problem.id, own)) != own:
                raise ValueError(
                    f"{setting}: {other.label!r} and {own.label!r} both have a problem with "
                    f"the id {problem.id!r}: give every problem a different id, or the sets "
                    "names or sources of their own"
                )


def _check_not_trained(
    members: Mapping[ProblemSet, Source], held_out_set: ProblemSet, held_out: list[Problem]
) -> None:
    """Raises ValueError when a member has a problem of a held-out set."""
    texts = {problem.problem for problem in held_out}
    for member, source in members.items():
        shared = texts & {problem.problem for problem in source.known_problems}
        if shared:
            raise ValueError(
                f"{len(shared)} problems of {held_out_set.label} are also in {member.label}, for "
                f"example {min(shared)[:80]!r}: a held-out problem must not be trained on "
                "(python -m cegppo_jax.decontaminate finds and removes them)"
            )
