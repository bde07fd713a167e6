"""Each rule of the doctor on made-up logs: it speaks beyond its threshold, with the numbers, and is
silent before it.
"""

import pytest

from cegppo_jax.losses.surrogates import SURROGATES
from cegppo_jax.page.arms import Arm
from cegppo_jax.page.doctor import RULES, diagnose, diagnose_arm
from cegppo_jax.page.entropy_rules import BETAS_REACH, FALL, MANY_CLIPPED, METHODS_WITH_BETAS
from cegppo_jax.page.learning_rules import CUT, EQUAL, KL_HIGH, SATURATED, UNREAD
from cegppo_jax.page.machine_rules import DRY, GAP, PACKED
from cegppo_jax.reporting.run_log import RunLog

FALLING = [1 - 0.045 * step for step in range(20)]  # 0.955 to 0.19 between means of three
PULLED_INSIDE = {
    "budget/pa_hp": -0.83,
    "budget/na_lp": -0.17,
    "budget/pa_lp": 0.1,
    "budget/na_hp": 0.1,
    "budget/inside": -0.97,
    "budget/left": -0.02,
    "budget/right": 0.01,
}
EQUAL_REWARDS = {
    "reward/uniform_group_fraction": 0.9,
    "reward/correct_fraction": 0.1,
    "reward/wrong_fraction": 0.9,
    "reward/unparsed_fraction": 0.0,
    "reward/timed_out_fraction": 0.0,
    "reward/crashed_fraction": 0.0,
    "rollout/truncated_fraction": 0.0,
}
TIMES = {"time/step_seconds": [30.0] + [10.0] * 19}
CONTROLLED = {
    "steering/beta_low": [0.5] * 10 + [0.0] * 10,
    "steering/beta_high": 1.5,
    "policy/entropy": 0.05,
}

