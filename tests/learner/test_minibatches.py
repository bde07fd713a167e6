"""Rollouts -> mini-batches: each number on its own completion's tokens."""

import dataclasses

import numpy as np
import pytest

from cegppo_jax.activity import Activity
from cegppo_jax.finite import NonFiniteError
from cegppo_jax.learner.advantages import AdvantageSettings
from cegppo_jax.learner.completion_table import MinibatchSettings
from cegppo_jax.learner.minibatches import make_minibatches, mean_entropy_change
from cegppo_jax.learner.mismatch import MismatchSettings
from cegppo_jax.losses.aggregation import AggregationSettings
from cegppo_jax.packing import PackedShape, unpack
from cegppo_jax.rewards.overlong import OverlongSettings
from cegppo_jax.rollout.selection import GroupCounts, StepGroups
from cegppo_jax.types import Completion, Outcome, Problem, Prompt, Rollout, Score, StopReason

LIMIT = 10  # tokens of a completion
GAP = 0.25  # what the sampler's log-probs are off by, at most
SETTINGS = MinibatchSettings(
    shape=PackedShape(microbatches=8, rows=2, row_tokens=24),
    share_prompts=False,
    minibatch_prompts=2,
    advantage=AdvantageSettings("group_mean", std_ddof=0, std_epsilon=0.0, pass_k=1),
    aggregation=AggregationSettings("token_mean", LIMIT, emulated_microbatch_sequences=2),
    overlong=OverlongSettings("keep", LIMIT, buffer_tokens=4, penalty=1.0),
    mismatch=MismatchSettings("none", cap=2.0, low=0.5, high=2.0),
    positive_lm=False,
    kl_place="none",
    kl_estimator="k3",
    kl_coef=0.0,
    measures_all=False,
)


def settings_with(**changes):
    """Settings, where a dict changes fields of a section."""
    sections = {
        name: dataclasses.replace(getattr(SETTINGS, name), **value)
        for name, value in changes.items()
        if isinstance(value, dict)
    }
    return dataclasses.replace(SETTINGS, **{**changes, **sections})


def statistics(scale, tokens, positions):
    """A policy of one number: log-probabilities and entropies, functions of token and place."""
    logprobs = -1.0 - scale * np.sin(3.0 * tokens + positions)
    return logprobs.astype(np.float32), (2.0 + 2 * scale * np.cos(tokens + positions)).astype(
        np.float32
    )


def fake_logprobs(params, batch):
    return statistics(params, np.asarray(batch.tokens), np.asarray(batch.positions))


def group_of(index, outcomes, lengths):
    """A prompt of 1 + index tokens; a completion of LIMIT tokens was cut off there."""
    random = np.random.default_rng(index)
    prompt = Prompt(
        Problem(id=f"p{index}", problem="", answer="", source="test"),
        tuple(int(t) for t in random.integers(2, 30, size=1 + index)),
        index=40 + 3 * index,
    )
    completions, scores = [], []
    for sample, (outcome, length) in enumerate(zip(outcomes, lengths, strict=True)):
        tokens = random.integers(2, 30, size=length).astype(np.int32)
        own, _ = statistics(0.5, tokens, len(prompt.tokens) + np.arange(length))
        gap = GAP * np.sin(5.0 * np.arange(length) + sample + index)
        completions.append(
            Completion(
                prompt_index=prompt.index,
                sample_index=sample,
                tokens=tokens,
                sampler_logprobs=(own - gap).astype(np.float32),
                stop_reason=StopReason.LENGTH if length == LIMIT else StopReason.EOS,
                policy_version=0,
            )
        )
        scores.append(Score(1.0 if outcome is Outcome.CORRECT else -1.0, outcome, "0"))
    return Rollout(prompt, tuple(completions), ("",) * len(outcomes), tuple(scores))


