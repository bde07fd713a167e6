"""Carried groups: every bit of tokens, log-probs, scores and texts survives the checkpoint."""

import dataclasses
import json

import numpy as np
import pytest

from cegppo_jax.rollout.carried import COLUMN_DTYPES, NOTHING_CARRIED, CarriedGroups
from cegppo_jax.types import Completion, Outcome, Problem, Prompt, Rollout, Score, StopReason


def group(index, lengths, solution=None):
    random = np.random.default_rng(index)
    completions = tuple(
        Completion(
            prompt_index=index,
            sample_index=sample,
            tokens=random.integers(0, 200_000, n).astype(np.int32),
            sampler_logprobs=-random.random(n).astype(np.float32),
            stop_reason=StopReason.LENGTH if sample else StopReason.EOS,
            policy_version=3 + index % 2,
        )
        for sample, n in enumerate(lengths)
    )
    problem = Problem(f"p/{index}", "2+2\n?", "4", "test", solution)
    texts = tuple(f'text "{n}" é \ud83d \x00' for n in lengths)
    scores = tuple(
        Score(
            0.1 * n - 1 / 3,
            (Outcome.CORRECT, Outcome.WRONG, Outcome.UNPARSED)[n % 3],
            (f"{n}", r"\frac{1}{2}", None)[n % 3],
            ("box", "answer is", None)[n % 3],
        )
        for n in lengths
    )
    return Rollout(Prompt(problem, (2, 70_000, index), index), completions, texts, scores)


GROUPS = CarriedGroups((group(7, (3, 1, 4)), group(12, (2, 9, 2), "2+2=4"), group(9, (1, 1))))


def test_everything_comes_back_bit_for_bit():
    back = CarriedGroups.from_saved(*GROUPS.to_saved())
    assert back == GROUPS
    assert len(back.groups) == 3
    for ours, theirs in zip(back.groups, GROUPS.groups, strict=True):
        assert (ours.prompt, ours.texts, ours.scores) == (
            theirs.prompt,
            theirs.texts,
            theirs.scores,
        )
        assert all(type(token) is int for token in ours.prompt.tokens)
        for one, other in zip(ours.completions, theirs.completions, strict=True):
            for field in dataclasses.fields(Completion):
                a, b = getattr(one, field.name), getattr(other, field.name)
                assert type(a) is type(b)
                if isinstance(a, np.ndarray):
                    assert (a.dtype, a.tobytes()) == (b.dtype, b.tobytes())
                else:
                    assert a == b


def test_logprobs_keep_what_a_decimal_would_lose():
    [first, *rest] = GROUPS.groups
    odd = np.array([np.nan, -0.0, 1e-45], np.float32)
    completions = (
        dataclasses.replace(first.completions[0], sampler_logprobs=odd),
        *first.completions[1:],
    )
    groups = CarriedGroups((dataclasses.replace(first, completions=completions), *rest))
    back = CarriedGroups.from_saved(*groups.to_saved())
    assert back == groups
    assert back.groups[0].completions[0].sampler_logprobs.tobytes() == odd.tobytes()
    zero = dataclasses.replace(completions[0], sampler_logprobs=np.abs(odd))
    other = dataclasses.replace(first, completions=(zero, *completions[1:]))
    assert CarriedGroups((other, *rest)) != groups  # -0.0 is not 0.0


def test_no_groups_come_back_as_none():
    assert CarriedGroups.from_saved(*NOTHING_CARRIED.to_saved()) == NOTHING_CARRIED
    assert NOTHING_CARRIED != GROUPS


def test_the_order_is_part_of_it():
    assert CarriedGroups(GROUPS.groups[::-1]) != GROUPS


def test_arrays_are_flat_and_of_the_size_of_their_numbers():
    """8 bytes a token: its id and its log-prob. The texts hold no numbers."""
    large = CarriedGroups((group(1, (5_000,) * 8),))
    texts, arrays = large.to_saved()
    assert {name: (array.dtype, array.ndim) for name, array in arrays.items()} == {
        name: (np.dtype(dtype), 1) for name, dtype in COLUMN_DTYPES.items()
    }
    assert sum(array.nbytes for array in arrays.values()) < 8.1 * 8 * 5_000
    assert json.loads(json.dumps(texts)) == texts
    assert len(json.dumps(texts)) < 1_000


def test_malformed_texts_are_refused():
    texts, arrays = GROUPS.to_saved()
    with pytest.raises(ValueError, match="'right' is not a valid Outcome"):
        CarriedGroups.from_saved(texts | {"outcomes": ["right"] * 8}, arrays)
