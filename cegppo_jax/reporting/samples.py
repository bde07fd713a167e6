"""Rollouts -> samples.jsonl: completions with their scores, to read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from cegppo_jax.reporting.metrics import Phase, truncate_lines
from cegppo_jax.types import Rollout

FILE_NAME = "samples.jsonl"


def sample_lines(step: int, rollouts: Sequence[Rollout]) -> Iterator[dict[str, Any]]:
    """Rollouts of a step -> one object a completion."""
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


class SamplesWriter:
    """Appends to samples.jsonl; a resumed run first drops what lies beyond its checkpoint."""

    def __init__(self, workdir: str | os.PathLike[str], resume_after: tuple[str, int] | None):
        path = Path(workdir) / FILE_NAME
        if path.exists():
            truncate_lines(path, resume_after)
        self._file = path.open("a")

    def write(self, step: int, rollouts: Sequence[Rollout]) -> None:
        """Appends every completion of the rollouts."""
        for line in sample_lines(step, rollouts):
            self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()

    def __enter__(self) -> SamplesWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
