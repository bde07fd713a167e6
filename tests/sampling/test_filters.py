"""Filters against NumPy, and the inverse CDF against the distribution."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import compiled_well

from cegppo_jax.sampling import filters
from cegppo_jax.sampling.filters import SamplingFilter, cdf_block
from cegppo_jax.sharding import MeshShape, constrain, make_mesh

PLAIN = SamplingFilter(temperature=1.0, top_k=0, top_p=1.0)
# As programs, which are compiled once a shape; not one small program for each operation.
filter_logits = jax.jit(filters.filter_logits, static_argnums=1)
draw_token = jax.jit(filters.draw_token)


def kept(logits, sampling):
    return np.isfinite(filter_logits(jnp.log(jnp.asarray(logits)), sampling)).tolist()


def test_top_k_keeps_the_k_largest():
    assert kept([0.1, 0.4, 0.2, 0.3], SamplingFilter(1.0, 2, 1.0)) == [False, True, False, True]


def test_top_k_beyond_the_vocabulary_keeps_all():
    assert all(kept([0.1, 0.9], SamplingFilter(1.0, 50, 1.0)))


def test_top_p_keeps_the_smallest_set_that_reaches_p():
    # cumulative: .4, .7, .9, 1: .5 needs two tokens, .69 too, .71 three
    probabilities = [0.1, 0.4, 0.2, 0.3]
    assert kept(probabilities, SamplingFilter(1.0, 0, 0.5)) == [False, True, False, True]
    assert kept(probabilities, SamplingFilter(1.0, 0, 0.69)) == [False, True, False, True]
    assert kept(probabilities, SamplingFilter(1.0, 0, 0.71)) == [False, True, True, True]
    assert kept(probabilities, SamplingFilter(1.0, 0, 0.01)) == [False, True, False, False]


def test_temperature_comes_before_top_p():
    # p^2 normalised: 1, 16, 4, 9 of 30: the largest two reach .8
    assert kept([0.1, 0.4, 0.2, 0.3], SamplingFilter(0.5, 0, 0.8)) == [False, True, False, True]


@jax.jit
def kept_by_sorting(logits, top_p):
    """The definition of top-p: logits [R, V] -> kept [R, V] bool. In descending order, a token is
    kept while the probability before it is short of top_p; so are all that equal the last one.
    """
    descending = -jnp.sort(-logits, axis=-1)
    probabilities = jax.nn.softmax(descending, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    last = jnp.sum(before < top_p, axis=-1, keepdims=True) - 1
    return logits >= jnp.take_along_axis(descending, last, axis=-1)


def tied(random, shape):
    """Logits of which many are equal, with 0, -0 and -inf among them."""
    logits = np.round(random.normal(0, 2, shape) * 2) / 2
    logits *= random.choice([-1.0, 1.0], shape)
    return np.where(random.random(shape) < 0.2, -np.inf, logits)


LOGITS = {
    "normal": lambda random, shape: random.normal(0, 3, shape),
    "flat": lambda random, shape: random.normal(-7, 1e-3, shape),
    "peaked": lambda random, shape: random.normal(0, 40, shape),
    "large": lambda random, shape: random.normal(0, 3, shape) - 1e4,
    "tied": tied,
    "equal": lambda random, shape: np.full(shape, -2.5),
}


@pytest.mark.parametrize(
    ("vocab", "top_p"),
    [
        *((1300, top_p) for top_p in (1e-30, 0.05, 0.5, 0.95, 0.999, 1 - 1e-6, 1.0)),
        *((1, 0.95), (2, 0.5), (49_152, 0.95)),
    ],
)
@pytest.mark.parametrize("kind", LOGITS)
def test_top_p_keeps_and_draws_what_sorting_keeps_and_draws(kind, vocab, top_p):
    """The two add in different orders, so a token at which the probability before it is within
    rounding of top_p (told by float64) may be on either side.
    """
    random = np.random.default_rng(vocab)
    logits = LOGITS[kind](random, (16, vocab)).astype(np.float32)
    logits[:, 0] = -2.5  # in no row all are -inf
    filtered = filter_logits(logits, SamplingFilter(1.0, 0, top_p))
    kept = np.isfinite(filtered)
    expected = kept_by_sorting(logits, top_p) & np.isfinite(logits)
    exact = np.exp(logits.astype(np.float64) - np.max(logits, axis=1, keepdims=True))
    for row in np.flatnonzero((kept != expected).any(axis=1)):
        values, of_token = np.unique(-logits[row], return_inverse=True)
        mass = np.bincount(of_token, exact[row], len(values)) / exact[row].sum()
        before = (np.cumsum(mass) - mass)[of_token]
        np.testing.assert_allclose(before[kept[row] != expected[row]], top_p, atol=3e-6)
    uniform = random.random(16).astype(np.float32)
    ours, _ = draw_token(filtered, uniform)
    theirs, _ = draw_token(np.where(expected, logits, np.float32(-np.inf)), uniform)
    np.testing.assert_array_equal(ours, theirs)


def test_top_p_of_ties_is_exact():
    """8 tokens of probability 1/8 exactly: none lies within rounding of these limits."""
    logits = jnp.zeros((1, 8)).at[0, 3].set(-0.0)
    for top_p in (0.01, 0.125, 0.5, 0.99):
        assert np.isfinite(filter_logits(logits, SamplingFilter(1.0, 0, top_p))).all()
    halves = jnp.asarray([[0.0, -jnp.inf, 0.0, -200.0]])  # exp(-200) is 0 in float32
    for top_p in (0.01, 0.5, 0.99):
        found = np.isfinite(filter_logits(halves, SamplingFilter(1.0, 0, top_p)))
        np.testing.assert_array_equal(found, [[True, False, True, False]])


@pytest.mark.parametrize("kind", LOGITS)
@pytest.mark.parametrize("top_k", [1, 20, 600])
def test_top_p_after_top_k_is_that_of_what_top_k_keeps(kind, top_k):
    """Also where many tokens equal the last one of the k, which are then all in it."""
    logits = LOGITS[kind](np.random.default_rng(1), (64, 700)).astype(np.float32)
    logits[:, 0] = -2.5
    for top_p in (0.3, 0.9):
        first = filter_logits(logits, SamplingFilter(1.0, top_k, 1.0))
        expected = np.isfinite(filter_logits(first, SamplingFilter(1.0, 0, top_p)))
        found = np.isfinite(filter_logits(logits, SamplingFilter(1.0, top_k, top_p)))
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("cut", ["all", "top_p", "top_k", "both", "greedy"])
def test_nothing_sorts_the_vocabulary(cut):
    logits = jax.ShapeDtypeStruct((8, 1300), jnp.float32)
    program = compiled_well(filter_logits.lower(logits, CUTS[cut])).as_text()
    assert " sort(" not in program


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_without_probabilities_show_in_the_logprob(bad):
    logits = jnp.asarray([[0.0, bad, 1.0], [0.0, 2.0, 1.0]], jnp.float32)
    filtered = filter_logits(logits, SamplingFilter(1.0, 0, 0.9))
    _, logprobs = draw_token(filtered, jnp.asarray([0.5, 0.5]))
    np.testing.assert_array_equal(np.isfinite(logprobs), [False, True])


def test_greedy_takes_the_first_of_the_best():
    logits = filter_logits(jnp.array([[0.0, 2.0, 2.0]]), SamplingFilter(0.0, 0, 1.0))
    for uniform in (0.0, 0.5, 0.999):
        token, logprob = draw_token(logits, jnp.array([uniform]))
        assert (int(token[0]), float(logprob[0])) == (1, 0.0)


@pytest.mark.parametrize("vocab", [1, 7, 512, 513, 1300])
def test_draw_follows_the_inverse_cdf(vocab):
    random = np.random.default_rng(vocab)
    logits = random.normal(0, 3, size=(64, vocab)).astype(np.float32)
    uniform = random.random(64).astype(np.float32)
    tokens, logprobs = draw_token(logits, uniform)
    exact = np.exp(logits.astype(np.float64))
    exact /= exact.sum(axis=1, keepdims=True)
    cdf = exact.cumsum(axis=1)
    rows = np.arange(64)
    upper = cdf[rows, tokens]
    lower = upper - exact[rows, tokens]
    assert (lower - 1e-5 <= uniform).all()
    assert (uniform <= upper + 1e-5).all()
    np.testing.assert_allclose(logprobs, np.log(exact[rows, tokens]), rtol=1e-4, atol=1e-5)


def test_draw_never_takes_a_token_that_was_cut():
    logits = np.full((1000, 1025), -np.inf, np.float32)
    logits[:, [3, 700]] = 0.0
    uniform = np.append(np.linspace(0, 1, 999, endpoint=False), 1 - 2**-24).astype(np.float32)
    tokens, logprobs = draw_token(jnp.asarray(logits), jnp.asarray(uniform))
    assert set(np.asarray(tokens).tolist()) == {3, 700}
    np.testing.assert_allclose(logprobs, np.log(0.5), rtol=1e-6)


CUTS = {
    "all": PLAIN,
    "top_p": SamplingFilter(1.0, 0, 0.95),
    "top_p_small": SamplingFilter(1.0, 0, 0.05),
    "top_k": SamplingFilter(1.0, 20, 1.0),
    "both": SamplingFilter(0.6, 50, 0.95),
    "one_token": SamplingFilter(1.0, 1, 1.0),
    "cold": SamplingFilter(1e-6, 0, 1.0),
    "hot": SamplingFilter(50.0, 0, 0.95),
    "greedy": SamplingFilter(0.0, 0, 1.0),
}


def at_the_edges(weights, random, count):
    """Weights [V] -> uniforms [count] float32: 0, just above it, just below 1, and within two
    roundings of the CDF at random tokens, where a token's stretch ends and the next one's begins.
    """
    cdf = weights.cumsum() / weights.sum()
    edges = random.choice(cdf[weights > 0], count - 4).astype(np.float32)
    edges += random.integers(-2, 3, count - 4) * np.spacing(edges)
    ends = np.array([0, 2.0**-32, 1 - 2.0**-23, 1 - 2.0**-24], np.float32)
    return np.clip(np.concatenate([ends, edges]), 0, ends[-1])


@pytest.mark.parametrize("vocab", [1, 511, 513, 1300, 49_152])
@pytest.mark.parametrize("cut", CUTS)
def test_in_the_tails_and_at_every_edge_a_token_that_is_kept_is_drawn(cut, vocab):
    """The CDF in float64 says which token: the one drawn is it, or within rounding of it."""
    random = np.random.default_rng(vocab)
    logits = random.normal(0, 3, size=(1, vocab)).astype(np.float32)
    filtered = np.asarray(filter_logits(jnp.asarray(logits), CUTS[cut]))
    weights = np.exp(filtered[0].astype(np.float64) - filtered.max())
    weights /= weights.sum()
    cdf = weights.cumsum()
    for _ in range(4):
        uniform = at_the_edges(weights, random, 64)
        rows = np.broadcast_to(filtered, (64, vocab))
        tokens, logprobs = map(np.asarray, draw_token(rows, uniform))
        assert ((tokens >= 0) & (tokens < vocab)).all()
        assert np.isfinite(filtered[0, tokens]).all()
        np.testing.assert_allclose(logprobs, np.log(weights[tokens]), rtol=1e-4, atol=1e-5)
        assert (cdf[tokens] - weights[tokens] - 2e-6 <= uniform).all()
        assert (uniform <= cdf[tokens] + 2e-6).all()


def test_a_token_that_was_cut_is_not_drawn_where_the_cumulative_sum_rises_over_it():
    """By rounding, the sums of a block's tail exceed those before it, over tokens of weight 0."""
    logits = np.random.default_rng(0).normal(0, 3, (8, 49_152)).astype(np.float32)
    filtered = filter_logits(jnp.asarray(logits), CUTS["top_p"])
    tokens, logprobs = draw_token(filtered, jnp.full(8, 0.003954078070818379, jnp.float32))
    assert np.isfinite(logprobs).all()
    # Token 352 was cut. The target is the CDF of 351 to within rounding; 361 is kept next.
    assert tokens[0] in (351, 361)
    assert np.isneginf(filtered[0, 352:361]).all()


