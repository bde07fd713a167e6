"""The command: its report, the cleaned file, and what it refuses."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from named_sets import load_problems

from cegppo_jax.data.fields import FIELD_MAPS
from cegppo_jax.decontaminate import decontaminate

ROOT = Path(__file__).parent.parent
PLAIN = FIELD_MAPS["plain"]

TRAIN = (
    "How many apples does Ann have when she buys three more at the market today?",
    "Something else of which there is no trace in what is evaluated on here.",
    "What is 2 + 2?",
    "When she buys three more at the market today, or tomorrow, what does Ben pay?",
)
FIRST = ("How many apples does Ann have when she buys three more at the market today?", "Why?")
SECOND = ("what is 2+2", "Nothing that anybody would ever train a language model on, I hope")


@pytest.fixture
def names(tmp_path):
    for name, texts in (("train", TRAIN), ("first", FIRST), ("second", SECOND)):
        rows = [{"problem": text, "answer": "1", "solution": "s"} for text in texts]
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text)
    return {name: str(tmp_path / f"{name}.jsonl") for name in ("train", "first", "second")}


def run(*arguments):
    command = [sys.executable, "-m", "cegppo_jax.decontaminate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_report(names):
    report, clean = decontaminate(
        names["train"], (names["first"], names["second"]), PLAIN, ngram_words=8, min_share=0.0
    )
    assert (report["train_problems"], report["train_matched"]) == (4, 3)
    assert [problem.problem for problem in clean] == [TRAIN[1]]
    first, second = report["against"].values()
    counts = ("problems", "problems_matched", "problems_contained", "train_matched")
    assert [first[name] for name in counts] == [2, 1, 1, 2]
    assert [second[name] for name in counts] == [2, 1, 1, 1]
    whole, part = first["pairs"]
    assert (whole["share"], whole["train_id"], whole["evaluation_id"]) == (1, "train/1", "first/1")
    assert part["train_id"] == "train/4"
    assert part["shared"] == ("when she buys three more at the market today",)
    assert part["share"] == round(2 / 8, 4)
    assert second["pairs"][0]["train_problem"] == "What is 2 + 2?"


def test_min_share_passes_over_what_is_common(names):
    report, clean = decontaminate(names["train"], (names["first"],), PLAIN, 8, min_share=0.5)
    assert [problem.id for problem in clean] == ["train/2", "train/3", "train/4"]
    assert report["against"][names["first"]]["train_matched"] == 1


def test_command(names, tmp_path):
    out, write = tmp_path / "report.json", tmp_path / "clean.jsonl.gz"
    child = run(
        f"--train={names['train']}",
        f"--against={names['first']},{names['second']}",
        f"--out={out}",
        f"--write={write}",
        "--ngram=8",
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout.startswith("3 of 4 training problems share 8 words in a row with an eval")
    report = json.loads(out.read_text())
    assert report["ngram_words"] == 8
    assert len(report["against"][names["first"]]["pairs"]) == 2
    with gzip.open(write, "rt") as stream:
        assert len(stream.readlines()) == 1
    [kept] = load_problems(str(write), PLAIN)
    assert (kept.id, kept.source, kept.solution) == ("train/2", "train", "s")


def test_command_refuses_in_one_line(names, tmp_path):
    before = Path(names["train"]).read_bytes()
    against, out = f"--against={names['first']}", f"--out={tmp_path / 'report.json'}"
    for arguments, message in (
        ([f"--train={names['train']}", f"--write={names['train']}"], "it is not overwritten"),
        ([f"--train={names['train']}?plain", f"--write={names['train']}"], "it is not overwritten"),
        ([f"--train={names['train']}", f"--write={names['first']}"], "it is not overwritten"),
        ([f"--train={names['train']}", f"--write={tmp_path}/report.json"], "--write both name"),
        ([f"--train={names['train']}", f"--write={tmp_path}/x.csv"], "must end in .jsonl"),
        (["--train=none.jsonl"], "--train=none.jsonl cannot be read (No such"),
    ):
        child = run(*arguments, against, out)
        assert child.returncode == 1
        assert child.stderr.startswith("error: ")
        assert message in child.stderr
        assert not (tmp_path / "report.json").exists()
    assert Path(names["train"]).read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_name": "task:sums"}, "built-in tasks are split by construction"),
        ({"min_share": 1.5}, r"--min_share=1.5: .*\[0, 1\]"),
        ({"evaluation_names": ()}, "--against names no problem set"),
        ({"ngram_words": 0}, "ngram_words is 0"),
    ],
)
def test_bad_arguments(names, changes, message):
    arguments = {
        "train_name": names["train"],
        "evaluation_names": (names["first"],),
        "fields": PLAIN,
        "ngram_words": 9,
        "min_share": 0.0,
    }
    with pytest.raises(ValueError, match=message):
        decontaminate(**(arguments | changes))


@pytest.mark.skipif("CEGPPO_DATA" not in os.environ, reason="CEGPPO_DATA names no problem files")
def test_real_sets():
    """Seven problems of MATH-500 are in this copy of DeepScaleR word for word, none of AIME."""
    folder = Path(os.environ["CEGPPO_DATA"])
    sets = [str(folder / f"{name}.jsonl") for name in ("math500", "aime2024", "aime2025")]
    report, clean = decontaminate(
        str(folder / "deepscaler_40k.jsonl.gz"), sets, PLAIN, ngram_words=9, min_share=0.0
    )
    contained = [found["problems_contained"] for found in report["against"].values()]
    assert contained == [7, 0, 0]
    assert len(clean) + report["train_matched"] == 39808