# (rule, metrics, settings, severity, what it says): every rule, beyond its threshold
SPEAKS = [
    ("entropy_fell", {"policy/entropy": FALLING} | PULLED_INSIDE, {}, "problem",
     ["fell 80 % in 20 steps (0.955 to 0.19 nats)", "83 % of the push down came from likely tokens",
      "97 % of the budget lies inside", "2 % left, 1 % right", "entropy_bonus"]),
    ("entropy_fell", {"policy/entropy": FALLING, "budget/inside": -0.5, "budget/left": -0.5,
     "steering/beta_low": 0.7, "steering/beta_high": 1.0}, {}, "problem",
     ["50 % of the budget lies inside", "loss.beta_low (0.7 now)", "loss.beta_high (1 now)"]),
    ("entropy_fell", {"policy/entropy": FALLING, "budget/inside": BETAS_REACH - 1.01,
     "budget/left": 0.01 - BETAS_REACH}, {}, "problem", ["81 % of the budget", "entropy_bonus"]),
    ("entropy_fell", {"policy/entropy": FALLING, "budget/inside": BETAS_REACH - 0.99,
     "budget/left": -0.01 - BETAS_REACH}, {}, "problem", ["79 % of the budget", "loss.beta_low"]),
    ("entropy_fell", {"policy/entropy": FALLING, "evaluation/accuracy": [0.4] * 19 + [0.9],
     "evaluation/accuracy_low": [0.35] * 19 + [0.85],
     "evaluation/accuracy_high": [0.45] * 19 + [0.95]}, {}, "watch", ["fell 80 %"]),
    ("entropy_rose", {"policy/entropy": FALLING[::-1], "budget/pa_lp": 1.0}, {}, "watch",
     ["rose 403 %", "0.19 to 0.955", "100 % of the push up came from rare tokens of better"]),
    ("nothing_is_clipped", {"budget/inside_tokens": 1e5, "budget/left_tokens": 1,
     "budget/right_tokens": 0, "update/num_updates": 1}, {}, "watch",
     ["20 of 2,000,020 tokens", "batch.minibatch_prompts (16 now)"]),
    ("nothing_is_clipped", {"budget/inside_tokens": 1e5, "update/num_updates": 4}, {}, "watch",
     ["0 of 2,000,000 tokens", "optimizer.learning_rate (0.0001 now)", "(4)"]),
    ("much_is_clipped", {"policy/clip_fraction_low": 0.04, "policy/clip_fraction_high": 0.02}, {},
     "watch", ["6 % of the tokens", "4 % left, 2 % right"]),
    ("budget_misses", {"budget/predicted_change": 1e-6,
     "budget/measured_change": [-0.1] * 12 + [0.1] * 8}, {}, "watch", ["8 of 20 steps"]),
    ("controller_at_its_bounds", CONTROLLED, {"steering/controller/enabled": True}, "watch",
     ["beta_low at its bound 0 in 5 of the last 5 steps", "0.05", "0.1 to 0.12"]),
    ("guard_acted", {"steering/alarm": [0] * 18 + [-1] * 2, "steering/rollbacks": 1}, {}, "problem",
     ["in 2 steps", "1 rollback"]),
    ("rewards_are_equal", EQUAL_REWARDS, {}, "problem", ["90 %", "too hard"]),
    ("rewards_are_equal", EQUAL_REWARDS | {"reward/uniform_group_fraction": 0.6,
     "reward/correct_fraction": 0.9}, {}, "watch", ["60 %", "too easy"]),
    ("accuracy_is_saturated", {"reward/correct_fraction": 0.97}, {}, "watch", ["97 %"]),
    ("held_out_accuracy", {"evaluation/accuracy": [0.4] * 19 + [0.2],
     "evaluation/accuracy_low": [0.35] * 19 + [0.15],
     "evaluation/accuracy_high": [0.45] * 19 + [0.25]}, {}, "problem",
     ["40.0% [35.0%, 45.0%]", "20.0% [15.0%, 25.0%]", "fell"]),
    ("held_out_accuracy", {"evaluation/accuracy": [0.4] * 19 + [0.9],
     "evaluation/accuracy_low": [0.35] * 19 + [0.85],
     "evaluation/accuracy_high": [0.45] * 19 + [0.95]}, {}, "fine", ["90.0%", "are apart"]),
    ("held_out_accuracy", {"evaluation/accuracy": 0.4, "evaluation/accuracy_low": 0.35,
     "evaluation/accuracy_high": 0.45}, {}, "watch", ["overlap"]),
    ("completions_are_cut", {"rollout/truncated_fraction": 0.2}, {}, "watch",
     ["20 %", "sampler.max_completion_tokens (28 now)"]),
    ("completions_are_cut", {"rollout/truncated_fraction": 0.4}, {}, "problem", ["40 %"]),
    ("answers_are_not_read", {"reward/unparsed_fraction": 0.25}, {}, "watch", ["25 %"]),
    ("policy_jumps", {"policy/kl_old": 0.02, "update/num_updates": 8}, {}, "watch",
     ["0.02 nats", "(8 now)"]),
    ("policy_jumps", {"policy/kl_old": [0.2] + [0.001] * 19}, {}, "problem", ["up to 0.2"]),
    ("updates_are_skipped", {"update/skipped": [0] * 19 + [1], "update/num_updates": 4}, {},
     "problem", ["1 of 80 updates"]),
    ("gradient_norm", {"update/grad_norm": 3.0}, {}, "watch", ["max_grad_norm = 1", "100 %"]),
    ("gradient_norm", {"update/grad_norm": 0.5, "update/grad_norm_max": [0.6] * 19 + [20.0]}, {},
     "watch", ["reached 20", "40 times", "0.5"]),
    ("sampler_and_trainer_differ", {"policy/sampler_gap_mean": 2e-3}, {}, "watch",
     ["0.002 nats", "float32 explains 0.001"]),
    ("sampler_and_trainer_differ", {"policy/sampler_gap_mean": 0.2,
     "rollout/staleness_mean_steps": 1.5}, {"sampler/dtype": "bfloat16"}, "problem",
     ["bfloat16 explains 0.02", "1.5 steps old"]),
    ("verifier_fails", {"reward/timed_out_fraction": 0.05, "reward/crashed_fraction": 0.01,
     "reward/pool_restarts": 3}, {}, "problem",
     ["timed out on 5 %", "crashed on 1 %", "60 processes", "timeout_seconds (5 now)"]),
    ("a_phase_is_slow", TIMES | {"time/score_wait_seconds": 4.0}, {}, "watch",
     ["time/score_wait_seconds takes 40 %", "10 s", "reward.pool.workers"]),
    ("sampling_slows_down", {"rollout/tokens_per_second": [9000.0] * 10 + [3000.0] * 10}, {},
     "watch", ["9,000 to 3,000"]),
    ("pages_run_dry", {"rollout/preempted_samples": 40, "rollout/completions": 100},
     {"sampler/pages": 24}, "watch", ["40 samples", "40 %", "sampler.pages (24 now)"]),
    ("rows_are_empty", {"packing/efficiency": 0.4}, {}, "watch", ["40 %", "row_tokens (64 now)"]),
    ("batches_starve", {"rollout/starved": 1, "rollout/groups_dropped_too_easy": 50,
     "rollout/groups_dropped_too_hard": 1}, {}, "watch", ["100 %", "1,000 groups", "20 too hard"]),
]  # fmt: skip

