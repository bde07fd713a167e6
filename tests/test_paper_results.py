"""The tables of experiments/paper against numbers computed another way."""

import csv
import json

import numpy as np
import pytest
from scipy.stats import t as student

from experiments.paper import at_equal_tokens, budget_rows, claims, collect, figures, tables

ARMS = ("ce_gppo_1_1", "ce_gppo_0.5_1", "ce_gppo_0_1")


def write_run(workdir, overrides, entropies, accuracies):
    """A finished run's directory, with an evaluation before the first step and after the last."""
    workdir.mkdir(parents=True)
    config = {"steps": len(entropies), "command": "train", "loss": {}}
    for name, value in overrides.items():
        section, _, rest = name.rpartition(".")
        (config[section] if section else config)[rest] = value
    (workdir / "config.json").write_text(json.dumps(config))
    evaluated = [{"evaluation/accuracy": a, "evaluation/pass_at_n": a + 0.1} for a in accuracies]
    lines = [{"phase": "rl", "step": 0} | evaluated[0]]
    for step, entropy in enumerate(entropies, start=1):
        line = {"phase": "rl", "step": step, "policy/old_entropy": entropy}
        others = ("clip_fraction_low", "clip_fraction_high", "kl_old", "ratio_min")
        line |= {f"policy/{name}": 0.01 * step for name in others}
        line |= {"reward/correct_fraction": 0.5, "update/grad_norm": 1.0}
        line |= {"rollout/completion_tokens_mean": 20.0, "time/step_seconds": 2.0}
        line |= {"rollout/completions": 512}
        lines.append(line)
    lines[-1] |= evaluated[1]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    (workdir / "checkpoints" / str(len(entropies))).mkdir(parents=True)


def test_runs_become_lines_and_lines_a_table(tmp_path, monkeypatch, capsys):
    runs, out = tmp_path / "runs", tmp_path / "results"
    out.mkdir()
    asked = collect.asked_runs()
    gains = {0: 0.02, 1: 0.04}
    for seed, gain in gains.items():
        for arm, more in (("grpo", 0.0), ("ce_gppo_0.5_1", gain)):
            run = asked[f"{arm}/seed{seed}"]
            entropies = [1.0 - 0.05 * step for step in range(12)]
            settings = dict(run.overrides) | {"seed": seed}
            write_run(runs / str(run), settings, entropies, (0.3, 0.6 + 0.1 * seed + more))
    monkeypatch.setattr("sys.argv", ["collect", f"--runs={runs}", f"--out={out}"])
    collect.main()
    assert "not finished: grpo/seed2" in capsys.readouterr().out

    found = tables.read_runs(out / "runs.csv")
    assert sorted(found) == ["ce_gppo_0.5_1", "grpo"]
    one = found["grpo"][1]
    last_ten = [1.0 - 0.05 * step for step in range(2, 12)]
    assert one["entropy"] == pytest.approx(sum(last_ten) / 10, rel=1e-4)
    assert one["entropy_area"] == pytest.approx(1.0 - 0.05 * 5.5, rel=1e-4)
    assert (one["accuracy_start"], one["accuracy"], one["pass_8"]) == (0.3, 0.7, 0.8)
    assert one["entropy_early"] == one["entropy_area"]  # of twelve steps
    assert one["ratio_least"] == 0.01
    assert (one["clip_low"], one["seconds"]) == (pytest.approx(0.065), 24.0)
    with (out / "curves.csv").open() as file:
        steps = [int(line["step"]) for line in csv.DictReader(file)]
    assert steps == [5, 10, 12] * 4

    # 12 steps of 512 completions of 20 tokens
    evaluated = at_equal_tokens.read_evaluations(out / "evaluations.csv")["grpo"][1]
    assert evaluated.tolist() == [[0, 0, 0.3, 0.4], [0.12288, 12, 0.7, 0.8]]

    difference = tables.difference(found, "ce_gppo_0.5_1", "grpo", "accuracy")
    reach = student.ppf(0.975, 1) * 0.01  # the standard error of 0.02 and 0.04
    assert (difference.mean, difference.high) == pytest.approx((0.03, 0.03 + reach), abs=1e-6)
    table = tables.arm_table(found, ["grpo", "ce_gppo_0.5_1", "dapo"], "grpo")
    assert len(table.splitlines()) == 4  # an arm without runs has no line
    assert "| 65.0 [1.5, 100.0] |" in table
    assert tables.broken(found, "grpo") == []
    assert tables.broken({"a": {3: one | {"accuracy": 0.29}, 4: one}}, "a") == [3]
    assert f"+3.0 [{100 * (0.03 - reach):+.1f}, {100 * (0.03 + reach):+.1f}]" in table


def test_runs_that_are_gone_keep_their_lines(tmp_path):
    path = tmp_path / "runs.csv"
    collect.write(path, [{"arm": a, "seed": 0, "entropy": 0.1} for a in "abc"], ())
    collect.write(path, [{"arm": "b", "seed": 0, "entropy": 0.25}], ("a/seed0", "b/seed0"))
    assert collect.read(path) == [  # c is asked for no more
        {"arm": "a", "seed": "0", "entropy": "0.1"},
        {"arm": "b", "seed": "0", "entropy": "0.25"},
    ]


