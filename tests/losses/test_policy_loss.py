"""The loss of a micro-batch: its terms, their gradients, what masks keep out, what is counted."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import GRIDS, PAPERS, inputs_of, knobs_of, tokens_of

from cegppo_jax.losses.contract import Method, policy_surrogate
from cegppo_jax.losses.logprobs import TokenStatistics
from cegppo_jax.losses.policy_loss import LossInputs, OldStatistics, make_policy_loss
from cegppo_jax.losses.reduce import Mean
from cegppo_jax.losses.surrogates import SURROGATES
from cegppo_jax.losses.wrappers import WRAPPERS, wrapped
from cegppo_jax.packing import PackedBatch
from cegppo_jax.reporting.metric_names import METRICS
from cegppo_jax.reporting.metrics import MetricsWriter, open_log, read_metrics, update_lines
from cegppo_jax.reporting.step_metrics import update_metrics, values_of

PACKED = GRIDS["packed"]
KL = {
    "k1": lambda x: (x, np.ones_like(x)),
    "k2": lambda x: (x**2 / 2, x),
    "k3": lambda x: (np.exp(-x) - 1 + x, 1 - np.exp(-x)),
}


def loss_inputs(tokens, seed=0, ref_logprobs=None):
    """Tokens -> LossInputs with random weights and corrections on completion tokens."""
    random = np.random.default_rng(seed)
    single = {
        name: jnp.asarray(values, jnp.float32)
        for name, values in tokens._asdict().items()
        if isinstance(values, np.ndarray) and values.dtype == np.float64
    }
    mask = tokens.completion_mask
    loss_weights, lm_weights, corrections = (
        jnp.asarray(np.where(mask, random.uniform(0.5, 1.5, mask.shape), 0), jnp.float32)
        for _ in range(3)
    )
    batch = PackedBatch(
        tokens=np.zeros(mask.shape, np.int32),
        segment_ids=jnp.asarray(tokens.segment_ids),
        prompt_segments=jnp.asarray(tokens.segment_ids),
        predictors=np.zeros(mask.shape, np.int32),
        positions=np.zeros(mask.shape, np.int32),
        completion_mask=jnp.asarray(mask),
        sequence_ids=np.zeros(mask.shape, np.int32),
        advantages=single["advantages"],
        loss_weights=loss_weights,
        lm_weights=lm_weights,
        corrections=corrections,
        draw_ids=np.zeros(mask.shape, np.int32),
        num_microbatches=np.int32(1),
    )
    slope = jnp.asarray(random.normal(0, 0.1, mask.shape), jnp.float32)
    return LossInputs(
        TokenStatistics(single["policy_logprobs"], single["entropy"], slope),
        batch,
        OldStatistics(single["old_logprobs"], single["old_entropy"], ref_logprobs),
        single["uniform"],
        {name: jnp.asarray(chosen) for name, chosen in tokens.selected.items()},
    )


def near(seed=0):
    """Sequences of the packed grid, all of small log ratios."""
    log_ratio = np.random.default_rng(seed).normal(0, 0.3, PACKED.advantages.shape)
    return tokens_of(
        log_ratio,
        PACKED.advantages,
        segment_ids=PACKED.segment_ids,
        completion_mask=PACKED.completion_mask,
        likelier=-1.1,
    )


def differentiated(policy_loss, inputs, knobs):
    """-> loss, its gradients with respect to log-probs and entropy, reductions."""

    def total(logprobs, entropy):
        statistics = inputs.statistics.replace(logprobs=logprobs, entropy=entropy)
        return policy_loss(inputs.replace(statistics=statistics), knobs_of(knobs))

    statistics = inputs.statistics
    (loss, reductions), gradients = jax.value_and_grad(total, (0, 1), has_aux=True)(
        statistics.logprobs, statistics.entropy
    )
    return float(loss), *(np.asarray(gradient) for gradient in gradients), reductions


@pytest.mark.parametrize("estimator", KL)
@pytest.mark.parametrize("name", ["ce_gppo", "cispo", "ce_gspo"])
def test_the_terms_and_their_gradients(name, estimator):
    """sum w (-c value + kl_coef KL - entropy_coef H) - lm_coef sum lm_w ln pi."""
    tokens = near()
    random = np.random.default_rng(1)
    reference = jnp.asarray(tokens.policy_logprobs + random.normal(0, 0.5, PACKED.entropy.shape))
    inputs = loss_inputs(tokens, ref_logprobs=reference.astype(jnp.float32))
    knobs = PAPERS | dict(kl_coef=0.3, entropy_coef=0.7, positive_lm_coef=0.2)
    method = SURROGATES[name]
    loss, by_logprob, by_entropy, reductions = differentiated(
        make_policy_loss(method, estimator, "half"), inputs, knobs
    )
    batch, mask = inputs.batch, tokens.completion_mask
    value, terms = policy_surrogate(
        method, inputs.statistics.logprobs, inputs_of(tokens), knobs_of(PAPERS)
    )
    value, gradient = np.asarray(value), np.asarray(terms.gradient)
    kl, kl_slope = KL[estimator](tokens.policy_logprobs - np.asarray(reference, np.float64))
    weights, corrections, lm_weights = (
        np.asarray(x, np.float64) for x in (batch.loss_weights, batch.corrections, batch.lm_weights)
    )
    per_token = weights * (-corrections * value + 0.3 * kl - 0.7 * tokens.entropy)
    per_token -= 0.2 * lm_weights * tokens.policy_logprobs
    assert loss == pytest.approx(per_token[mask].sum(), rel=1e-5)
    slope = weights * (-corrections * gradient + 0.3 * kl_slope) - 0.2 * lm_weights
    np.testing.assert_allclose(by_logprob, np.where(mask, slope, 0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(by_entropy, np.where(mask, -0.7 * weights, 0), rtol=1e-6)
    assert reductions["policy/kl_ref"].result() == pytest.approx(kl[mask].mean(), rel=1e-4)


def test_no_kl_without_an_estimator():
    inputs = loss_inputs(near())
    plain, coef = (
        differentiated(make_policy_loss(SURROGATES["ce_gppo"], None, "half"), inputs, knobs)
        for knobs in (PAPERS, PAPERS | dict(kl_coef=3.0))
    )
    assert plain[0] == coef[0]
    assert "policy/kl_ref" not in plain[-1]


@pytest.mark.parametrize("garbage", [-1e4, 0.0, 80.0])
@pytest.mark.parametrize("name", ["ce_gppo", "ce_gspo", "gmpo", "kl_cov", "dppo_kl"])
def test_what_is_not_a_completion_does_not_matter(name, garbage):
    """Loss, gradient and every reduction, whatever prompts and padding hold."""
    tokens = near()
    method = wrapped(SURROGATES[name], tuple(WRAPPERS))
    policy_loss = make_policy_loss(method, "k3", "half")
    clean = loss_inputs(tokens, ref_logprobs=jnp.asarray(tokens.old_logprobs, jnp.float32))

    def spoil(filling):
        return lambda array: jnp.where(clean.batch.completion_mask, array, filling)

    spoiled = clean.replace(
        statistics=jax.tree.map(spoil(garbage), clean.statistics),
        old=jax.tree.map(spoil(garbage / 2), clean.old),
    )
    results = [
        differentiated(policy_loss, inputs, PAPERS | dict(kl_coef=0.1))
        for inputs in (clean, spoiled)
    ]
    for expected, actual in zip(
        jax.tree.leaves(results[0]), jax.tree.leaves(results[1]), strict=True
    ):
        np.testing.assert_array_equal(actual, expected)


def test_clip_counts_are_of_the_methods_level():
    """Tokens left of and inside the interval with a mean left of it: one clipped, or all three."""
    tokens = tokens_of(
        [[-1.5, -0.1, 0.1, 0.5]], [[-1.0, -1.0, -1.0, 1.0]], segment_ids=[[1, 1, 1, 2]]
    )
    counts = {}
    for name in ("ce_gppo", "ce_gspo", "gspo_token", "reinforce"):
        policy_loss = make_policy_loss(SURROGATES[name], None, "half")
        reductions = differentiated(policy_loss, loss_inputs(tokens), PAPERS)[-1]
        counts[name] = tuple(
            reductions[f"policy/clip_count_{side}"].result() for side in ("low", "high")
        )
        assert reductions["budget/left_tokens"].result() == counts[name][0]
        assert reductions["budget/right_tokens"].result() == counts[name][1]
        assert reductions["policy/clip_fraction_low"].result() == counts[name][0] / 4
    assert counts == {
        "ce_gppo": (1, 1),
        "ce_gspo": (3, 1),
        "gspo_token": (3, 1),
        "reinforce": (1, 1),
    }


def test_events_are_counted_on_completion_tokens():
    tokens = near()
    method = wrapped(SURROGATES["kl_cov"], ("top_entropy",))
    policy_loss = make_policy_loss(method, None, "half")
    reductions = differentiated(policy_loss, loss_inputs(tokens), PAPERS)[-1]
    mask, chosen = tokens.completion_mask, tokens.selected
    assert reductions["policy/covariance_count"].result() == (
        (mask & chosen["high_covariance"]).sum()
    )
    assert reductions["policy/low_entropy_count"].result() == (
        (mask & ~chosen["top_entropy"]).sum()
    )


def test_what_a_method_of_ones_own_counts_and_measures_is_written(tmp_path):
    """Through wrappers, merging and the step's metrics, into the files that a run writes."""

    def far(inputs, knobs):
        terms = SURROGATES["ce_gppo"].surrogate(inputs, knobs)
        margin = jnp.abs(inputs.log_ratio)
        return terms.replace(events={"far": margin > 0.1}, measured={"margin": margin})

    method = wrapped(Method(far), tuple(WRAPPERS))
    tokens = near()
    policy_loss = make_policy_loss(method, None, "half")
    reductions = differentiated(policy_loss, loss_inputs(tokens), PAPERS)[-1]
    reductions["update/learning_rate"] = Mean(jnp.ones(()), jnp.ones(()))
    with MetricsWriter(tmp_path, None, ("tensorboard",)) as writer:
        writer.write("rl", 1, update_metrics([reductions, reductions], None, old_is_start=True))
    with open_log(tmp_path / "updates.jsonl", None) as log:
        log.append(update_lines(1, [values_of(reductions)]))
    [line], mask = read_metrics(tmp_path), tokens.completion_mask
    margin = np.abs(tokens.policy_logprobs - tokens.old_logprobs)[mask]
    assert 0 < (margin > 0.1).sum() < mask.sum()
    assert line["policy/far_count"] == 2 * (margin > 0.1).sum()
    assert line["user/margin"] == pytest.approx(margin.mean(), rel=1e-5)
    update = json.loads((tmp_path / "updates.jsonl").read_text())
    assert update["policy/far_count"] == (margin > 0.1).sum()


