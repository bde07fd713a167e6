"""Rollouts: groups in the prompts' order, each completion with its own text and score."""

from concurrent.futures import Future

import jax
import numpy as np
import pytest

from cegppo_jax.data.tokenizer import build_character_tokenizer
from cegppo_jax.rewards.workers.scorer import InProcessScorer, Scorer, ScorerCounts
from cegppo_jax.rollout.actor import Actor, RolloutCost
from cegppo_jax.rollout.collect import rewards_of, rollout_metrics, sample_round
from cegppo_jax.sampling.filters import SamplingFilter
from cegppo_jax.types import Completion, Outcome, Problem, Prompt, Rollout, Score, StopReason

TOKENIZER = build_character_tokenizer("0123456789")  # the digit d has the id d + 5
END = TOKENIZER.eos_token_id
PLAIN = SamplingFilter(temperature=1.0, top_k=0, top_p=1.0)
PROMPTS = [Prompt(Problem(f"p{i}", "", str(i), "test"), (2, 3), index=10 * i) for i in (3, 1, 2)]


def completion(prompt, sample, tokens, stop_reason=StopReason.EOS):
    array = np.asarray(tokens, np.int32)
    return Completion(prompt, sample, array, np.zeros(len(tokens), np.float32), stop_reason, 7)


class ScriptedSampler:
    """Hands out what it is told to; remembers how it was called."""

    preempted = 0

    def __init__(self, completions):
        self.completions = completions

    def sample(self, params, prompts, samples_per_prompt, **options):
        self.called = params, prompts, samples_per_prompt, options
        yield from self.completions


def difference(text, problem):
    """Reward: the number written less that of the problem's id."""
    return Score(float(text) - float(problem.answer), Outcome.WRONG, text)


def collect(completions, samples=2, scorer=None):
    """Rollouts whose scorer is `difference`, and the sampler."""
    sampler = ScriptedSampler(completions)
    cost = RolloutCost()
    sampled = sample_round(
        Actor(sampler, TOKENIZER, scorer or InProcessScorer(difference, None)),
        "params",
        PROMPTS,
        samples,
        sampling=PLAIN,
        key=jax.random.key(0),
        policy_version=7,
        cost=cost,
    )
    rollouts = list(sampled.scored)
    assert min(cost.sampling_seconds, cost.scoring_seconds, cost.waiting_seconds) >= 0
    assert cost.scorer == (ScorerCounts(4, 5) if scorer else ScorerCounts(0, 0))
    return rollouts, sampler


def test_groups_keep_the_prompts_order_whatever_order_completions_end_in():
    """Prompt index 10 i, sample s writes the two digits "i s"."""
    written = {(10 * i, s): [i + 5, s + 5, END] for i in (1, 2, 3) for s in (0, 1)}
    order = [(20, 1), (10, 0), (30, 1), (30, 0), (10, 1), (20, 0)]
    rollouts, sampler = collect([completion(*name, written[name]) for name in order])
    assert [r.prompt for r in rollouts] == PROMPTS
    assert [r.texts for r in rollouts] == [("30", "31"), ("10", "11"), ("20", "21")]
    for rollout in rollouts:
        indices = [(c.prompt_index, c.sample_index) for c in rollout.completions]
        assert indices == [(rollout.prompt.index, 0), (rollout.prompt.index, 1)]
    np.testing.assert_array_equal(rewards_of(rollouts), [[27, 28], [9, 10], [18, 19]])
    assert rewards_of(rollouts).dtype == np.float32
    params, prompts, samples, options = sampler.called
    assert (params, prompts, samples) == ("params", PROMPTS, 2)
    assert options.keys() == {"sampling", "key", "policy_version", "done", "more"}
    assert (options["sampling"], options["policy_version"]) == (PLAIN, 7)


class LateScorer(Scorer):
    """Scores nothing until every completion is there, and then the last one first."""

    def __init__(self, expected):
        super().__init__(None)
        self.expected = expected
        self.waiting = []

    def submit(self, text, problem):
        future = Future()
        self.waiting.append((future, text, problem))
        if len(self.waiting) == self.expected:
            for future, *item in reversed(self.waiting):
                future.set_result(difference(*item))
        return self.waiting[-1][0]

    def counts(self):
        return ScorerCounts(3, 2) if not self.waiting else ScorerCounts(7, 7)

    def close(self):
        pass


def test_scores_are_waited_for_after_the_last_sample_and_their_order_changes_nothing():
    """A rollout that waited for a score before it took the next completion would never end."""
    names = [(index, sample) for index in (10, 20, 30) for sample in (0, 1)]
    written = [completion(i, s, [i // 10 + 5, s + 5, END]) for i, s in names]
    at_once, _ = collect(written)
    late, _ = collect(written, scorer=LateScorer(6))
    assert [r.scores for r in late] == [r.scores for r in at_once]
    assert [r.texts for r in late] == [r.texts for r in at_once]


def test_special_tokens_are_no_part_of_the_text():
    """The last completion was cut off: its last token is text."""
    ends = [
        ([2, 6, END], StopReason.EOS),
        ([6, 7, END], StopReason.EOS),
        ([6, 3, 7], StopReason.LENGTH),
    ]
    pairs = zip(PROMPTS, ends, strict=True)
    rollouts, _ = collect([completion(p.index, 0, *end) for p, end in pairs], samples=1)
    assert [r.texts for r in rollouts] == [("1",), ("12",), ("12",)]


def test_a_completion_that_is_missing_is_an_error():
    with pytest.raises(KeyError):
        collect([completion(p.index, 0, [6, END]) for p in PROMPTS])


def test_rollout_metrics_by_hand():
    """Two groups of two: lengths 1, 3 and 4, 8; rewards 1, -1 and -0.5, -0.5."""
    groups = [
        [(1, 1.0, Outcome.CORRECT), (3, -1.0, Outcome.TIMED_OUT)],
        [(4, -0.5, Outcome.WRONG), (8, -0.5, Outcome.WRONG)],
    ]
    rollouts = []
    for prompt, group in zip(PROMPTS, groups, strict=False):
        completions = tuple(
            completion(prompt.index, s, [6] * n, StopReason.LENGTH if n == 8 else StopReason.EOS)
            for s, (n, _, _) in enumerate(group)
        )
        scores = tuple(Score(reward, outcome, None) for _, reward, outcome in group)
        rollouts.append(Rollout(prompt, completions, ("", ""), scores))
    cost = RolloutCost(3.75, 0.25, 0.125, ScorerCounts(retries=2, restarts=3), preempted=4)
    assert rollout_metrics(rollouts, cost) == {
        "reward/mean": -0.25,
        "reward/std_within_group_mean": 0.5,  # of 1 and 0
        "reward/uniform_group_fraction": 0.5,
        "reward/correct_fraction": 0.25,
        "reward/wrong_fraction": 0.5,
        "reward/unparsed_fraction": 0.0,
        "reward/timed_out_fraction": 0.25,
        "reward/crashed_fraction": 0.0,
        "rollout/preempted_samples": 4,
        "reward/pool_retries": 2,
        "reward/pool_restarts": 3,
        "rollout/completions": 4,
        "rollout/completion_tokens_mean": 4.0,
        "rollout/completion_tokens_max": 8,
        "rollout/truncated_fraction": 0.25,
        "rollout/tokens_per_second": 4.0,
        "time/rollout_seconds": 3.75,
        "time/score_seconds": 0.25,
        "time/score_wait_seconds": 0.125,
    }