def test_accuracy_at_equal_tokens():
    def of(tokens, *accuracies):  # evaluated every 5 steps, `tokens` in between
        rows = [(tokens * i, 5 * i, a, a + 0.1) for i, a in enumerate(accuracies)]
        return {0: np.array(rows)}

    found = {"none": of(1, 0.2, 0.3, 0.4), "refill": of(4, 0.2, 0.6, 0.9)}
    runs = at_equal_tokens.at_equal_tokens(found, ["none", "refill"])
    assert runs["none"][0] == pytest.approx(
        {"tokens": 2, "step": 10, "accuracy": 0.4, "pass_8": 0.5}
    )
    assert runs["refill"][0] == pytest.approx(  # half way to the first evaluation
        {"tokens": 2, "step": 2.5, "accuracy": 0.4, "pass_8": 0.5}
    )
    lines = at_equal_tokens.table(found, ["none", "refill"]).splitlines()
    assert lines[-1] == "| `refill` | 1 | 2.00 | 2 | 8.00 | 40.0 | 50.0 | +0.0 | +0.0 |"


def test_orders_of_arms():
    entropies = {0: (0.1, 0.2, 0.3), 1: (0.2, 0.1, 0.3), 2: (0.1, 0.3, 0.5), 3: (0.1, 0.2, 0.9)}
    runs = {
        arm: {seed: {"entropy": row[place]} for seed, row in entropies.items()}
        for place, arm in enumerate(ARMS)
    }
    found = tables.order(runs, ARMS, "entropy")
    assert found.taus == pytest.approx(
        (1, 1 / 3, 1, 1)
    )  # of three pairs, one is reversed in seed 1
    assert found.tau.mean == pytest.approx(5 / 6)
    # L = 14 + 13 + 14 + 14 of at most 56. Of 6^4 rankings 1 gives 56 and 8 give 55
    assert found.page == pytest.approx(9 / 1296)
    with pytest.raises(ValueError, match="no seed has all"):
        tables.order(runs, (*ARMS, "ce_gppo_0.25_1"), "entropy")


def test_broken_runs_of_two_groups_of_arms():
    def of(*ends):
        return {seed: {"accuracy_start": 0.2, "accuracy": end} for seed, end in enumerate(ends)}

    runs = {"a": of(0.1, 0.0, 0.15), "b": of(0.3, 0.9, 0.2)}
    said = tables.break_test(runs, ("a",), ("b", "none"))
    assert "3 of 3 (100.0% [29." in said  # Clopper and Pearson: 0.025^(1/3) = 0.292
    assert said.endswith("Fisher's p = 0.1")  # both tails of 1 / C(6, 3)
    assert tables.break_test(runs, ("none",), ("b",)) == "-"


def test_files_that_share_an_arm_mean_the_same_run():
    assert len(collect.asked_runs()) > 100


def test_the_table_of_the_budget(tmp_path):
    names = [f"{name}_{tokens}" for _, name in budget_rows.PAIRS for tokens in ("own", "all")]
    lines = []
    for place, step in enumerate([0, 0, 0, 5, 5, 5]):
        budget = (-1) ** place * (place + 1)  # 1 -2 3 -4 5 -6
        values = dict.fromkeys(names, 2.0 * budget) | {"sgd_all": -budget + 100.0 * step}
        lines.append({"step": step, "budget": budget} | values)
    path = tmp_path / "budget_0.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    found = budget_rows.table([path]).splitlines()
    assert "| budget | sgd | own | 6 | +1.00 | +1.00 | 100% | +1.00 |" in found
    # Within a step it is the mirror image; the step's own level hides it
    [of_all] = [line for line in found if line.startswith("| budget | sgd | all |")]
    assert of_all.endswith("| 17% | -1.00 |")


def test_verdicts_follow_from_intervals():
    def of(**arms):  # pass@1 of seeds 0, 1, 2
        return {
            arm: {seed: {"accuracy": value} for seed, value in enumerate(values)}
            for arm, values in arms.items()
        }

    runs = of(grpo=(0.3, 0.4, 0.5), dapo=(0.31, 0.412, 0.511), erc=(0.2, 0.29, 0.41))
    above, below = (tables.difference(runs, arm, "grpo", "accuracy") for arm in ("dapo", "erc"))
    assert [claims.verdict(above), claims.verdict(above, -1)] == ["shown", "refuted"]
    assert [claims.verdict(below), claims.verdict(below, -1)] == ["refuted", "shown"]
    mixed = of(grpo=(0.3, 0.4, 0.5), dapo=(0.4, 0.3, 0.5))
    assert claims.verdict(tables.difference(mixed, "dapo", "grpo", "accuracy")) == "not shown"


def test_claims_whose_runs_are_missing_are_open():
    runs = {"grpo": {0: {"accuracy": 0.3}}}
    rows = claims.table(runs).splitlines()[2:]
    assert len(rows) == len(claims.CLAIMS) + len(claims.ORDERED)
    assert all(row.endswith("| not run | open |") for row in rows)


@pytest.mark.parametrize(
    ("arm", "words"),
    [
        ("ce_gppo_0.5_1", "CE-GPPO (0.5, 1)"),
        ("sums_1_0.5", "CE-GPPO (1, 0.5)"),
        ("sums_grpo", "GRPO"),
        ("ce_gppo_1_1_fast", "CE-GPPO (1, 1) fast"),
        ("bonus_0.003", "bonus 0.003"),
    ],
)
def test_names_in_legends(arm, words):
    assert figures.label(arm) == words
