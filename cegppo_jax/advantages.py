"""Rewards [P, G] -> advantages [P, G]."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class AdvantageSettings:
    """Group-relative advantage (GRPO, arXiv 2402.03300)."""

    std_ddof: int  # 0: population standard deviation; 1: the official code's unbiased one
    std_epsilon: float  # added to the standard deviation

    def __post_init__(self) -> None:
        if self.std_ddof not in (0, 1):
            raise ValueError(f"advantage.std_ddof = {self.std_ddof}: it is 0 or 1")
        if not self.std_epsilon >= 0:
            raise ValueError(f"advantage.std_epsilon = {self.std_epsilon}: at least 0")


def group_advantages(rewards: np.ndarray, settings: AdvantageSettings) -> np.ndarray:
    """Rewards [P, G] -> (reward - group mean) / (group standard deviation + epsilon), float32.

    A group whose rewards are all equal has advantage exactly 0: it says nothing about which
    completion was better.
    """
    rewards = np.asarray(rewards, dtype=np.float64)
    centred = rewards - rewards.mean(axis=1, keepdims=True)
    std = rewards.std(axis=1, ddof=settings.std_ddof, keepdims=True)
    uniform = np.ptp(rewards, axis=1, keepdims=True) == 0
    scale = np.where(uniform, 1.0, std + settings.std_epsilon)
    return np.where(uniform, 0.0, centred / scale).astype(np.float32)
