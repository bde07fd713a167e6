"""Where two methods are one: the table of equalities between surrogates and wrappers.

"Bitwise" is meant literally: the same float32. Elsewhere two expressions of one number may differ
in its last digits.
"""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from cases import FLUSHED, GRIDS, KNOBS, PAPERS, clipped, knobs_of, value_and_gradient

from cegppo_jax.losses.selection import BatchView, most_uncertain_tokens
from cegppo_jax.losses.surrogates import SURROGATES
from cegppo_jax.losses.wrappers import WRAPPERS, wrapped

ONE_TOKEN, PACKED, OWN_ADVANTAGES = GRIDS.values()
UNBOUNDED = dict(clip_low=1.0, clip_high=np.inf)
RTOL = 3e-6


def run(name, tokens, knobs, wrappers=()):
    return value_and_gradient(wrapped(SURROGATES[name], wrappers), tokens, knobs)


def assert_close(actual, expected, rtol=RTOL):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=FLUSHED)


def ratios(tokens):
    """delta of tokens, saturated at e^40, by NumPy."""
    return np.exp(np.minimum(tokens.policy_logprobs - tokens.old_logprobs, 40))


def on_policy(tokens):
    """Tokens -> the same with delta = 1."""
    return tokens._replace(old_logprobs=tokens.policy_logprobs)


def unselected(tokens):
    """Tokens -> the same with no selection."""
    return tokens._replace(selected={n: np.zeros_like(m) for n, m in tokens.selected.items()})


def assert_tokens_of_every_kind(tokens, knobs):
    """The equality below is not an equality of inner tokens alone."""
    left, right = (region & tokens.completion_mask for region in clipped(tokens, knobs))
    assert left.any()
    assert right.any()


@pytest.mark.parametrize("tokens", [ONE_TOKEN, OWN_ADVANTAGES])
@pytest.mark.parametrize("knobs", ["papers", "others"])
def test_betas_of_zero_have_ppos_gradient_bitwise(tokens, knobs):
    zero = KNOBS[knobs] | dict(beta_low=0.0, beta_high=0.0)
    assert_tokens_of_every_kind(tokens, zero)
    value, gradient = run("ce_gppo", tokens, zero)
    ppo_value, ppo_gradient = run("ppo_clip", tokens, zero)
    np.testing.assert_array_equal(gradient, ppo_gradient)
    assert not np.array_equal(value, ppo_value)  # PPO's clipped value is the edge's, not 0


@pytest.mark.parametrize("tokens", [ONE_TOKEN, OWN_ADVANTAGES])
@pytest.mark.parametrize("knobs", ["papers", "others"])
def test_betas_of_one_are_gppo_bitwise(tokens, knobs):
    one = KNOBS[knobs] | dict(beta_low=1.0, beta_high=1.0)
    assert_tokens_of_every_kind(tokens, one)
    for ours, gppo in zip(
        run("ce_gppo", tokens, one), run("gppo", tokens, KNOBS[knobs]), strict=True
    ):
        np.testing.assert_array_equal(ours, gppo)


@pytest.mark.parametrize("knobs", ["papers", "others"])
def test_gppo_has_ppos_value_and_the_edge_as_its_weight(knobs):
    """arXiv 2508.07629: F is continuous at the edges."""
    value, gradient = run("gppo", ONE_TOKEN, KNOBS[knobs])
    assert_close(value, run("ppo_clip", ONE_TOKEN, KNOBS[knobs])[0])
    low, high = 1 - KNOBS[knobs]["clip_low"], 1 + KNOBS[knobs]["clip_high"]
    positive = ONE_TOKEN.advantages > 0
    edge = np.where(
        positive, np.minimum(ratios(ONE_TOKEN), high), np.maximum(ratios(ONE_TOKEN), low)
    )
    assert_close(gradient, edge * ONE_TOKEN.advantages)


