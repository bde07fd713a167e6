"""The commands that evaluate and compare: on a run, on a pretrained model, interrupted, misused."""

import csv
import json
import math
import os
import re
import shutil
import signal

import child_runs
import pytest
import tiny_recipe

from cegppo_jax.compare import read_results
from cegppo_jax.evaluate import prepare_evaluation
from cegppo_jax.evaluation.files import newest_evaluation, read_attempts
from cegppo_jax.reporting.metrics import read_metrics
from cegppo_jax.run.evaluation_folder import evaluation_digest
from cegppo_jax.run.stopping import EXIT_CODE
from cegppo_jax.storage.strict_json import write_json


@pytest.fixture
def run_copy(finished_run, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished_run[0], workdir)
    return workdir


def evaluate(workdir, cache, *flags):
    """-> (folder of the results, evaluation.json, printed)"""
    printed = child_runs.finish(workdir, *flags, command="evaluate", cache=cache)
    folder = printed.splitlines()[-1].partition(": ")[0]
    path = workdir.parent / folder / "evaluation.json"
    return path.parent, json.loads(path.read_text()), printed


def test_the_command_gives_what_the_run_measured_last_whatever_the_slots(run_copy, compile_cache):
    flags = ("--config.sampler.slots=8", "--config.sampler.chunk_steps=3", "--config.steps=99")
    before = {path.name: path.stat().st_mtime_ns for path in run_copy.iterdir()}
    folder, evaluation, printed = evaluate(run_copy, compile_cache, *flags)
    said = ("memory: about", "loading", "compiling the prefill", "compiling the decode")
    places = [printed.index(words) for words in said]
    assert places == sorted(places)
    assert folder.parent == run_copy / "evaluations"
    last = read_metrics(run_copy)[-1]
    assert folder.name.startswith(f"step{last['step']}-")
    assert evaluation["accuracy"] == {
        "mean": last["evaluation/accuracy"],
        "low": last["evaluation/accuracy_low"],
        "high": last["evaluation/accuracy_high"],
    }
    assert evaluation["pass_at"]["2"]["mean"] == last["evaluation/pass_at_n"]
    assert (evaluation["problems"], evaluation["samples_per_problem"]) == (8, 2)
    described = json.loads((folder / "config.json").read_text())
    assert (described["run"], described["step"]) == (str(run_copy), 6)
    [versions] = json.loads((folder / "versions.json").read_text())
    assert (versions["cache"], versions["attention"]["sampler"]) == ("contiguous", "xla")
    rows = list(csv.DictReader((folder / "problems.csv").open()))
    assert sum(int(row["correct"]) for row in rows) == evaluation["outcomes"]["correct"]
    after = {path.name: path.stat().st_mtime_ns for path in run_copy.iterdir()}
    assert {name: after[name] for name in before} == before


def test_a_run_alone_is_evaluated_as_by_its_recipe_and_compared(run_copy, compile_cache, tmp_path):
    """--run needs no config: the same folder, so the second command finds all completions there."""
    folder, by_recipe, _ = evaluate(run_copy, compile_cache)
    printed = child_runs.command("evaluate", f"--run={run_copy}", cache=compile_cache)
    assert "16 of 16 completions already exist" in printed
    assert printed.splitlines()[-1].startswith(f"{folder}: ")
    assert [one.name for one in (run_copy / "evaluations").iterdir()] == [folder.name]

    changes = ("--step=4", "--config.evaluation.sampling.temperature=0.0")
    printed = child_runs.command("evaluate", f"--run={run_copy}", *changes, cache=compile_cache)
    greedy = run_copy / "evaluations" / printed.splitlines()[-1].partition(": ")[0].split("/")[-1]
    assert greedy.name.startswith("step4-")

    out = tmp_path / "comparison.json"
    printed = child_runs.command("compare", str(folder), str(run_copy), f"--out={out}")
    first, second, note, *_ = printed.splitlines()
    assert (first.split(), second.split()) == (["first", str(folder)], ["second", str(greedy)])
    words = "evaluation.sampling.temperature is 1.0 in the first and 0.0 in the second"
    assert note.removeprefix("note").strip() == words
    assert json.loads(out.read_text())["accuracy"]["first"] == by_recipe["accuracy"]