RIGHT, WRONG, UNREAD = Outcome.CORRECT, Outcome.WRONG, Outcome.UNPARSED
ROLLOUTS = [
    group_of(0, (RIGHT, WRONG, WRONG), (3, 10, 5)),
    group_of(1, (RIGHT, RIGHT, RIGHT), (2, 4, 9)),
    group_of(2, (WRONG, UNREAD, WRONG), (1, 8, 10)),
    group_of(3, (RIGHT, RIGHT, UNREAD), (7, 6, 10)),
    group_of(4, (WRONG, RIGHT, WRONG), (4, 4, 4)),
    group_of(5, (RIGHT, WRONG, RIGHT), (10, 2, 3)),
]
COMPLETIONS = [c for rollout in ROLLOUTS for c in rollout.completions]
LENGTHS = np.array([len(c.tokens) for c in COMPLETIONS])
REWARDS = np.array([[s.reward for s in r.scores] for r in ROLLOUTS])
STARTS = np.repeat([len(r.prompt.tokens) for r in ROLLOUTS], 3)


def own_statistics(params):
    """-> log-probs and entropies of each completion, without a packed batch."""
    pairs = [
        statistics(params, c.tokens, start + np.arange(len(c.tokens)))
        for c, start in zip(COMPLETIONS, STARTS, strict=True)
    ]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def step_groups(drawn, trained):
    """Of groups drawn and trained; the counts play no part here."""
    return StepGroups(tuple(drawn), tuple(trained), (), GroupCounts(*[0] * 10), starved=False)


def made(settings=SETTINGS, rollouts=ROLLOUTS, reference=None, drawn=None):
    """Of rollouts that train; those drawn are the same, or others."""
    groups = step_groups(rollouts if drawn is None else drawn, rollouts)
    prepared = make_minibatches(groups, 0.5, reference, fake_logprobs, settings, Activity())
    if prepared.update_finds_old:
        prepared = prepared.with_first(fake_logprobs(0.5, prepared.packed[0].batch))
    return prepared.minibatches, prepared.measured().metrics


def by_completion(minibatches, read, per=6):
    """Mini-batches and what to read of one -> an array of token values for each completion."""
    return [one for m in minibatches for one in unpack(read(m), m.batch, per)]


def advantages_of(minibatches):
    return by_completion(minibatches, lambda m: m.batch.advantages)


def assert_each(actual, expected):
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def spread(values):
    """One number a completion -> one a token."""
    return [np.full(n, v) for n, v in zip(LENGTHS, np.ravel(values), strict=True)]


def group_mean(rewards):
    return rewards - rewards.mean(axis=1, keepdims=True)


def test_whole_groups_in_order_with_their_own_numbers():
    minibatches, _ = made()
    assert len(minibatches) == 3
    tokens = by_completion(minibatches, lambda m: m.batch.tokens)
    assert_each(tokens, [c.tokens for c in COMPLETIONS])
    assert_each(advantages_of(minibatches), spread(group_mean(REWARDS)))
    logprobs, entropies = own_statistics(0.5)
    assert_each(by_completion(minibatches, lambda m: m.old.logprobs), logprobs)
    assert_each(by_completion(minibatches, lambda m: m.old.entropy), entropies)
    assert all(m.old.ref_logprobs is None for m in minibatches)


CHANGES = {
    "nothing": ({}, True),
    "KL in the loss": ({"kl_place": "loss"}, True),
    "KL in the reward": ({"kl_place": "reward"}, False),
    "a correction": ({"mismatch": {"correction": "token_truncate"}}, False),
    "steering": ({"measures_all": True}, False),
}


@pytest.mark.parametrize("case", CHANGES)
def test_the_first_update_finds_old_log_probs_that_nothing_needs_before_it(case):
    changes, finds = CHANGES[case]
    passes = []

    def counted(params, batch):
        passes.append(params)
        return fake_logprobs(params, batch)

    groups, settings = step_groups(ROLLOUTS, ROLLOUTS), settings_with(**changes)
    prepared = make_minibatches(groups, 0.5, 0.9, counted, settings, Activity())
    assert prepared.update_finds_old == finds
    assert passes.count(0.5) == 3 - finds
    first = prepared.minibatches[0]
    assert np.any(first.old.logprobs) != finds
    if finds:
        filled = prepared.with_first(fake_logprobs(0.5, first.batch))
        before = settings_with(**changes, measures_all=True)
        known = make_minibatches(groups, 0.5, 0.9, counted, before, Activity())
        assert filled.measured().metrics == known.measured().metrics
        logprobs = by_completion(filled.minibatches, lambda m: m.old.logprobs)
        assert_each(logprobs, own_statistics(0.5)[0])


