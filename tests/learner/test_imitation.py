"""Imitation of solutions: which tokens, in which order, and that it learns them."""

import dataclasses

import jax
import numpy as np
import pytest

from cegppo_jax.data.prompts import PromptStream
from cegppo_jax.data.sources import GENERATED_CHECKED, FiniteSource
from cegppo_jax.data.tokenizer import build_character_tokenizer
from cegppo_jax.finite import NonFiniteError
from cegppo_jax.learner.forward import ForwardSettings
from cegppo_jax.learner.imitation import (
    Imitator,
    solution_sequence,
    solution_tokens,
    validate_solutions,
)
from cegppo_jax.learner.learner import make_learner
from cegppo_jax.learner.optimizer import OptimizerSettings
from cegppo_jax.learner.update import BatchNeeds
from cegppo_jax.losses.policy_loss import supervised_loss
from cegppo_jax.packing import PackedShape, pack
from cegppo_jax.types import Problem, Prompt

TOKENIZER = build_character_tokenizer("0123456789+-*=;#")  # the digit d has the id d + 5
WORKED = Problem("a", "7+5", "2", "test", solution="7+5=2;#2")
OPTIMIZER = OptimizerSettings(
    learning_rate=3e-3,
    warmup_steps=2,
    warmup_starts_at_zero=False,
    schedule="constant",
    decay_steps=0,
    beta1=0.9,
    beta2=0.999,
    epsilon=1e-8,
    weight_decay=0.0,
    decay_norms_and_embeddings=False,
    max_grad_norm=1.0,
)


def stream(problems):
    return PromptStream(
        source=FiniteSource(problems),
        tokenizer=TOKENIZER,
        seed=0,
        system_prompt=None,
        max_prompt_tokens=6,
        long_prompt_policy="error",
    )


def test_the_solution_is_imitated_and_the_prompt_is_not():
    """7+5 -> <|user|> 7 + 5 <|assistant|> then 7 + 5 = 2 ; # 2 <|end|>, of which 9 count."""
    prompt = Prompt(WORKED, (2, 12, 15, 10, 3), index=0)
    sequence = solution_sequence(prompt, TOKENIZER, 1, max_completion_tokens=9)
    solution = (12, 15, 10, 18, 7, 19, 20, 7, TOKENIZER.eos_token_id)
    assert tuple(sequence.prompt_tokens) == (2, 12, 15, 10, 3)
    assert tuple(sequence.completion_tokens) == solution
    batch = pack([sequence], PackedShape(microbatches=1, rows=1, row_tokens=16))
    assert batch.tokens[0, 0].tolist() == [2, 12, 15, 10, 3, *solution, 0, 0]
    assert batch.completion_mask[0, 0].tolist() == [False] * 5 + [True] * 9 + [False] * 2


def test_a_solution_ends_with_the_token_that_ends_a_turn():
    assert solution_tokens(WORKED, TOKENIZER, 3, 9)[-2:] == (7, 3)


def test_a_solution_longer_than_a_completion_may_be_is_refused():
    assert len(solution_tokens(WORKED, TOKENIZER, 1, 9)) == 9
    message = (
        "the solution of problem 'a' has 9 tokens, its end included, and max_completion_tokens is 8"
    )
    with pytest.raises(ValueError, match=message):
        solution_tokens(WORKED, TOKENIZER, 1, 8)


def test_a_problem_without_a_solution_is_refused():
    problem = dataclasses.replace(WORKED, solution=None)
    with pytest.raises(ValueError, match=r"problem 'a' .* warm_start"):
        solution_tokens(problem, TOKENIZER, 1, 9)


def test_every_solution_of_a_file_is_checked_ahead():
    problems = [dataclasses.replace(WORKED, id=f"p{i}") for i in range(GENERATED_CHECKED + 9)]
    validate_solutions(stream(problems), 1, 9)
    problems[-1] = dataclasses.replace(problems[-1], solution=None)
    with pytest.raises(ValueError, match=f"problem 'p{GENERATED_CHECKED + 8}' has no solution"):
        validate_solutions(stream(problems), 1, 9)


FORWARD = ForwardSettings(
    dtype="float32",
    rematerialise="none",
    scan_unroll=1,
    temperature=1.0,
    logprob_chunk_tokens=16,
    differentiate_entropy=False,
    attention="xla",
)


def imitator_of(mesh, model, stream, sequences):
    """An imitator of 40 steps."""
    needs = BatchNeeds(selections=(), draws=False, seed=0)
    return Imitator(
        make_learner(mesh, model, FORWARD, OPTIMIZER, supervised_loss, needs),
        stream,
        end=1,
        steps=40,
        sequences=sequences,
        shape=PackedShape(microbatches=1, rows=4, row_tokens=16),
        max_completion_tokens=9,
    )


@pytest.mark.slow
def test_a_cross_entropy_that_is_not_finite_ends_the_warm_start_at_its_first_step(
    one_device, model
):
    imitator = imitator_of(one_device, model, stream([WORKED]), sequences=1)
    state = imitator.learner.new_state(jax.random.key(0))
    broken = dataclasses.replace(state, params=jax.tree.map(lambda x: x * np.nan, state.params))
    with pytest.raises(NonFiniteError, match=r"supervised step 1: .*9 tokens\) is nan"):
        next(imitator.train(broken))


def test_a_warm_start_reads_the_stream_in_order_and_learns_it(one_device, model):
    """Four prompts a step from the stream's beginning on; they are all that there is to learn."""
    taken, steps, losses = [], [], []

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Listening(PromptStream):
        def take(self, position, count):
            taken.append((position, count))
            return super().take(position, count)

    plain = stream(
        [Problem(f"p{d}", f"{d}+0", f"{d}", "test", solution=f"{d}+0={d};#{d}") for d in range(4)]
    )
    fields = {field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)}
    imitator = imitator_of(one_device, model, Listening(**fields), sequences=4)
    learner = imitator.learner
    for taken_step in imitator.train(learner.new_state(jax.random.key(0))):
        state = taken_step.state
        steps.append((taken_step.finished, taken_step.next_prompt))
        losses.append(taken_step.metrics["supervised/loss"])
        # 5 + 9 tokens in each row of 16
        assert taken_step.metrics["packing/efficiency"] == 14 / 16
    assert taken == [(4 * step, 4) for step in range(40)]
    assert steps == [(step, 4 * step) for step in range(1, 41)]
    assert (int(state.step), int(state.updates)) == (40, 40)
    assert losses[0] > 3  # log(32 words) = 3.5 for a policy that knows nothing
    assert losses[-1] < 0.35
