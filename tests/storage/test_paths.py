"""Paths: `~` is the home folder wherever a path is taken, and a URL is no local folder. Those of
buckets: tests/storage/test_bucket.py.
"""

import json
from pathlib import Path

import pytest
from named_sets import load_problems

from cegppo_jax.data.fields import FIELD_MAPS
from cegppo_jax.data.model_files import locate_model
from cegppo_jax.data.tasks.table import TASKS
from cegppo_jax.data.tokenizer import build_character_tokenizer, load_tokenizer
from cegppo_jax.storage.paths import local_path

URL = "gs://bucket/folder"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir("/")
    return tmp_path


def test_a_tilde_is_the_home_folder(home):
    assert local_path("--workdir", "~/runs/a") == home / "runs" / "a"
    assert local_path("--workdir", "runs/~a") == Path("runs/~a")


def test_variables_are_expanded_where_no_shell_has_done_it(home, monkeypatch):
    monkeypatch.setenv("RUNS", "/data/runs")
    monkeypatch.delenv("NO_SUCH_NAME", raising=False)
    for text in ("$RUNS/a", "${RUNS}/a"):
        assert local_path("--workdir", text) == Path("/data/runs/a")
    assert local_path("--workdir", "costs_$5") == Path("costs_$5")
    with pytest.raises(ValueError, match=r"--workdir = '.*': the variable NO_SUCH_NAME is not set"):
        local_path("--workdir", "runs/$NO_SUCH_NAME")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (URL, r"--out = 'gs://bucket/folder' is a URL"),
        ("file:///tmp/run", "is a URL"),
        ("", "--out is empty"),
        ("~nobody_of_that_name/run", "--out = '~nobody_of_that_name/run': "),
    ],
)
def test_what_is_no_local_path_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        local_path("--out", text)


def test_problem_files_are_found_in_the_home_folder(home):
    line = json.dumps({"problem": "1+1", "answer": "2"}) + "\n"
    (home / "train.jsonl").write_text(line)
    (home / "set").mkdir()
    (home / "set" / "test.jsonl").write_text(line)
    for name in ("~/train.jsonl", "~/train.jsonl?id=problem", "hf:~/set:test"):
        [problem] = load_problems(name, FIELD_MAPS["plain"])
        assert (problem.problem, problem.answer) == ("1+1", "2")


@pytest.mark.parametrize(
    "name",
    [
        *("ftp://bucket/a.jsonl", "https://host/a.parquet", "hf://datasets/ORG/NAME"),
        *("hf:file:///a", "tfds:ftp://host/a", "https://host/a.jsonl?problem=question"),
    ],
)
def test_problem_sets_elsewhere_are_refused(name):
    with pytest.raises(ValueError, match="is a URL"):
        load_problems(name, FIELD_MAPS["plain"])


def test_models_and_tokenizers_are_found_in_the_home_folder(home):
    tokenizer = build_character_tokenizer(TASKS["chained_arithmetic"].alphabet)
    tokenizer.save_pretrained(home / "model")
    (home / "model.gguf").touch()
    assert locate_model("~/model") == home / "model"
    assert locate_model("~/model.gguf") == home / "model.gguf"
    assert load_tokenizer("~/model").get_vocab() == tokenizer.get_vocab()


@pytest.mark.parametrize("name", ["https://huggingface.co/ORG/NAME", "ftp://host/a.gguf"])
def test_models_and_tokenizers_elsewhere_are_refused(name):
    for find in (locate_model, load_tokenizer):
        with pytest.raises(ValueError, match="is a URL"):
            find(name)
