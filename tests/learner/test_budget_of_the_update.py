"""The entropy budget is what the loss's own step does to the entropy of a tabular policy, under
every aggregation, with corrections, selections and wrappers.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from update_cases import DRAWS_SEED, KNOBS, SEQUENCES, full_batch_of, knobs_with

from cegppo_jax.learner.forward import at_microbatch
from cegppo_jax.losses.aggregation import AGGREGATIONS
from cegppo_jax.losses.contract import left_clipped, right_clipped
from cegppo_jax.losses.logprobs import statistics_of_logits
from cegppo_jax.losses.policy_loss import (
    LossInputs,
    OldStatistics,
    make_policy_loss,
    surrogate_inputs_of,
)
from cegppo_jax.losses.reduce import merge, whole
from cegppo_jax.losses.selection import SELECTIONS, BatchView, token_uniforms
from cegppo_jax.losses.surrogates import SURROGATES
from cegppo_jax.losses.wrappers import WRAPPERS, wrapped
from cegppo_jax.packing import PackedShape
from cegppo_jax.reporting.step_metrics import update_metrics

VOCABULARY = 32
# A sequence's ratio stays closer to 1 than its tokens'.
CLOSE = knobs_with(clip_low=0.03, clip_high=0.03)
METHODS = {
    "ce_gppo": (SURROGATES["ce_gppo"], KNOBS),
    "gspo": (SURROGATES["gspo"], CLOSE),
    "dppo_tv": (SURROGATES["dppo_tv"], KNOBS),
    "clip_cov": (SURROGATES["clip_cov"], KNOBS),
    "kl_cov": (SURROGATES["kl_cov"], KNOBS),
    "wrapped": (wrapped(SURROGATES["ce_gppo"], list(WRAPPERS)), KNOBS),
}

# Every day a method of tokens, one of sequences, and one with every wrapper around it.
NAMES = [
    name if name in ("ce_gppo", "gspo", "wrapped") else pytest.param(name, marks=pytest.mark.slow)
    for name in METHODS
]


@functools.cache
def table():
    """-> logits [U, R, C, V], a distribution of its own for every token."""
    batch = packed("token_mean")
    random = np.random.default_rng(0)
    shape = (*batch.tokens.shape, VOCABULARY)
    return random.choice([0.5, 2.0], (*shape[:-1], 1)) * random.normal(size=shape)


def packed(weights):
    return full_batch_of(SEQUENCES, PackedShape(3, 4, 32), weights)


def entropies(logits):
    """Logits [..., V] float64 -> entropies [...]."""
    shifted = logits - logits.max(-1, keepdims=True)
    logprobs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return -(np.exp(logprobs) * logprobs).sum(-1)


@functools.cache
def gradient_of(name):
    """-> jitted (logits, batch) -> (gradient of the loss, summed over micro-batches as an update
    sums it; reductions; clip regions [U, R, C]).
    """
    method, knobs = METHODS[name]
    policy_loss = make_policy_loss(method, None, "half")

    def loss(logits, batch):
        statistics = statistics_of_logits(logits, batch.tokens)
        fixed = jax.lax.stop_gradient(statistics)
        place = 7.0 * batch.draw_ids + 3.0 * batch.positions
        old = OldStatistics(
            fixed.logprobs + 0.6 * jnp.sin(place),
            fixed.entropy * (1 + 0.1 * jnp.sin(1.7 * place)),
            None,
        )
        uniform = token_uniforms(jax.random.key(DRAWS_SEED), batch.draw_ids, batch.positions)
        log_ratio, mask = fixed.logprobs - old.logprobs, batch.trained_mask
        view = BatchView(fixed.logprobs, fixed.entropy, log_ratio, batch.advantages, mask, uniform)
        selected = {name: SELECTIONS[name](view, knobs) for name in method.selections}
        total, merged, regions = 0.0, None, []
        for index in range(batch.tokens.shape[0]):
            micro = at_microbatch((statistics, batch, old, uniform, selected), index)
            value, reductions = policy_loss(LossInputs(*micro), knobs)
            total += value
            merged = reductions if merged is None else merge(merged, reductions)
            at_level = method.level(surrogate_inputs_of(LossInputs(*micro)))
            regions.append((left_clipped(at_level, knobs), right_clipped(at_level, knobs)))
        return total, (merged, jax.tree.map(lambda *x: jnp.stack(x), *regions))

    return jax.jit(jax.grad(loss, has_aux=True))


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("name", NAMES)
def test_the_budget_is_what_the_losss_own_step_does(name, aggregation):
    """A gradient step on the logits of every token, central difference in float64: the sum of the
    entropies' changes is budget/mean, and its parts by region are budget/left, right and inside.
    """
    batch = packed(aggregation)
    step, (reductions, (left, right)) = gradient_of(name)(jnp.asarray(table(), jnp.float32), batch)
    step, eta = -np.asarray(step, np.float64), 1e-3
    change = (entropies(table() + eta * step) - entropies(table() - eta * step)) / (2 * eta)
    mask = np.asarray(batch.trained_mask)
    assert not change[~mask].any()
    parts = {
        "mean": mask,
        "left": mask & left,
        "right": mask & right,
        "inside": mask & ~np.asarray(left | right),
        "pa": mask & (batch.advantages > 0),
        "na": mask & (batch.advantages < 0),
    }
    budget = {part: reductions[f"budget/{part}"].result() for part in ("mean", *list(parts)[1:4])}
    for sign in ("pa", "na"):
        budget[sign] = sum(reductions[f"budget/{sign}_{p}"].result() for p in ("hp", "lp"))
    size = np.abs(change).sum()
    for part, members in parts.items():
        assert members.any()
        assert budget[part] == pytest.approx(change[members].sum(), rel=2e-3, abs=1e-4 * size)
    # Not the plain mean over tokens, but where every token weighs the same.
    weights = np.asarray(batch.loss_weights)[mask]
    plain = (change[mask] / weights).mean()
    same = plain == pytest.approx(budget["mean"], rel=2e-3, abs=1e-4 * size)
    assert same == (aggregation == "token_mean")


def test_a_step_logs_the_mean_over_its_updates_and_predicts_their_sum():
    _, (first, _) = gradient_of("ce_gppo")(jnp.asarray(table(), jnp.float32), packed("token_mean"))
    _, (second, _) = gradient_of("ce_gppo")(
        jnp.asarray(table(), jnp.float32), packed("sequence_mean")
    )
    rate = {"update/learning_rate": whole({"x": first["budget/mean"]})["x"]}
    rate["update/learning_rate"] = rate["update/learning_rate"].replace(total=jnp.float32(0.5))
    updates = [whole(first) | rate, whole(second) | rate]
    values = update_metrics(updates, measured=0.0, old_is_start=True)
    both = [one["budget/mean"].result() for one in (first, second)]
    assert values["budget/mean"] == pytest.approx(sum(both) / 2, rel=1e-5)
    assert values["budget/predicted_change"] == pytest.approx(sum(both) / 2, rel=1e-5)
    regions = ("inside", "left", "right")
    assert sum(values[f"budget/{name}"] for name in regions) == pytest.approx(
        values["budget/mean"], rel=1e-4, abs=1e-6
    )
    left = "budget/left_tokens"
    assert values[left] == first[left].result() + second[left].result()