@pytest.mark.parametrize(
    ("name", "knobs", "value_too"),
    [
        ("ppo_clip", {}, True),
        ("gppo", {}, True),
        ("ce_gppo", {}, True),
        ("dgpo", {}, True),
        ("clip_cov", {}, True),
        ("kl_cov", {}, True),  # needs no eps
        ("cispo", {}, False),  # value: that times ln pi
        ("cispo_cap", {"cispo_cap": np.inf}, False),
        (
            "dppo_tv",
            {"divergence_low": np.inf, "divergence_high": np.inf, "dppo_cap": np.inf},
            False,
        ),
        (
            "dppo_kl",
            {"divergence_low": np.inf, "divergence_high": np.inf, "dppo_cap": np.inf},
            False,
        ),
    ],
)
def test_no_interval_is_importance_sampling(name, knobs, value_too):
    """F = delta. Not so for SAPO's gate, ASPO's inverse, REINFORCE's 1 and what has one ratio a
    sequence: those are next.
    """
    tokens = unselected(OWN_ADVANTAGES)
    value, gradient = run(name, tokens, PAPERS | UNBOUNDED | knobs)
    expected = np.where(tokens.completion_mask, ratios(tokens) * tokens.advantages, 0)
    assert_close(gradient, expected)
    assert_close(value, expected if value_too else expected * tokens.policy_logprobs)


def test_no_interval_is_the_sequences_geometric_mean():
    """GSPO, gradient-preserving GSPO, GSPO-token and GMPO: F = s = exp(mean ln delta)."""
    knobs = PAPERS | UNBOUNDED
    results = [run(name, PACKED, knobs) for name in ("gspo", "ce_gspo", "gspo_token", "gmpo")]
    ids = PACKED.segment_ids * PACKED.completion_mask
    log_ratio = PACKED.policy_logprobs - PACKED.old_logprobs
    expected = np.zeros(ids.shape)
    for row, segment in {(r, s) for r, c in np.ndindex(ids.shape) if (s := ids[r, c])}:
        members = ids[row] == segment
        ratio = np.exp(min(log_ratio[row, members].mean(), 40))
        expected[row, members] = ratio * PACKED.advantages[row, members]
    for value, gradient in results:
        assert_close(value, expected, rtol=2e-5)
        assert_close(gradient, expected, rtol=2e-5)


@pytest.mark.parametrize(
    ("of_sequences", "of_tokens"),
    [
        ("gspo", "ppo_clip"),
        ("gspo_token", "ppo_clip"),
        ("gmpo", "ppo_clip"),
        ("ce_gspo", "ce_gppo"),
    ],
)
@pytest.mark.parametrize("knobs", KNOBS)
def test_sequences_of_one_token_are_tokens(of_sequences, of_tokens, knobs):
    value, gradient = run(of_sequences, ONE_TOKEN, KNOBS[knobs])
    token_value, token_gradient = run(of_tokens, ONE_TOKEN, KNOBS[knobs])
    assert_close(value, token_value)
    assert_close(gradient, token_gradient)


@pytest.mark.parametrize("knobs", KNOBS)
def test_gspo_token_with_one_advantage_a_sequence_is_gspo(knobs):
    for by_token, by_sequence in zip(
        run("gspo_token", PACKED, KNOBS[knobs]), run("gspo", PACKED, KNOBS[knobs]), strict=True
    ):
        assert_close(by_token, by_sequence)
    # With several, GSPO's is their mean.
    by_token, by_sequence = (
        run(name, OWN_ADVANTAGES, KNOBS[knobs])[1] for name in ("gspo_token", "gspo")
    )
    assert not np.allclose(by_token, by_sequence)


@pytest.mark.parametrize("knobs", ["papers", "others"])
def test_ce_gspo_without_betas_has_gspos_gradient_bitwise(knobs):
    zero = KNOBS[knobs] | dict(beta_low=0.0, beta_high=0.0)
    (_, gradient), (_, gspo) = run("ce_gspo", PACKED, zero), run("gspo", PACKED, zero)
    np.testing.assert_array_equal(gradient, gspo)
    assert (gspo[PACKED.completion_mask & (PACKED.advantages != 0)] == 0).any()  # some are clipped
    assert not np.allclose(run("ce_gspo", PACKED, KNOBS[knobs])[1], gspo)


ONE_ADVANTAGE_A_SEQUENCE = ("gspo", "ce_gspo")  # the mean of equal numbers, in float32


@pytest.mark.parametrize("name", sorted(set(SURROGATES) - set(ONE_ADVANTAGE_A_SEQUENCE)))
@pytest.mark.parametrize("tokens", [ONE_TOKEN, OWN_ADVANTAGES])
def test_on_policy_every_gradient_is_the_advantage_bitwise(name, tokens):
    """With one update a rollout delta = 1: nothing is clipped, every method is REINFORCE."""
    tokens = unselected(on_policy(tokens))
    _, gradient = run(name, tokens, PAPERS)
    expected = np.where(tokens.completion_mask, tokens.advantages, 0).astype(np.float32)
    np.testing.assert_array_equal(gradient, expected)


