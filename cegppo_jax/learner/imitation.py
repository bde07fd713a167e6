"""Trains a policy to imitate worked solutions, with the same update as RL."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from transformers import PreTrainedTokenizerBase

from cegppo_jax import distributed
from cegppo_jax.activity import UPDATE, Activity
from cegppo_jax.data.prompts import PromptStream
from cegppo_jax.data.tokenizer import encode_text
from cegppo_jax.finite import NonFiniteError, where_to_look
from cegppo_jax.learner.learner import Learner
from cegppo_jax.learner.train_state import TrainState
from cegppo_jax.losses.contract import Knobs
from cegppo_jax.losses.policy_loss import OldStatistics
from cegppo_jax.packing import (
    PackedBatch,
    PackedShape,
    TrainingSequence,
    pack,
    packing_efficiency,
    with_targets,
)
from cegppo_jax.types import Problem, Prompt


def solution_sequence(
    prompt: Prompt, tokenizer: PreTrainedTokenizerBase, end: int, max_completion_tokens: int
) -> TrainingSequence:
    """Returns the sequence to imitate: a prompt and the worked solution of its problem.

    Raises:
      ValueError: see solution_tokens.
    """
    tokens = solution_tokens(prompt.problem, tokenizer, end, max_completion_tokens)
    return TrainingSequence(prompt.tokens, tokens, draw_id=prompt.index)


def solution_tokens(
    problem: Problem, tokenizer: PreTrainedTokenizerBase, end: int, max_completion_tokens: int
) -> tuple[int, ...]:
    """Returns the completion to imitate: the problem's worked solution followed by the token `end`,
    which ends a turn (data/ends.py).

    Raises:
      ValueError: the problem has no solution, or one that is longer than a completion may be.
    """
    if problem.solution is None:
        raise ValueError(
            f"problem {problem.id!r} has no solution to imitate: set warm_start.steps = 0, or "
            "add a solution field"
        )
    tokens = encode_text(problem.solution, tokenizer, f"the solution of problem {problem.id!r}")
    tokens = (*tokens, end)
    if len(tokens) > max_completion_tokens:
        raise ValueError(
            f"the solution of problem {problem.id!r} has {len(tokens)} tokens, its end included, "
            f"and max_completion_tokens is {max_completion_tokens}: raise it"
        )
    return tokens


def validate_solutions(stream: PromptStream, end: int, max_completion_tokens: int) -> None:
    """Checks solutions before a run: all of a finite source, the first ones of a generated source.

    Raises:
      ValueError: see solution_tokens.
    """
    for problem in stream.source.problems_to_check(stream.seed):
        # longer ones are refused or skipped elsewhere
        if len(stream.render(problem)) <= stream.max_prompt_tokens:
            solution_tokens(problem, stream.tokenizer, end, max_completion_tokens)


@dataclasses.dataclass(frozen=True)
class ImitationStep:
    """The result of one update of supervised training. The next step reuses the state's memory, so
    use the state before that.
    """

    state: TrainState
    finished: int  # steps so far
    next_prompt: int  # position in the stream
    metrics: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Imitator:
    """Next-token training on worked solutions: a learner with the supervised loss, and its data."""

    learner: Learner
    stream: PromptStream
    end: int  # the token that a solution ends with
    steps: int
    sequences: int  # (prompt, solution) pairs a step
    shape: PackedShape
    max_completion_tokens: int
    activity: Activity = dataclasses.field(default_factory=Activity)  # told of the updates

    def train(
        self, state: TrainState, finished: int = 0, next_prompt: int = 0
    ) -> Iterator[ImitationStep]:
        """Takes the steps after the first `finished` ones, up to `self.steps`.

        A step reads the next `sequences` prompts of the stream and nothing else varies, so a run
        that resumes from (state, finished, next_prompt) gets the same parameters.

        Raises:
          NonFiniteError: the cross-entropy of a step's solutions is not finite.
        """
        no_knobs = Knobs()
        # NumPy: an array of the device would have a layout already, and the wrong one.
        shape = self.shape
        nothing = np.zeros((shape.microbatches, shape.rows, shape.row_tokens), np.float32)
        no_old = OldStatistics(nothing, nothing, None)
        for step in range(finished + 1, self.steps + 1):
            prompts, next_prompt, _ = self.stream.take(next_prompt, self.sequences)
            batch = self._batch(prompts)
            distributed.agree(f"supervised step {step}", {"solutions": dataclasses.astuple(batch)})
            with self.activity.during(UPDATE):
                with self.activity.compiling("supervised", f"the supervised update: {shape}"):
                    state, reductions, _ = self.learner.update(
                        state, batch, no_old, no_knobs, np.True_
                    )
                reductions = jax.device_get(reductions)
            metrics = {name: value.result() for name, value in reductions.items()}
            if not math.isfinite(metrics["supervised/loss"]):
                raise NonFiniteError(
                    f"supervised step {step}: the cross-entropy of its {self.sequences} solutions "
                    f"({batch.completion_mask.sum()} tokens) is {metrics['supervised/loss']}. "
                    f"{where_to_look('trainer')}"
                )
            metrics["packing/efficiency"] = packing_efficiency(batch)
            state = dataclasses.replace(state, step=state.step + 1)
            yield ImitationStep(state, step, next_prompt, metrics)

    def _batch(self, prompts: Sequence[Prompt]) -> PackedBatch:
        """Packs prompts with worked solutions into a batch that gives every solution token the same
        weight.
        """
        solutions = [
            solution_sequence(prompt, self.stream.tokenizer, self.end, self.max_completion_tokens)
            for prompt in prompts
        ]
        tokens = sum(len(solution.completion_tokens) for solution in solutions)
        per_token = np.full(len(solutions), 1 / tokens)
        packed = pack(solutions, self.shape)
        return with_targets(packed, advantages=per_token, loss_weights=per_token)
