"""Any method's loss, gradient weight F and entropy budget, on arrays of one's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cegppo_jax.api.samples import Batch
from cegppo_jax.losses.contract import (
    Knobs,
    Method,
    SurrogateInputs,
    SurrogateTerms,
    left_clipped,
    right_clipped,
)
from cegppo_jax.losses.entropy_budget import entropy_change
from cegppo_jax.losses.logprobs import TokenStatistics
from cegppo_jax.losses.policy_loss import (
    LossInputs,
    OldStatistics,
    make_policy_loss,
    surrogate_inputs_of,
)
from cegppo_jax.losses.selection import SELECTIONS, BatchView
from cegppo_jax.losses.sequences import Sequences
from cegppo_jax.losses.settings import method_named
from cegppo_jax.losses.wrappers import wrapped
from cegppo_jax.packing import PackedBatch, unpack


@dataclasses.dataclass(frozen=True)
class Stats:
    """What a policy says of every completion token of a batch."""

    packed: TokenStatistics  # [U, R, C] float32 each; only completion tokens mean something
    batch: PackedBatch  # [U, R, C], where each token is

    @property
    def logprobs(self) -> list[np.ndarray]:
        """ln pi of each completion's tokens: P G arrays [n], group after group."""
        return self.by_completion(self.packed.logprobs)

    @property
    def entropy(self) -> list[np.ndarray]:
        """Entropy H at each token, nats."""
        return self.by_completion(self.packed.entropy)

    @property
    def slope(self) -> list[np.ndarray]:
        """Entropy slope S = sum over the vocabulary of p^2 (ln p + H) at each token."""
        return self.by_completion(self.packed.entropy_slope)

    def by_completion(self, values: Any) -> list[np.ndarray]:
        """Packed values [U, R, C] -> one array [n] a completion."""
        ids = np.asarray(self.batch.sequence_ids)[np.asarray(self.batch.completion_mask)]
        return unpack(np.asarray(values), self.batch, int(ids.max()) + 1)


@dataclasses.dataclass(frozen=True)
class Terms:
    """What a method does with each token: arrays [U, R, C] float32 or bool."""

    value: np.ndarray  # the surrogate's forward value
    gradient: np.ndarray  # F A: what multiplies the gradient of ln pi
    weight: np.ndarray  # F; 0 where A = 0
    left: np.ndarray  # A < 0 and left of the clip interval (NA&LP)
    right: np.ndarray  # A > 0 and right of it (PA&LP)
    entropy_change: (
        np.ndarray
    )  # that F A asks for at the token, nats per unit of step on its logits
    metrics: dict[str, float]  # what a run logs of the same: clip fractions, entropy budget, ...


def method_of(name: str, wrappers: Sequence[str] = ()) -> Method:
    """Name in SURROGATES or "package.module:METHOD", and names of wrappers -> Method.

    Raises:
      ValueError: there is no method or wrapper of that name.
    """
    return wrapped(method_named(name), wrappers)


def numbers_of(method: Method, changes: dict[str, float]) -> Knobs:
    """A method's numbers: its defaults, but for the changes.

    Raises:
      ValueError: the method has no number of that name.
    """
    return method.knobs(changes)


def loss(
    method: str,
    stats: Stats,
    batch: Batch,
    *,
    old: Stats | None = None,
    wrappers: Sequence[str] = (),
    **numbers: float,
) -> tuple[float, Terms]:
    """Computes a method's loss on a batch, and what it does with each token.

    Args:
      method: a name in SURROGATES, or "package.module:METHOD".
      stats: of the policy that would be updated.
      old: of the policy before a step's first update; None: the same, so that all ratios are 1.
      wrappers: names in WRAPPERS, the first innermost.
      numbers: of the method and its wrappers: beta_low, beta_high, clip_low, ...
    """
    chosen = method_of(method, wrappers)
    knobs = numbers_of(chosen, numbers)
    inputs = _loss_inputs(chosen, stats, stats if old is None else old, batch.packed, knobs)
    value, reductions = make_policy_loss(chosen, None, "half")(inputs, knobs)
    surrogate = chosen.level(surrogate_inputs_of(inputs))
    terms = chosen.surrogate(surrogate, knobs)
    advantages = inputs.batch.advantages
    change = entropy_change(inputs.statistics, terms.gradient)
    shape = batch.packed.tokens.shape
    arrays = (
        terms.value,
        terms.gradient,
        jnp.where(advantages == 0, 0.0, terms.gradient / jnp.where(advantages, advantages, 1.0)),
        left_clipped(surrogate, knobs),
        right_clipped(surrogate, knobs),
        change,
    )
    mask = np.asarray(batch.packed.completion_mask)
    unfolded = (np.where(mask, np.asarray(one).reshape(shape), 0) for one in arrays)
    metrics = {name: one.result() for name, one in jax.device_get(reductions).items()}
    return float(value), Terms(*unfolded, metrics)


