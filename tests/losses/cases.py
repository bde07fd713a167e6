"""Tokens and knobs that the tests of the losses share, and how they run the package on them."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from oracles import Tokens

from cegppo_jax.losses.contract import Knobs, SurrogateInputs, policy_surrogate
from cegppo_jax.losses.selection import SELECTIONS
from cegppo_jax.losses.sequences import Sequences

# The papers' numbers; clip and betas are CE-GPPO's at 1.5B.
PAPERS = dict(
    clip_low=0.2,
    clip_high=0.2,
    beta_low=0.5,
    beta_high=1.0,
    cispo_cap=5.0,
    aspo_cap=3.0,
    dppo_cap=20.0,
    divergence_low=0.2,
    divergence_high=0.2,
    gate_positive=1.0,
    gate_negative=1.05,
    decay_low=1.0,
    decay_high=2.0,
    covariance_fraction=2e-4,
    covariance_low=1.0,
    covariance_high=5.0,
    covariance_kl_coef=1.0,
    dual_clip=3.0,
    preserve_probability=0.25,
    entropy_ratio_low=0.05,
    entropy_ratio_high=0.05,
    top_entropy_fraction=0.2,
    kl_coef=0.0,
    entropy_coef=0.0,
    positive_lm_coef=0.0,
)
OTHERS = PAPERS | dict(
    clip_high=0.28,
    beta_low=0.75,
    beta_high=0.25,
    cispo_cap=1.3,
    aspo_cap=1.5,
    dppo_cap=1.5,
    divergence_low=0.15,
    divergence_high=0.05,
    gate_positive=2.0,
    gate_negative=0.5,
    decay_low=2.0,
    decay_high=3.0,
    covariance_kl_coef=0.1,
    dual_clip=10.0,
    preserve_probability=0.75,
    entropy_ratio_low=0.3,
    entropy_ratio_high=0.1,
)
# One side never clips.
OPEN_LEFT = OTHERS | dict(clip_low=1.0, clip_high=0.4, beta_low=0.0, beta_high=2.0, decay_high=1.0)
OPEN_RIGHT = PAPERS | dict(clip_low=0.1, clip_high=np.inf, decay_low=3.0, decay_high=np.inf)
KNOBS = {"papers": PAPERS, "others": OTHERS, "open_left": OPEN_LEFT, "open_right": OPEN_RIGHT}

# Left of, inside, right of each interval, just beside its edges, the far ends; A < 0, = 0, > 0.
EDGES = [np.log(0.8), np.log(0.9), np.log(1.2), np.log(1.28), np.log(1.4)]
LOG_RATIOS = np.array(
    [-120, -104, -89, -60, -41, -20, -2, -0.5, -0.05, 0, 0.05, 0.5, 2, 20, 41, 60, 89, 104, 120]
    + [edge + offset for edge in EDGES for offset in (-1e-3, 1e-3)],
    np.float32,
)
ADVANTAGES = np.array([-2.475, -0.5, 0.0, 0.354, 1.62], np.float32)
# Of the likelier of the two policies: probabilities from 0.99 to 1e-4.
LIKELIER = np.array([-0.01, -0.3, -1.1, -9.0], np.float32)

# XLA on CPU flushes a float32 below 1e-38 to 0, and a value may be 120 times such a weight.
FLUSHED = 1e-35

SHAPE = 29, 20  # of every test's tokens


def knobs_of(values):
    """Numbers by name -> Knobs of NumPy float32 scalars, as train.py makes them."""
    return Knobs(**{name: np.float32(value) for name, value in values.items()})


def rounded(values):
    """Numbers by name -> the float32 that the package sees, as Python floats."""
    return {name: float(np.float32(value)) for name, value in values.items()}


def tokens_of(
    log_ratio,
    advantages,
    *,
    likelier=-0.3,
    segment_ids=None,
    completion_mask=None,
    seed=0,
    **given,
):
    """Log ratios and advantages [r, c] -> Tokens of SHAPE: theirs in the first r rows, c
    columns, padding elsewhere. Old log-probs fit; entropies, draws and selections are random
    unless given.

    Args:
      likelier: log-prob under the policy that finds the token likelier.
      segment_ids: None: every token is a sequence.
      completion_mask: None: all of them are of completions.
    """
    random = np.random.default_rng(seed)
    log_ratio, advantages, likelier = (
        np.asarray(x, np.float32) for x in np.broadcast_arrays(log_ratio, advantages, likelier)
    )
    if segment_ids is None:
        segment_ids = np.broadcast_to(np.arange(1, log_ratio.shape[1] + 1), log_ratio.shape)
    if completion_mask is None:
        completion_mask = np.ones(log_ratio.shape, bool)
    log_ratio, likelier = _padded(log_ratio), _padded(likelier)
    logprobs = (likelier + np.minimum(log_ratio, np.float32(0))).astype(np.float64)
    entropy = random.uniform(0.1, 3, SHAPE).astype(np.float32)
    old_entropy = entropy * random.uniform(0.6, 1.4, SHAPE).astype(np.float32)
    tokens = Tokens(
        policy_logprobs=logprobs,
        old_logprobs=logprobs - log_ratio,
        advantages=_padded(advantages).astype(np.float64),
        entropy=entropy.astype(np.float64),
        old_entropy=old_entropy.astype(np.float64),
        segment_ids=_padded(segment_ids),
        completion_mask=_padded(completion_mask),
        uniform=random.uniform(0, 1, SHAPE).astype(np.float32).astype(np.float64),
        selected={name: random.uniform(0, 1, SHAPE) < 0.3 for name in SELECTIONS},
    )
    return tokens._replace(**{name: _padded(values) for name, values in given.items()})


def _padded(values):
    """[r, c] -> SHAPE, zeros below and to the right. One shape for all tests: XLA compiles each
    operation once.
    """
    values = np.asarray(values)
    return np.pad(
        values, [(0, whole - part) for whole, part in zip(SHAPE, values.shape, strict=True)]
    )


def one_token_sequences():
    """The grid of log ratios, advantages and probabilities, each point a sequence: SHAPE."""
    columns = zip(*itertools.product(LOG_RATIOS, ADVANTAGES, LIKELIER), strict=True)
    log_ratio, advantages, likelier = (np.array(column).reshape(SHAPE) for column in columns)
    return tokens_of(log_ratio, advantages, likelier=likelier)


def packed_sequences(*, constant_advantages=True):
    """Four ragged sequences a row, with prompts and padding between their completions; the size of
    their log ratios runs from 0.03 to 100, so that their means are clipped on either side, not
    clipped, and saturated.
    """
    random = np.random.default_rng(1)
    segment_ids, completion_mask = np.zeros(SHAPE, np.int32), np.zeros(SHAPE, bool)
    log_ratio, advantages = random.normal(0, 1, SHAPE), random.choice(ADVANTAGES, SHAPE)
    for row in range(SHAPE[0]):
        start = 0
        for segment, length in enumerate(random.permutation([1, 2, 4, 7]), start=1):
            prompt = 2 if segment == 2 else 1
            completion = slice(start + prompt, start + prompt + length)
            segment_ids[row, start : completion.stop] = segment
            completion_mask[row, completion] = True
            scale = random.choice([0.03, 0.3, 3, 100])
            log_ratio[row, completion] = scale * random.uniform(-1, 1, length)
            if segment % 2:  # all of one sign: the mean is as large
                log_ratio[row, completion] = np.abs(log_ratio[row, completion])
                log_ratio[row, completion] *= random.choice([-1, 1])
            if constant_advantages:
                advantages[row, completion] = random.choice(ADVANTAGES)
            start = completion.stop
    return tokens_of(
        log_ratio, advantages, segment_ids=segment_ids, completion_mask=completion_mask
    )


GRIDS = {
    "one_token": one_token_sequences(),
    "packed": packed_sequences(),
    "own_advantages": packed_sequences(constant_advantages=False),
}


def inputs_of(tokens):
    """Tokens -> SurrogateInputs, float32; the log ratio is exact."""
    single = {
        name: jnp.asarray(values, jnp.float32)
        for name, values in tokens._asdict().items()
        if isinstance(values, np.ndarray) and values.dtype == np.float64
    }
    del single["old_logprobs"]
    return SurrogateInputs(
        log_ratio=jnp.asarray(tokens.policy_logprobs - tokens.old_logprobs, jnp.float32),
        sequences=Sequences(jnp.asarray(tokens.segment_ids), jnp.asarray(tokens.completion_mask)),
        selected={name: jnp.asarray(mask) for name, mask in tokens.selected.items()},
        **single,
    )


def value_and_gradient(method, tokens, knobs, dtype=jnp.float32):
    """Method, tokens and numbers -> objective and its gradient by the package [R, C], 0 at tokens
    that are not of a completion.

    Args:
      dtype: of the differentiated log-probs, which the gradient shares.
    """
    surrogate = functools.partial(
        policy_surrogate, method, inputs=inputs_of(tokens), knobs=knobs_of(knobs)
    )
    logprobs = jnp.asarray(tokens.policy_logprobs, dtype)
    value, gradient_of, _ = jax.vjp(surrogate, logprobs, has_aux=True)
    (gradient,) = gradient_of(jnp.asarray(tokens.completion_mask, value.dtype))
    return np.where(tokens.completion_mask, value, 0), np.asarray(gradient)


def clipped(tokens, knobs):
    """-> masks of the tokens left of the interval with A < 0 and right of it with A > 0."""
    ratio = np.exp(tokens.policy_logprobs - tokens.old_logprobs)
    left = (ratio < 1 - knobs["clip_low"]) & (tokens.advantages < 0)
    return left, (ratio > 1 + knobs["clip_high"]) & (tokens.advantages > 0)
