"""Selections: worked examples, masks, ties and the size of what is chosen."""

import dataclasses

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import GRIDS, PAPERS, clipped, knobs_of

from cegppo_jax.losses.selection import (
    SELECTIONS,
    BatchView,
    covariance,
    high_covariance,
    largest,
    most_uncertain_tokens,
    random_covariance,
    share_of,
)
from cegppo_jax.losses.surrogates import SURROGATES
from cegppo_jax.losses.wrappers import WRAPPERS, wrapped

SHAPE = 2, *cases.SHAPE  # of every test's mini-batch: XLA compiles each operation once


def view_of(**arrays):
    """Arrays [u, r, c] by name -> BatchView of SHAPE, the rest padding; what is not named is 0, and
    every named token counts unless there is a mask.
    """
    shape = np.shape(arrays["advantages" if "advantages" in arrays else "entropy"])
    arrays.setdefault("mask", np.ones(shape, bool))
    filled = {}
    for field in dataclasses.fields(BatchView):
        whole = np.zeros(SHAPE, bool if field.name == "mask" else np.float32)
        whole[tuple(slice(size) for size in shape)] = arrays.get(field.name, 0)
        filled[field.name] = jnp.asarray(whole)
    return BatchView(**filled)


def chosen(selection, view, **knobs):
    mask = selection(view, knobs_of(PAPERS | knobs))
    assert mask.dtype == bool
    return np.asarray(mask)


def random_view(seed):
    random = np.random.default_rng(seed)
    return view_of(
        policy_logprobs=-random.exponential(2, SHAPE),
        entropy=random.uniform(0, 3, SHAPE),
        log_ratio=random.normal(0, 0.3, SHAPE),
        advantages=random.normal(0, 2, SHAPE),
        uniform=random.uniform(0, 1, SHAPE),
        mask=random.uniform(0, 1, SHAPE) < 0.6,
    )


@pytest.mark.parametrize(
    ("entropy", "mask", "fraction", "expected"),
    [
        ([3, 1, 2, 5, 4], [1, 1, 1, 1, 1], 0.4, [0, 0, 0, 1, 1]),
        # Prompts and padding neither count nor are chosen: floor(0.4 x 3) = 1.
        ([3, 1, 2, 5, 4], [1, 1, 1, 0, 0], 0.4, [1, 0, 0, 0, 0]),
        # Among equals the larger draw goes first.
        ([2, 2, 2, 5, 1], [1, 1, 1, 1, 1], 0.4, [0, 1, 0, 1, 0]),
        ([2, 2, 2, 5, 1], [1, 0, 1, 1, 1], 0.5, [0, 0, 1, 1, 0]),
        ([2, 2, 2, 5, 1], [1, 1, 1, 1, 1], 0.2, [0, 0, 0, 1, 0]),
        # At least one, at most all.
        ([3, 1, 2, 5, 4], [1, 1, 1, 1, 1], 1e-6, [0, 0, 0, 1, 0]),
        ([3, 1, 2, 5, 4], [1, 1, 0, 1, 1], 1.0, [1, 1, 0, 1, 1]),
        ([3, 1, 2, 5, 4], [0, 0, 0, 0, 0], 1.0, [0, 0, 0, 0, 0]),
    ],
)
def test_top_entropy_by_hand(entropy, mask, fraction, expected):
    view = view_of(entropy=[[entropy]], mask=[[mask]], uniform=[[[0.1, 0.9, 0.5, 0.3, 0.7]]])
    actual = chosen(most_uncertain_tokens, view, top_entropy_fraction=fraction)
    np.testing.assert_array_equal(actual[0, 0, :5], np.array(expected, bool))


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.77])
def test_top_entropy_is_of_the_whole_minibatch(fraction):
    view = random_view(0)
    actual = chosen(most_uncertain_tokens, view, top_entropy_fraction=fraction)
    mask, entropy = np.asarray(view.mask), np.asarray(view.entropy)
    count = int(fraction * mask.sum())
    assert actual.sum() == count
    assert not (actual & ~mask).any()
    assert entropy[actual].min() > entropy[mask & ~actual].max()
    assert len(set(actual.sum((1, 2)))) > 1  # not the same number from every micro-batch


@pytest.mark.parametrize(
    ("tokens", "fraction", "expected"),
    [(10, 0.2, 2), (15, 0.2, 3), (10, 0.29, 2), (4999, 2e-4, 1), (10_000, 2e-4, 2), (0, 0.5, 1)]
    + [(n * 10, 0.7, n * 7) for n in (1, 3, 11, 100, 12_345)],
)
def test_a_share_is_rounded_down_and_at_least_one(tokens, fraction, expected):
    mask = np.arange(200_000) < tokens
    share = share_of(jnp.asarray(mask), jnp.float32(fraction))
    assert share.dtype == jnp.int32
    assert share == expected


