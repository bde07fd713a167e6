"""The entropy budget: predicted change of entropy = what a small step does to a tabular policy; the
sums by quadrant and by region.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import PAPERS, SHAPE, clipped, inputs_of, knobs_of, tokens_of, value_and_gradient

from cegppo_jax.losses.contract import policy_surrogate
from cegppo_jax.losses.entropy_budget import HIGH_PROBABILITY, entropy_budget, first_order_change
from cegppo_jax.losses.logprobs import TokenStatistics, statistics_of_logits
from cegppo_jax.losses.surrogates import SURROGATES

QUADRANTS = ("pa_hp", "pa_lp", "na_hp", "na_lp")
REGIONS = ("inside", "left", "right")
METHODS = ("ce_gppo", "ppo_clip", "cispo", "sapo", "aspo", "dgpo", "dppo_kl", "reinforce")


def softmax(logits):
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def entropy_of(logits):
    probabilities = softmax(logits)
    return -(probabilities * np.log(probabilities)).sum(-1)


def statistics_of(logits, targets):
    """Logits [N, V] and targets [N] -> TokenStatistics, float64."""
    probabilities = softmax(logits)
    entropy = entropy_of(logits)
    slope = (probabilities**2 * (np.log(probabilities) + entropy[:, None])).sum(-1)
    logprobs = np.log(probabilities[np.arange(len(targets)), targets])
    return TokenStatistics(logprobs, entropy, slope)


def predicted(statistics, gradient):
    """The package's dH / eta, in float64."""
    with jax.enable_x64(True):
        statistics = jax.tree.map(jnp.asarray, statistics)
        change = first_order_change(statistics, jnp.asarray(gradient, jnp.float64))
        assert change.dtype == jnp.float64
        return np.asarray(change)


def places(vocabulary, seed=0):
    """-> logits [N, V] from nearly flat to peaked, targets [N] of every rank; N fill SHAPE."""
    random = np.random.default_rng(seed)
    count = SHAPE[0] * SHAPE[1]
    spread = random.choice([0.3, 1.0, 3.0], (count, 1))
    return spread * random.normal(size=(count, vocabulary)), random.integers(vocabulary, size=count)


