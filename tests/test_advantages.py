"""Group advantages: the constants of CE-GPPO's setting, and their invariances."""

import numpy as np
import pytest

from cegppo_jax.advantages import AdvantageSettings, group_advantages

OFFICIAL = AdvantageSettings(std_ddof=1, std_epsilon=1e-6)
PAPER = AdvantageSettings(std_ddof=0, std_epsilon=1e-6)


@pytest.mark.parametrize(
    ("correct", "positive", "negative"),
    [(1, 2.475, -0.354), (2, 1.620, -0.540), (3, 1.208, -0.725), (4, 0.935, -0.935)],
)
def test_constants_of_eight_samples(correct, positive, negative):
    """k of G = 8 right, rewards +-1, unbiased standard deviation: the official code's values."""
    rewards = np.array([[1.0] * correct + [-1.0] * (8 - correct)])
    advantages = group_advantages(rewards, OFFICIAL)[0]
    np.testing.assert_allclose(advantages[:correct], positive, atol=5e-4)
    np.testing.assert_allclose(advantages[correct:], negative, atol=5e-4)


def test_population_deviation_gives_unit_variance():
    rewards = np.random.default_rng(0).normal(size=(5, 8))
    advantages = group_advantages(rewards, PAPER)
    np.testing.assert_allclose(advantages.mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(advantages.std(axis=1), 1, atol=1e-5)


def test_shift_and_scale_of_rewards_do_not_matter():
    rewards = np.random.default_rng(0).normal(size=(5, 8))
    moved = group_advantages(10 * rewards - 3, OFFICIAL)
    np.testing.assert_allclose(moved, group_advantages(rewards, OFFICIAL), atol=1e-5)


def test_equal_rewards_have_advantage_zero_exactly():
    """0.1 has no exact binary form: eight of them have a mean that is not 0.1."""
    rewards = np.full((2, 8), 0.1)
    for settings in (OFFICIAL, PAPER, AdvantageSettings(1, 0.0)):
        advantages = group_advantages(rewards, settings)
        assert advantages.dtype == np.float32
        assert not advantages.any()


def test_other_ddof_is_refused():
    with pytest.raises(ValueError, match="std_ddof = 2"):
        AdvantageSettings(2, 1e-6)
