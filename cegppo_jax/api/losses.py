"""A method's loss on a batch, and what it does with each token."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cegppo_jax.api.samples import Batch, spread
from cegppo_jax.api.surrogates import AnyMethod, method_of
from cegppo_jax.learner.forward import at_microbatch
from cegppo_jax.losses.contract import Knobs, Method, left_clipped, right_clipped
from cegppo_jax.losses.entropy_budget import first_order_change
from cegppo_jax.losses.kl import BY_PLACE
from cegppo_jax.losses.logprobs import TokenStatistics
from cegppo_jax.losses.policy_loss import (
    LossFunction,
    LossInputs,
    OldStatistics,
    make_policy_loss,
    surrogate_inputs_of,
)
from cegppo_jax.losses.selection import SELECTIONS, BatchView, token_uniforms
from cegppo_jax.losses.wrappers import wrapped
from cegppo_jax.packing import PackedBatch, unpack

SEED = 0  # of random methods' draws
BUDGET_CRITERION = "half"  # the entropy budget's criterion


@dataclasses.dataclass(frozen=True, eq=False)
class Stats:
    """What a policy says of completion tokens: lists of P G arrays [n] float32, group after group.
    Arrays of one's own will do as well.
    """

    logprobs: Sequence[np.ndarray]  # ln pi of the tokens
    entropy: Sequence[np.ndarray]  # H there, nats
    slope: Sequence[np.ndarray]  # S = sum over the vocabulary of p^2 (ln p + H)
    updates: int = 0  # that the policy had taken: draws of random methods depend on it

    def __repr__(self) -> str:
        tokens = sum(map(len, self.logprobs))
        means = [float(np.concatenate(one).mean()) for one in (self.logprobs, self.entropy)]
        return (
            f"Stats({len(self.logprobs)} completions, {tokens:,} tokens: mean log-prob "
            f"{means[0]:.3f}, mean entropy {means[1]:.3f} nats)"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Terms:
    """What a method does with each token: lists of P G arrays [n] float32 or bool, group after
    group, and the sums that a run logs.
    """

    value: list[np.ndarray]  # the surrogate's forward value
    gradient: list[np.ndarray]  # F A: what multiplies grad ln pi
    F: list[np.ndarray]  # the gradient weight; 0 where A = 0
    left: list[np.ndarray]  # bool: A < 0, left of the clip interval (NA&LP)
    right: list[np.ndarray]  # bool: A > 0, right of it (PA&LP)
    # The token's part of the entropy budget: dH of its step, loss weight included, nats per unit of
    # step on its logits. They add up to metrics["budget/mean"]
    entropy_change: list[np.ndarray]
    metrics: dict[str, float]  # as policy.update's, but for update/*

    def __repr__(self) -> str:
        weights = np.concatenate(self.F)
        left, right = (int(np.concatenate(one).sum()) for one in (self.left, self.right))
        return (
            f"Terms({weights.size:,} tokens: {left:,} left and {right:,} right of the clip "
            f"interval, F from {weights.min():.3g} to {weights.max():.3g}, entropy change "
            f"{self.metrics['budget/mean']:+.2e})"
        )


@dataclasses.dataclass(frozen=True)
class LossChoice:
    """A method inside its wrappers, and what stands beside it: what a loss is compiled for."""

    method: Method  # method_of's, so that it can be hashed
    wrappers: tuple[str, ...]
    measures_kl: bool  # to a reference

    def wrapped(self) -> Method:
        """Returns the method inside its wrappers."""
        return wrapped(self.method, self.wrappers)

    def loss(self) -> LossFunction:
        """Returns the loss of a micro-batch, as a run has it."""
        estimator = BY_PLACE["loss"] if self.measures_kl else None
        return make_policy_loss(self.wrapped(), estimator, BUDGET_CRITERION)


def choose_loss(
    method: AnyMethod,
    wrappers: Sequence[str],
    batch: Batch,
    reference: Stats | None,
    numbers: Mapping[str, float],
) -> tuple[LossChoice, Knobs]:
    """Returns what to compile, and the numbers, which compile nothing.

    Raises:
      ValueError: no such method or number, or a number that would do nothing on this batch.
    """
    choice = LossChoice(method_of(method), tuple(wrappers), reference is not None)
    knobs = choice.wrapped().knobs(numbers)
    if knobs.kl_coef and reference is None:
        raise ValueError(
            f"kl_coef = {knobs.kl_coef:g} without a reference: give reference=other.logprobs(batch)"
        )
    if knobs.positive_lm_coef and batch.lm_weights is None:
        raise ValueError(
            f"positive_lm_coef = {knobs.positive_lm_coef:g}, and the batch does not say which "
            "completions are correct: cg.batch(..., correct=rewards > 0)"
        )
    return choice, knobs


def old_statistics(
    old: Stats | None, reference: Stats | None, batch: Batch, packed: PackedBatch
) -> OldStatistics:
    """Returns the statistics of before a step's first update, where the batch has its tokens; zeros
    for an update that finds them itself.
    """
    lengths = batch.samples.lengths
    given = functools.partial(spread, packed=packed, lengths=lengths)
    nothing = np.zeros(packed.tokens.shape, np.float32)
    return OldStatistics(
        nothing if old is None else given("old statistics", old.logprobs),
        nothing if old is None else given("old statistics", old.entropy),
        None if reference is None else given("statistics of the reference", reference.logprobs),
    )


def loss(
    method: AnyMethod,
    stats: Stats,
    batch: Batch,
    *,
    old: Stats | None = None,
    reference: Stats | None = None,
    wrappers: Sequence[str] = (),
    **numbers: float,
) -> tuple[float, Terms]:
    """Computes a method's loss on a batch, and what it does with each token: what policy.update
    computes of the same.

    Args:
      method: a name in SURROGATES, "package.module:METHOD", a Method, or a function
        (SurrogateInputs, Knobs) -> SurrogateTerms.
      stats: of the policy that would be updated, on the batch's samples.
      old: of the policy before a step's first update; None: the same, so that all ratios are 1.
      reference: of the reference policy, for kl_coef and policy/kl_ref.
      wrappers: names in WRAPPERS, the first innermost.
      numbers: of the method and its wrappers: beta_low, beta_high, clip_low, ...; another value
        compiles nothing.

    Raises:
      ValueError: no such method or number, statistics of other samples, or a number that would do
        nothing on this batch.
    """
    choice, knobs = choose_loss(method, wrappers, batch, reference, numbers)
    completions = batch.samples.lengths.size
    packed = batch.pack(rows=completions)  # one micro-batch
    lengths = batch.samples.lengths
    statistics = TokenStatistics(
        *(
            jnp.asarray(spread("stats", values, packed, lengths))
            for values in (stats.logprobs, stats.entropy, stats.slope)
        )
    )
    before = old_statistics(stats if old is None else old, reference, batch, packed)
    key = jax.random.fold_in(jax.random.key(SEED), stats.updates)
    arrays = at_microbatch((statistics, before, packed), 0)
    value, reductions, tokens = jax.device_get(_compiled(choice)(*arrays, key, knobs))
    metrics = {name: reduction.result() for name, reduction in reductions.items()}
    lists = {name: unpack(array, packed, completions) for name, array in tokens.items()}
    return float(value), Terms(**lists, metrics=metrics)


@functools.lru_cache(maxsize=32)
def _compiled(choice: LossChoice) -> Callable[..., Any]:
    """Returns the jitted function behind `loss`, of arrays [R, C]."""
    method, policy_loss = choice.wrapped(), choice.loss()

    def compute(
        statistics: TokenStatistics,
        old: OldStatistics,
        batch: PackedBatch,
        key: jax.Array,
        knobs: Knobs,
    ) -> Any:
        uniform, selected = None, {}
        if method.draws or method.selections:
            uniform = token_uniforms(key, batch.draw_ids, batch.positions)
            view = BatchView(
                statistics.logprobs,
                statistics.entropy,
                statistics.logprobs - old.logprobs,
                batch.advantages,
                batch.trained_mask,
                uniform,
            )
            selected = {name: SELECTIONS[name](view, knobs) for name in method.selections}
        inputs = LossInputs(statistics, batch, old, uniform, selected)
        value, reductions = policy_loss(inputs, knobs)
        at_level = method.level(surrogate_inputs_of(inputs))
        terms = method.surrogate(at_level, knobs)
        advantages = at_level.advantages
        step = batch.loss_weights * batch.corrections * terms.gradient
        return (
            value,
            reductions,
            {
                "value": terms.value,
                "gradient": terms.gradient,
                "F": jnp.where(
                    advantages == 0, 0.0, terms.gradient / jnp.where(advantages, advantages, 1.0)
                ),
                "left": left_clipped(at_level, knobs),
                "right": right_clipped(at_level, knobs),
                "entropy_change": first_order_change(statistics, step),
            },
        )

    return jax.jit(compute)