def test_largest_of_fewer_than_asked_is_all_of_them():
    values, mask = jnp.array([5.0, -jnp.inf, 3.0, 9.0]), jnp.array([True, True, True, False])
    draws = jnp.array([0.1, 0.2, 0.3, 0.4])
    for count, expected in ((3, mask), (9, mask), (0, [False] * 4)):
        np.testing.assert_array_equal(largest(values, mask, jnp.int32(count), draws), expected)


def test_covariance_by_hand():
    """Counted tokens: A = 1, 1, -2, ln pi = -1, -2, -6: centred A is A, centred ln pi 2, 1, -3."""
    view = view_of(
        advantages=[[[1, 1, 7], [-2, -9, 0]]],
        policy_logprobs=[[[-1, -2, -8], [-6, -5, 0]]],
        mask=[[[1, 1, 0], [1, 0, 0]]],
    )
    product = np.asarray(covariance(view))[0]
    np.testing.assert_allclose([product[0, 0], product[0, 1], product[1, 0]], [2, 1, 6], rtol=1e-6)


def test_covariance_is_numpys():
    view = random_view(1)
    mask = np.asarray(view.mask)
    advantages, logprobs = (
        np.asarray(x, np.float64)[mask] for x in (view.advantages, view.policy_logprobs)
    )
    products = np.asarray(covariance(view))[mask]
    expected = (advantages - advantages.mean()) * (logprobs - logprobs.mean())
    np.testing.assert_allclose(products, expected, rtol=1e-4, atol=1e-5)
    assert products.mean() == pytest.approx(np.cov(advantages, logprobs, ddof=0)[0, 1], rel=1e-4)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5])
def test_high_covariance_is_the_top_share(fraction):
    view = random_view(2)
    actual = chosen(high_covariance, view, covariance_fraction=fraction)
    mask, products = np.asarray(view.mask), np.asarray(covariance(view))
    assert actual.sum() == int(fraction * mask.sum())
    assert products[actual].min() > products[mask & ~actual].max()
    assert not (actual & ~mask).any()


def test_high_covariance_is_one_token_at_least_and_without_limits():
    """The largest product, also above covariance_high."""
    view = view_of(advantages=[[[1, 1, -2]]], policy_logprobs=[[[-1, -2, -60]]])
    actual = chosen(high_covariance, view, covariance_fraction=2e-4, covariance_high=5.0)
    np.testing.assert_array_equal(np.flatnonzero(actual), [2])


CLEAR = dict(covariance_fraction=0.25, covariance_low=1.0, covariance_high=5.0)


def test_random_covariance_by_hand():
    """8 tokens, so 2 of the candidates, those of the largest draws. Centred A: 1 or -1; centred
    ln pi: 3 -3 2 -2 3 -3 6 -6; products: 3 3 2 2 -3 -3 6 6. The first is clipped.
    """
    view = view_of(
        advantages=[[[1, -1, 1, -1, -1, 1, 1, -1]]],
        policy_logprobs=[[[-7, -13, -8, -12, -7, -13, -4, -16]]],
        log_ratio=[[[1, 1, 0, 0, 0, 0, 0, 0]]],
        uniform=[[[0.9, 0.1, 0.2, 0.3, 0.8, 0.8, 0.8, 0.8]]],
    )
    actual = chosen(random_covariance, view, **CLEAR)
    np.testing.assert_array_equal(np.flatnonzero(actual), [2, 3])


@pytest.mark.parametrize(
    ("log_ratio", "expected"), [(1.0, [0]), (-1.0, [1]), (0.1, [0, 1])], ids=["right", "left", "in"]
)
def test_random_covariance_leaves_out_what_is_clipped_already(log_ratio, expected):
    """Token 0 has A < 0 and is clipped left of the interval, token 1 A > 0 and right of it."""
    view = view_of(
        advantages=[[[-1, 1, 0, 0]]],
        policy_logprobs=[[[-12, -8, -10, -10]]],
        log_ratio=np.full((1, 1, 4), log_ratio),
        uniform=np.full((1, 1, 4), 0.5),
    )
    actual = chosen(random_covariance, view, **CLEAR | dict(covariance_fraction=0.5))
    np.testing.assert_array_equal(np.flatnonzero(actual), expected)


