"""Advantages: the constants of CE-GPPO's setting, invariances, and equalities of estimators."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

from cegppo_jax.learner.advantages import ADVANTAGES, AdvantageSettings, compute_advantages

OFFICIAL = AdvantageSettings("group_normalised", std_ddof=1, std_epsilon=1e-6, pass_k=4)
PAPER = dataclasses.replace(OFFICIAL, std_ddof=0)
EXACT = dataclasses.replace(PAPER, std_epsilon=0.0)

# max_rl takes no negative reward and no shift: its tests stand at the end.
ESTIMATORS = sorted(set(ADVANTAGES) - {"max_rl"})
OF_GROUPS = sorted(set(ESTIMATORS) - {"batch_whitened"})
OF_UNIT_SCALE = sorted(set(ESTIMATORS) - {"group_mean", "leave_one_out"})


def estimate(estimator, rewards, settings=EXACT):
    return compute_advantages(
        np.asarray(rewards), dataclasses.replace(settings, estimator=estimator)
    )


def random_rewards(seed=0, shape=(5, 8)):
    return np.random.default_rng(seed).normal(size=shape)


def right_of_eight(right):
    return np.array([[1.0] * right + [-1.0] * (8 - right)])


@pytest.mark.parametrize(
    ("right", "positive", "negative"),
    [
        (1, 2.475, -0.354),
        (2, 1.620, -0.540),
        (3, 1.208, -0.725),
        (4, 0.935, -0.935),
        (5, 0.725, -1.208),
        (6, 0.540, -1.620),
        (7, 0.354, -2.475),
    ],
)
def test_constants_of_eight_samples(right, positive, negative):
    """k of G = 8 right, rewards +-1, unbiased standard deviation: the official code's values."""
    advantages = compute_advantages(right_of_eight(right), OFFICIAL)[0]
    np.testing.assert_allclose(advantages[:right], positive, atol=5e-4)
    np.testing.assert_allclose(advantages[right:], negative, atol=5e-4)


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        # Group means 1 and 3, batch mean 2; deviations 1 and 1, of the batch sqrt(2).
        ("group_normalised", [[-1, 1], [-1, 1]]),
        ("group_mean", [[-1, 1], [-1, 1]]),
        ("leave_one_out", [[-2, 2], [-2, 2]]),
        ("batch_whitened", [[-math.sqrt(2), 0], [0, math.sqrt(2)]]),
        ("batch_whitened_baseline", [[-1, 1], [-1, 1]]),
        ("pass_at_k", [[0, 0], [0, 0]]),  # k = G: one set, and nothing to compare it with
    ],
)
def test_by_hand(estimator, expected):
    settings = dataclasses.replace(EXACT, pass_k=2)
    advantages = estimate(estimator, [[0.0, 2.0], [2.0, 4.0]], settings)
    np.testing.assert_allclose(advantages, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        ("group_normalised", 0.5),  # 1 / (1 + 1)
        ("group_mean", 1),
        ("leave_one_out", 2),
        ("batch_whitened", 0.5),
        ("batch_whitened_baseline", 0.5),
        ("pass_at_k", 0.5),
    ],
)
def test_epsilon_is_added_to_the_deviation(estimator, expected):
    settings = dataclasses.replace(EXACT, std_epsilon=1.0, pass_k=1)
    advantages = estimate(estimator, [[0.0, 2.0]], settings)
    np.testing.assert_allclose(advantages, [[-expected, expected]], rtol=1e-6)


def test_one_scale_for_all_groups_is_the_centred_rewards_own():
    """Rewards (0, 0, 0, 4) and (9, 11, 9, 11): centred (-1, -1, -1, 3) and +-1, whose squares have
    mean (12 + 4) / 8 = 2. The rewards themselves have variance 24.
    """
    advantages = estimate("batch_whitened_baseline", [[0.0, 0, 0, 4], [9, 11, 9, 11]])
    expected = np.array([[-1, -1, -1, 3], [-1, 1, -1, 1]]) / math.sqrt(2)
    np.testing.assert_allclose(advantages, expected, atol=1e-6)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_float32_in_the_shape_of_the_rewards(estimator):
    advantages = estimate(estimator, random_rewards())
    assert advantages.dtype == np.float32
    assert advantages.shape == (5, 8)
    np.testing.assert_allclose(advantages.sum(), 0, atol=1e-4)
    assert np.abs(advantages).max() > 0.5


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_shift_of_all_rewards_does_not_matter(estimator):
    rewards = random_rewards()
    np.testing.assert_allclose(
        estimate(estimator, rewards - 3), estimate(estimator, rewards), atol=1e-5
    )


@pytest.mark.parametrize("estimator", OF_GROUPS)
def test_a_shift_of_one_group_does_not_matter(estimator):
    rewards = random_rewards()
    shifted = rewards + np.array([[0.0], [5.0], [0.0], [-2.0], [0.0]])
    before = estimate(estimator, rewards)
    np.testing.assert_allclose(estimate(estimator, shifted), before, atol=1e-5)