def _loss_inputs(
    method: Method, stats: Stats, old: Stats, packed: PackedBatch, knobs: Knobs
) -> LossInputs:
    """All micro-batches of a batch as one: arrays [U R, C]."""

    def rows(array: Any) -> jax.Array:
        return jnp.asarray(array).reshape(-1, packed.tokens.shape[-1])

    fields = dataclasses.fields(PackedBatch)
    folded = PackedBatch(
        **{
            field.name: rows(value) if np.ndim(value := getattr(packed, field.name)) else value
            for field in fields
        }
    )
    statistics = jax.tree.map(rows, stats.packed)
    before = OldStatistics(rows(old.packed.logprobs), rows(old.packed.entropy), None)
    uniform = jax.random.uniform(jax.random.key(0), folded.tokens.shape)
    view = BatchView(
        *(statistics.logprobs[None], statistics.entropy[None]),
        *((statistics.logprobs - before.logprobs)[None], folded.advantages[None]),
        *(folded.trained_mask[None], uniform[None]),
    )
    selected = {name: SELECTIONS[name](view, knobs)[0] for name in method.selections}
    return LossInputs(statistics, folded, before, uniform if method.draws else None, selected)


def surrogate(
    method: str,
    log_ratio: Any,
    advantages: Any,
    *,
    probability: Any = 0.3,
    entropy: Any = 1.0,
    old_entropy: Any = None,
    wrappers: Sequence[str] = (),
    selected: bool = False,
    **numbers: float,
) -> SurrogateTerms:
    """Computes a method's value and gradient F A on tokens [n] that are sequences of one token.

    Args:
      log_ratio: ln pi - ln pi_old, [n].
      advantages: [n], or one for all; so are the following.
      probability: pi_old of the tokens.
      entropy, old_entropy: of pi and pi_old there, nats; old_entropy None: as entropy.
      selected: what selections over a mini-batch (clip_cov, kl_cov, top_entropy) say of the tokens.
      numbers: of the method and its wrappers.
    """
    chosen = method_of(method, wrappers)
    log_ratio = jnp.atleast_1d(jnp.asarray(log_ratio, jnp.float32))[None]
    shape = log_ratio.shape

    def like(value: Any) -> jax.Array:
        return jnp.broadcast_to(jnp.asarray(value, jnp.float32), shape)

    inputs = SurrogateInputs(
        log_ratio=log_ratio,
        advantages=like(advantages),
        policy_logprobs=log_ratio + jnp.log(like(probability)),
        entropy=like(entropy),
        old_entropy=like(entropy if old_entropy is None else old_entropy),
        sequences=Sequences(jnp.arange(1, shape[1] + 1)[None], jnp.ones(shape, bool)),
        uniform=jnp.zeros(shape),
        selected={name: jnp.full(shape, selected) for name in chosen.selections},
    )
    terms = chosen.surrogate(chosen.level(inputs), numbers_of(chosen, numbers))
    return jax.tree.map(lambda array: np.asarray(array)[0], terms)


def gradient_weight(method: str, ratio: Any, advantage: float, **options: Any) -> np.ndarray:
    """Returns F at each ratio [n] for tokens of one advantage. Options as of `surrogate`."""
    log_ratio = np.log(np.asarray(ratio, np.float32))
    terms = surrogate(method, log_ratio, advantage, **options)
    return np.asarray(terms.gradient) / advantage
