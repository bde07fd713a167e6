"""Groups in hand: who trains, who waits, why the others are dropped; none goes without a count."""

import dataclasses
import random

import numpy as np
import pytest
import tiny_recipe

from cegppo_jax.reporting.metric_names import METRICS
from cegppo_jax.rollout.difficulty import UsefulBand
from cegppo_jax.rollout.selection import (
    GroupBuffer,
    GroupCounts,
    GroupVerdict,
    choose,
    group_metrics,
    group_verdict,
    is_filled,
    seen,
    version_of,
)
from cegppo_jax.rollout.settings import DYNAMIC_SAMPLING
from cegppo_jax.run.settings import read_settings
from cegppo_jax.types import Completion, Outcome, Problem, Prompt, Rollout, Score, StopReason

OUTCOMES = {
    "R": Outcome.CORRECT,
    "W": Outcome.WRONG,
    "U": Outcome.UNPARSED,
    "-": "timed_out",  # stands for every outcome that is no judgement
}
BATCH = dataclasses.replace(
    read_settings(tiny_recipe.get_config()).batch,
    dynamic_sampling="carry_over",
    trained_prompts=4,
    minibatch_prompts=2,
    max_staleness_steps=1,
)
MODES = sorted(DYNAMIC_SAMPLING)


def group(index, outcomes="RWWW", version=7):
    """A group of a prompt index; rewards that do not follow the outcomes."""
    none = np.zeros(0, np.float32)
    completions = tuple(
        Completion(index, sample, none, none, StopReason.EOS, version)
        for sample in range(len(outcomes))
    )
    scores = tuple(Score(0.25, OUTCOMES[letter], None) for letter in outcomes)
    prompt = Prompt(Problem(f"p{index}", "", "", "test"), (), index)
    return Rollout(prompt, completions, ("",) * len(outcomes), scores)


def of(*groups):
    return [one.prompt.index for one in groups]


def chosen(drawn, carried=(), version=7, **changes):
    batch = dataclasses.replace(BATCH, **changes)
    return choose(GroupBuffer(tuple(carried), tuple(drawn)), batch, version)


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ("RWWW", "useful"),
        ("RRRW", "useful"),
        ("RRRU", "useful"),  # not readable: not right
        ("RRRR", "too_easy"),
        ("WWWW", "too_hard"),
        ("WUWU", "too_hard"),
        ("RRR-", "too_easy"),
        ("WW--", "too_hard"),
        ("RW--", "useful"),
        ("----", "unjudged"),
    ],
)
def test_verdicts_by_dapos_rule(outcomes, expected):
    assert group_verdict(group(0, outcomes), UsefulBand(4, 0.0, 1.0)) == expected


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ("WWWW", "too_hard"),
        ("RWWW", "too_hard"),  # 1/4 is a limit, and limits are excluded
        ("RRWW", "useful"),
        ("RRRW", "too_easy"),
        ("RRRR", "too_easy"),
        ("RW--", "useful"),  # 1 of the 2 that were judged
        ("RWW-", "useful"),  # 1/3
    ],
)
def test_verdicts_of_a_band(outcomes, expected):
    assert group_verdict(group(0, outcomes), UsefulBand(4, 0.25, 0.75)) == expected


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [("RRWU", ("p3", 2, 4, 1 + 2 + 3 + 4)), ("RW--", ("p3", 1, 2, 1 + 2))],
)
def test_what_the_store_sees_of_a_group(outcomes, expected):
    drawn = group(3, outcomes)
    longer = [
        dataclasses.replace(one, tokens=np.zeros(1 + one.sample_index, np.int32))
        for one in drawn.completions
    ]
    assert seen(dataclasses.replace(drawn, completions=tuple(longer))) == expected


def test_none_trains_everything():
    drawn = [group(i, "RRRR" if i % 2 else "RWWW") for i in range(4)]
    groups = chosen(drawn, dynamic_sampling="none", prompts=4)
    assert of(*groups.trained) == [0, 1, 2, 3]
    assert groups.counts == GroupCounts(4, 0, 2, 4, 0, 0, 0, 0, 0, 0)
    assert not groups.starved


MIXED = [
    group(0, "RWWW"),
    group(1, "RRRR"),
    group(2, "WWWW"),
    group(3, "RRWW"),
    group(4, "----"),
    group(5, "RRRW"),
    group(6, "RWWU"),
    group(8, "RUWW"),
]


@pytest.mark.parametrize("mode", ["filter", "refill"])
def test_filter_and_refill_drop_what_is_left(mode):
    groups = chosen(MIXED, dynamic_sampling=mode)
    assert of(*groups.trained) == [0, 3, 5, 6]
    assert of(*groups.resting) == [1, 2, 4, 8]
    assert groups.carried == ()
    assert groups.counts == GroupCounts(
        drawn=8,
        carried_in=0,
        useful=5,
        trained=4,
        dropped_too_easy=1,
        dropped_too_hard=1,
        dropped_unjudged=1,
        dropped_surplus=1,
        dropped_stale=0,
        carried_out=0,
    )


def test_carry_over_keeps_what_is_left():
    groups = chosen(MIXED, dynamic_sampling="carry_over")
    assert of(*groups.trained) == [0, 3, 5, 6]
    assert of(*groups.carried) == [8]
    assert groups.counts.carried_out == 1
    assert groups.counts.dropped_surplus == 0


