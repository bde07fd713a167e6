"""Rewards [P, G] -> advantages [P, G]: one number a completion, the same for all its tokens.

    estimator                 A of a completion with reward R               source (arXiv)
    group_normalised          (R - group mean) / (group std + epsilon)      GRPO 2402.03300
    group_mean                R - group mean                                Dr.GRPO 2503.20783
    leave_one_out             R - mean of the group's others                RLOO 2402.14740
    batch_whitened            (R - batch mean) / (batch std + epsilon)      REINFORCE++ 2501.03262
    batch_whitened_baseline   (R - group mean) / (its batch std + epsilon)  the same, "w/ baseline"
    pass_at_k                 what the completion adds to the best of k     Pass@k 2508.10751
    max_rl                    (R - group mean) / (group mean + epsilon)     MaxRL 2602.02710

A batch is all completions of a rollout step. Every estimator but batch_whitened gives a group whose
rewards are all equal advantage exactly 0: it says nothing about which completion was better.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from cegppo_jax.import_path import named_function
from cegppo_jax.read_settings import check_at_least

# Methods that people name instead of their estimators.
OTHER_NAMES = {
    "grpo": "GRPO's is 'group_normalised'.",
    "dapo": "DAPO's is 'group_normalised'.",
    "dr_grpo": "Dr. GRPO's is 'group_mean'.",
    "rloo": "RLOO's is 'leave_one_out'.",
    "reinforce_plus_plus": "REINFORCE++'s is 'batch_whitened', with a baseline "
    "'batch_whitened_baseline'.",
}


@dataclasses.dataclass(frozen=True)
class AdvantageSettings:
    """Which estimator, and its numbers."""

    estimator: str  # a name in ADVANTAGES, or "package.module:function"
    std_ddof: int  # 0: population standard deviation; 1: the official code's unbiased one
    std_epsilon: float  # added to the standard deviation
    pass_k: int  # k of "pass_at_k", at most G; no other estimator reads it

    def __post_init__(self) -> None:
        estimator_named(self.estimator)
        if self.std_ddof not in (0, 1):
            raise ValueError(f"advantage.std_ddof = {self.std_ddof}: must be 0 or 1")
        check_at_least(0, "advantage", self, "std_epsilon")
        check_at_least(1, "advantage", self, "pass_k")


def estimator_named(name: str) -> Estimator:
    """Returns the estimator of a name in ADVANTAGES, or a user's from "package.module:function": a
    function (rewards [P, G] float64, AdvantageSettings) -> advantages [P, G].

    Raises:
      ValueError: there is none, or it takes other arguments.
    """
    return named_function("advantage.estimator", name, ADVANTAGES, "rewards, settings", OTHER_NAMES)


def compute_advantages(rewards: np.ndarray, settings: AdvantageSettings) -> np.ndarray:
    """Returns the advantages [P, G] float32 of one rollout step's rewards [P, G], by
    settings.estimator.

    Raises:
      ValueError: the rewards are not [P, G] with G >= 2, pass_at_k's k exceeds G, or a reward is
        negative for max_rl; a user's estimator gave another shape, or what is not finite.
    """
    rewards = np.asarray(rewards, dtype=np.float64)
    if rewards.ndim != 2 or rewards.shape[1] < 2:
        raise ValueError(
            f"rewards of shape {rewards.shape} are not [P, G] with groups of 2 or more: a "
            "completion is compared with the others of its prompt"
        )
    advantages = np.asarray(estimator_named(settings.estimator)(rewards, settings), np.float32)
    if advantages.shape != rewards.shape or not np.isfinite(advantages).all():
        raise ValueError(
            f"advantage.estimator = {settings.estimator!r} gave advantages of shape "
            f"{advantages.shape}, {(~np.isfinite(advantages)).sum()} of them not finite, for "
            f"rewards of shape {rewards.shape}: one finite number a completion"
        )
    return advantages


def group_normalised(rewards: np.ndarray, settings: AdvantageSettings) -> np.ndarray:
    """Returns (R - group mean) / (group std + epsilon), [P, G]: GRPO (arXiv 2402.03300) and, with
    std_ddof = 1, CE-GPPO's official code.
    """
    std = rewards.std(axis=1, ddof=settings.std_ddof, keepdims=True)
    return _scaled(_centred(rewards, axis=1), std, settings)


def group_mean(rewards: np.ndarray, settings: AdvantageSettings) -> np.ndarray:
    """Returns R - group mean, [P, G]: Dr.GRPO (arXiv 2503.20783). It leaves out the division
    because that gives prompts which are almost always or almost never solved a larger weight.
    """
    del settings
    return _centred(rewards, axis=1)


def leave_one_out(rewards: np.ndarray, settings: AdvantageSettings) -> np.ndarray:
    """Returns R - mean of the other G - 1 rewards = G / (G - 1) (R - group mean), [P, G]: RLOO
    (arXiv 2402.14740). The baseline does not contain R itself, so the policy gradient is unbiased.
    """
    del settings
    samples = rewards.shape[1]
    return samples / (samples - 1) * _centred(rewards, axis=1)


def batch_whitened(rewards: np.ndarray, settings: AdvantageSettings) -> np.ndarray:
    """Returns (R - batch mean) / (batch std + epsilon), [P, G]: REINFORCE++ (arXiv 2501.03262),
    with a batch of completions and no KL in the reward.

    Groups play no part: a prompt that is always solved keeps a positive advantage. verl and
    OpenRLHF take mean and deviation over tokens, which counts a completion once per token; here, as
    in ms-swift, each completion counts once, so its length changes no other completion's advantage.
    """
    std = rewards.std(ddof=settings.std_ddof)
    return _scaled(_centred(rewards, axis=None), std, settings)


def batch_whitened_baseline(rewards: np.ndarray, settings: AdvantageSettings) -> np.ndarray:
    """Returns C / (std of C over the batch + epsilon) with C = R - group mean, [P, G]: REINFORCE++
    with baseline (arXiv 2501.03262).

    The deviation is that of the centred rewards (verl's reinforce_plus_plus_baseline, ms-swift's
    REINFORCEPP page). All groups share one scale, so a rare success does not weigh more because its
    group has a small deviation. Completions count once, as in batch_whitened.
    """
    centred = _centred(rewards, axis=1)
    return _scaled(centred, centred.std(ddof=settings.std_ddof), settings)


def pass_at_k_advantages(rewards: np.ndarray, settings: AdvantageSettings) -> np.ndarray:
    """Returns (E[best of S | S contains the completion] - E[best of S]) / (std of best of S +
    epsilon), [P, G], with S uniform over the group's sets of k: Pass@k training (arXiv 2508.10751,
    section 2.4).

    With two reward values, right 1 and wrong 0, and w of the G completions wrong, this is the
    paper's closed form, with mean m = 1 - C(w, k) / C(G, k) and deviation s = sqrt(m (1 - m)):

        right  (1 - m) / (s + epsilon)
        wrong  (1 - m - C(w - 1, k - 1) / C(G - 1, k - 1)) / (s + epsilon)

    Any other rewards (a penalty added to some) are covered by the best of k of PKPO (arXiv
    2505.15201): the probability that a completion of some rank is the best of S is a ratio of
    binomial coefficients. std_ddof plays no part: the deviation is over all sets, not a sample of
    them. k = 1 is group_normalised with std_ddof = 0.
    """
    samples, k = rewards.shape[1], settings.pass_k
    if k > samples:
        raise ValueError(
            f"advantage.pass_k = {k} exceeds the {samples} samples of a group: lower it, or raise "
            "batch.samples_per_prompt"
        )
    order = np.argsort(rewards, axis=1, kind="stable")
    ascending = np.take_along_axis(rewards, order, axis=1)
    any_set, own_sets = _best_rank_probabilities(samples, k)
    mean = (ascending @ any_set)[:, None]
    std = np.sqrt((ascending - mean) ** 2 @ any_set)[:, None]
    # The worst set is the k lowest: when its best is the group's best, all sets are equally good.
    uniform = ascending[:, k - 1 : k] == ascending[:, -1:]
    by_rank = np.where(uniform, 0.0, ascending @ own_sets.T - mean)
    advantages = np.empty_like(rewards)
    np.put_along_axis(advantages, order, _scaled(by_rank, std, settings), axis=1)
    return advantages


def max_rl(rewards: np.ndarray, settings: AdvantageSettings) -> np.ndarray:
    """Returns (R - m) / (m + epsilon), [P, G], for rewards of at least 0, where m is the group's
    mean: maximum-likelihood RL (MaxRL, arXiv 2602.02710). Rare successes weigh most: if 2 of 8 are
    right, they get 3 and the wrong ones -1.

    Raises:
      ValueError: a reward is negative, so that m is not a success rate.
    """
    if rewards.min() < 0:
        raise ValueError(
            f"advantage.estimator = 'max_rl' divides by the mean reward, but found "
            f"{rewards.min():g}: rewards must be at least 0 (reward.outcomes.wrong = unparsed = "
            "timed_out = crashed = 0, no penalty on length or KL)"
        )
    return _scaled(_centred(rewards, axis=1), rewards.mean(axis=1, keepdims=True), settings)


def _best_rank_probabilities(samples: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the probability that rank j (0: lowest reward) is the best of a set of k: [G] for any
    set, and [G, G] for the sets that contain rank i.

    Rank j is the best of C(j, k - 1) sets. Those that contain a given i < j are all of them minus
    those without it.
    """
    best = [math.comb(j, k - 1) for j in range(samples)]
    any_set = np.array(best, np.float64) / math.comb(samples, k)
    own_sets = np.diag(np.array(best, np.float64))
    for j in range(1, samples):
        own_sets[:j, j] = best[j] - best[j - 1]
    return any_set, own_sets / math.comb(samples - 1, k - 1)


def _centred(values: np.ndarray, axis: int | None) -> np.ndarray:
    """Returns values - their mean along the axis. Exactly 0 where all are equal, which rounding of
    the mean would miss: seven times 0.1 has a mean that is not 0.1.
    """
    uniform = np.ptp(values, axis=axis, keepdims=True) == 0
    return np.where(uniform, 0.0, values - values.mean(axis=axis, keepdims=True))


def _scaled(centred: np.ndarray, std: np.ndarray, settings: AdvantageSettings) -> np.ndarray:
    """Returns centred / (std + epsilon). If both are 0, centred is 0 and stays 0."""
    divisor = np.asarray(std + settings.std_epsilon)
    return centred / np.where(divisor == 0, 1.0, divisor)


# Rewards [P, G] float64 -> advantages [P, G] float64
Estimator = Callable[[np.ndarray, AdvantageSettings], np.ndarray]

ADVANTAGES: dict[str, Estimator] = {
    "group_normalised": group_normalised,
    "group_mean": group_mean,
    "leave_one_out": leave_one_out,
    "batch_whitened": batch_whitened,
    "batch_whitened_baseline": batch_whitened_baseline,
    "pass_at_k": pass_at_k_advantages,
    "max_rl": max_rl,
}
