"""The official preset's loss and gradient = the authors' code, transcribed in float64. Method,
wrappers, numbers and aggregation are those that configs/presets.py gives a run.

Sources: Kwai-Klear/CE-GPPO README (the loss), Kwai-Klear/KlearReasoner dp_actor.py (micro-batches,
the language-model loss on positives). Per mini-batch: three cases, dual clip, token mean over each
micro-batch, 0.1 times the mean of -ln pi over its positive tokens, both scaled by the micro-batch's
share of the sequences.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import knobs_of

from cegppo_jax.losses.aggregation import AggregationSettings, loss_weights, positive_lm_weights
from cegppo_jax.losses.logprobs import TokenStatistics
from cegppo_jax.losses.policy_loss import LossInputs, OldStatistics, make_policy_loss
from cegppo_jax.losses.reduce import merge
from cegppo_jax.packing import (
    PackedShape,
    TrainingSequence,
    completion_places,
    pack,
    unpack,
    with_targets,
)
from cegppo_jax.run.settings import read_settings
from configs import base, presets

PRESET = read_settings(presets.put(base.get_config(), "ce_gppo_1p5b", "official"))
OFFICIAL = dict(PRESET.loss.numbers) | {"entropy_coef": 0.0}
SHAPE = PackedShape(microbatches=2, rows=2, row_tokens=40)
LONGEST = 16  # completion


class Sample(NamedTuple):
    """One completion of the mini-batch."""

    logprobs: np.ndarray  # [n]
    old_logprobs: np.ndarray  # [n]
    advantage: float
    is_positive: bool  # reward == 1


def random_samples(seed, count=9):
    """Ragged completions; every third is positive, the first two never are. Log-probs are multiples
    of 1/256, so that their differences are exact in float32.
    """
    random = np.random.default_rng(seed)
    samples = []
    for i in range(count):
        length = int(random.integers(1, 13))
        logprobs = np.round(256 * -random.exponential(1.5, length)) / 256
        log_ratio = np.round(
            256 * random.choice([0.05, 0.5, 2.0], length) * random.normal(size=length)
        )
        is_positive = i >= 2 and (i % 3 == 2 or random.uniform() < 0.2)
        advantage = (1 if is_positive else -1) * random.choice([0.354, 0.935, 2.475])
        samples.append(Sample(logprobs, logprobs - log_ratio / 256, advantage, is_positive))
    # delta = e^3 = 20 > c with A < 0, twice.
    first = samples[0]
    return [
        first._replace(
            logprobs=np.append(first.logprobs, [-0.5, -1.0]),
            old_logprobs=np.append(first.old_logprobs, [-3.5, -4.0]),
        ),
        *samples[1:],
    ]


def padded(samples, name):
    """-> one array of every completion, [B, LONGEST], 0 behind its end."""
    rows = [getattr(sample, name) for sample in samples]
    return np.stack([np.pad(row, (0, LONGEST - len(row))) for row in rows])


def masked_mean(values, mask):
    return (values * mask).sum() / mask.sum()


def authors_loss(logprobs, samples, k, knobs):
    """Log-probs [B, LONGEST] -> the authors' loss. Micro-batches are k consecutive completions."""
    sg = jax.lax.stop_gradient
    low, high, c = 1 - knobs["clip_low"], 1 + knobs["clip_high"], knobs["dual_clip"]
    old_logprobs = padded(samples, "old_logprobs")
    mask = padded([s._replace(logprobs=np.ones(len(s.logprobs))) for s in samples], "logprobs")
    advantages = np.array([[sample.advantage] for sample in samples])
    positive = np.array([[sample.is_positive] for sample in samples])
    total = 0.0
    for start in range(0, len(samples), k):
        micro = np.arange(len(samples))[:, None] // k == start // k
        response = mask * micro
        delta = jnp.exp(logprobs - old_logprobs)
        left = -knobs["beta_low"] * low / sg(delta) * delta * advantages
        right = -knobs["beta_high"] * high / sg(delta) * delta * advantages
        per_token = -delta * advantages
        per_token = jnp.where((sg(delta) < low) & (advantages < 0), left, per_token)
        per_token = jnp.where((sg(delta) > high) & (advantages > 0), right, per_token)
        per_token = jnp.where(advantages < 0, jnp.minimum(-advantages * c, per_token), per_token)
        loss = masked_mean(per_token, response)
        if (micro & positive).any():
            loss += knobs["positive_lm_coef"] * masked_mean(-logprobs, response * positive)
        total += loss * micro.sum() / len(samples)
    return total


def theirs(samples, k, knobs):
    """-> the authors' loss, and its gradient with respect to each completion's log-probs."""
    with jax.enable_x64(True):
        logprobs = jnp.asarray(padded(samples, "logprobs"))
        value, gradient = jax.value_and_grad(authors_loss)(logprobs, samples, k, knobs)
    lengths = [len(sample.logprobs) for sample in samples]
    return float(value), [row[:n] for row, n in zip(np.asarray(gradient), lengths, strict=True)]