# Before the threshold: metrics with which a rule has nothing to say
SILENT = [
    ("entropy_fell", {"policy/entropy": [1.0] * 17 + [1.01 - FALL] * 3}, {}),
    ("entropy_fell", {"policy/entropy": [1.0, 0.5, 0.1] + [None] * 17}, {}),  # too short to say
    ("entropy_rose", {"policy/entropy": [0.01] * 10 + [0.1] * 10}, {}),  # rises by few nats
    ("nothing_is_clipped", {"budget/inside_tokens": 1e5}, {"loss/surrogate": "ppo_clip"}),
    ("nothing_is_clipped", {"budget/inside_tokens": 1e5, "budget/left_tokens": 2}, {}),
    ("much_is_clipped", {"policy/clip_fraction_low": 0.9 * MANY_CLIPPED}, {}),
    ("budget_misses", {"budget/predicted_change": 1e-6, "budget/measured_change": 0.1}, {}),
    ("controller_at_its_bounds", CONTROLLED, {}),
    ("controller_at_its_bounds", CONTROLLED | {"steering/beta_low": 0.3},
     {"steering/controller/enabled": True}),
    ("guard_acted", {"steering/alarm": 0, "steering/rollbacks": 0}, {}),
    ("rewards_are_equal", {"reward/uniform_group_fraction": 0.9 * EQUAL}, {}),
    ("accuracy_is_saturated", {"reward/correct_fraction": SATURATED - 0.01}, {}),
    ("held_out_accuracy", {"evaluation/accuracy": [0.5] + [None] * 19}, {}),
    ("completions_are_cut", {"rollout/truncated_fraction": 0.9 * CUT}, {}),
    ("answers_are_not_read", {"reward/unparsed_fraction": [0.9] * 10 + [0.9 * UNREAD] * 10}, {}),
    ("policy_jumps", {"policy/kl_old": 0.9 * KL_HIGH}, {}),
    ("updates_are_skipped", {"update/skipped": 0, "update/num_updates": 4}, {}),
    ("gradient_norm", {"update/grad_norm": 0.9, "update/grad_norm_max": 2.0}, {}),
    ("sampler_and_trainer_differ", {"policy/sampler_gap_mean": 0.9 * GAP["bfloat16"]},
     {"trainer/dtype": "bfloat16"}),
    ("verifier_fails", {"reward/timed_out_fraction": 0.005, "reward/pool_restarts": 1}, {}),
    ("a_phase_is_slow", TIMES | {"time/score_wait_seconds": [20.0] + [0.1] * 19}, {}),  # compiled
    ("sampling_slows_down", {"rollout/tokens_per_second": [90.0] + [9000.0] * 19}, {}),
    ("pages_run_dry", {"rollout/preempted_samples": 90 * DRY, "rollout/completions": 100}, {}),
    ("rows_are_empty", {"packing/efficiency": PACKED}, {}),
    ("batches_starve", {"rollout/starved": 0}, {}),
]  # fmt: skip


def found(folder, rule):
    return [one for one in diagnose(RunLog(folder)) if one.rule == rule]


@pytest.mark.parametrize(
    ("rule", "metrics", "settings", "severity", "says"),
    SPEAKS,
    ids=lambda v: v if type(v) is str else "",
)
def test_a_rule_speaks_beyond_its_threshold(made_up, rule, metrics, settings, severity, says):
    [finding] = found(made_up(metrics, **settings), rule)
    assert finding.severity == severity
    text = f"{finding.seen} {finding.advice}"
    assert [words for words in says if words not in text] == [], text


@pytest.mark.parametrize(
    ("rule", "metrics", "settings"), SILENT, ids=lambda v: v if type(v) is str else ""
)
def test_a_rule_is_silent_before_it(made_up, rule, metrics, settings):
    assert found(made_up(metrics, **settings), rule) == []


def test_every_rule_is_tried_on_both_sides():
    names = {rule.__name__ for rule in RULES}
    assert {row[0] for row in SPEAKS} == {row[0] for row in SILENT} == names


def test_a_run_without_faults_is_told_so(made_up):
    [finding] = diagnose(RunLog(made_up({"reward/mean": 0.5})))
    assert (finding.rule, finding.severity) == ("nothing_found", "fine")
    assert "in 20 steps" in finding.seen


def test_problems_come_first_and_an_unfinished_run_is_named(made_up):
    metrics = {"packing/efficiency": 0.4, "update/skipped": 1, "update/num_updates": 4}
    findings = diagnose(RunLog(made_up(metrics, steps=12)))
    assert [one.severity for one in findings] == ["problem", "watch", "fine"]
    assert "step 12 of 20" in findings[-1].seen


def test_a_run_that_has_just_begun_can_be_diagnosed(made_up):
    assert [one.rule for one in diagnose(RunLog(made_up({}, steps=0)))] == [
        "not_begun",
        "not_finished",
    ]


def test_the_methods_that_betas_belong_to():
    own = {name for name, method in SURROGATES.items() if "beta_low" in method.numbers}
    assert {*METHODS_WITH_BETAS} == own


def test_seeds_share_their_findings(made_up):
    """Of a rule that several seeds break, the worst numbers count."""
    runs = [
        made_up({"rollout/truncated_fraction": share, "update/skipped": seed % 2}, name, seed=seed)
        for seed, (name, share) in enumerate([("a", 0.2), ("b", 0.4), ("c", 0.0)])
    ]
    diagnosis = diagnose_arm(Arm("arm", tuple(map(RunLog, runs))))
    found = {one.finding.rule: one for one in diagnosis.findings}
    assert found["completions_are_cut"].seeds == ("1", "0")
    assert found["completions_are_cut"].finding.severity == "problem"
    assert "40 % of" in str(diagnosis)
    assert "(seeds 1, 0; numbers of seed 1)" in str(diagnosis)
    assert "(seed 1 alone)" in str(diagnosis)
    [alone] = diagnose_arm(Arm("arm", (RunLog(runs[2]),))).findings
    assert alone.where(1) == ""