def test_batch_whitened_sees_the_shift_of_one_group():
    rewards = random_rewards()
    shifted = rewards + np.array([[0.0], [50.0], [0.0], [0.0], [0.0]])
    assert estimate("batch_whitened", shifted)[1].min() > 0
    assert estimate("batch_whitened", shifted)[0].max() < 0


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_scale_of_rewards(estimator):
    factor = 1 if estimator in OF_UNIT_SCALE else 10
    rewards = random_rewards()
    np.testing.assert_allclose(
        estimate(estimator, 10 * rewards), factor * estimate(estimator, rewards), rtol=1e-4
    )


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("rewards", [random_rewards(), np.round(random_rewards())])
def test_order_within_a_group_and_of_groups_does_not_matter(estimator, rewards):
    """Rounded rewards have ties, whose members must be treated alike."""
    order = np.random.default_rng(1).permutation(8)
    groups = np.random.default_rng(2).permutation(5)
    np.testing.assert_allclose(
        estimate(estimator, rewards[groups][:, order]),
        estimate(estimator, rewards)[groups][:, order],
        atol=1e-6,
    )


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_higher_reward_never_has_a_lower_advantage(estimator):
    rewards = random_rewards()
    ordered = np.take_along_axis(estimate(estimator, rewards), np.argsort(rewards, axis=1), axis=1)
    assert (np.diff(ordered, axis=1) >= -1e-6).all()
    assert (ordered[:, -1] > ordered[:, 0]).all()


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("settings", [OFFICIAL, PAPER, EXACT])
def test_equal_rewards_have_advantage_zero_exactly(estimator, settings):
    """0.1 has no exact binary form: seven of them have a mean that is not 0.1."""
    assert np.full(7, 0.1).mean() != 0.1
    assert not estimate(estimator, np.full((1, 7), 0.1), settings).any()


@pytest.mark.parametrize("estimator", OF_GROUPS)
@pytest.mark.parametrize("settings", [OFFICIAL, PAPER, EXACT])
def test_a_uniform_group_beside_others_has_advantage_zero_exactly(estimator, settings):
    rewards = np.concatenate([np.full((1, 7), 0.1), random_rewards(shape=(4, 7))])
    advantages = estimate(estimator, rewards, settings)
    assert not advantages[0].any()
    assert advantages[1:].all()


def test_batch_whitened_praises_a_group_that_is_always_right():
    rewards = np.array([[1.0] * 8, [1.0] + [-1.0] * 7])
    advantages = estimate("batch_whitened", rewards)
    assert (advantages[0] > 0).all()
    assert (advantages[1, 1:] < 0).all()


@pytest.mark.parametrize(("estimator", "axis"), [("group_normalised", 1), ("batch_whitened", None)])
@pytest.mark.parametrize("ddof", [0, 1])
def test_unit_variance(estimator, axis, ddof):
    settings = dataclasses.replace(EXACT, std_ddof=ddof)
    advantages = estimate(estimator, random_rewards(), settings).astype(np.float64)
    np.testing.assert_allclose(advantages.mean(axis=axis), 0, atol=1e-6)
    np.testing.assert_allclose(advantages.std(axis=axis, ddof=ddof), 1, atol=1e-5)


def test_leave_one_out_by_its_definition():
    rewards = random_rewards()
    others = np.array([[np.delete(group, i).mean() for i in range(8)] for group in rewards])
    np.testing.assert_allclose(estimate("leave_one_out", rewards), rewards - others, atol=1e-6)


def test_leave_one_out_is_a_multiple_of_group_mean():
    rewards = random_rewards()
    np.testing.assert_allclose(
        estimate("leave_one_out", rewards), 8 / 7 * estimate("group_mean", rewards), rtol=1e-6
    )


@pytest.mark.parametrize("settings", [OFFICIAL, PAPER])
@pytest.mark.parametrize("estimator", ["batch_whitened", "batch_whitened_baseline"])
def test_a_batch_of_one_group_is_group_normalised(estimator, settings):
    rewards = random_rewards(shape=(1, 8))
    np.testing.assert_allclose(
        estimate(estimator, rewards, settings),
        estimate("group_normalised", rewards, settings),
        atol=1e-6,
    )


def test_baseline_is_batch_whitened_of_centred_rewards():
    rewards = random_rewards()
    centred = rewards - rewards.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(
        estimate("batch_whitened_baseline", rewards, OFFICIAL),
        estimate("batch_whitened", centred, OFFICIAL),
        atol=1e-6,
    )
    assert not np.allclose(
        estimate("batch_whitened_baseline", rewards), estimate("batch_whitened", rewards), atol=0.1
    )


def test_pass_at_one_is_group_normalised():
    rewards = random_rewards()
    settings = dataclasses.replace(EXACT, pass_k=1)
    np.testing.assert_allclose(
        estimate("pass_at_k", rewards, settings), estimate("group_normalised", rewards), atol=1e-5
    )


