"""Drawing a step's groups: rounds until it is filled, however they are cut; then steps of the tiny
recipe in every mode.
"""

import dataclasses
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from altered_run import altered

from cegppo_jax import train as story
from cegppo_jax.reporting.metric_names import METRICS
from cegppo_jax.rewards.workers.scorer import InProcessScorer
from cegppo_jax.rollout.actor import Actor
from cegppo_jax.rollout.carried import NOTHING_CARRIED, CarriedGroups
from cegppo_jax.rollout.difficulty import DifficultyStore, Tally
from cegppo_jax.rollout.rounds import RolloutDraw, draw_groups
from cegppo_jax.rollout.settings import DYNAMIC_SAMPLING
from cegppo_jax.run.position import RunPosition
from cegppo_jax.sampling.sampler import Sampler
from cegppo_jax.steering.steer import START
from cegppo_jax.types import Completion, Outcome, Score, StopReason

G = 4


class ScriptedSampler:
    """Writes one digit a sample, and the end; logs which prompts it was asked for, and how."""

    preempted = 0

    def __init__(self, drains=False):
        self.drains = drains  # at the end of every round
        self.calls, self.emptied = [], 0

    def sample(
        self, params, prompts, samples_per_prompt, *, sampling, key, policy_version, done, more
    ):
        asked = 0
        while prompts or (more and not self.drains and asked < 2):
            if not prompts:
                prompts, asked = more() or (), asked + 1
                continue
            indices, asked = [prompt.index for prompt in prompts], 0
            self.calls.append((indices, jax.random.key_data(key).tolist(), policy_version))
            for prompt in prompts:
                for sample in range(samples_per_prompt):
                    yield Completion(
                        prompt.index,
                        sample,
                        np.asarray([5 + sample, 1], np.int32),
                        np.full(2, -0.5, np.float32),
                        StopReason.EOS,
                        policy_version,
                    )
            prompts = ()
        self.emptied += 1


def scored_by(rights_of):
    """Problem -> how many of its samples 0, 1 ... are right: a scorer."""

    def judge(text, problem):
        right = int(text) < rights_of(problem)
        return Score(1.0 if right else -1.0, Outcome.CORRECT if right else Outcome.WRONG, None)

    return InProcessScorer(judge, None)


def every_third_is_useful(problem):
    """Of the others, half are right throughout and half wrong."""
    digest = hashlib.blake2b(problem.id.encode(), digest_size=2).digest()
    return (2, 0, G)[digest[0] % 3]


def draw_from(source, params, position):
    """Draws the step after a position."""
    return draw_groups(
        source,
        params,
        steps_done=position.step,
        next_prompt=position.next_prompt,
        carried=position.carried,
        difficulty=position.difficulty,
    )


@pytest.fixture
def drawn(tiny_run):
    """Changes of config.batch -> a function of a position that draws its step; and its sampler."""

    def drawn(
        rights_of=every_third_is_useful,
        position=RunPosition(0, 0, START),  # noqa: B008
        sampler=None,
        **changes,
    ):
        batch = dataclasses.replace(
            tiny_run.settings.batch,
            **{"trained_prompts": 4, "minibatch_prompts": 2} | changes,
        )
        sampler = sampler or ScriptedSampler()
        source = dataclasses.replace(
            tiny_run.source,
            actor=Actor(sampler, tiny_run.problems.tokenizer, scored_by(rights_of)),
            batch=batch,
        )
        return draw_from(source, None, position), sampler.calls

    return drawn


def of(groups):
    return [group.prompt.index for group in groups]


def useful_from(tiny_run, count, rights_of=every_third_is_useful):
    """-> indices of the first useful prompts of the stream."""
    prompts = tiny_run.source.stream.take(0, 500).prompts
    return [p.index for p in prompts if 0 < rights_of(p.problem) < G][:count]


@pytest.mark.parametrize("mode", ["none", "filter"])
def test_none_and_filter_draw_once(drawn, mode):
    step, calls = drawn(dynamic_sampling=mode, prompts=4)
    assert [indices for indices, *_ in calls] == [[0, 1, 2, 3]]
    assert (step.next_prompt, step.metrics["rollout/refill_rounds"]) == (4, 0)
    assert len(step.groups.trained) == (4 if mode == "none" else 2)
    assert step.groups.starved == (mode == "filter")
    assert len(step.difficulty.tallies) == 4


