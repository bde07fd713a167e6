"""Saves groups that wait for the next step in a checkpoint, and reads them back bit for bit.

Numbers are saved as arrays: completions are concatenated, and their lengths form another array.
Texts are saved as JSON. 64 groups of 16 completions of 4,096 tokens take 34 MB of arrays and 20 MB
of texts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cegppo_jax.read_settings import read_record
from cegppo_jax.types import Completion, Outcome, Problem, Prompt, Rollout, Score, StopReason

COLUMN_DTYPES = {
    "prompt_tokens": np.int32,  # flat, as are all per token
    "prompt_lengths": np.int64,  # a group each
    "prompt_indices": np.int64,
    "samples": np.int64,
    "tokens": np.int32,
    "sampler_logprobs": np.float32,
    "lengths": np.int64,  # a completion each
    "sample_indices": np.int64,
    "policy_versions": np.int64,
    "rewards": np.float64,
}


@dataclasses.dataclass(frozen=True, eq=False)
class CarriedGroups:
    """Useful groups that no step has trained on yet, oldest first."""

    groups: tuple[Rollout, ...]

    def __eq__(self, other: object) -> bool:
        """Compares every bit, including NaN and the sign of zero."""
        return isinstance(other, CarriedGroups) and self._bits() == other._bits()

    def __hash__(self) -> int:
        return hash(tuple(group.prompt.index for group in self.groups))

    def _bits(self) -> tuple[dict[str, list[Any]], dict[str, bytes]]:
        texts, arrays = self.to_saved()
        return texts, {name: array.tobytes() for name, array in arrays.items()}

    def to_saved(self) -> tuple[dict[str, list[Any]], dict[str, np.ndarray]]:
        """Returns lists of texts, and arrays [n], from which `from_saved` rebuilds the same
        groups.
        """
        return as_texts(self.groups), as_arrays(self.groups)

    @classmethod
    def from_saved(
        cls, texts: Mapping[str, list[Any]], arrays: Mapping[str, np.ndarray]
    ) -> CarriedGroups:
        """Rebuilds the groups that `to_saved` saved. Raises ValueError for malformed texts."""
        return cls(groups_of(texts, arrays))


NOTHING_CARRIED = CarriedGroups(())


def as_arrays(groups: Sequence[Rollout]) -> dict[str, np.ndarray]:
    """Returns the numbers of the groups as arrays by name, [n] each, of COLUMN_DTYPES."""
    completions = [completion for group in groups for completion in group.completions]
    columns: dict[str, Any] = {
        "prompt_tokens": [token for group in groups for token in group.prompt.tokens],
        "prompt_lengths": [len(group.prompt.tokens) for group in groups],
        "prompt_indices": [group.prompt.index for group in groups],
        "samples": [len(group.completions) for group in groups],
        "tokens": _joined([c.tokens for c in completions]),
        "sampler_logprobs": _joined([c.sampler_logprobs for c in completions]),
        "lengths": [len(c.tokens) for c in completions],
        "sample_indices": [c.sample_index for c in completions],
        "policy_versions": [c.policy_version for c in completions],
        "rewards": [score.reward for group in groups for score in group.scores],
    }
    return {name: np.asarray(column, COLUMN_DTYPES[name]) for name, column in columns.items()}


def as_texts(groups: Sequence[Rollout]) -> dict[str, list[Any]]:
    """Returns the JSON values of the groups as lists by name: problems have one entry a group, all
    others one entry a completion.
    """
    completions = [completion for group in groups for completion in group.completions]
    scores = [score for group in groups for score in group.scores]
    return {
        "problems": [dataclasses.asdict(group.prompt.problem) for group in groups],
        "texts": [text for group in groups for text in group.texts],
        "outcomes": [str(score.outcome) for score in scores],
        "answers": [score.answer for score in scores],
        "rules": [score.rule for score in scores],
        "stop_reasons": [str(c.stop_reason) for c in completions],
    }


def groups_of(
    texts: Mapping[str, list[Any]], arrays: Mapping[str, np.ndarray]
) -> tuple[Rollout, ...]:
    """Rebuilds the groups from the lists and arrays [n] that `as_texts` and `as_arrays`
    returned.
    """
    prompt_tokens = parted_by(arrays["prompt_lengths"], arrays["prompt_tokens"])
    tokens = parted_by(arrays["lengths"], arrays["tokens"])
    logprobs = parted_by(arrays["lengths"], arrays["sampler_logprobs"])
    numbers = {name: array.tolist() for name, array in arrays.items()}
    groups = []
    start = 0
    for i, samples in enumerate(numbers["samples"]):
        problem = read_record(Problem, texts["problems"][i], "checkpoint: a carried problem")
        index, own = numbers["prompt_indices"][i], range(start, start + samples)
        groups.append(
            Rollout(
                Prompt(problem, tuple(prompt_tokens[i].tolist()), index),
                tuple(
                    Completion(
                        index,
                        numbers["sample_indices"][j],
                        tokens[j],
                        logprobs[j],
                        StopReason(texts["stop_reasons"][j]),
                        numbers["policy_versions"][j],
                    )
                    for j in own
                ),
                tuple(texts["texts"][j] for j in own),
                tuple(
                    Score(
                        numbers["rewards"][j],
                        Outcome(texts["outcomes"][j]),
                        texts["answers"][j],
                        texts["rules"][j],
                    )
                    for j in own
                ),
            )
        )
        start += samples
    return tuple(groups)


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.empty(0)


def parted_by(lengths: np.ndarray, flat: np.ndarray) -> list[np.ndarray]:
    """Splits a flat array [sum of lengths] into one array for each length; lengths [2, 0, 1] split
    "abc" into ab, nothing, c.
    """
    return np.split(flat, np.cumsum(lengths)[:-1]) if len(lengths) else []
