"""Difficulty: what is estimated of a problem, and which prompts are passed over for it."""

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest

from cegppo_jax.data.prompts import PromptStream
from cegppo_jax.data.sources import FiniteSource, GeneratedSource
from cegppo_jax.data.tasks.table import TASKS, Split
from cegppo_jax.data.tokenizer import build_character_tokenizer
from cegppo_jax.reporting.metric_names import METRICS
from cegppo_jax.rollout.difficulty import (
    NOTHING_SEEN,
    PROMPT_WEIGHTING,
    DifficultySettings,
    DifficultyStore,
    Seen,
    Tally,
    UsefulBand,
    best_chance,
    difficulty_metrics,
    lot,
    observe,
    success_estimate,
    take_weighted,
    weight_by_difficulty,
)
from cegppo_jax.types import Problem

SETTINGS = DifficultySettings(
    capacity_problems=100, decay=0.5, prior_success=0.5, prior_samples=2.0, least_weight=0.1
)
BAND = UsefulBand(4, 0.0, 1.0)
PROBLEMS = [Problem(f"p{i}", "1" * (1 + (i == 7) * 9), "", "test") for i in range(10)]
SOURCES = {
    "finite": FiniteSource(PROBLEMS),
    "generated": GeneratedSource(
        task=TASKS["chained_arithmetic"], split=Split.TRAIN, min_steps=1, max_steps=1
    ),
}


def with_(**changes):
    return dataclasses.replace(SETTINGS, **changes)


def stream(name="finite", seed=0):
    """Of the finite problems one is too long."""
    return PromptStream(
        source=SOURCES[name],
        tokenizer=build_character_tokenizer(TASKS["chained_arithmetic"].alphabet),
        seed=seed,
        system_prompt=None,
        max_prompt_tokens=6,
        long_prompt_policy="skip",
    )


def test_counts_and_their_forgetting():
    store = observe(NOTHING_SEEN, [Seen("a", 4, 8)], SETTINGS)
    assert store.tallies == {"a": Tally(4, 8)}
    later = observe(store, [Seen("a", 8, 8)], SETTINGS)
    assert later.tallies == {"a": Tally(10, 12)}
    assert store.tallies == {"a": Tally(4, 8)}  # the old one stays
    assert observe(store, [Seen("a", 8, 8)], with_(decay=1.0)).tallies == {"a": Tally(12, 16)}
    assert observe(store, [Seen("a", 8, 8)], with_(decay=0.0)).tallies == {"a": Tally(8, 8)}


def test_a_problem_twice_in_a_step_is_seen_twice_in_order():
    twice = observe(NOTHING_SEEN, [Seen("a", 4, 8), Seen("a", 8, 8)], SETTINGS)
    assert twice.tallies == {"a": Tally(10, 12)}


def test_a_group_that_nobody_judged_says_nothing():
    store = observe(NOTHING_SEEN, [Seen("a", 1, 2), Seen("a", 0, 0), Seen("b", 0, 0)], SETTINGS)
    assert store.tallies == {"a": Tally(1, 2)}


def test_the_problem_whose_last_group_is_the_longest_ago_is_forgotten():
    two = with_(capacity_problems=2)
    store = observe(NOTHING_SEEN, [Seen(name, 1, 2) for name in "aba"], two)
    assert list(store.tallies) == ["b", "a"]
    assert list(observe(store, [Seen("c", 1, 2)], two).tallies) == ["a", "c"]
    assert observe(store, [Seen("c", 1, 2)], with_(capacity_problems=0)) == NOTHING_SEEN


def test_estimates_are_the_counts_with_the_priors():
    assert success_estimate(Tally(8, 8), SETTINGS) == 0.9
    assert success_estimate(Tally(0, 0), SETTINGS) == 0.5
    assert success_estimate(Tally(0, 8), with_(prior_samples=0.0)) == 0


@pytest.mark.parametrize("success", [0.0, 0.1, 0.5, 0.73, 1.0])
def test_the_chance_of_a_useful_group(success):
    uniform = success**4 + (1 - success) ** 4
    assert BAND.chance(success) == pytest.approx(1 - uniform, abs=1e-12)
    middle = UsefulBand(4, 0.25, 0.75).chance(success)  # exactly two of four right
    assert middle == pytest.approx(6 * success**2 * (1 - success) ** 2, abs=1e-12)