def test_the_newest_evaluation_of_a_run_is_the_last_one_that_was_finished(tmp_path):
    for order, name in enumerate(("step4-b", "step2-c", "step6-a", "step8-unfinished")):
        folder = tmp_path / "run" / "evaluations" / name
        folder.mkdir(parents=True)
        (folder / "completions.jsonl").touch()
        if "unfinished" not in name:
            (folder / "evaluation.json").touch()
            os.utime(folder / "evaluation.json", (1000 - order, 1000 - order))
    assert newest_evaluation(tmp_path / "run").name == "step4-b"
    assert newest_evaluation(folder) == folder  # an evaluation's own folder, whatever is in it
    (tmp_path / "other").mkdir()
    with pytest.raises(
        ValueError, match=rf"no finished evaluation.* evaluate --run={tmp_path}/other"
    ):
        newest_evaluation(tmp_path / "other")
    with pytest.raises(ValueError, match="none does not exist"):
        newest_evaluation(tmp_path / "none")


@pytest.mark.slow
def test_an_interrupted_evaluation_goes_on_to_the_same_completions(run_copy, compile_cache):
    folder, evaluation, _ = evaluate(run_copy, compile_cache)
    whole = {(a.problem, a.sample): a for a in read_attempts(folder / "completions.jsonl")}
    assert len(whole) == 16
    lines = (folder / "completions.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "completions.jsonl").write_bytes(b"".join(lines[:5]) + lines[5][:20])
    (folder / "evaluation.json").unlink()
    again, resumed, printed = evaluate(run_copy, compile_cache, "--config.sampler.slots=8")
    assert again == folder
    assert "5 of 16 completions" in printed
    attempts = read_attempts(folder / "completions.jsonl")
    assert len(attempts) == 16
    assert {(a.problem, a.sample): a for a in attempts} == whole
    assert resumed["seconds"] is None
    assert resumed | {"seconds": 0} == evaluation | {"seconds": 0}
    _, finished, printed = evaluate(run_copy, compile_cache)
    assert "16 of 16 completions" in printed
    assert finished == resumed


@pytest.mark.slow
def test_an_evaluation_asked_to_stop_keeps_its_completions_and_goes_on(
    run_copy, compile_cache, tmp_path
):
    """By SIGTERM, while completions are drawn: exit code 75, and the same ones in the end."""
    many = ["--config.evaluation.samples_per_problem=100", f"--run={run_copy}"]
    options = {"command": "evaluate", "cache": compile_cache}
    whole, out = tmp_path / "whole", tmp_path / "stopped"
    child_runs.finish(None, *many, f"--out={whole}", **options)

    def lines():
        path = out / "completions.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    code, errors = child_runs.stopped(
        signal.SIGTERM, lambda: lines() > 20, None, *many, f"--out={out}", **options
    )
    assert code == EXIT_CODE, errors
    [saved] = re.findall(r"stopped by SIGTERM: (\d+) of 800 completions are saved", errors)
    assert lines() == int(saved) < 800
    printed = child_runs.finish(None, *many, f"--out={out}", **options)
    assert f"{saved} of 800 completions already exist" in printed
    found, expected = (
        sorted((a.problem, a.sample, a) for a in read_attempts(one / "completions.jsonl"))
        for one in (out, whole)
    )
    assert found == expected


@pytest.mark.slow
def test_the_command_evaluates_otherwise_than_the_run_and_compares(
    run_copy, compile_cache, tmp_path
):
    """Greedily, so that the three samples of a problem agree; and an older step."""
    greedy = (
        "--config.evaluation.sampling.temperature=0.0",
        "--config.evaluation.problems=12",
        "--config.evaluation.samples_per_problem=3",
    )
    first, older, _ = evaluate(run_copy, compile_cache, *greedy, "--step=4")
    second, newest, _ = evaluate(run_copy, compile_cache, *greedy)
    assert first != second
    assert (newest["problems"], newest["samples_per_problem"]) == (12, 3)
    assert newest["accuracy"] == newest["pass_at"]["2"] == newest["majority_at"]["3"]
    assert newest["accuracy"]["mean"] in [n / 12 for n in range(13)]
    out = tmp_path / "comparison.json"
    printed = child_runs.command(
        "compare", f"--first={first}", f"--second={second}", f"--out={out}"
    )
    assert "12 problems, 3 samples each: " in printed
    difference = json.loads(out.read_text())["accuracy"]["difference"]["mean"]
    expected = newest["accuracy"]["mean"] - older["accuracy"]["mean"]
    assert difference == pytest.approx(expected)


