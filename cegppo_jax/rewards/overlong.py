"""What happens to completions that reach the limit. Lengths are in tokens, like the limit:
characters would punish languages rather than lengths.

    policy         reward gains                          takes part in the loss   source (arXiv)
    keep           0                                     always                   CE-GPPO 2509.20712
    soft_penalty   0 up to L_max - buffer, then falls    always                   DAPO 2503.14476
                   linearly to -penalty at L_max
    mask           0                                     unless truncated         DAPO 2503.14476

A truncated completion has max_completion_tokens tokens and did not end by itself. Its answer is
usually missing, so a verifier calls it wrong. `keep` trains on that verdict, `soft_penalty` warns
before the limit, `mask` draws no conclusion.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from cegppo_jax.read_settings import check_choice


@dataclasses.dataclass(frozen=True)
class OverlongSettings:
    """Which policy, and its numbers."""

    policy: str  # a name in OVERLONG
    max_completion_tokens: int  # L_max, the sampler's limit
    buffer_tokens: int  # of soft_penalty: the last tokens before the limit, where the reward falls
    penalty: float  # of soft_penalty: what a completion of L_max tokens loses; DAPO: 1

    def __post_init__(self) -> None:
        check_choice("reward.overlong_policy", self.policy, OVERLONG)
        if not self.max_completion_tokens >= 1:
            raise ValueError(
                f"sampler.max_completion_tokens = {self.max_completion_tokens}: at least 1"
            )
        if self.policy == "soft_penalty" and not (
            1 <= self.buffer_tokens <= self.max_completion_tokens
        ):
            raise ValueError(
                f"reward.overlong_buffer_tokens = {self.buffer_tokens}: from 1 to "
                f"sampler.max_completion_tokens = {self.max_completion_tokens}"
            )
        if not self.penalty >= 0:
            raise ValueError(f"reward.overlong_penalty = {self.penalty}: at least 0")


def overlong_penalty(lengths: np.ndarray, settings: OverlongSettings) -> np.ndarray:
    """Returns what is added to the rewards of completions, [..] float64, at most 0, from their
    tokens [..].
    """
    lengths = np.asarray(lengths, np.float64)
    return OVERLONG[settings.policy].penalty(lengths, settings)


def kept(truncated: np.ndarray, settings: OverlongSettings) -> np.ndarray:
    """Returns which completions take part in the loss, [..] bool, from which were cut off at the
    limit [..].

    A completion that takes no part has weight 0 in the loss and counts in none of its denominators.
    Its reward stays a reward: groups are compared, and metrics counted, with all completions.
    """
    return OVERLONG[settings.policy].keeps(np.asarray(truncated, bool))


def no_penalty(lengths: np.ndarray, settings: OverlongSettings) -> np.ndarray:
    """Returns 0 for every length, [..] float64."""
    del settings
    return np.zeros_like(lengths)


def soft_penalty(lengths: np.ndarray, settings: OverlongSettings) -> np.ndarray:
    """Returns penalty * clip((L_max - buffer - length) / buffer, -1, 0), [..] float64: DAPO's soft
    overlong punishment (arXiv 2503.14476, section 3.4).

    Worked example, L_max = 20, buffer = 4, penalty = 1:

        length    16     17      18     19      20 (and beyond)
        penalty    0    -0.25   -0.5   -0.75   -1
    """
    free = settings.max_completion_tokens - settings.buffer_tokens
    return settings.penalty * np.clip((free - lengths) / settings.buffer_tokens, -1.0, 0.0)


def keeps_all(truncated: np.ndarray) -> np.ndarray:
    """Returns True for every completion, [..] bool."""
    return np.ones_like(truncated)


def keeps_complete(truncated: np.ndarray) -> np.ndarray:
    """Returns True for completions that were not truncated, [..] bool: DAPO's overlong filtering
    (arXiv 2503.14476, section 3.4; TRL's mask_truncated_completions).
    """
    return ~truncated


@dataclasses.dataclass(frozen=True)
class OverlongPolicy:
    """The two halves of a policy."""

    penalty: Callable[[np.ndarray, OverlongSettings], np.ndarray]  # lengths -> reward gained, <= 0
    keeps: Callable[[np.ndarray], np.ndarray]  # truncated bool -> takes part in the loss


OVERLONG: dict[str, OverlongPolicy] = {
    "keep": OverlongPolicy(no_penalty, keeps_all),
    "soft_penalty": OverlongPolicy(soft_penalty, keeps_all),
    "mask": OverlongPolicy(no_penalty, keeps_complete),
}