def test_a_log_prob_that_the_update_finds_not_finite_stops_the_run():
    groups = step_groups(ROLLOUTS, ROLLOUTS)
    prepared = make_minibatches(groups, 0.5, None, fake_logprobs, SETTINGS, Activity())
    logprobs, entropies = fake_logprobs(0.5, prepared.packed[0].batch)
    with pytest.raises(NonFiniteError, match="p0"):
        prepared.with_first((logprobs * np.float32(np.nan), entropies))


def test_a_draw_is_told_by_prompt_and_sample():
    draws = by_completion(made()[0], lambda m: m.batch.draw_ids)
    assert_each(draws, spread([3 * c.prompt_index + c.sample_index for c in COMPLETIONS]))


def test_the_token_mean_is_of_the_mini_batch():
    weights = by_completion(made()[0], lambda m: m.batch.loss_weights)
    tokens = LENGTHS.reshape(3, 6).sum(axis=1)
    assert_each(weights, spread(np.repeat(1 / tokens, 6)))


def test_metrics_are_of_all_completions():
    _, metrics = made()
    gaps = np.concatenate(own_statistics(0.5)[0]) - np.concatenate(
        [c.sampler_logprobs for c in COMPLETIONS]
    )
    assert metrics["policy/sampler_gap_max"] == pytest.approx(np.abs(gaps).max(), rel=1e-5)
    assert metrics["policy/sampler_gap_mean"] == pytest.approx(np.abs(gaps).mean(), rel=1e-5)
    entropy = np.concatenate(own_statistics(0.5)[1]).mean()
    assert metrics["policy/old_entropy"] == pytest.approx(entropy, rel=1e-6)
    assert 0.3 < metrics["packing/efficiency"] <= 1
    assert metrics["reward/overlong_masked_fraction"] == 0


def test_only_trained_groups_are_packed_and_in_their_order():
    minibatches, _ = made(rollouts=[ROLLOUTS[4], ROLLOUTS[1]], drawn=ROLLOUTS)
    tokens = by_completion(minibatches, lambda m: m.batch.tokens)
    assert_each(tokens, [c.tokens for g in (4, 1) for c in ROLLOUTS[g].completions])


@pytest.mark.parametrize("drawn", [(), ROLLOUTS[1:3]])
def test_no_group_that_trains_gives_nothing(drawn):
    assert made(rollouts=[], drawn=drawn) == ([], {})


def test_soft_penalty_is_part_of_the_reward():
    """From 7 tokens on, a quarter a token; compared within the group."""
    minibatches, _ = made(settings_with(overlong={"policy": "soft_penalty"}))
    penalties = -np.clip((LENGTHS - 6) / 4, 0, 1).reshape(6, 3)
    assert penalties.min() == -1
    expected = group_mean(REWARDS + penalties)
    assert_each(advantages_of(minibatches), spread(expected))


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean"])
def test_masked_completions_count_in_no_denominator(aggregation):
    settings = settings_with(
        overlong={"policy": "mask"}, aggregation={"name": aggregation}, positive_lm=True
    )
    minibatches, metrics = made(settings)
    trains = LENGTHS < LIMIT
    assert metrics["reward/overlong_masked_fraction"] == pytest.approx(1 - trains.mean())
    right = REWARDS.ravel() > 0
    expected, expected_lm = np.zeros(18), np.zeros(18)
    for start in (0, 6, 12):
        own = np.arange(start, start + 6)
        kept = own[trains[own]]
        tokens = LENGTHS[kept].sum()
        expected[kept] = (
            1 / tokens if aggregation == "token_mean" else 1 / (len(kept) * LENGTHS[kept])
        )
        good = kept[right[kept]]
        expected_lm[good] = 1 / LENGTHS[good].sum() if len(good) else 0
    assert_each(by_completion(minibatches, lambda m: m.batch.loss_weights), spread(expected))
    assert_each(by_completion(minibatches, lambda m: m.batch.lm_weights), spread(expected_lm))
    # A reward stays a reward: the group is compared with all its completions.
    assert_each(advantages_of(minibatches), spread(group_mean(REWARDS)))


