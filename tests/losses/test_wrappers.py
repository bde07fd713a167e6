"""Wrappers: their sources' formulas around every surrogate, worked examples, order and counts."""

import dataclasses

import numpy as np
import pytest
from cases import (
    FLUSHED,
    GRIDS,
    KNOBS,
    PAPERS,
    inputs_of,
    knobs_of,
    rounded,
    tokens_of,
    value_and_gradient,
)
from oracles import oracle

from cegppo_jax.losses.surrogates import SURROGATES
from cegppo_jax.losses.wrappers import WRAPPERS, wrapped

PACKED = GRIDS["packed"]


def assert_is_the_oracles(name, wrappers, knobs):
    method = wrapped(SURROGATES[name], wrappers)
    value, gradient = value_and_gradient(method, PACKED, knobs)
    expected_value, expected = oracle(name, wrappers, PACKED, rounded(knobs))
    np.testing.assert_allclose(value, expected_value, rtol=2e-5, atol=FLUSHED)
    np.testing.assert_allclose(gradient, expected, rtol=2e-5, atol=FLUSHED)


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", SURROGATES)
def test_around_every_surrogate_as_its_source_says(name, wrapper):
    assert_is_the_oracles(name, (wrapper,), KNOBS["others"])


@pytest.mark.parametrize("name", ["ce_gppo", "ce_gspo", "kl_cov"])
@pytest.mark.parametrize(
    "wrappers",
    [
        ("dual_clip", "stochastic_preservation"),
        ("stochastic_preservation", "dual_clip"),
        ("entropy_ratio", "top_entropy", "dual_clip"),
        tuple(WRAPPERS),
    ],
)
def test_several_the_first_innermost(name, wrappers):
    knobs = PAPERS | dict(dual_clip=1.1, preserve_probability=0.5)
    assert_is_the_oracles(name, wrappers, knobs)


def test_order_matters():
    """A clipped token of value 1.2 A, drawn with q = 1/4, has 4.8 A: a dual clip outside at 3 sees
    it, one inside does not. (LossSettings refuses the one outside: what it drops is not made up
    for.)
    """
    tokens = tokens_of([[-0.5]], [[-1.0]], uniform=[[0.1]])
    knobs = PAPERS | dict(beta_low=1.5, dual_clip=3.0, preserve_probability=0.25)
    results = {
        names: value_and_gradient(wrapped(SURROGATES["ce_gppo"], names), tokens, knobs)
        for names in (
            ("stochastic_preservation", "dual_clip"),
            ("dual_clip", "stochastic_preservation"),
        )
    }
    outside, inside = results.values()
    np.testing.assert_allclose([x[0, 0] for x in outside], [-3.0, 0.0], rtol=1e-6)
    np.testing.assert_allclose([x[0, 0] for x in inside], [-4.8, -4.8], rtol=1e-6)


def test_no_wrapper_is_the_method_itself():
    assert wrapped(SURROGATES["ce_gppo"], ()) is SURROGATES["ce_gppo"]


def test_dual_clip_by_hand():
    """c = 3: delta = 4 with A = -1 has value -3 and no gradient; A > 0, or delta < 3, is left."""
    tokens = tokens_of(np.log([[4.0, 4.0, 2.0, 0.5]]), [[-1.0, 1.0, -1.0, -1.0]])
    knobs = PAPERS | dict(dual_clip=3.0)
    method = wrapped(SURROGATES["ce_gppo"], ("dual_clip",))
    value, gradient = value_and_gradient(method, tokens, knobs)
    np.testing.assert_allclose(value[0, :4], [-3, 1.2, -2, -0.4], rtol=1e-6)
    np.testing.assert_allclose(gradient[0, :4], [0, 1.2, -2, -0.4], rtol=1e-6)
    terms = method.surrogate(inputs_of(tokens), knobs_of(knobs))
    np.testing.assert_array_equal(terms.events["dual_clip"][0, :4], [True, False, False, False])