def test_refill_draws_on_until_the_step_is_filled(drawn, tiny_run):
    step, calls = drawn(dynamic_sampling="refill", prompts=4, refill_prompts=3, max_refills=20)
    useful = useful_from(tiny_run, 4)
    assert of(step.groups.trained) == useful
    rounds = [indices for indices, *_ in calls]
    assert [index for indices in rounds for index in indices] == list(
        range(step.next_prompt)
    )  # in order, and none twice
    assert [len(indices) for indices in rounds] == [4] + [3] * (len(rounds) - 1)
    assert rounds[-1][0] <= useful[-1] <= rounds[-1][-1]  # and no round more than needed
    assert step.metrics["rollout/refill_rounds"] == len(rounds) - 1 > 0
    assert not step.groups.starved
    # One key and one version for all of them.
    assert len({str(call[1:]) for call in calls}) == 1


@pytest.mark.parametrize("mode", ["refill", "carry_over"])
def test_a_refill_that_is_certain_begins_before_the_slots_are_empty(drawn, mode):
    """And the step is that of a sampler that empties them after every round."""
    options = dict(dynamic_sampling=mode, prompts=2, refill_prompts=1, max_refills=20)
    drains, goes_on = ScriptedSampler(drains=True), ScriptedSampler()
    step, calls = drawn(sampler=drains, **options)
    again, same = drawn(sampler=goes_on, **options)
    assert same == calls
    assert (drains.emptied, goes_on.emptied) == (len(calls), 1)
    assert CarriedGroups(again.groups.drawn) == CarriedGroups(step.groups.drawn)
    assert of(again.groups.trained) == of(step.groups.trained)
    assert (again.next_prompt, again.difficulty) == (step.next_prompt, step.difficulty)
    assert again.metrics["rollout/refill_rounds"] == len(calls) - 1 > 1


@pytest.mark.parametrize("mode", ["refill", "carry_over"])
def test_the_same_groups_train_however_a_step_is_cut_into_rounds(drawn, mode):
    steps = [
        drawn(dynamic_sampling=mode, prompts=prompts, refill_prompts=refill, max_refills=60)[0]
        for prompts, refill in [(40, 1), (4, 1), (1, 7), (6, 20)]
    ]
    trained = [CarriedGroups(step.groups.trained) for step in steps]
    assert len(trained[0].groups) == 4
    assert all(one == trained[0] for one in trained)
    assert len({step.next_prompt for step in steps}) > 1


def test_a_starved_step_trains_on_whole_minibatches_of_what_there_is(drawn):
    """Three useful groups in all the rounds: two train, one waits or is dropped."""

    def three(problem, seen=None):
        return 2 if problem.id in names else 0

    prompts = drawn(dynamic_sampling="none", prompts=8, trained_prompts=8)[0].groups.drawn
    names = {prompts[i].prompt.problem.id for i in (1, 4, 6)}
    for mode in ("filter", "refill", "carry_over"):
        step, calls = drawn(
            three, dynamic_sampling=mode, prompts=8, refill_prompts=2, max_refills=0
        )
        assert len(calls) == 1
        assert of(step.groups.trained) == [1, 4]
        assert of(step.groups.carried) == [6] * (mode == "carry_over")
        assert step.groups.starved
        assert step.groups.counts.balance == 0


def test_the_rounds_of_a_starved_step_are_bounded(drawn):
    step, calls = drawn(
        lambda problem: 0,
        dynamic_sampling="refill",
        prompts=4,
        refill_prompts=3,
        max_refills=5,
    )
    assert len(calls) == 6
    assert step.next_prompt == 4 + 5 * 3
    assert step.groups.trained == ()
    assert step.groups.starved
    assert step.groups.counts.dropped_too_hard == 19
    assert step.metrics["rollout/refill_rounds"] == 5


def test_carried_groups_train_first_and_save_draws(drawn):
    options = {"dynamic_sampling": "carry_over", "prompts": 32, "max_staleness_steps": 2}
    first, _ = drawn(**options)
    waiting = first.groups.carried
    assert 4 <= len(waiting) < 8
    position = RunPosition(1, first.next_prompt, START, CarriedGroups(waiting), first.difficulty)
    second, calls = drawn(position=position, **options)
    assert calls == []  # they fill the step
    assert second.groups.trained == waiting[:4]
    assert second.groups.carried == waiting[4:]
    assert second.next_prompt == first.next_prompt
    assert second.difficulty == first.difficulty  # it has seen them when they were drawn
    assert second.groups.counts.drawn == 0
    assert "reward/mean" not in second.metrics
    assert "difficulty/skipped_fraction" not in second.metrics
    position = RunPosition(
        2, second.next_prompt, START, CarriedGroups(second.groups.carried), second.difficulty
    )
    third, calls = drawn(position=position, **options)
    assert calls[0][0][0] == first.next_prompt
    assert calls[0][2] == 2
    assert third.groups.trained[: len(waiting) - 4] == waiting[4:]
    assert third.groups.counts.balance == 0