def test_a_minibatch_of_masked_completions_only_weighs_nothing():
    cut = [group_of(i, (RIGHT, WRONG, WRONG), (LIMIT,) * 3) for i in range(2)]
    minibatches, metrics = made(settings_with(overlong={"policy": "mask"}, positive_lm=True), cut)
    assert metrics["reward/overlong_masked_fraction"] == 1
    [minibatch] = minibatches
    assert not np.any(minibatch.batch.loss_weights)
    assert not np.any(minibatch.batch.lm_weights)


def test_without_an_lm_term_its_weights_are_zero():
    assert not any(np.any(m.batch.lm_weights) for m in made()[0])


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_kl_in_the_reward(estimator):
    settings = settings_with(kl_place="reward", kl_estimator=estimator, kl_coef=0.3)
    minibatches, metrics = made(settings, reference=0.9)
    ratios = [a - b for a, b in zip(own_statistics(0.5)[0], own_statistics(0.9)[0], strict=True)]
    each = {"k1": lambda x: x, "k3": lambda x: np.exp(-x) - 1 + x}[estimator]
    kl = np.array([each(x.astype(float)).sum() for x in ratios])
    assert np.abs(kl).max() > 0.1
    expected = group_mean(REWARDS - 0.3 * kl.reshape(6, 3))
    assert_each(advantages_of(minibatches), spread(expected))
    assert metrics["reward/kl_penalty_mean"] == pytest.approx(0.3 * kl.mean(), rel=1e-4)
    assert all(m.old.ref_logprobs is None for m in minibatches)


def test_kl_in_the_loss():
    minibatches, metrics = made(settings_with(kl_place="loss", kl_coef=0.3), reference=0.9)
    ref = by_completion(minibatches, lambda m: m.old.ref_logprobs)
    assert_each(ref, own_statistics(0.9)[0])
    assert_each(advantages_of(minibatches), spread(group_mean(REWARDS)))
    assert "reward/kl_penalty_mean" not in metrics


def test_corrections_are_of_trainer_over_sampler():
    settings = settings_with(mismatch={"correction": "token_mask", "low": 0.9, "high": 1.1})
    corrections = by_completion(made(settings)[0], lambda m: m.batch.corrections)
    ratios = [
        np.exp(own - c.sampler_logprobs)
        for own, c in zip(own_statistics(0.5)[0], COMPLETIONS, strict=True)
    ]
    expected = [np.where((r >= 0.9) & (r <= 1.1), r, 0) for r in ratios]
    zeros = np.mean(np.concatenate(expected) == 0)
    assert 0.1 < zeros < 0.9
    assert_each(corrections, expected)
    assert_each(by_completion(made()[0], lambda m: m.batch.corrections), spread(np.ones(18)))


# What steering reads


def entropy_of_all(params):
    return np.concatenate(own_statistics(params)[1]).mean()


TRAINED = [ROLLOUTS[i] for i in (0, 3, 4, 5)]


@pytest.mark.parametrize("measures_all", [False, True])
def test_the_entropy_of_resting_groups_is_measured_where_steering_reads_it(measures_all):
    _, metrics = made(settings_with(measures_all=measures_all), TRAINED, drawn=ROLLOUTS)
    assert ("policy/rollout_entropy" in metrics) == measures_all
    if measures_all:
        assert metrics["policy/rollout_entropy"] == pytest.approx(entropy_of_all(0.5), rel=1e-6)
    assert metrics["policy/old_entropy"] != pytest.approx(entropy_of_all(0.5), rel=1e-3)


def test_steering_sees_a_step_that_trains_nothing():
    minibatches, metrics = made(settings_with(measures_all=True), [], drawn=ROLLOUTS)
    assert not minibatches
    assert metrics == {
        "policy/rollout_entropy": pytest.approx(entropy_of_all(0.5), rel=1e-6),
    }