@pytest.mark.parametrize("k", [1, 2, 3, 7])
@pytest.mark.parametrize("right", range(9))
def test_pass_at_k_is_the_papers_closed_form(k, right):
    """Arithmetic of arXiv 2508.10751, section 2.4, for right and wrong of 8, on both scales."""
    wrong = 8 - right
    mean = 1 - math.comb(wrong, k) / math.comb(8, k)
    std = math.sqrt(mean * (1 - mean)) or 1.0
    positive = (1 - mean) / std
    without_it = math.comb(wrong - 1, k - 1) if wrong else 0
    negative = (1 - mean - without_it / math.comb(7, k - 1)) / std
    expected = [[positive] * right + [negative] * wrong]
    settings = dataclasses.replace(EXACT, pass_k=k)
    plus_minus = right_of_eight(right)
    for rewards in (plus_minus, (plus_minus + 1) / 2):
        advantages = estimate("pass_at_k", rewards, settings)
        np.testing.assert_allclose(advantages, expected, atol=1e-6)


@pytest.mark.parametrize("k", [1, 2, 4, 5])
@pytest.mark.parametrize("rewards", [random_rewards(), np.round(2 * random_rewards())])
def test_pass_at_k_by_enumeration(k, rewards):
    rewards = rewards[:, :6]
    settings = dataclasses.replace(PAPER, pass_k=k)
    sets = list(itertools.combinations(range(6), k))
    expected = []
    for group in rewards:
        best = np.array([max(group[list(members)]) for members in sets])
        own = [np.mean([b for b, s in zip(best, sets, strict=True) if i in s]) for i in range(6)]
        expected.append((np.array(own) - best.mean()) / (best.std() + settings.std_epsilon))
    np.testing.assert_allclose(estimate("pass_at_k", rewards, settings), expected, atol=1e-5)


def test_pass_at_k_is_silent_when_every_set_succeeds():
    """4 right of 7, sets of 4: every set holds a right one. 0.7 has no exact binary form."""
    rewards = np.array([[0.7] * 4 + [-0.3] * 3])
    assert not estimate("pass_at_k", rewards).any()
    assert estimate("pass_at_k", rewards, dataclasses.replace(EXACT, pass_k=3)).all()


@pytest.mark.parametrize(("k", "peak"), [(1, 4), (4, 2)])
def test_pass_at_k_turns_to_harder_problems(k, peak):
    """n right of 8, whose sets succeed with probability m: the sum of |A| is 2 n sqrt((1 - m) / m).
    k = 1: m = n / 8, largest at n = 4. k = 4: m = 1/2, 55/70, 65/70 for n = 1, 2, 3, hence 2, 2.09
    and 1.66.
    """
    settings = dataclasses.replace(EXACT, pass_k=k)
    sums = [np.abs(estimate("pass_at_k", right_of_eight(n), settings)).sum() for n in range(9)]
    assert int(np.argmax(sums)) == peak
    assert k == 1 or sums[1:4] == pytest.approx([2, 2.09, 1.66], abs=0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"std_ddof": 2}, "std_ddof = 2: .*0 or 1"),
        ({"std_epsilon": -1.0}, "std_epsilon = -1.0: at least 0"),
        ({"std_epsilon": float("nan")}, "std_epsilon = nan"),
        ({"pass_k": 0}, "pass_k = 0: at least 1"),
        (
            {"estimator": "leave_1_out"},
            "'leave_1_out' does not exist: did you mean 'leave_one_out'",
        ),
        ({"estimator": "xyz"}, "'xyz' does not exist: There are .'batch_whitened', "),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(OFFICIAL, **change)


@pytest.mark.parametrize("shape", [(8,), (4, 1), (2, 2, 2)])
def test_rewards_of_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"\[P, G\]"):
        compute_advantages(np.zeros(shape), OFFICIAL)


def test_sets_larger_than_the_group_are_refused():
    with pytest.raises(ValueError, match=r"pass_k = 4 .* 3 samples"):
        estimate("pass_at_k", random_rewards(shape=(2, 3)))


@pytest.mark.parametrize(
    ("right", "advantage_right", "advantage_wrong"),
    [(1, 7.0, -1.0), (2, 3.0, -1.0), (4, 1.0, -1.0), (8, 0.0, None), (0, None, 0.0)],
)
def test_max_rl_of_eight_samples(right, advantage_right, advantage_wrong):
    """(R - m) / m with rewards 1 and 0: 1 / (success rate) - 1 for a right one."""
    advantages = estimate("max_rl", np.array([[1.0] * right + [0.0] * (8 - right)]))[0]
    if advantage_right is not None:
        np.testing.assert_allclose(advantages[:right], advantage_right, atol=1e-4)
    if advantage_wrong is not None:
        np.testing.assert_allclose(advantages[right:], advantage_wrong, atol=1e-4)


def test_max_rl_refuses_negative_rewards_with_the_number():
    with pytest.raises(ValueError, match=r"max_rl.* -1: .*at least 0"):
        estimate("max_rl", np.array([[1.0, -1.0]]))
