"""Weights tokens by the log-ratio of trainer to sampler.

Sampler and trainer compute the same policy with different programs (and precisions). Completions
are therefore drawn from pi_sampler, while the surrogate treats them as draws from pi_old, the
trainer's own probabilities before the update. For each completion token

    rho = pi_old(token) / pi_sampler(token)         log_rho = old_logprobs - sampler_logprobs

    correction            weight of a token                              source
    none                  1
    token_truncate        min(rho, cap)                                  TIS
    token_mask            rho if low <= rho <= high, else 0              IcePop (arXiv 2510.18855)
    sequence_truncate     min(product of rho, cap)                       sequence TIS
    sequence_mask         product of rho if it is <= cap, else 0         MIS
    geometric_rejection   1 if low <= geometric mean of rho <= high,     verl's geo_rs
                          else 0

Products and means are over the completion's tokens, and all its tokens get the same weight.

A weight is a constant: it multiplies the token's surrogate, both objective and gradient, and
carries no gradient itself. It does not change the loss's denominators: a token of weight 0 still
counts as a token and a sequence of zeros as a sequence, as in TRL. (verl and slime also remove
rejected tokens from the denominators, which scales up the loss of the others.)

Sources: verl, docs/algo/rollout_corr_math.md, sections 3.3 and 3.4, and its presets token_is,
seq_is, seq_mis, geo_rs; TRL, GRPOConfig.vllm_importance_sampling_mode; the decoupled objective,
arXiv 2110.00641.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from cegppo_jax.import_path import named_function, tried
from cegppo_jax.read_settings import UNLIMITED

# Importance weights saturate at exp(-20) and exp(20) = 4.9e8, verl's bounds: beyond them a weight
# is no estimate of anything. Below, it stays above 0, so that 0 always means masked. Bounds (cap,
# low, high) are compared with the log-ratio itself, before it saturates.
MAX_LOG_WEIGHT = 20.0


@dataclasses.dataclass(frozen=True)
class MismatchSettings:
    """Which correction, and its numbers."""

    correction: str  # a name in CORRECTIONS, or "package.module:function"
    # Of token_truncate and sequence_*: verl 2, TRL 3; inf: never
    cap: float = dataclasses.field(metadata=UNLIMITED)
    low: float  # of token_mask (IcePop 0.5) and geometric_rejection (verl 0.999); 0: never
    # Of token_mask (IcePop 5) and geometric_rejection (verl 1.001); inf: never
    high: float = dataclasses.field(metadata=UNLIMITED)

    def __post_init__(self) -> None:
        correction_named(self.correction)
        if not self.cap >= 1:
            raise ValueError(
                f"mismatch.cap = {self.cap}: at least 1, the ratio of a sampler that agrees"
            )
        if not 0 <= self.low <= 1 <= self.high:
            raise ValueError(
                f"mismatch.low = {self.low}, mismatch.high = {self.high}: 0 <= low <= 1 <= high, "
                "since 1 is the ratio of a sampler that agrees"
            )
        agreeing = [np.zeros(1), np.zeros(2)]
        tried("mismatch.correction", self.correction, lambda: correction_weights(agreeing, self))


def correction_named(name: str) -> Correction:
    """Returns the correction of a name in CORRECTIONS, or a user's from "package.module:function":
    a function (log_rho, MismatchSettings) -> weights, both lists of one array [n] a completion.

    Raises:
      ValueError: there is none, or it takes other arguments.
    """
    return named_function("mismatch.correction", name, CORRECTIONS, "log_rho, settings")


def correction_weights(
    log_rho: Sequence[np.ndarray], settings: MismatchSettings
) -> list[np.ndarray]:
    """Returns the weights of the tokens, one array [n] float32 a completion, from log_rho, one
    array [n] a completion. Weights are finite for every log_rho.

    Raises:
      ValueError: a completion without tokens, a log_rho that is not finite, or a user's correction
        whose weights are not finite or do not fit the completions.
    """
    checked = _checked(log_rho)
    corrected = correction_named(settings.correction)(checked, settings)
    weights = [np.asarray(one, np.float32) for one in corrected]
    if [one.shape for one in weights] != [one.shape for one in checked]:
        raise ValueError(
            f"mismatch.correction = {settings.correction!r} gave {len(weights)} arrays that do not "
            f"fit {len(checked)} completions token by token"
        )
    if not all(np.isfinite(one).all() for one in weights):
        raise ValueError(
            f"mismatch.correction = {settings.correction!r} gave weights that are not finite"
        )
    return weights


def mismatch_metrics(
    log_rho: Sequence[np.ndarray], weights: Sequence[np.ndarray]
) -> dict[str, float]:
    """Returns metrics over all tokens, from log_rho and the weights of correction_weights, one
    array [n] a completion each.

    sampler_kl is K3 (verl's section 4.1), the mean of rho - 1 - log rho: an unbiased estimate of
    KL(pi_sampler || pi_old) in which no token's term is negative. Quantiles are exact, over all
    tokens: if 0.1 % of half a million tokens disagree, the mean looks healthy and the quantile does
    not.

    Raises:
      ValueError: as correction_weights, or the weights do not fit log_rho.
    """
    checked = _checked(log_rho)
    if [len(one) for one in checked] != [len(one) for one in weights]:
        raise ValueError(
            f"{len(weights)} arrays of weights do not fit {len(checked)} completions token by token"
        )
    logs, weight = np.concatenate(checked), np.concatenate(weights)
    rho = np.exp(logs)
    low, median, high = np.quantile(rho, (0.001, 0.5, 0.999))
    return {
        "policy/sampler_gap_mean": float(np.abs(logs).mean()),
        "policy/sampler_gap_max": float(np.abs(logs).max()),
        "policy/sampler_kl": float((np.expm1(logs) - logs).mean()),
        "policy/sampler_ratio_q001": float(low),
        "policy/sampler_ratio_q50": float(median),
        "policy/sampler_ratio_q999": float(high),
        "policy/correction_mean": float(weight.mean(dtype=np.float64)),
        "policy/correction_zero_fraction": float((weight == 0).mean()),
    }


def no_correction(log_rho: Sequence[np.ndarray], settings: MismatchSettings) -> list[np.ndarray]:
    """Returns weight 1 for every token, one array [n] a completion: completions count as drawn
    from pi_old.
    """
    del settings
    return [np.ones_like(one) for one in log_rho]


def token_truncate(log_rho: Sequence[np.ndarray], settings: MismatchSettings) -> list[np.ndarray]:
    """Returns min(rho, cap) of each token, one array [n] a completion: truncated importance
    sampling, TIS (verl's token_is; TRL's token_truncate). Biased by the cap and by ignoring the
    tokens before; low in variance.
    """
    return [np.minimum(_saturated(one), settings.cap) for one in log_rho]


def token_mask(log_rho: Sequence[np.ndarray], settings: MismatchSettings) -> list[np.ndarray]:
    """Returns rho where low <= rho <= high, else 0, one array [n] a completion: IcePop (Ring-1T,
    arXiv 2510.18855). Tokens on which the two programs disagree badly in either direction do not
    train.
    """
    return [_saturated(one) * _within(one, settings.low, settings.high) for one in log_rho]


def sequence_truncate(
    log_rho: Sequence[np.ndarray], settings: MismatchSettings
) -> list[np.ndarray]:
    """Returns min(product of rho over the completion, cap) for all its tokens, one array [n] a
    completion: verl's seq_is, TRL's sequence_truncate. The product is the ratio of the whole
    completion's probabilities: without the cap the expectation is exact, and its variance grows
    exponentially with length.
    """
    totals = [one.sum() for one in log_rho]
    return _broadcast([np.minimum(_saturated(total), settings.cap) for total in totals], log_rho)


def sequence_mask(log_rho: Sequence[np.ndarray], settings: MismatchSettings) -> list[np.ndarray]:
    """Returns the product of rho over the completion where it is at most cap, else 0, one array
    [n] a completion: masked importance sampling, MIS (TRL's sequence_mask; verl's seq_mis, whose
    lower bound is also 0, while its seq_is_rs rejects below 1 / cap).
    """
    totals = [one.sum() for one in log_rho]
    accepted = [_saturated(total) * _within(total, 0.0, settings.cap) for total in totals]
    return _broadcast(accepted, log_rho)


def geometric_rejection(
    log_rho: Sequence[np.ndarray], settings: MismatchSettings
) -> list[np.ndarray]:
    """Returns 1 where low <= exp(mean of log rho over the completion) <= high, else 0, one array
    [n] a completion: verl's geo_rs. It rejects and does not reweight. The mean makes it
    independent of length, so bounds are as tight as [0.999, 1.001].
    """
    accepted = [_within(one.mean(), settings.low, settings.high) * 1.0 for one in log_rho]
    return _broadcast(accepted, log_rho)


def _saturated(log_weight: np.ndarray) -> np.ndarray:
    """Returns exp, with the exponent held within +-MAX_LOG_WEIGHT."""
    return np.exp(np.clip(log_weight, -MAX_LOG_WEIGHT, MAX_LOG_WEIGHT))


def _within(log_ratio: np.ndarray, low: float, high: float) -> np.ndarray:
    """Returns low <= exp(log_ratio) <= high, computed without exp, which would overflow."""
    log_low = math.log(low) if low > 0 else -math.inf
    return (log_low <= log_ratio) & (log_ratio <= math.log(high))


def _broadcast(weights: Sequence[np.ndarray], log_rho: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Repeats each completion's weight for all its tokens."""
    return [np.full(len(one), w) for one, w in zip(log_rho, weights, strict=True)]


def _checked(log_rho: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns float64 arrays. Raises ValueError if there is no completion, one without tokens, or a
    value that is not finite.
    """
    checked = [np.asarray(one, np.float64) for one in log_rho]
    if not checked:
        raise ValueError("0 completions have no mismatch: at least 1")
    for index, one in enumerate(checked):
        if one.ndim != 1 or not len(one):
            raise ValueError(f"log_rho of completion {index} has shape {one.shape}: [n], n >= 1")
        if not np.isfinite(one).all():
            raise ValueError(
                f"log_rho of completion {index} has {(~np.isfinite(one)).sum()} of {len(one)} "
                "values that are not finite: sampler or trainer gave a token no probability"
            )
    return checked


# log_rho, one float64 array a completion -> weights, one float64 array a completion
Correction = Callable[[Sequence[np.ndarray], MismatchSettings], list[np.ndarray]]

CORRECTIONS: dict[str, Correction] = {
    "none": no_correction,
    "token_truncate": token_truncate,
    "token_mask": token_mask,
    "sequence_truncate": sequence_truncate,
    "sequence_mask": sequence_mask,
    "geometric_rejection": geometric_rejection,
}
