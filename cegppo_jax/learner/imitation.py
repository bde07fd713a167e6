"""Worked solutions -> a policy that imitates them, by the update machinery that RL uses."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jax.sharding import Mesh
from transformers import PreTrainedTokenizerBase

from cegppo_jax.data.prompts import PromptStream
from cegppo_jax.data.tokenizer import encode_text
from cegppo_jax.learner.optimizer import OptimizerSettings
from cegppo_jax.learner.train_state import TrainState
from cegppo_jax.learner.update import BatchNeeds, ForwardSettings, make_update
from cegppo_jax.losses.contract import Knobs
from cegppo_jax.losses.policy_loss import OldStatistics, supervised_loss
from cegppo_jax.models.config import ModelConfig
from cegppo_jax.packing import PackedShape, TrainingSequence, pack, packing_efficiency, with_targets
from cegppo_jax.types import Problem, Prompt


def solution_sequence(
    prompt: Prompt, tokenizer: PreTrainedTokenizerBase, end: int, max_completion_tokens: int
) -> TrainingSequence:
    """Prompt of a problem with a worked solution -> the sequence to imitate.

    Raises:
      ValueError: see solution_tokens.
    """
    tokens = solution_tokens(prompt.problem, tokenizer, end, max_completion_tokens)
    return TrainingSequence(prompt.tokens, tokens, draw_id=prompt.index)


def solution_tokens(
    problem: Problem, tokenizer: PreTrainedTokenizerBase, end: int, max_completion_tokens: int
) -> tuple[int, ...]:
    """Problem with a worked solution -> the completion to imitate, with the token `end` behind
    it: that which ends a turn (data/ends.py).

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
    """Check ahead of a run: all of a finite source, the beginning of a generated one.

    Raises:
      ValueError: see solution_tokens.
    """
    for problem in stream.source.problems_to_check(stream.seed):
        # longer ones are refused or skipped elsewhere
        if len(stream.render(problem)) <= stream.max_prompt_tokens:
            solution_tokens(problem, stream.tokenizer, end, max_completion_tokens)


@dataclasses.dataclass(frozen=True)
class ImitationStep:
    """What one update of supervised training leaves. The next one takes the state's memory: use it
    before that.
    """

    state: TrainState
    finished: int  # steps so far
    next_prompt: int  # position in the stream
    metrics: dict[str, float]


def imitate(
    state: TrainState,
    stream: PromptStream,
    *,
    end: int,
    finished: int,
    next_prompt: int,
    steps: int,
    sequences: int,
    shape: PackedShape,
    max_completion_tokens: int,
    mesh: Mesh,
    model: ModelConfig,
    forward: ForwardSettings,
    optimizer: OptimizerSettings,
) -> Iterator[ImitationStep]:
    """TrainState after `finished` updates of next-token training on worked solutions -> each
    further one, up to `steps`. Each solution ends with the token `end`.

    A step reads the next `sequences` prompts of the stream; nothing else varies, so that a run that
    is killed and goes on from (state, finished, next_prompt) gets the same parameters.
    """
    needs = BatchNeeds(selections=(), draws=False, seed=0)
    update = make_update(mesh, model, forward, optimizer, supervised_loss, needs)
    no_knobs = Knobs(*(np.float32(0) for _ in dataclasses.fields(Knobs)))
    # NumPy: an array of the device would have a layout already, and the wrong one.
    nothing = np.zeros((shape.microbatches, shape.rows, shape.row_tokens), np.float32)
    no_old = OldStatistics(nothing, nothing, None)
    for step in range(finished + 1, steps + 1):
        prompts, next_prompt, _ = stream.take(next_prompt, sequences)
        solutions = _sequences(prompts, stream.tokenizer, end, max_completion_tokens)
        tokens = sum(len(solution.completion_tokens) for solution in solutions)
        per_token = np.full(len(solutions), 1 / tokens)
        batch = with_targets(pack(solutions, shape), advantages=per_token, loss_weights=per_token)
        state, reductions = update(state, batch, no_old, no_knobs)
        metrics = {name: value.result() for name, value in jax.device_get(reductions).items()}
        metrics["packing/efficiency"] = packing_efficiency(batch)
        state = dataclasses.replace(state, step=state.step + 1)
        yield ImitationStep(state, step, next_prompt, metrics)


def _sequences(
    prompts: Sequence[Prompt],
    tokenizer: PreTrainedTokenizerBase,
    end: int,
    max_completion_tokens: int,
) -> list[TrainingSequence]:
    return [solution_sequence(one, tokenizer, end, max_completion_tokens) for one in prompts]