@pytest.mark.parametrize("trailing", [1, 511, 512, 513, 2000])
def test_nothing_behind_the_last_token_kept_is_drawn(trailing):
    """A whole block of weight 0 at the end, or a part of one; and the same in front."""
    random = np.random.default_rng(trailing)
    kept = random.normal(0, 3, (64, 700)).astype(np.float32)
    cut = np.full((64, trailing), -np.inf, np.float32)
    logits = np.concatenate([cut, kept, cut], axis=1)
    for uniform in (0.0, 1 - 2.0**-23, 1 - 2.0**-24):
        tokens, logprobs = draw_token(logits, np.full(64, uniform, np.float32))
        assert ((tokens >= trailing) & (tokens < trailing + 700)).all()
        assert np.isfinite(logprobs).all()


@pytest.mark.parametrize("cut", ["all", "top_p", "top_k"])
def test_a_draw_depends_on_its_row_alone(cut):
    """Not on the other rows, nor on how many there are."""
    random = np.random.default_rng(3)
    logits = random.normal(0, 3, (16, 1300)).astype(np.float32)
    uniform = random.random(16).astype(np.float32)
    logits = np.asarray(filter_logits(logits, CUTS[cut]))
    together = draw_token(logits, uniform)
    for row in range(16):
        alone = draw_token(logits[row : row + 1], uniform[row : row + 1])
        assert int(alone[0][0]) == int(together[0][row])


