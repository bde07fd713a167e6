"""What verifies completions, and what each finding is worth: the section config.reward."""

from __future__ import annotations

import dataclasses

from cegppo_jax.records import check_choice
from cegppo_jax.rewards.scoring import RewardValues
from cegppo_jax.rewards.verifiers import VERIFIERS


@dataclasses.dataclass(frozen=True)
class RewardSettings:
    """The verifier and what each of its outcomes is worth."""

    verifier: str
    outcomes: RewardValues
    overlong_policy: str  # a name in OVERLONG
    overlong_buffer_tokens: int
    overlong_penalty: float

    def __post_init__(self) -> None:
        check_choice("reward.verifier", self.verifier, VERIFIERS)