def test_prompts_that_look_useless_are_passed_over(drawn):
    """The store that weighs them is that of before the step."""
    groups = drawn(dynamic_sampling="none", prompts=8, trained_prompts=8)[0].groups.drawn
    store = DifficultyStore({group.prompt.problem.id: Tally(0.0, 1e6) for group in groups[:6]})
    position = RunPosition(0, 0, START, NOTHING_CARRIED, store)
    options = {"dynamic_sampling": "refill", "prompts": 4, "max_refills": 8, "refill_prompts": 2}
    plain, _ = drawn(position=position, **options)
    assert of(plain.groups.drawn)[:4] == [0, 1, 2, 3]
    assert plain.metrics["difficulty/skipped_fraction"] == 0
    step, calls = drawn(position=position, prompt_weighting="difficulty", **options)
    passed_over = step.next_prompt - len(step.groups.drawn)
    assert 3 <= passed_over <= 6  # each with probability 0.9
    assert of(step.groups.drawn)[:2] != [0, 1]
    share = passed_over / step.next_prompt
    assert step.metrics["difficulty/skipped_fraction"] == pytest.approx(share)
    assert [len(indices) for indices, *_ in calls][:2] == [4, 2]
    one_cut = options | {"prompts": 30}
    again, _ = drawn(position=position, prompt_weighting="difficulty", **one_cut)
    assert len(again.groups.trained) == 4
    assert of(again.groups.trained) == of(step.groups.trained)


def test_the_longest_are_sampled_first_and_the_groups_come_as_ever(drawn):
    options = {"dynamic_sampling": "refill", "prompts": 6, "refill_prompts": 3, "max_refills": 8}
    plain, calls = drawn(**options)
    first = plain.groups.drawn
    assert {t.tokens / t.samples for t in plain.difficulty.tallies.values()} == {2.0}
    known = {group.prompt.problem.id: Tally(0, 4, 4.0 * place) for place, group in enumerate(first)}
    position = RunPosition(0, 0, START, difficulty=DifficultyStore(known))
    step, sorted_calls = drawn(position=position, admission="longest_first", **options)
    # the place of the first is 0, its length unknown
    assert sorted_calls[0][0] == [calls[0][0][place] for place in (0, 5, 4, 3, 2, 1)]
    assert len(sorted_calls) == len(calls)
    assert of(step.groups.drawn) == of(first)
    assert of(step.groups.trained) == of(plain.groups.trained)
    assert step.next_prompt == plain.next_prompt


# With the real sampler and update


def by_digest(text, problem):
    """A right answer by the toss of a coin; every third problem is hopeless, another trivial."""
    kind = every_third_is_useful(problem)
    coin = hashlib.blake2b(f"{text}/{problem.id}".encode(), digest_size=1).digest()[0] % 2
    right = kind == G or (kind and coin)
    return Score(1.0 if right else -1.0, Outcome.CORRECT if right else Outcome.WRONG, None)


RUN = {"trained_prompts": 4, "minibatch_prompts": 2, "refill_prompts": 5, "max_refills": 8}


@pytest.fixture(scope="module")
def start(tiny_run):
    """The state that every run starts from."""
    with jax.set_mesh(tiny_run.mesh):
        return tiny_run.initial_state(tiny_run.learner)


def run_of(tiny_run, start, judge=by_digest, steps=4, **batch):
    """Steps with the real sampler and update -> the metrics of each."""
    settings = tiny_run.settings
    settings = dataclasses.replace(
        settings, batch=dataclasses.replace(settings.batch, **RUN | batch)
    )
    run = altered(
        tiny_run,
        settings=settings,
        minibatches=dataclasses.replace(tiny_run.minibatches, minibatch_prompts=2),
        scorer=InProcessScorer(judge, None),
    )
    lines, position = [], RunPosition(0, 0, START)
    with jax.set_mesh(run.mesh):
        state = jax.tree.map(jnp.copy, start)  # the update donates its state
        for _ in range(steps):
            taken = story.train_step(run, state, position, None)
            state, position = taken.state, taken.position
            lines.append(taken.values)
            run.check_compiled_once()
    assert set().union(*lines) <= METRICS.keys()
    return lines