@pytest.mark.slow
def test_a_pretrained_model_and_a_problem_file(run_copy, compile_cache, tmp_path):
    """The run's own model, exported: greedy answers are those of the run, rounding aside."""
    model = tmp_path / "model"
    child_runs.command("export", f"--workdir={run_copy}", f"--out={model}", "--dtype=float32")
    problems = tmp_path / "problems.jsonl"
    problems.write_text(
        "\n".join(json.dumps({"problem": f"{d}+1", "answer": str((d + 1) % 10)}) for d in range(10))
    )
    flags = (
        "--config.problems.task=",
        f"--config.problems.held_out=('{problems}',)",
        "--config.evaluation.sampling.temperature=0.0",
        "--config.evaluation.samples_per_problem=1",
    )
    of_run, first, _ = evaluate(run_copy, compile_cache, *flags)
    out = tmp_path / "results"
    printed = child_runs.finish(
        None,
        *flags,
        f"--config.model.pretrained={model}",
        f"--out={out}",
        command="evaluate",
        cache=compile_cache,
    )
    assert f"{out}: evaluation.json" in printed
    assert first["problems"] == 10
    texts = [
        {a.problem: a.completion for a in read_attempts(folder / "completions.jsonl")}
        for folder in (of_run, out)
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "nothing to evaluate: give a run (--run) or a model (--config.model.pretrained)"),
        (("--config.model.pretrained=x/y",), "has no directory for its results: give --out"),
        (("--config.model.pretrained=x/y", "--out=o", "--step=3"), "--step=3: a pretrained model"),
        (("--workdir=nothing",), "nothing holds no run of this version"),
    ],
)
def test_what_cannot_be_evaluated(flags, message, tmp_path):
    errors = child_runs.refused(None, *flags, command="evaluate")
    assert message in errors.splitlines()[-1]


