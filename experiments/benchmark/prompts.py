"""What the works run on: prompts of an exact length, completions that end where they should, and
rewards that cost nothing. All else is a run as `cegppo train` builds it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import re
from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax
import numpy as np

from cegppo_jax.data.prompts import Draw, PromptStream
from cegppo_jax.data.tasks.table import Task
from cegppo_jax.data.tasks.worked import Worked
from cegppo_jax.data.tokenizer import SPECIAL_TOKENS
from cegppo_jax.rewards.workers.scorer import InProcessScorer
from cegppo_jax.rollout.selection import GroupBuffer, StepGroups, choose
from cegppo_jax.run.build import TrainingRun, build_run
from cegppo_jax.run.settings import read_settings
from cegppo_jax.sampling import programs, slots
from cegppo_jax.sampling.sampler import Sampler
from cegppo_jax.types import Completion, Outcome, Problem, Prompt, Rollout, Score, StopReason
from experiments.benchmark.works import Work, config_of

READABLE = "0123456789#="
OTHERS = 0x20000  # the first of the other characters of an alphabet


def __getattr__(name: str) -> Task:
    """`V512` is a task whose tokenizer has 512 entries, `V49152` one of 49,152, and so on."""
    named = re.fullmatch(r"V(\d+)", name)
    size = int(named[1]) - len(SPECIAL_TOKENS) if named else 0
    if size < len(READABLE):
        raise AttributeError(name)
    others = range(OTHERS, OTHERS + size - len(READABLE))
    alphabet = READABLE + "".join(map(chr, others))
    return Task("benchmark", alphabet, "final_answer", 1, (1, 1), _draw)


def _draw(rng: random.Random, steps: int) -> Worked:
    number = str(rng.randrange(100))
    return Worked(number, number, f"#{number}", None)


class FixedPrompts(PromptStream):
    """Endless random prompts, all of max_prompt_tokens."""

    def take(self, position: int, count: int) -> Draw:
        """Returns the prompts at the places position to position + count."""
        places = range(position, position + count)
        return Draw([self._prompt(place) for place in places], position + count, 0)

    def _prompt(self, place: int) -> Prompt:
        drawn = np.random.default_rng((self.seed, place))
        tokens = drawn.integers(len(SPECIAL_TOKENS), len(self.tokenizer), self.max_prompt_tokens)
        problem = Problem(f"benchmark/{place}", "", "0", "benchmark")
        return Prompt(problem, tuple(tokens.tolist()), place)


def judge(text: str, problem: Problem) -> Score:
    """Rewards differ within a group: the share of distinct characters."""
    return Score(len(set(text)) / max(len(text), 1), Outcome.WRONG, None)


@contextlib.contextmanager
def limits_of(lengths: np.ndarray) -> Iterator[None]:
    """A sampler that is made meanwhile ends completion (p, g) after lengths[p, g] tokens [P, G],
    and prompts repeat after P.
    """

    def admit(
        state: slots.SlotState, prefixes: Any, new: slots.Admissions, step_key: jax.Array
    ) -> slots.SlotState:
        prompts = new.prompt_indices % len(lengths)
        limits = jax.numpy.asarray(lengths, "int32")[prompts, new.sample_indices]
        return slots.admit(state, prefixes, dataclasses.replace(new, token_limits=limits), step_key)

    with mock.patch.object(programs, "admit", admit):
        yield


def build(work: Work, settings: list[str], devices: int) -> TrainingRun:
    """Builds the run of a work.

    Raises:
      ValueError: sizes or settings that do not fit.
    """
    run = build_run(read_settings(config_of(work, settings, devices)))
    never = run.model.vocab_size  # the id of no token: completions end by their limits alone
    with jax.set_mesh(run.mesh), limits_of(work.completion_lengths()):
        own = Sampler(run.mesh, run.model, run.settings.sampler, [never], run.activity)
    scorer = InProcessScorer(judge, run.settings.reward.outcomes)
    actor = dataclasses.replace(run.actor, sampler=own, scorer=scorer)
    stream = run.source.stream
    fixed = FixedPrompts(**{f.name: getattr(stream, f.name) for f in dataclasses.fields(stream)})
    return dataclasses.replace(
        run,
        source=dataclasses.replace(run.source, actor=actor, stream=fixed),
        evaluator=dataclasses.replace(run.evaluator, actor=actor),
    )


def random_groups(run: TrainingRun, work: Work) -> StepGroups:
    """Returns a step's groups of random completions, with the lengths of the work. To the sampler
    all tokens were equally likely.
    """
    groups, drawn = [], np.random.default_rng(0)
    prompts = run.source.stream.take(0, work.prompts).prompts
    for prompt, lengths in zip(prompts, work.completion_lengths(), strict=True):
        completions = tuple(
            Completion(
                prompt.index,
                sample,
                drawn.integers(0, len(run.problems.tokenizer), length).astype(np.int32),
                np.full(length, -np.log(run.model.vocab_size), np.float32),
                StopReason.LENGTH,
                0,
            )
            for sample, length in enumerate(lengths)
        )
        scores = tuple(Score(float(drawn.normal()), Outcome.WRONG, None) for _ in lengths)
        groups.append(Rollout(prompt, completions, ("",) * len(lengths), scores))
    return choose(GroupBuffer((), tuple(groups)), run.settings.batch, 0)