COUNTS = ("too_easy", "too_hard", "unjudged", "surplus", "stale")


def balance(line):
    came = line["rollout/groups_drawn"] + line["rollout/groups_carried_in"]
    dropped = sum(line[f"rollout/groups_dropped_{reason}"] for reason in COUNTS)
    return came - line["rollout/groups_trained"] - dropped - line["rollout/groups_carried_out"]


@pytest.mark.parametrize("mode", sorted(DYNAMIC_SAMPLING))
def test_a_run_in_every_mode(tiny_run, start, mode):
    prompts = 4 if mode == "none" else 8
    lines = run_of(tiny_run, start, dynamic_sampling=mode, prompts=prompts)
    assert len(lines) == 4
    for before, line in zip([None, *lines], lines, strict=False):
        assert balance(line) == 0
        assert line["update/num_updates"] == line["rollout/groups_trained"] / 2
        carried = before["rollout/groups_carried_out"] if before else 0
        assert line["rollout/groups_carried_in"] == carried
        assert line["rollout/starved"] == (mode == "filter" and line["rollout/groups_trained"] < 4)
    total = {
        name: sum(line[f"rollout/{name}"] for line in lines)
        for name in (
            "groups_trained",
            "refill_rounds",
            "groups_carried_in",
            "groups_dropped_surplus",
        )
    }
    assert (total["refill_rounds"] > 0) == (mode in ("refill", "carry_over"))
    assert (total["groups_carried_in"] > 0) == (mode == "carry_over")
    if mode in ("none", "carry_over"):
        assert total["groups_dropped_surplus"] == 0
    assert total["groups_trained"] == 16 or mode == "filter"
    stale = [line.get("rollout/staleness_mean_steps", 0) for line in lines]
    assert any(stale) == (mode == "carry_over")


@pytest.mark.parametrize("mode", ["filter", "refill", "carry_over"])
def test_a_run_that_starves_goes_on_to_its_end(tiny_run, start, mode):
    def all_wrong(text, problem):
        return Score(-1.0, Outcome.WRONG, None)

    lines = run_of(tiny_run, start, all_wrong, steps=2, dynamic_sampling=mode)
    drawn = 8 if mode == "filter" else 48
    for line in lines:
        assert line["rollout/starved"] == 1
        assert line["rollout/groups_drawn"] == line["rollout/groups_dropped_too_hard"] == drawn
        assert line["rollout/groups_trained"] == line["update/num_updates"] == 0
        assert line["reward/mean"] == -1
    assert "policy/entropy" not in lines[-1]


def test_the_real_sampler_draws_the_same_bits_in_any_round(tiny_run, start, monkeypatch):
    """Tokens and log-probs of a prompt do not depend on which others are drawn beside it, nor on
    whether a round begins before the one before it has ended.
    """
    trained, emptied, asked = [], [], []
    sample, further = Sampler.sample, RolloutDraw._further
    monkeypatch.setattr(Sampler, "sample", lambda *a, **k: (emptied.append(1), sample(*a, **k))[1])
    for prompts, refill, goes_on in [(24, 1, True), (3, 2, True), (3, 2, False)]:
        decide = further if goes_on else lambda *_: None
        monkeypatch.setattr(
            RolloutDraw, "_further", lambda *a, own=decide: asked.append(own(*a)) or asked[-1]
        )
        before = len(emptied)
        batch = dataclasses.replace(
            tiny_run.settings.batch,
            **RUN
            | {
                "dynamic_sampling": "refill",
                "prompts": prompts,
                "refill_prompts": refill,
                "max_refills": 20,
            },
        )
        settings = dataclasses.replace(tiny_run.settings, batch=batch)
        run = altered(tiny_run, settings=settings, scorer=InProcessScorer(by_digest, None))
        with jax.set_mesh(run.mesh):
            groups = draw_from(run.source, start.params, RunPosition(0, 0, START)).groups
        trained.append((CarriedGroups(groups.trained), len(emptied) - before))
    assert len(trained[0][0].groups) == 4
    assert trained[0][0] == trained[1][0] == trained[2][0]
    assert trained[1][1] < trained[2][1]  # began some rounds early
    assert any(asked)