def test_the_best_chance_is_at_the_middle_of_the_band():
    assert best_chance(BAND) == 0.875
    assert best_chance(UsefulBand(8, 0.5, 0.8)) == pytest.approx(
        UsefulBand(8, 0.5, 0.8).chance(0.7), rel=0.02
    )


def test_weights():
    store = DifficultyStore({"easy": Tally(8, 8), "middle": Tally(4, 8), "hopeless": Tally(0, 98)})

    def weight(name, settings=SETTINGS, band=BAND):
        return weight_by_difficulty(store, band, settings, name)

    assert weight("never seen") == 1
    assert weight("middle") == 1
    assert weight("easy") == pytest.approx((1 - 0.9**4 - 0.1**4) / 0.875)
    assert weight("hopeless") == 0.1  # 0.01 estimated would be 0.045
    assert weight("hopeless", with_(least_weight=0.02)) == pytest.approx(0.045, abs=1e-3)
    # Three of four right are asked for: most likely at 0.75
    asked = weight("easy", band=UsefulBand(4, 0.5, 1.0))
    assert asked == pytest.approx(0.9**3 * 0.1 / (0.75**3 * 0.25))
    assert PROMPT_WEIGHTING["none"](store, BAND, SETTINGS, "hopeless") == 1


def test_lots_are_uniform_and_no_two_alike():
    lots = [lot(seed, position) for seed in range(4) for position in range(2_500)]
    assert len(set(lots)) == 10_000
    assert 0 <= min(lots) < 0.001 < 0.999 < max(lots) < 1
    assert sum(lots) / 10_000 == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / 10_000))


def test_lots_are_the_same_in_another_process():
    """Of another hash seed; and in another version, so that a run can be resumed by it."""
    code = "from cegppo_jax.rollout.difficulty import lot; print(lot(3, 14).hex())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == lot(3, 14).hex() == "0x1.90d91bc27aac4p-2"


@pytest.mark.parametrize("name", SOURCES)
def test_without_weights_the_stream_is_as_it_was(name):
    weighted = take_weighted(stream(name), 3, 25, lambda problem_id: 1.0)
    plain = stream(name).take(3, 25)
    assert (weighted.prompts, weighted.next_position, weighted.too_long) == plain
    assert weighted.passed_over == 0


def by_name(problem_id):
    return {"p3": 0.25, "p4": 0.5}.get(problem_id, 1.0)


@pytest.mark.parametrize("first", [0, 1, 7, 30])
def test_taking_in_parts_is_taking_at_once(first):
    whole = take_weighted(stream(), 5, 30, by_name)
    one = take_weighted(stream(), 5, first, by_name)
    other = take_weighted(stream(), one.next_position, 30 - first, by_name)
    assert one.prompts + other.prompts == whole.prompts
    assert other.next_position == whole.next_position
    assert one.too_long + other.too_long == whole.too_long > 0
    assert one.passed_over + other.passed_over == whole.passed_over > 0


@pytest.mark.parametrize("seed", [0, 1])
def test_prompts_are_drawn_as_often_as_they_weigh(seed):
    """A thousand epochs: p3 a quarter of them, p4 half, the others all, the long p7 none."""
    drawn = take_weighted(stream(seed=seed), 0, 7_750, by_name)
    ids = [prompt.problem.id for prompt in drawn.prompts]
    counts = {name: ids.count(name) for name in {problem.id for problem in PROBLEMS}}
    epochs = drawn.next_position / 10
    assert counts["p3"] == pytest.approx(epochs / 4, abs=4 * math.sqrt(epochs * 3 / 16))
    assert counts["p4"] == pytest.approx(epochs / 2, abs=4 * math.sqrt(epochs / 4))
    assert counts["p0"] == pytest.approx(epochs, abs=1)
    assert counts["p7"] == 0
    assert drawn.passed_over == pytest.approx(epochs * 1.25, abs=100)
    assert len(ids) + drawn.passed_over + drawn.too_long == drawn.next_position
    indices = [prompt.index for prompt in drawn.prompts]
    assert indices == sorted(set(indices))