@pytest.mark.parametrize("name", ["cispo", "cispo_cap", "dppo_tv", "reinforce"])
def test_dual_clip_of_methods_whose_value_is_a_logprob(name):
    """F at delta = 4, A = -1 against c: 1.2 (cispo), 4 (the caps are 5 and 20), 1 (reinforce)."""
    weight = {"cispo": 1.2, "reinforce": 1.0}.get(name, 4.0)
    tokens = tokens_of(np.log([[4.0]]), [[-1.0]], likelier=-2.0)
    for c in (weight * 0.99, weight * 1.01):
        method = wrapped(SURROGATES[name], ("dual_clip",))
        value, gradient = value_and_gradient(method, tokens, PAPERS | dict(dual_clip=c))
        inner, _ = value_and_gradient(SURROGATES[name], tokens, PAPERS)
        expected = -weight if c > weight else 0.0
        np.testing.assert_allclose(gradient[0, 0], expected, rtol=1e-5)
        np.testing.assert_array_equal(value, inner)


def test_entropy_ratio_by_hand():
    """Kept while 1/2 < H / H_old < 3/2, both exclusive. Certainty that stays is a ratio of 1, and
    the value of what is dropped stays.
    """
    tokens = tokens_of(
        [[0.0] * 7],
        [[1.0] * 7],
        entropy=[[1.5, 1.49, 0.5, 0.51, 0.0, 1e-3, 0.0]],
        old_entropy=[[1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1e-3]],
    )
    knobs = PAPERS | dict(entropy_ratio_low=0.5, entropy_ratio_high=0.5)
    method = wrapped(SURROGATES["ce_gppo"], ("entropy_ratio",))
    value, gradient = value_and_gradient(method, tokens, knobs)
    np.testing.assert_array_equal(value[0, :7], np.ones(7))
    np.testing.assert_array_equal(gradient[0, :7], [0, 1, 0, 1, 1, 0, 0])
    terms = method.surrogate(inputs_of(tokens), knobs_of(knobs))
    np.testing.assert_array_equal(terms.events["entropy_ratio"][0, :7], gradient[0, :7] == 0)


def test_top_entropy_trains_the_selected_alone():
    method = wrapped(SURROGATES["ce_gppo"], ("top_entropy",))
    value, gradient = value_and_gradient(method, PACKED, PAPERS)
    inner_value, inner = value_and_gradient(SURROGATES["ce_gppo"], PACKED, PAPERS)
    kept = PACKED.selected["top_entropy"]
    np.testing.assert_array_equal(value, np.where(kept, inner_value, 0))
    np.testing.assert_array_equal(gradient, np.where(kept, inner, 0))
    terms = method.surrogate(inputs_of(PACKED), knobs_of(PAPERS))
    np.testing.assert_array_equal(terms.events["low_entropy"], ~kept)


@pytest.mark.parametrize("name", SURROGATES)
def test_what_a_method_asks_for_is_what_is_asked_inside_it_and_more(name):
    method = SURROGATES[name]
    both = wrapped(method, ("top_entropy", "stochastic_preservation"))
    assert both.selections == (*method.selections, "top_entropy")
    assert both.draws
    for quiet in ("dual_clip", "entropy_ratio"):
        around = wrapped(method, (quiet,))
        assert around.numbers.keys() > method.numbers.keys()
        own = {"surrogate": around.surrogate, "numbers": around.numbers}
        assert around == dataclasses.replace(method, **own)


def test_events_of_all_are_counted_side_by_side():
    method = wrapped(SURROGATES["kl_cov"], tuple(WRAPPERS))
    terms = method.surrogate(inputs_of(PACKED), knobs_of(PAPERS))
    assert set(terms.events) == {
        "covariance",
        "dual_clip",
        "entropy_ratio",
        "low_entropy",
        "not_preserved",
    }
    for happened in terms.events.values():
        assert happened.dtype == bool
        assert 0 < happened.sum() < happened.size