def tokens_at(logprobs, seed=0):
    """Log-probs [N] -> Tokens: ratios of every region, advantages of both signs."""
    random = np.random.default_rng(seed)
    log_ratio = random.choice([-2.0, -0.4, -0.1, 0.05, 0.4, 2.0], SHAPE)
    logprobs = np.asarray(logprobs, np.float64).reshape(SHAPE)
    return tokens_of(
        log_ratio,
        random.choice([-2.0, -0.5, 0.7, 1.5], SHAPE),
        policy_logprobs=logprobs,
        old_logprobs=logprobs - log_ratio,
    )


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("vocabulary", [5, 17, 50])
def test_predicted_change_is_what_a_step_does(vocabulary, name):
    """A step eta F A (onehot - p) on the logits of one place: slope of the true entropy, by central
    difference in float64.
    """
    logits, targets = places(vocabulary)
    statistics = statistics_of(logits, targets)
    tokens = tokens_at(statistics.logprobs)
    gradient = value_and_gradient(SURROGATES[name], tokens, PAPERS)[1].ravel().astype(np.float64)
    step = gradient[:, None] * (np.eye(vocabulary)[targets] - softmax(logits))
    eta = 1e-4 / np.maximum(np.abs(gradient), 1e-3)
    after, before = (entropy_of(logits + sign * eta[:, None] * step) for sign in (1, -1))
    measured = (after - before) / (2 * eta)
    change = predicted(statistics, gradient)
    assert ((change > 0).any(), (change < 0).any()) == (True, True)
    np.testing.assert_allclose(change, measured, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_predicted_change_is_what_the_objectives_own_gradient_does(name):
    """The same with the step that jax.grad gives on the logits, from the package's own float32
    statistics.
    """
    logits, targets = places(vocabulary=20, seed=1)
    statistics = statistics_of_logits(jnp.asarray(logits, jnp.float32), jnp.asarray(targets))
    tokens = tokens_at(statistics.logprobs)

    def objective(logits):
        logprobs = statistics_of_logits(logits, jnp.asarray(targets)).logprobs.reshape(SHAPE)
        value, terms = policy_surrogate(
            SURROGATES[name], logprobs, inputs_of(tokens), knobs_of(PAPERS)
        )
        return value.sum(), terms.gradient.ravel()

    step, gradient = jax.grad(objective, has_aux=True)(jnp.asarray(logits, jnp.float32))
    eta = 1e-4
    after, before = (
        entropy_of(logits + sign * eta * np.asarray(step, np.float64)) for sign in (1, -1)
    )
    change = first_order_change(statistics, gradient)
    assert change.dtype == jnp.float32
    np.testing.assert_allclose(change, (after - before) / (2 * eta), rtol=2e-3, atol=2e-6)


@pytest.mark.parametrize("seed", range(5))
def test_the_mean_over_actions_is_the_covariance(seed):
    """Cui et al. (arXiv 2505.22617), arXiv 2509.20712 eq. 7: with centred A, dH / eta =
    -Cov(ln pi(a), pi(a) A(a)) over actions a drawn from pi.
    """
    random = np.random.default_rng(seed)
    actions = int(random.integers(5, 51))
    logits = np.tile(random.normal(0, 1.5, actions), (actions, 1))
    statistics = statistics_of(logits, np.arange(actions))
    policy = softmax(logits[0])
    advantages = random.normal(size=actions)
    advantages -= policy @ advantages
    change = policy @ predicted(statistics, advantages)
    first, second = np.log(policy), policy * advantages
    covariance = policy @ (first * second) - (policy @ first) * (policy @ second)
    assert change == pytest.approx(-covariance, rel=1e-9)


@pytest.mark.parametrize(
    ("quadrant", "probability", "advantage", "sign"),
    [
        ("pa_hp", 0.8, 1.0, -1),
        ("na_lp", 0.02, -1.0, -1),
        ("pa_lp", 0.02, 1.0, 1),
        ("na_hp", 0.8, -1.0, 1),
    ],
)
@pytest.mark.parametrize("criterion", HIGH_PROBABILITY)
def test_signs_of_the_quadrants(quadrant, probability, advantage, sign, criterion):
    """One likely token (0.8) and ten rare ones (0.02 each): entropy falls where the likely is
    pushed up or the rare down, and rises where the rare is pushed up or the likely down.
    """
    probabilities = np.array([0.8] + [0.02] * 10)
    target = int(np.flatnonzero(probabilities == probability)[0])
    statistics = statistics_of(np.log(probabilities)[None], np.array([target]))
    statistics = jax.tree.map(lambda x: jnp.full(SHAPE, x.item(), jnp.float32), statistics)
    advantages, no = jnp.full(SHAPE, advantage), jnp.zeros(SHAPE, bool)
    one = no.at[0, 0].set(True)
    budget = entropy_budget(statistics, advantages, advantages, no, no, one, criterion)
    counts = {name: budget[f"budget/{name}_tokens"].result() for name in QUADRANTS}
    assert counts == {name: int(name == quadrant) for name in QUADRANTS}
    assert np.sign(budget[f"budget/{quadrant}"].result()) == sign
    assert budget["budget/mean"].result() == pytest.approx(budget[f"budget/{quadrant}"].result())


@pytest.mark.parametrize(
    ("probability", "entropy", "half", "surprisal"),
    [
        (0.5, 0.6, True, False),
        (0.4, 2.0, False, True),
        (0.9, 0.3, True, True),
        (0.1, 1, False, False),
    ],
)
def test_criteria_by_hand(probability, entropy, half, surprisal):
    """-ln 0.5 = 0.69, -ln 0.4 = 0.92, -ln 0.9 = 0.11, -ln 0.1 = 2.3."""
    actual = {
        name: bool(criterion(jnp.log(jnp.float32(probability)), jnp.float32(entropy)))
        for name, criterion in HIGH_PROBABILITY.items()
    }
    assert actual == {"half": half, "surprisal": surprisal}


def random_budget(criterion, seed=0):
    """-> (the package's budget, its arguments as NumPy arrays by name)."""
    random = np.random.default_rng(seed)
    probabilities = random.uniform(0.01, 0.99, SHAPE)
    arguments = dict(
        logprobs=np.log(probabilities),
        entropy=random.uniform(0, 2.5, SHAPE),
        entropy_slope=random.normal(0, 0.2, SHAPE),
        gradient=random.normal(0, 1, SHAPE),
        advantages=random.choice([-1.5, -0.4, 0.0, 0.3, 1.2], SHAPE),
        ratio=np.exp(random.normal(0, 0.5, SHAPE)),
        mask=random.uniform(0, 1, SHAPE) < 0.7,
    )
    log_ratio = np.log(arguments["ratio"])
    tokens = tokens_of(log_ratio, arguments["advantages"])
    arguments["left"], arguments["right"] = clipped(tokens, PAPERS)
    return _budget(arguments, criterion), arguments


def _budget(arguments, criterion, mask=None):
    single = {
        name: jnp.asarray(values, jnp.float32 if values.dtype == float else bool)
        for name, values in arguments.items()
    }
    return entropy_budget(
        TokenStatistics(single["logprobs"], single["entropy"], single["entropy_slope"]),
        single["gradient"],
        single["advantages"],
        single["left"],
        single["right"],
        single["mask"] if mask is None else mask,
        criterion,
    )


@pytest.mark.parametrize("criterion", HIGH_PROBABILITY)
def test_sums_by_quadrant_and_region_are_numpys(criterion):
    budget, x = random_budget(criterion)
    high = {"half": np.exp(x["logprobs"]) >= 0.5, "surprisal": -x["logprobs"] < x["entropy"]}
    high = high[criterion]
    lift = np.exp(x["logprobs"]) * (x["logprobs"] + x["entropy"])
    change = -x["gradient"] * (lift - x["entropy_slope"])
    positive, negative = x["advantages"] > 0, x["advantages"] < 0
    members = {
        "pa_hp": positive & high,
        "pa_lp": positive & ~high,
        "na_hp": negative & high,
        "na_lp": negative & ~high,
        "inside": ~(x["left"] | x["right"]),
        "left": x["left"],
        "right": x["right"],
    }
    assert len(budget) == 1 + 2 * len(members)
    for name, member in members.items():
        member = member & x["mask"]
        assert member.sum() > 5
        total, count = (budget[f"budget/{name}{suffix}"] for suffix in ("", "_tokens"))
        assert total.result() == pytest.approx(change[member].sum(), rel=1e-4, abs=1e-4)
        assert count.total.dtype == jnp.int32
        assert isinstance(count.result(), int)
        assert count.result() == member.sum()
    assert budget["budget/mean"].result() == pytest.approx(change[x["mask"]].sum(), rel=1e-4)


@pytest.mark.parametrize("criterion", HIGH_PROBABILITY)
def test_every_token_has_one_quadrant_and_one_region(criterion):
    """Token by token: A = 0 has no quadrant; what is not of a completion has nothing."""
    _, x = random_budget(criterion)
    seen = set()
    for row, column in itertools.islice(np.ndindex(SHAPE), 60):
        mask = np.zeros(SHAPE, bool)
        counted = mask[row, column] = x["mask"][row, column]
        budget = _budget(x, criterion, jnp.asarray(mask))

        def number_of(names, budget=budget):
            return sum(budget[f"budget/{name}_tokens"].result() for name in names)

        has_advantage = x["advantages"][row, column] != 0
        assert number_of(REGIONS) == counted
        assert number_of(QUADRANTS) == (counted and has_advantage)
        seen.add((bool(counted), bool(has_advantage)))
    assert len(seen) == 4


def test_the_parts_are_the_whole():
    """Regions sum to the total; quadrants as well where no A is 0 (then F A is 0 in training)."""
    budget, x = random_budget("half")
    total = budget["budget/mean"].result()
    assert sum(budget[f"budget/{name}"].result() for name in REGIONS) == pytest.approx(
        total, rel=1e-4
    )
    without = x | dict(gradient=np.where(x["advantages"] == 0, 0.0, x["gradient"]))
    budget = _budget(without, "half")
    total = budget["budget/mean"].result()
    assert sum(budget[f"budget/{name}"].result() for name in QUADRANTS) == pytest.approx(
        total, rel=1e-4
    )
