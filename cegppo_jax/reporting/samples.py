"""The lines of samples.jsonl: completions with their scores, for reading."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cegppo_jax.jsonl import read_jsonl
from cegppo_jax.reporting.metrics import Phase
from cegppo_jax.types import Rollout

SAMPLES_FILE_NAME = "samples.jsonl"


def sample_lines(step: int, rollouts: Sequence[Rollout]) -> Iterator[dict[str, Any]]:
    """Yields one object for each completion of a step's rollouts."""
    for rollout in rollouts:
        group = zip(rollout.completions, rollout.texts, rollout.scores, strict=True)
        for completion, text, score in group:
            yield {
                "phase": Phase.RL,
                "step": step,
                "id": rollout.prompt.problem.id,
                "problem": rollout.prompt.problem.problem,
                "answer": rollout.prompt.problem.answer,
                "sample": completion.sample_index,
                "completion": text,
                "outcome": score.outcome,
                "read": score.answer,
                "rule": score.rule,
                "reward": score.reward,
                "tokens": len(completion.tokens),
                "stop_reason": completion.stop_reason,
            }


def read_samples(workdir: Path) -> list[dict[str, Any]]:
    """Reads the lines of a run's samples.jsonl, in order.

    Raises:
        ValueError: for a malformed line, with its number.
    """
    return read_jsonl(workdir / SAMPLES_FILE_NAME, dict, "a completion")
