"""Every command on gs:// paths: it works there, or is refused at the door with what to do."""

import json
import logging

import bucket_server
import child_runs
import jax
import numpy as np
import pytest

import cegppo_jax as cg
from cegppo_jax import check, compare, decontaminate, plan, recipes, sweep, verify
from cegppo_jax.console.start import start_command
from cegppo_jax.planning.lengths import plan_lengths
from cegppo_jax.reporting.metrics import read_metrics
from cegppo_jax.run import command_line
from cegppo_jax.run.settings import read_settings
from cegppo_jax.storage.bucket import Bucket, BucketError

SWEEP = f"""
import runpy
from cegppo_jax.sweeps.arms import over, product, seeds
QUESTION = "Does it?"
PREDICTION = "It does."
METRIC = "policy/entropy"
def base():
    return runpy.run_path({str(child_runs.ROOT / child_runs.RECIPE)!r})["get_config"]()
def arms():
    return product(over("loss.beta_low", 0.5), seeds(0))
"""


@pytest.fixture(scope="module")
def run(finished_run):
    """gs://bucket/sweep/beta_low=0.5/seed0: the finished run, as if it had been trained there."""
    logging.getLogger("gcsfs").setLevel(logging.ERROR)
    with bucket_server.serving() as url:
        bucket, workdir = Bucket("--run", f"{url}/sweep/beta_low=0.5/seed0"), finished_run[0]
        for path in workdir.rglob("*"):
            if path.is_file() and path.name != ".writer":
                bucket.upload(path, str(path.relative_to(workdir)))
        for step in (workdir / "checkpoints").iterdir():  # what marks one as complete there
            for part in (step, step / "state", step / "position"):
                name = part.relative_to(workdir)
                bucket.write(f"{name}/commit_success.txt", b"done")
        yield bucket


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_check_looks_at_a_run_in_a_bucket_and_writes_nothing(run, capsys):
    before = run.files()
    with child_runs.in_this_process("check", run.url):
        command_line.run("check", check.main)
    printed = capsys.readouterr().out
    assert f"ok     directory: {run.url}: has taken 6 of 6 steps" in printed
    assert f"ok     disk: checkpoints go to {run.url}" in printed
    assert run.files() == before
    assert "--config.seed=1" not in child_runs.refused(run.url, "--config.seed=1", command="check")
    assert f"wrong  directory: {run.url}" in capsys.readouterr().out


def test_a_policy_is_loaded_from_a_run_in_a_bucket(run, finished_run):
    here, there = cg.load(finished_run[0]), cg.load(run.url)
    jax.tree.map(np.testing.assert_array_equal, here.params, there.params)
    assert there.tokenizer.get_vocab() == here.tokenizer.get_vocab()
    with pytest.raises(ValueError, match=r"step = 3.* is not the directory of a run"):
        cg.load(f"{run.url}/tokenizer", step=3)


def test_a_run_in_a_bucket_is_opened_and_each_look_reads_what_is_there_by_then(run, finished_run):
    growing = Bucket("workdir", run.url.replace("sweep", "growing"))
    lines = (finished_run[0] / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    growing.write("config.json", run.read("config.json"))
    growing.write("metrics.jsonl", b"".join(lines[:5]))
    opened = cg.open_run(growing.url)
    assert len(opened.metrics) == 5
    growing.write("metrics.jsonl", b"".join(lines))
    assert opened.metrics == read_metrics(finished_run[0])
    assert growing.url in repr(opened)
    folder = opened.workdir
    del opened
    assert not folder.exists()
    with pytest.raises(ValueError, match=rf"{growing.url}/nothing"):
        cg.open_run(f"{growing.url}/nothing")
    with pytest.raises(
        BucketError, match="gs://no-such-bucket/run cannot be used: there is no such"
    ):
        cg.open_run("gs://no-such-bucket/run")


def test_a_policy_is_saved_to_a_bucket_and_loaded_from_there(run):
    policy, url = cg.random_policy("0123456789+ ", width=8, layers=1, heads=2), f"{run.url}-saved"
    with pytest.raises(ValueError, match=r"chat template|already exists|alphabet|heads"):
        cg.save(policy, run.url)  # there is something
    cg.save(policy, url, dtype="float32")
    assert {"config.json", "model.safetensors"} <= Bucket("folder", url).files().keys()


def test_a_table_of_runs_in_a_bucket_is_made_and_kept_there(run, tmp_path, capsys):
    (tmp_path / "asked.py").write_text(SWEEP)
    top = run.url.removesuffix("/beta_low=0.5/seed0")
    options = sweep.arguments().parse_args
    sweep.act(options([str(tmp_path / "asked.py"), "--table", f"--dir={top}"]))
    assert f"{top}/table.md" in capsys.readouterr().out
    table = Bucket("--dir", top).read("table.csv").decode()
    assert "beta_low=0.5,policy/entropy" in table
    for words, named in (("--run", "--run --dir=gs"), ("--list", "--list --dir=gs")):
        with pytest.raises(ValueError, match=rf"{named}.*--emit=skypilot --bucket=NAME"):
            sweep.act(options([str(tmp_path / "asked.py"), words, f"--dir={top}"]))


def called(name, main, *words):
    """Calls a command of the console that has no config."""
    with child_runs.with_arguments(name, *words):
        start_command(name, main)


def test_rows_lengths_and_problem_sets_are_read_from_a_bucket(run, tmp_path, capsys):
    called("verify", verify.main, "--verifier=final_answer", f"--rows={run.url}/samples.jsonl")
    assert "items: " in capsys.readouterr().out
    settings = read_settings(
        command_line.recipe_config(child_runs.ROOT / child_runs.RECIPE, "", "")
    )
    for text in (run.url, f"{run.url}/metrics.jsonl"):
        assert "around the mean of " in plan_lengths(text, 4, settings).words
    line = json.dumps({"problem": "one and two and three", "answer": "6"}).encode() + b"\n"
    run.write("sets/train.jsonl", line)
    out, written = tmp_path / "overlap.json", f"{run.url}/sets/train.jsonl"
    called(
        "decontaminate",
        decontaminate.main,
        f"--train={written}",
        f"--against={written}",
        f"--out={out}",
        "--ngram=3",
    )
    assert json.loads(out.read_text())["train_matched"] == 1


@pytest.mark.parametrize(
    ("name", "main", "words", "named"),
    [
        ("recipes", recipes.main, ["gs://bucket/recipes"], "FOLDER = 'gs://bucket/recipes'"),
        (
            "decontaminate",
            decontaminate.main,
            ["--train=a.jsonl", "--against=b.jsonl", "--out=gs://bucket/a.json"],
            "--out = 'gs://bucket/a.json'",
        ),
        (
            "compare",
            compare.main,
            ["gs://bucket/nothing", "gs://bucket/nothing", "--out=gs://bucket/page.json"],
            "gs://bucket/nothing",
        ),
    ],
)
def test_what_cannot_be_in_a_bucket_is_refused_by_its_flag(run, name, main, words, named):
    with pytest.raises(SystemExit, match=r"^error: ") as raised:
        called(name, main, *words)
    assert named in str(raised.value)


@pytest.mark.parametrize("flag", ["--json=gs://bucket/plan.json", "--compiled=gs://bucket/a.json"])
def test_a_plan_is_on_this_machine(flag):
    flags = ["--topology=v5p:2x2x1", flag]
    with (
        child_runs.in_this_process("plan", None, *flags),
        pytest.raises(SystemExit, match=r"^error: --(json|compiled) = 'gs://.*' is a URL"),
    ):
        command_line.run("plan", plan.main)