@functools.partial(jax.jit, static_argnums=0)
def uniforms(count):
    """-> [count] float32."""
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(0), i))(jnp.arange(count))
    return jax.vmap(jax.random.uniform)(keys)


def chi_square(logits, count):
    """Chi-square of `count` draws from logits [V], their keys made as the sampler makes them, and
    the number of tokens kept; draws of a token that was cut make it infinite.
    """
    tokens, _ = draw_token(np.broadcast_to(logits, (count, len(logits))), uniforms(count))
    counts = np.bincount(tokens, minlength=len(logits))
    kept = np.isfinite(np.asarray(logits))
    weights = np.exp(np.asarray(logits, np.float64))
    expected = count * weights / weights.sum()
    assert not counts[~kept].any()
    return ((counts - expected) ** 2 / np.where(kept, expected, 1)).sum(), kept.sum()


def test_frequencies_match_probabilities():
    logits = jnp.log(jnp.array([0.05, 0.5, 0.2, 0.25]))
    found, _ = chi_square(logits, 20_000)
    assert found < 16.3  # 99.9 % quantile, 3 degrees of freedom


@pytest.mark.parametrize(("top_k", "top_p"), [(40, 1.0), (0, 0.5)])
def test_frequencies_match_probabilities_of_what_is_kept_among_blocks(top_k, top_p):
    logits = jnp.asarray(np.random.default_rng(4).normal(0, 1, 1300), jnp.float32)
    found, kept = chi_square(filter_logits(logits, SamplingFilter(1.0, top_k, top_p)), 20_000)
    assert found < kept - 1 + 3.1 * np.sqrt(2 * (kept - 1)) + 5  # 99.9 % quantile, about


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1.0, 0, 1.0), "temperature = -1"),
        ((1.0, -2, 1.0), "top_k = -2"),
        ((1.0, 0, 0.0), r"top_p = 0.0.*\(0, 1\]"),
        ((1.0, 0, 1.5), "top_p = 1.5"),
    ],
)
def test_impossible_filters_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SamplingFilter(*arguments)