def ours(samples, k, knobs):
    """-> the package's loss, its gradient by completion, and its reductions."""
    lengths = np.array([len(sample.logprobs) for sample in samples])
    settings = AggregationSettings(
        PRESET.loss.aggregation, max_completion_tokens=LONGEST, emulated_microbatch_sequences=k
    )
    batch = pack(
        [TrainingSequence([7] * (1 + i % 3), np.zeros(n), i) for i, n in enumerate(lengths)], SHAPE
    )
    batch = with_targets(
        batch,
        advantages=np.array([sample.advantage for sample in samples]),
        loss_weights=loss_weights(lengths, settings),
        lm_weights=positive_lm_weights(
            lengths, np.array([sample.is_positive for sample in samples]), settings
        ),
    )

    def packed(name):
        """At tokens that are not of a completion: numbers that would show."""
        values = np.full(batch.tokens.size, -5.0 if name == "logprobs" else -1.0, np.float32)
        places = np.concatenate(completion_places(batch, len(samples)))
        values[places] = np.concatenate([getattr(sample, name) for sample in samples])
        return values.reshape(batch.tokens.shape)

    logprobs, old_logprobs = packed("logprobs"), packed("old_logprobs")
    (value, reductions), gradient = _of_minibatch(logprobs, old_logprobs, batch, knobs_of(knobs))
    assert (np.asarray(gradient)[~batch.completion_mask] == 0).all()
    return float(value), unpack(np.asarray(gradient), batch, len(samples)), reductions


assert PRESET.loss.kl_place == "none"
POLICY_LOSS = make_policy_loss(PRESET.loss.method(), None, PRESET.loss.high_probability)


@jax.jit
def _of_minibatch(logprobs, old_logprobs, batch, knobs):
    entropy = jnp.ones(logprobs.shape)
    old = OldStatistics(old_logprobs, entropy, ref_logprobs=None)

    def total(logprobs):
        loss, reductions = 0.0, None
        for micro in range(SHAPE.microbatches):
            statistics = TokenStatistics(logprobs, entropy, entropy)
            inputs = jax.tree.map(
                lambda x, micro=micro: x[micro] if x.ndim else x,
                LossInputs(statistics, batch, old, uniform=None, selected={}),
            )
            part, new = POLICY_LOSS(inputs, knobs)
            loss += part
            reductions = new if reductions is None else merge(reductions, new)
        return loss, reductions

    return jax.value_and_grad(total, has_aux=True)(logprobs)


@pytest.mark.parametrize("k", [1, 2, 4, 9])
@pytest.mark.parametrize("seed", range(4))
def test_value_and_gradient(seed, k):
    samples = random_samples(seed)
    value, gradient, reductions = ours(samples, k, OFFICIAL)
    expected_value, expected = theirs(samples, k, OFFICIAL)
    assert value == pytest.approx(expected_value, rel=1e-6, abs=1e-6)
    for actual, part in zip(gradient, expected, strict=True):
        np.testing.assert_allclose(actual, part, rtol=1e-6)
    # The cases hold what they are about.
    assert reductions["policy/dual_clip_count"].result() >= 2
    assert reductions["policy/clip_count_low"].result() > 0
    assert reductions["policy/clip_count_high"].result() > 0
    if k <= 2:
        assert not any(sample.is_positive for sample in samples[:k])
    assert any(sample.is_positive for sample in samples)


@pytest.mark.parametrize(
    "change",
    [
        {"dual_clip": 3.0},
        {"dual_clip": np.inf},
        {"positive_lm_coef": 0.0},
        {"beta_low": 0.75, "clip_high": 0.28},
    ],
)
def test_other_numbers(change):
    """Each of them shows in the loss, in both codes alike."""
    samples, knobs = random_samples(0), OFFICIAL | change
    value, gradient, _ = ours(samples, 2, knobs)
    expected_value, expected = theirs(samples, 2, knobs)
    assert value == pytest.approx(expected_value, rel=1e-6, abs=1e-6)
    assert value != pytest.approx(theirs(samples, 2, OFFICIAL)[0], rel=1e-4)
    for actual, part in zip(gradient, expected, strict=True):
        np.testing.assert_allclose(actual, part, rtol=1e-6)


def test_no_positives_at_all():
    samples = [sample._replace(is_positive=False) for sample in random_samples(1)]
    value, gradient, _ = ours(samples, 2, OFFICIAL)
    expected_value, expected = theirs(samples, 2, OFFICIAL)
    assert value == pytest.approx(expected_value, rel=1e-6, abs=1e-6)
    np.testing.assert_allclose(np.concatenate(gradient), np.concatenate(expected), rtol=1e-6)


def test_by_hand():
    """Two completions in one micro-batch of two. A = -1: delta = 20 is capped at 10 and has no
    gradient, delta = 0.5 is 0.4. A = 1: delta = 2 is 1.2, and the only positive token.

    Loss (10 + 0.4 - 1.2) / 3 + 0.1 x 0.5 = 3.11667.
    """
    old = -3.0 * np.ones(2)
    samples = [
        Sample(old + np.log([20.0, 0.5]), old, -1.0, False),
        Sample(np.array([-0.5]), np.array([-0.5 - np.log(2)]), 1.0, True),
    ]
    value, gradient, reductions = ours(samples, 2, OFFICIAL)
    assert value == pytest.approx(9.2 / 3 + 0.05, rel=1e-6)
    np.testing.assert_allclose(gradient[0], [0, 0.4 / 3], rtol=1e-6)
    np.testing.assert_allclose(gradient[1], [-1.2 / 3 - 0.1], rtol=1e-6)
    assert reductions["policy/dual_clip_count"].result() == 1
