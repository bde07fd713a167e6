"""Completions are written with what the trainer found at their tokens."""

import json

import numpy as np
import pytest

from cegppo_jax.data.tokenizer import SPECIAL_TOKENS
from cegppo_jax.reporting.run_log import open_run_log
from cegppo_jax.reporting.samples import rounded, sample_lines
from cegppo_jax.types import (
    Completion,
    Outcome,
    Problem,
    Prompt,
    Rollout,
    Score,
    StopReason,
    TokenReadings,
)

COLUMNS = ["token_texts", "token_logprobs", "token_entropies", "token_log_ratios"]


def group(samples=2):
    prompt = Prompt(Problem("p", "1+1", "2", "test"), (7,), index=5)
    completions = tuple(
        Completion(5, s, np.array([4, 9, 1]), np.float32([-1, -2, -3]), StopReason.EOS, 0)
        for s in range(samples)
    )
    scores = (Score(-1.0, Outcome.WRONG, "9"),) * samples
    return Rollout(prompt, completions, ("49",) * samples, scores)


def lines(max_tokens):
    """One completion has trained and one has not."""
    own = TokenReadings(np.float32([0.5, 1 / 3, 0]), np.float32([0.25, 0, -1e-7]), 0.75)
    written = sample_lines(3, [group()], {(5, 1): own}, lambda t: [str(i) for i in t], max_tokens)
    return [*written]


def test_the_first_tokens_of_a_completion_that_trained_are_written():
    rested, trained = lines(2)
    assert not {"advantage", *COLUMNS} & rested.keys()
    assert rested["tokens"] == 3
    assert trained["advantage"] == 0.75
    assert [trained[name] for name in COLUMNS] == [
        ["4", "9"],
        [-0.75, -2.0],
        [0.5, 0.3333],
        [0.25, 0.0],
    ]
    assert lines(9)[1]["token_log_ratios"] == [0.25, 0.0, -1e-7]


def test_no_tokens_are_written_when_they_are_off():
    trained = lines(0)[1]
    assert trained["advantage"] == 0.75
    assert not {*COLUMNS} & trained.keys()


def test_what_is_not_finite_is_null():
    assert json.dumps(rounded(np.float32([np.nan, np.inf, 2]))) == "[null, null, 2.0]"


def test_a_run_writes_the_tokens_of_its_completions(finished_run):
    samples = open_run_log(finished_run[0]).samples
    for sample in samples:
        assert {len(sample[name]) for name in COLUMNS} == {sample["tokens"]}
        text = "".join(one for one in sample["token_texts"] if one not in SPECIAL_TOKENS)
        assert text == sample["completion"]
        assert all(one <= 0 for one in sample["token_logprobs"])
        assert max(map(abs, sample["token_log_ratios"])) < 1e-4  # float32 both
    # Of a group whose rewards differ, advantages have the sign of the reward
    differ = [one for one in samples if one["advantage"]]
    assert differ
    for step in {one["step"] for one in samples}:
        own = [one for one in samples if one["step"] == step]
        mean = np.mean([one["reward"] for one in own])
        assert [np.sign(one["advantage"]) for one in own] == pytest.approx(
            [np.sign(round(one["reward"] - mean, 6)) for one in own]
        )