def test_full_support():
    assert PLAIN.keeps_full_support
    for arguments in ((0.0, 0, 1.0), (1.0, 5, 1.0), (1.0, 0, 0.9)):
        assert not SamplingFilter(*arguments).keeps_full_support


@pytest.mark.parametrize(
    ("vocab", "tensor", "block"),
    [
        (151_936, 1, 512),
        (151_936, 2, 64),  # halves of 64 x 1,187
        (151_936, 8, 16),
        (49_152, 8, 512),
        (40, 1, 40),
        (32, 8, 32),  # parts of 4: padded
        (151_665, 2, 512),
    ],
)
def test_blocks_do_not_cross_the_shards_of_a_vocabulary(vocab, tensor, block):
    with jax.set_mesh(make_mesh(MeshShape(-1, 1, tensor))):
        assert cdf_block(vocab) == block


def test_a_split_vocabulary_is_not_gathered_to_draw_from_it():
    drawn, vocab = np.random.default_rng(0), 1152
    logits = drawn.normal(size=(8, vocab)).astype(np.float32)
    uniform = drawn.random(8).astype(np.float32)
    with jax.set_mesh(make_mesh(MeshShape(4, 1, 2))):
        draw = jax.jit(
            lambda logits, uniform: draw_token(constrain(logits, "slots", "vocab"), uniform)
        )
        program = draw.lower(logits, uniform).compile().as_text()
        tokens, logprobs = draw(logits, uniform)
    gathered = [
        np.prod([int(size) for size in sizes.split(",")])
        for sizes in re.findall(r"= \w+\[([\d,]+)\]\S* all-gather", program)
    ]
    assert max(gathered, default=0) < vocab / 2  # a device has 2 rows
    expected = draw_token(jnp.asarray(logits), jnp.asarray(uniform))
    np.testing.assert_array_equal(tokens, expected[0])
    np.testing.assert_allclose(logprobs, expected[1], rtol=1e-6)