def test_random_covariance_limits_are_exclusive():
    view = view_of(
        advantages=[[[1, -1, 1, -1]]],
        policy_logprobs=[[[-9, -11, -5, -15]]],
        uniform=np.full((1, 1, 4), 0.5),
    )
    np.testing.assert_array_equal(covariance(view)[0, 0, :4], [1, 1, 5, 5])
    assert not chosen(random_covariance, view, **CLEAR).any()
    assert chosen(random_covariance, view, **CLEAR | dict(covariance_high=5.1)).any()


@pytest.mark.parametrize("seed", range(3))
def test_random_covariance_size_and_candidates(seed):
    """Never more than the share of all tokens; all of its candidates when there are fewer."""
    view = random_view(seed)
    mask, products = np.asarray(view.mask), np.asarray(covariance(view))
    ratio, advantages = np.exp(view.log_ratio), np.asarray(view.advantages)
    is_clipped = ((ratio < 0.8) & (advantages < 0)) | ((ratio > 1.2) & (advantages > 0))
    candidates = mask & (products > 1) & (products < 5) & ~is_clipped
    few = chosen(random_covariance, view, **CLEAR | dict(covariance_fraction=0.05))
    assert few.sum() == int(0.05 * mask.sum()) < candidates.sum()
    assert not (few & ~candidates).any()
    everything = chosen(random_covariance, view, **CLEAR | dict(covariance_fraction=1.0))
    np.testing.assert_array_equal(everything, candidates)


def test_random_covariance_is_random():
    """Each candidate is as likely as another: 1 of 4 is chosen, 1000 times, and each candidate 250
    times within 4 standard errors.
    """
    draws = np.random.default_rng(0).uniform(size=(1000, *SHAPE)).astype(np.float32)
    view = view_of(advantages=[[[1, -1, 1, -1]]], policy_logprobs=[[[-8, -12, -8, -12]]])
    select = jax.vmap(
        lambda uniform: random_covariance(view.replace(uniform=uniform), knobs_of(PAPERS | CLEAR))
    )
    counts = np.asarray(select(draws)).sum(0)[0, 0, :4]
    assert counts.sum() == 1000
    assert (np.abs(counts - 250) < 4 * np.sqrt(1000 * 0.25 * 0.75)).all()


@pytest.mark.parametrize("name", SELECTIONS)
def test_a_selection_does_not_depend_on_the_layout(name):
    """Tokens in other micro-batches, rows and columns, with padding between them."""
    view, knobs = random_view(4), dict(CLEAR, top_entropy_fraction=0.2)
    actual = chosen(SELECTIONS[name], view, **knobs)
    order = np.random.default_rng(0).permutation(1500)

    def moved(array):
        flat = np.zeros(1500, np.asarray(array).dtype)
        flat[: array.size] = np.asarray(array).ravel()
        return jnp.asarray(flat[order].reshape(5, 1, 300))

    elsewhere = chosen(SELECTIONS[name], jax.tree.map(moved, view), **knobs)
    np.testing.assert_array_equal(elsewhere, moved(actual))
    assert actual.any()


@pytest.mark.parametrize("name", SELECTIONS)
def test_values_outside_completions_do_not_matter(name):
    view, knobs = random_view(5), dict(CLEAR, top_entropy_fraction=0.2)
    mask = view.mask
    spoiled = jax.tree.map(lambda x: jnp.where(mask, x, 1e6) if x.dtype != bool else x, view)
    np.testing.assert_array_equal(
        chosen(SELECTIONS[name], spoiled, **knobs), chosen(SELECTIONS[name], view, **knobs)
    )


def test_every_selection_that_is_asked_for_exists():
    asked = {
        name
        for method in SURROGATES.values()
        for wrapper in WRAPPERS
        for name in wrapped(method, (wrapper,)).selections
    }
    assert asked == set(SELECTIONS)


def test_clipped_is_what_surrogates_call_clipped():
    """The selection's own interval test, token by token, on the grid of all cells."""
    tokens = GRIDS["one_token"]
    log_ratio = tokens.policy_logprobs - tokens.old_logprobs
    view = view_of(log_ratio=log_ratio[None], advantages=tokens.advantages[None])
    # Every product lies within the limits, and all candidates are chosen.
    knobs = dict(covariance_low=-np.inf, covariance_high=np.inf, covariance_fraction=1.0)
    left, right = clipped(tokens, PAPERS)
    np.testing.assert_array_equal(chosen(random_covariance, view, **knobs)[0], ~(left | right))