def test_a_generated_problem_that_comes_again_is_known_again():
    """Its id is made from its text: 300 problems of one step, 27 of them held out."""
    first = take_weighted(stream("generated"), 0, 600, lambda problem_id: 1.0)
    seen = [Seen(prompt.problem.id, 4, 4) for prompt in first.prompts]
    store = observe(NOTHING_SEEN, seen, with_(capacity_problems=1_000))
    assert 200 < len(store.tallies) < 300
    again = take_weighted(
        stream("generated", seed=1),
        0,
        200,
        lambda name: weight_by_difficulty(store, BAND, SETTINGS, name),
    )
    assert again.passed_over > 100


def test_a_store_comes_back_bit_for_bit():
    store = observe(
        NOTHING_SEEN,
        [Seen("ä/1", 1, 3, 70), Seen("", 2, 3), Seen('"', 0, 8, 5), Seen("ä/1", 2, 7, 9)],
        with_(decay=1 / 3),
    )
    back = DifficultyStore.from_saved(*store.to_saved())
    assert back == store
    assert list(back.tallies) == ["", '"', "ä/1"]
    assert [tuple(map(float.hex, t)) for t in back.tallies.values()] == [
        tuple(map(float.hex, map(float, t))) for t in store.tallies.values()
    ]
    assert DifficultyStore.from_saved(*NOTHING_SEEN.to_saved()) == NOTHING_SEEN


def test_lengths_fade_as_counts_do():
    groups = [Seen("a", 4, 8, 80), Seen("a", 8, 8, 160)]
    store = observe(NOTHING_SEEN, groups, with_(decay=0.5))
    assert store.tallies == {"a": Tally(10, 12, 200)}


def test_a_store_without_lengths_is_read():
    """Checkpoints of version 0.2 hold two columns."""
    store = DifficultyStore.from_saved(["a"], np.asarray([[1.0, 8.0]]))
    assert store.tallies == {"a": Tally(1, 8, 0)}


def test_older_completions_of_unknown_length_do_not_shorten_the_mean():
    """8 of unknown length, then 8 of 20 tokens each: of what is remembered, each has 20."""
    store = observe(DifficultyStore({"a": Tally(1, 8)}), [Seen("a", 4, 8, 160)], SETTINGS)
    assert store.tallies == {"a": Tally(4.5, 12, 240)}


def test_the_order_is_part_of_a_store():
    """It tells who is forgotten first."""
    one, other = (DifficultyStore({name: Tally(1, 2) for name in names}) for names in ("ab", "ba"))
    assert one != other
    assert one == DifficultyStore(dict(one.tallies))


def test_ids_without_tallies_are_refused():
    with pytest.raises(ValueError, match="zip"):
        DifficultyStore.from_saved(["a", "b"], DifficultyStore({"a": Tally(1, 2)}).to_saved()[1])


def test_metrics_by_hand():
    assert difficulty_metrics(NOTHING_SEEN, SETTINGS) == {"difficulty/problems": 0}
    tallies = {str(i): Tally(i, 8) for i in range(9)}
    metrics = difficulty_metrics(DifficultyStore(tallies), SETTINGS)
    assert metrics.keys() <= METRICS.keys()
    assert metrics["difficulty/problems"] == 9
    assert metrics["difficulty/success_q50"] == 0.5
    assert metrics["difficulty/success_q10"] == pytest.approx(0.1 + 0.8 * 0.1)
    assert metrics["difficulty/success_q90"] == pytest.approx(0.1 + 0.8 * 0.9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"capacity_problems": -1}, "capacity_problems = -1: at least 0"),
        ({"decay": -0.5}, "decay = -0.5: at least 0"),
        ({"decay": 1.5}, "decay = 1.5: from 0 to 1"),
        ({"prior_success": 1.1}, "prior_success = 1.1: from 0 to 1"),
        ({"prior_success": math.nan}, "prior_success = nan: from 0 to 1"),
        ({"prior_samples": -1.0}, "prior_samples = -1.0: at least 0"),
        ({"least_weight": 0.0}, "least_weight = 0.0: from 0.01 to 1"),
        ({"least_weight": 1.5}, "least_weight = 1.5: from 0.01 to 1"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=rf"batch\.difficulty\.{message}"):
        with_(**change)