@pytest.mark.parametrize("name", SURROGATES)
def test_events_of_the_methods_here_have_a_row_in_the_table(name):
    """Only users' own may do without."""
    tokens = near()
    method = wrapped(SURROGATES[name], tuple(WRAPPERS))
    policy_loss = make_policy_loss(method, "k3", "half")
    inputs = loss_inputs(tokens, ref_logprobs=jnp.zeros(PACKED.entropy.shape))
    assert differentiated(policy_loss, inputs, PAPERS)[-1].keys() <= METRICS.keys()


def test_the_budget_is_of_the_corrected_gradient():
    """Corrections scale a token's gradient, and with it what it asks of entropy."""
    tokens = near()
    inputs = loss_inputs(tokens)
    policy_loss = make_policy_loss(SURROGATES["ce_gppo"], None, "half")
    doubled = inputs.replace(batch=inputs.batch.replace(corrections=2 * inputs.batch.corrections))
    once, twice = (
        differentiated(policy_loss, x, PAPERS)[-1]["budget/mean"].result()
        for x in (inputs, doubled)
    )
    assert once != 0
    assert twice == pytest.approx(2 * once, rel=1e-6)


def test_what_every_method_logs():
    tokens = near()
    reductions = differentiated(
        make_policy_loss(SURROGATES["ce_gppo"], None, "half"), loss_inputs(tokens), PAPERS
    )[-1]
    mask = tokens.completion_mask
    log_ratio = (tokens.policy_logprobs - tokens.old_logprobs)[mask]
    ratio = np.exp(log_ratio)
    entropy, old_entropy = tokens.entropy[mask], tokens.old_entropy[mask]
    expected = {
        "policy/entropy": entropy.mean(),
        "policy/entropy_change": (entropy - old_entropy).mean(),
        "policy/kl_old": (ratio - 1 - log_ratio).mean(),
        "policy/ratio_max": ratio.max(),
        "policy/ratio_min": ratio.min(),
    }
    for name, value in expected.items():
        assert reductions[name].result() == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_kl_old_is_accurate_close_to_the_old_policy():
    """Log ratios of 1e-3, whose KL is 5e-7, to 1 %: delta - 1 - ln delta loses its digits there."""
    log_ratio = np.float32(1e-3) * np.array([[1, -1, 0.3, -0.3]], np.float32)
    # Both exact in float32: their difference is the log ratio.
    zeros = np.zeros((1, 4))
    tokens = tokens_of(
        log_ratio, zeros, policy_logprobs=log_ratio.astype(float), old_logprobs=zeros
    )
    reductions = differentiated(
        make_policy_loss(SURROGATES["ce_gppo"], None, "half"), loss_inputs(tokens), PAPERS
    )[-1]
    expected = np.mean(np.expm1(log_ratio.astype(float)) - log_ratio)
    assert reductions["policy/kl_old"].result() == pytest.approx(expected, rel=0.01)