@pytest.mark.parametrize("measures_all", [False, True])
def test_the_rollout_entropy_is_of_what_was_drawn_and_of_no_carried_group(measures_all):
    """0 and 1 train and were drawn by an earlier step, 2 and 3 train, 4 and 5 rest."""
    settings = settings_with(measures_all=measures_all)
    entropies = own_statistics(0.5)[1]
    _, metrics = made(settings, ROLLOUTS[:4], drawn=ROLLOUTS[2:4])
    fresh = np.concatenate(entropies[6:12]).mean()
    assert metrics["policy/rollout_entropy"] == pytest.approx(fresh, rel=1e-6)
    trained = np.concatenate(entropies[:12]).mean()
    assert metrics["policy/old_entropy"] == pytest.approx(trained, rel=1e-6)
    _, metrics = made(settings, ROLLOUTS[:4], drawn=ROLLOUTS[2:])
    assert ("policy/rollout_entropy" in metrics) == measures_all
    if measures_all:
        drawn = np.concatenate(entropies[6:]).mean()
        assert metrics["policy/rollout_entropy"] == pytest.approx(drawn, rel=1e-6)
    _, metrics = made(settings, ROLLOUTS[:4], drawn=())
    assert "policy/rollout_entropy" not in metrics


def test_masked_completions_are_drawn_but_do_not_train():
    minibatches, metrics = made(settings_with(overlong={"policy": "mask"}))
    trains = np.asarray([c.stop_reason is not StopReason.LENGTH for c in COMPLETIONS])
    assert 0 < trains.sum() < len(trains)
    entropies = own_statistics(0.5)[1]
    kept = np.concatenate([e for e, t in zip(entropies, trains, strict=True) if t]).mean()
    assert metrics["policy/old_entropy"] == pytest.approx(kept, rel=1e-6)
    assert metrics["policy/rollout_entropy"] == pytest.approx(entropy_of_all(0.5), rel=1e-6)
    masks = by_completion(minibatches, lambda m: m.batch.trained_mask)
    assert_each(masks, [np.full(n, t) for n, t in zip(LENGTHS, trains, strict=True)])


def test_the_measured_change_is_over_all_tokens_that_train():
    minibatches, _ = made(settings_with(overlong={"policy": "mask"}))
    trains = [c.stop_reason is not StopReason.LENGTH for c in COMPLETIONS]
    before, after = own_statistics(0.5)[1], own_statistics(0.7)[1]
    expected = np.concatenate(
        [b - a for a, b, t in zip(before, after, trains, strict=True) if t]
    ).mean()
    assert expected != 0
    given = [minibatch.old.entropy for minibatch in minibatches]
    actual = mean_entropy_change(minibatches, given, 0.7, fake_logprobs)
    assert actual == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("broken", "place", "whose"),
    [(0.5, "none", "trainer"), (0.7, "loss", "reference"), (0.7, "reward", "reference")],
)
def test_a_log_probability_that_is_not_finite_is_named(broken, place, whose):
    """Group p3, its sample 1: tokens 2 and 4, by the parameters `broken`."""
    target = COMPLETIONS[10].tokens

    def logprobs(params, batch):
        values, entropies = fake_logprobs(params, batch)
        if params == broken:
            places = [
                start
                for start in np.ndindex(batch.tokens.shape)
                if np.array_equal(batch.tokens[start[:2]][start[2] :][: len(target)], target)
            ]
            for micro, row, column in places:
                values[micro, row, column + 2] = np.nan
                values[micro, row, column + 4] = -np.inf
        return values, entropies

    settings = settings_with(kl_place=place, kl_estimator="k1", kl_coef=0.1)
    groups = step_groups(ROLLOUTS, ROLLOUTS)
    reference = None if place == "none" else 0.7
    with pytest.raises(NonFiniteError) as raised:
        make_minibatches(groups, 0.5, reference, logprobs, settings, Activity())
    message = str(raised.value)
    assert f"the {whose}'s" in message
    assert f"2 of {len(target)} tokens of prompt 'p3', sample 1, first nan at token 2" in message