def test_a_folder_of_something_else_is_left_alone(run_copy, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    errors = child_runs.refused(run_copy, f"--out={out}", command="evaluate")
    assert "is not empty and holds no evaluation" in errors
    (out / "config.json").write_text('{"pretrained": "x"}')
    errors = child_runs.refused(run_copy, f"--out={out}", command="evaluate")
    assert "holds a run of another config" in errors
    assert {path.name for path in out.iterdir()} == {"notes.txt", "config.json"}
    errors = child_runs.refused(run_copy, f"--out={out / 'notes.txt' / 'x'}", command="evaluate")
    assert f"{out / 'notes.txt'} is a file" in errors.splitlines()[-1]


def test_a_malformed_line_is_named(tmp_path):
    (tmp_path / "completions.jsonl").write_text('{"problem": 0}\n')
    with pytest.raises(ValueError, match="line 1: not an attempt"):
        read_attempts(tmp_path / "completions.jsonl")
    with pytest.raises(ValueError, match="does not exist"):
        read_attempts(tmp_path / "none" / "completions.jsonl")
    for line in (b'{"problem": "a", "sample": 1, "tokens": 3}\n', b"\xff\n"):
        (tmp_path / "completions.jsonl").write_bytes(line)
        with pytest.raises(ValueError, match=r"completions.jsonl, line 1: not an attempt"):
            read_attempts(tmp_path / "completions.jsonl")


def test_an_attempt_that_is_there_twice_is_refused_and_half_a_line_is_none(tmp_path):
    attempt = {
        **{"problem": 0, "id": "a", "sample": 1, "completion": "", "answer": None, "gold": "1"},
        **{"outcome": "wrong", "reward": 0.0, "tokens": 3, "stop_reason": "eos"},
    }
    line = json.dumps(attempt) + "\n"
    path = tmp_path / "completions.jsonl"
    path.write_text(line + line[:30])
    assert [one.id for one in read_attempts(path)] == ["a"]
    path.write_text(line + line)
    with pytest.raises(ValueError, match="line 2: sample 1 of problem 'a' is there twice"):
        read_attempts(path)
    path.write_text(line)
    with pytest.raises(ValueError, match=r"not finished \(1 completions, no evaluation.json\)"):
        read_results(tmp_path)


def open_for(config, run, out):
    """-> what an evaluation of the run into the folder is described by."""
    task = prepare_evaluation(config, run, None, out)
    task.evaluator.actor.scorer.close()
    return task


def test_completions_of_other_weights_or_problems_are_not_gone_on_with(run_copy, tmp_path):
    """The names are the same: what is behind them has changed."""
    problems, out = tmp_path / "problems.jsonl", tmp_path / "out"
    problems.write_text('{"problem": "1+1", "answer": "2"}\n')
    config = tiny_recipe.get_config()
    config.problems.task = ""
    config.problems.held_out = (str(problems),)
    out.mkdir()
    described = open_for(config, run_copy, out).described
    write_json(out / "config.json", described)
    assert open_for(config, run_copy, out).described == described

    problems.write_text('{"problem": "1+1", "answer": "3"}\n')
    with pytest.raises(ValueError, match=r"another config:\n  prompts: the run has .*\n.*other"):
        prepare_evaluation(config, run_copy, None, out)
    problems.write_text('{"problem": "1+1", "answer": "2"}\n')

    saved = run_copy / "checkpoints" / "6" / "_CHECKPOINT_METADATA"
    fields = json.loads(saved.read_text())
    saved.write_text(json.dumps(fields | {"commit_timestamp_nsecs": 1}))
    with pytest.raises(ValueError, match=r"another config:\n  weights: the run has .*\n.*other"):
        prepare_evaluation(config, run_copy, None, out)


def test_a_run_is_evaluated_with_its_own_tokenizer_or_not_at_all(run_copy, tmp_path):
    config = tiny_recipe.get_config()
    config.problems.template_options = ("enable_thinking=false",)
    with pytest.raises(ValueError, match=r"template_options = .* with its own tokenizer"):
        prepare_evaluation(config, run_copy, None, tmp_path / "out")


def test_a_damaged_file_of_completions_is_found_before_anything_starts(run_copy, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    write_json(out / "config.json", open_for(tiny_recipe.get_config(), run_copy, out).described)
    (out / "completions.jsonl").write_text("nonsense\n")
    with pytest.raises(ValueError, match="line 1: not an attempt"):
        prepare_evaluation(tiny_recipe.get_config(), run_copy, None, out)


def test_the_folder_of_an_evaluation_does_not_depend_on_how_fast_it_runs():
    described = {"sampler": {"slots": 8, "dtype": "float32"}, "mesh": {"data": 1}, "step": 3}
    faster = {"sampler": {"slots": 16, "dtype": "float32"}, "mesh": {"data": 8}, "step": 3}
    other = {"sampler": {"slots": 8, "dtype": "bfloat16"}, "mesh": {"data": 1}, "step": 3}
    defaults = {"sampler": {"slots": 4, "dtype": "float32"}}
    assert evaluation_digest(described, defaults) == evaluation_digest(faster, defaults)
    assert evaluation_digest(described, defaults) != evaluation_digest(other, defaults)


def test_the_folder_of_an_evaluation_does_not_depend_on_settings_that_a_later_version_adds():
    described = {"sampler": {"dtype": "bfloat16"}, "step": 3}
    defaults = {"sampler": {"dtype": "float32"}}
    later = {"sampler": {"dtype": "bfloat16", "added": math.inf}, "step": 3}
    other = {"sampler": {"dtype": "bfloat16", "added": 1.0}, "step": 3}
    after = {"sampler": {"dtype": "float32", "added": math.inf}}
    assert evaluation_digest(described, defaults) == evaluation_digest(later, after)
    assert evaluation_digest(described, defaults) != evaluation_digest(other, after)


def test_an_evaluation_begun_before_there_was_a_setting_goes_on(run_copy, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    described = open_for(tiny_recipe.get_config(), run_copy, out).described
    del described["problems"]["instruction"]
    write_json(out / "config.json", described)
    open_for(tiny_recipe.get_config(), run_copy, out)
    assert "problems.instruction existed: it takes the default, ''" in capsys.readouterr().out
    described["problems"]["gone"] = 3
    write_json(out / "config.json", described)
    with pytest.raises(ValueError, match=r"problems\.gone: the run has 3, and this version has no"):
        open_for(tiny_recipe.get_config(), run_copy, out)


def test_a_run_begun_before_there_was_a_setting_of_its_tokenizer_is_evaluated(run_copy, tmp_path):
    saved = json.loads((run_copy / "config.json").read_text())
    del saved["problems"]["template_options"]
    write_json(run_copy / "config.json", saved)
    open_for(tiny_recipe.get_config(), run_copy, tmp_path / "out")