@pytest.mark.parametrize("name", ONE_ADVANTAGE_A_SEQUENCE)
def test_on_policy_a_sequences_gradient_is_its_advantage(name):
    for tokens, rtol in ((ONE_TOKEN, 0), (PACKED, 2e-7)):
        _, gradient = run(name, on_policy(tokens), PAPERS)
        expected = np.where(tokens.completion_mask, tokens.advantages, 0).astype(np.float32)
        np.testing.assert_allclose(gradient, expected, rtol=rtol)


@pytest.mark.parametrize(
    "name",
    ["ppo_clip", "gppo", "ce_gppo", "gspo_token", "gmpo", "dgpo", "clip_cov", "kl_cov", "aspo"],
)
def test_on_policy_the_ratio_methods_values_are_the_advantage_bitwise(name):
    """SAPO's is 2 A / tau; CISPO's, DPPO's and REINFORCE's A ln pi."""
    tokens = unselected(on_policy(ONE_TOKEN))
    np.testing.assert_array_equal(
        run(name, tokens, PAPERS)[0], tokens.advantages.astype(np.float32)
    )


@functools.cache
def packed_result(name):
    return run(name, PACKED, PAPERS)


@pytest.mark.parametrize("name", SURROGATES)
class TestWrappersThatDoNothing:
    """Bitwise the method itself, value and gradient."""

    @pytest.fixture
    def expected(self, name):
        return packed_result(name)

    def assert_same(self, wrapper, name, tokens, expected, knobs):
        for actual, inner in zip(run(name, tokens, knobs, (wrapper,)), expected, strict=True):
            np.testing.assert_array_equal(actual, inner)

    def test_preserving_always(self, name, expected):
        knobs = PAPERS | dict(preserve_probability=1.0)
        self.assert_same("stochastic_preservation", name, PACKED, expected, knobs)

    def test_dual_clip_at_infinity(self, name, expected):
        knobs = PAPERS | dict(dual_clip=np.inf)
        self.assert_same("dual_clip", name, PACKED, expected, knobs)

    def test_entropies_that_stay(self, name, expected):
        tokens = PACKED._replace(old_entropy=PACKED.entropy)
        self.assert_same("entropy_ratio", name, tokens, expected, PAPERS)

    def test_entropy_ratios_without_bounds(self, name, expected):
        knobs = PAPERS | dict(entropy_ratio_low=np.inf, entropy_ratio_high=np.inf)
        self.assert_same("entropy_ratio", name, PACKED, expected, knobs)

    def test_all_tokens_as_top_entropy(self, name, expected):
        knobs = PAPERS | dict(top_entropy_fraction=1.0)
        chosen = most_uncertain_tokens(_view(PACKED), knobs_of(knobs))
        np.testing.assert_array_equal(chosen[0], PACKED.completion_mask)
        tokens = PACKED._replace(selected=PACKED.selected | {"top_entropy": np.asarray(chosen[0])})
        self.assert_same("top_entropy", name, tokens, expected, knobs)


def test_each_of_those_wrappers_does_something_otherwise():
    expected = run("ce_gppo", PACKED, PAPERS)[1]
    for name in WRAPPERS:
        assert not np.array_equal(run("ce_gppo", PACKED, PAPERS, (name,))[1], expected)


def _view(tokens):
    """Tokens [R, C] -> a mini-batch of one micro-batch."""
    log_ratio = tokens.policy_logprobs - tokens.old_logprobs
    arrays = tokens.policy_logprobs, tokens.entropy, log_ratio, tokens.advantages
    return BatchView(
        *(jnp.asarray(array, jnp.float32)[None] for array in arrays),
        mask=jnp.asarray(tokens.completion_mask)[None],
        uniform=jnp.asarray(tokens.uniform, jnp.float32)[None],
    )


def test_cispo_open_on_the_left_and_right_is_the_importance_weighted_policy_gradient():
    """sg(delta) A ln pi; with both edges at 1 it is REINFORCE, bitwise."""
    value, gradient = run("cispo", ONE_TOKEN, PAPERS | UNBOUNDED)
    assert_close(gradient, ratios(ONE_TOKEN) * ONE_TOKEN.advantages)
    assert_close(value, gradient * ONE_TOKEN.policy_logprobs)
    closed = PAPERS | dict(clip_low=0.0, clip_high=0.0)
    for cispo, reinforce in zip(
        run("cispo", ONE_TOKEN, closed), run("reinforce", ONE_TOKEN, closed), strict=True
    ):
        np.testing.assert_array_equal(cispo, reinforce)