A6, B6, C7, D7, E7 = group(1, version=6), group(2, version=6), *(group(i) for i in (3, 4, 5))


@pytest.mark.parametrize(
    ("carried", "drawn", "trained", "waiting", "starved"),
    [
        ((A6, B6), (C7, D7, E7), [1, 2, 3, 4], [5], False),
        ((A6, B6), (D7, E7), [1, 2, 4, 5], [], False),
        ((A6, B6), (), [1, 2], [], True),
        ((A6, B6), (C7,), [1, 2], [3], True),
        ((A6,), (), [], [], True),  # too old for step 8
        ((), (C7,), [], [3], True),
        ((), (), [], [], True),
    ],
)
def test_the_worked_example_of_carry_over(carried, drawn, trained, waiting, starved):
    groups = chosen(drawn, carried)
    assert of(*groups.trained) == trained
    assert of(*groups.carried) == waiting
    assert groups.starved is starved
    assert groups.counts.balance == 0


@pytest.mark.parametrize(("version", "waits"), [(7, True), (8, True), (9, False)])
def test_a_group_waits_until_it_would_be_too_stale(version, waits):
    """Drawn by version 7, it may train at 7, 8 and 9."""
    groups = chosen((), (C7,), version, max_staleness_steps=2)
    assert of(*groups.carried) == [3] * waits
    assert groups.counts.dropped_stale == (not waits)
    assert groups.counts.balance == 0


def test_a_rollback_drops_what_the_policy_left_behind_has_drawn():
    groups = chosen(MIXED, (A6,)).left_behind()
    assert (groups.trained, groups.carried) == ((), ())
    assert groups.drawn == tuple(MIXED)
    counts = groups.counts
    assert (counts.trained, counts.carried_out, counts.dropped_stale) == (0, 0, 6)
    assert (counts.dropped_too_easy, counts.dropped_too_hard) == (1, 1)
    assert counts.balance == 0
    assert of(*groups.resting) == of(*MIXED)


@pytest.mark.parametrize("mode", MODES)
def test_a_step_is_filled_by_useful_groups(mode):
    batch = dataclasses.replace(BATCH, dynamic_sampling=mode, prompts=4)
    uniform = tuple(group(10 + i, "RRRR") for i in range(9))
    three = (*uniform, group(30), group(31), group(32))
    assert not is_filled(GroupBuffer((), ()), batch)
    assert is_filled(GroupBuffer((), uniform), batch) == (mode == "none")
    assert is_filled(GroupBuffer((), three), batch) == (mode == "none")
    assert is_filled(GroupBuffer((), (*three, group(33))), batch)


def test_carried_groups_fill_a_step():
    assert is_filled(GroupBuffer((A6, B6, C7, D7), ()), BATCH)
    assert not is_filled(GroupBuffer((A6, B6, C7), ()), BATCH)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(5))
def test_no_group_goes_without_a_count_over_many_steps(mode, seed):
    """Each is drawn once and ends once: trained, dropped, or still waiting."""
    chance = random.Random(seed)
    batch = dataclasses.replace(
        BATCH, dynamic_sampling=mode, prompts=4, max_staleness_steps=1 + seed % 3
    )
    carried, drawn_so_far, trained_so_far = (), 0, []
    for version in range(40):
        size = 4 if mode == "none" else chance.randrange(8)
        drawn = [
            group(
                drawn_so_far + i,
                "".join(chance.choices("RW-", (0.5, 0.4, 0.1), k=4)),
                version,
            )
            for i in range(size)
        ]
        drawn_so_far += size
        groups = choose(GroupBuffer(carried, tuple(drawn)), batch, version)
        counts = groups.counts
        assert counts.balance == 0
        assert (counts.drawn, counts.carried_in) == (size, len(carried))
        assert (counts.trained, counts.carried_out) == (len(groups.trained), len(groups.carried))
        assert min(vars(counts).values()) >= 0
        assert len(groups.trained) % batch.minibatch_prompts == 0
        assert len(groups.trained) <= batch.trained_prompts
        assert all(version - version_of(g) <= batch.max_staleness_steps for g in groups.trained)
        if mode != "none":
            both = (*groups.trained, *groups.carried)
            assert all(group_verdict(g, batch.band) is GroupVerdict.USEFUL for g in both)
        in_hand = of(*carried, *drawn)
        kept = of(*groups.trained, *groups.carried)
        assert kept == [index for index in in_hand if index in kept]  # in their order
        assert not set(of(*groups.trained)) & set(trained_so_far)
        trained_so_far += of(*groups.trained)
        carried = groups.carried
    assert trained_so_far == sorted(trained_so_far)
    assert trained_so_far


def test_metrics_name_every_count():
    groups = chosen(MIXED, (A6, B6))
    metrics = group_metrics(groups, version=7)
    assert metrics.keys() <= METRICS.keys()
    assert metrics["rollout/groups_dropped_too_hard"] == 1
    assert metrics["rollout/groups_carried_in"] == 2
    assert metrics["rollout/staleness_mean_steps"] == 0.5  # of 1, 1, 0, 0
    assert metrics["rollout/starved"] == 0
    assert "rollout/staleness_mean_steps" not in group_metrics(groups.left_behind(), version=7)
