"""Groups that wait for the next step -> their place in the checkpoint, and back, bit for bit.

Numbers lie one completion behind the other in flat arrays, with the completions' lengths; words are
JSON. Both are one text of a checkpoint's position (archives.py): 64 groups of 16 completions of
4,096 tokens are 45 MB of it, and their texts 20 MB.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from cegppo_jax.archives import archive, unarchive, words_as_array, words_of_array
from cegppo_jax.read_settings import read_record
from cegppo_jax.types import Completion, Outcome, Problem, Prompt, Rollout, Score, StopReason

DTYPES = {
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
    """Useful groups that no step has trained on yet, the oldest first."""

    groups: tuple[Rollout, ...]

    def __eq__(self, other: object) -> bool:
        """By every bit, NaN and the sign of zero included."""
        return isinstance(other, CarriedGroups) and self._bits() == other._bits()

    def __hash__(self) -> int:
        return hash(tuple(group.prompt.index for group in self.groups))

    def _bits(self) -> dict[str, bytes]:
        return {name: array.tobytes() for name, array in as_arrays(self.groups).items()}

    def to_text(self) -> str:
        """-> a text from which `from_text` makes the same groups."""
        return archive(as_arrays(self.groups))

    @classmethod
    def from_text(cls, text: str) -> CarriedGroups:
        """What `to_text` gave -> the same groups. Raises ValueError for another text."""
        arrays = unarchive(text)
        if arrays.keys() != DTYPES.keys() | {"words"}:
            raise ValueError(
                f"carried groups have {sorted(DTYPES)} and words, not {sorted(arrays)}"
            )
        return cls(from_arrays(arrays))


NOTHING_CARRIED = CarriedGroups(())


def as_arrays(groups: Sequence[Rollout]) -> dict[str, np.ndarray]:
    """Groups -> arrays by name: those of DTYPES, and the words."""
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
    arrays = {name: np.asarray(column, DTYPES[name]) for name, column in columns.items()}
    words = {
        "problems": [dataclasses.asdict(group.prompt.problem) for group in groups],
        "texts": [text for group in groups for text in group.texts],
        "outcomes": [score.outcome for group in groups for score in group.scores],
        "answers": [score.answer for group in groups for score in group.scores],
        "rules": [score.rule for group in groups for score in group.scores],
        "stop_reasons": [c.stop_reason for c in completions],
    }
    return arrays | {"words": words_as_array(words)}


def from_arrays(arrays: dict[str, np.ndarray]) -> tuple[Rollout, ...]:
    """What `as_arrays` gave -> the groups."""
    words = words_of_array(arrays["words"])
    prompt_tokens = _parted(arrays["prompt_tokens"], arrays["prompt_lengths"])
    tokens = _parted(arrays["tokens"], arrays["lengths"])
    logprobs = _parted(arrays["sampler_logprobs"], arrays["lengths"])
    rules = words.get("rules", [None] * len(tokens))  # checkpoints from before scores had one
    numbers = {name: array.tolist() for name, array in arrays.items() if name != "words"}
    groups = []
    start = 0
    for i, samples in enumerate(numbers["samples"]):
        problem = read_record(Problem, words["problems"][i], "checkpoint: a carried problem")
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
                        StopReason(words["stop_reasons"][j]),
                        numbers["policy_versions"][j],
                    )
                    for j in own
                ),
                tuple(words["texts"][j] for j in own),
                tuple(
                    Score(
                        numbers["rewards"][j],
                        Outcome(words["outcomes"][j]),
                        words["answers"][j],
                        rules[j],
                    )
                    for j in own
                ),
            )
        )
        start += samples
    return tuple(groups)


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.empty(0)


def _parted(flat: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """[sum of lengths] -> an array each; [2, 0, 1] of abc: ab, nothing, c."""
    return np.split(flat, np.cumsum(lengths)[:-1]) if len(lengths) else []