def test_cispo_open_on_the_left_is_cispo_cap_bitwise():
    """1 + clip_high = cispo_cap, both exact in float32."""
    knobs = PAPERS | dict(clip_low=1.0, clip_high=1.5, cispo_cap=2.5)
    for cispo, cap in zip(
        run("cispo", ONE_TOKEN, knobs), run("cispo_cap", ONE_TOKEN, knobs), strict=True
    ):
        np.testing.assert_array_equal(cispo, cap)


def test_dgpos_ends():
    """Left F = delta (delta / (1 - eps))^n, right F = delta ((1 + eps) / delta)^(1/m).

    n = 0 and m = inf are importance sampling, n = -1 and m = 1 GPPO.
    """
    assert_tokens_of_every_kind(ONE_TOKEN, PAPERS)
    free = run("dgpo", ONE_TOKEN, PAPERS | dict(decay_low=0.0, decay_high=np.inf))
    for actual in free:
        assert_close(actual, ratios(ONE_TOKEN) * ONE_TOKEN.advantages)
    right = clipped(ONE_TOKEN, PAPERS)[1]
    gppo = run("gppo", ONE_TOKEN, PAPERS)[1]
    assert_close(run("dgpo", ONE_TOKEN, PAPERS | dict(decay_high=1.0))[1][right], gppo[right])
    # exp(ln delta - ln delta + ln 0.8), with ln delta = 120, is known to 1e-5.
    both = run("dgpo", ONE_TOKEN, PAPERS | dict(decay_low=-1.0, decay_high=1.0))[1]
    assert_close(both, gppo, rtol=2e-5)


def test_kl_cov_without_a_penalty_is_not_clipped():
    for actual in run("kl_cov", OWN_ADVANTAGES, PAPERS | dict(covariance_kl_coef=0.0)):
        expected = ratios(OWN_ADVANTAGES) * OWN_ADVANTAGES.advantages
        assert_close(actual, np.where(OWN_ADVANTAGES.completion_mask, expected, 0))


def test_clip_cov_without_a_selection_is_ppo_bitwise():
    tokens = unselected(ONE_TOKEN)
    for actual, ppo in zip(
        run("clip_cov", tokens, PAPERS), run("ppo_clip", tokens, PAPERS), strict=True
    ):
        np.testing.assert_array_equal(actual, ppo)


@pytest.mark.parametrize("name", ["dppo_tv", "dppo_kl"])
def test_dppo_without_limits_is_cispo_cap_bitwise(name):
    knobs = PAPERS | dict(divergence_low=np.inf, divergence_high=np.inf, dppo_cap=5.0)
    for actual, capped in zip(
        run(name, ONE_TOKEN, knobs), run("cispo_cap", ONE_TOKEN, knobs), strict=True
    ):
        np.testing.assert_array_equal(actual, capped)


@pytest.mark.parametrize("knobs", KNOBS)
def test_aspo_without_a_cap_is_ppo_bitwise_where_the_advantage_is_not_positive(knobs):
    not_positive = ONE_TOKEN.advantages <= 0
    knobs = KNOBS[knobs] | {"aspo_cap": np.inf}
    for aspo, ppo in zip(
        run("aspo", ONE_TOKEN, knobs), run("ppo_clip", ONE_TOKEN, knobs), strict=True
    ):
        np.testing.assert_array_equal(aspo[not_positive], ppo[not_positive])


def test_dual_clip_on_ppo_is_a_clip_at_c():
    """arXiv 1912.09729: A < 0 and delta > c has value c A and no gradient."""
    knobs = PAPERS | dict(dual_clip=3.0)
    value, gradient = run("ppo_clip", ONE_TOKEN, knobs, ("dual_clip",))
    inner_value, inner = run("ppo_clip", ONE_TOKEN, knobs)
    hit = (ONE_TOKEN.advantages < 0) & (ratios(ONE_TOKEN) > 3)
    assert hit.any()
    assert_close(value, np.where(hit, 3 * ONE_TOKEN.advantages, inner_value))
    np.testing.assert_array_equal(gradient, np.where(hit, 0, inner))
