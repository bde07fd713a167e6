"""open_problems: sets by name become a source to train on and a list to hold out."""

import dataclasses
import json

import pytest
from named_sets import load_problems

from cegppo_jax.data.mixture import MixtureSource
from cegppo_jax.data.problems import ProblemSettings, open_problems
from cegppo_jax.data.sources import FiniteSource, GeneratedSource
from cegppo_jax.data.tasks.table import TASKS, Split, held_out_set
from cegppo_jax.data.tokenizer import build_character_tokenizer
from cegppo_jax.read_settings import read_record
from cegppo_jax.types import Problem
from configs import base


def settings(**changes):
    values = base.get_config().problems.to_dict() | {"task": ""}
    return read_record(ProblemSettings, values | changes, "config.problems")


@pytest.fixture
def place(tmp_path):
    """Folder with a tokenizer and two files, "a" with answers of its own name."""
    build_character_tokenizer("0123456789+").save_pretrained(tmp_path / "tokenizer")
    write(tmp_path / "a.jsonl", [{"q": f"{i}+1", "gold": "0"} for i in range(4)])
    write(tmp_path / "b.jsonl", [{"problem": f"{i}+2", "answer": "0"} for i in range(3)])
    write(tmp_path / "test.jsonl", [{"problem": "9+9", "answer": "8"}])
    return tmp_path


def write(path, rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def opened(place, **changes):
    names = {"train": (f"{place}/b.jsonl",), "held_out": (f"{place}/test.jsonl",)}
    own = settings(tokenizer=str(place / "tokenizer"), **(names | changes))
    return open_problems(own, "", held_out=8, held_out_seed=0)


def test_one_set_is_no_mixture(place):
    found = opened(place)
    assert isinstance(found.train, FiniteSource)
    assert [p.id for p in found.train.problems] == ["b/1", "b/2", "b/3"]
    assert found.held_out == [Problem("test/1", "9+9", "8", "test")]


def test_sets_with_weights_and_fields_of_their_own(place):
    train = (f"{place}/a.jsonl?problem=q&answer=gold=0.6", f"{place}/b.jsonl=0.4")
    train = (*train, "task:chained_arithmetic:2-3=1")
    found = opened(place, train=train, held_out=(f"{place}/test.jsonl", "task:sums:4-5:6"))
    assert isinstance(found.train, MixtureSource)
    assert found.train.counts == (3, 2, 5)
    assert [p.problem for p in found.train.members[0].problems] == ["0+1", "1+1", "2+1", "3+1"]
    generated = found.train.members[2]
    assert (generated.split, generated.min_steps, generated.max_steps) == (Split.TRAIN, 2, 3)
    assert [p.source for p in found.held_out] == ["test"] + ["sums"] * 6


def test_fields_and_unanswered_of_the_config(place, capsys):
    write(place / "a.jsonl", [{"q": "1+1", "gold": "2"}, {"q": "1+2", "gold": ""}])
    write(place / "test.jsonl", [{"q": "9+9", "gold": "8"}])
    changes = {"fields": "problem=q&answer=gold", "train": (f"{place}/a.jsonl",)}
    with pytest.raises(ValueError, match=r"a\.jsonl:2: field 'gold' is empty"):
        opened(place, **changes)
    assert len(opened(place, unanswered="skip", **changes).train.problems) == 1
    assert "1 of 2 rows have no 'gold' and are skipped" in capsys.readouterr().out


def test_a_task_is_as_before():
    own = settings(task="chained_arithmetic", min_steps=2, max_steps=3, bare_fraction=0.5)
    found = open_problems(own, "", held_out=8, held_out_seed=3)
    task = TASKS["chained_arithmetic"]
    assert found.train == GeneratedSource(
        task=task, split=Split.TRAIN, min_steps=2, max_steps=3, bare_fraction=0.5
    )
    assert found.held_out == held_out_set(task, 8, 3, 2, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "name either a built-in task, or problem sets in train and held_out; found task = ''"),
        ({"train": ("a.jsonl",)}, "problem sets in train and held_out; found task = ''"),
        ({"task": "sums", "train": ("a.jsonl",)}, "name either a built-in task, or"),
        ({"task": "sums", "unanswered": "drop"}, "unanswered is 'drop': choose one of"),
        ({"task": "sums", "fields": "verll"}, "problems.fields: layout = 'verll' does not exist"),
        (
            {"train": ("a.jsonl=2", "a.jsonl"), "held_out": ("b.jsonl",)},
            r"problems.train names \['a.jsonl'\] more than once: give it one weight",
        ),
        (
            {"train": ("a.jsonl=2", "b.jsonl=-1"), "held_out": ("b.jsonl",)},
            "a mixture has the weights 2.0, -1.0: all must be above 0",
        ),
        (
            {"held_out": ("b.jsonl", {"name": "b.jsonl"})},
            r"problems.held_out names \['b.jsonl'\] more than once",
        ),
        (
            {"train": ("a.jsonl",), "held_out": ({"name": "b.jsonl", "weight": 2},)},
            r"problems.held_out: \['b.jsonl'\] have a weight",
        ),
        (
            {"train": ("task:sums:4-8:100",), "held_out": ("b.jsonl",)},
            r"problems.train: \['task:sums'\] have a number of problems",
        ),
    ],
)
def test_settings_that_contradict_themselves(changes, message):
    with pytest.raises(ValueError, match=message):
        settings(**({"task": ""} | changes))


def test_a_held_out_problem_must_not_be_trained_on(place):
    write(place / "test.jsonl", [{"problem": "1+2", "answer": "3"}])
    with pytest.raises(
        ValueError, match=r"1 problems of .*test\.jsonl are also in .*b\.jsonl, for"
    ):
        opened(place)


def test_ids_are_unique_over_the_sets(place):
    (place / "other").mkdir()
    write(place / "other/b.jsonl", [{"problem": "5+5", "answer": "0"}])
    both = (f"{place}/b.jsonl", f"{place}/other/b.jsonl")
    with pytest.raises(
        ValueError, match=r"problems.train: .* both have a problem with the id 'b/1'"
    ):
        opened(place, train=both)
    with pytest.raises(ValueError, match=r"problems.held_out: .* both have a problem with the id"):
        opened(place, train=(f"{place}/test.jsonl",), held_out=both)


def test_a_saved_set_reads_back(place):
    """What --write of decontaminate and other programs write: all five fields by name."""
    problem = Problem("x", "1+1", "2", "s", solution="1+1=2")
    write(place / "saved.jsonl", [dataclasses.asdict(problem)])
    assert load_problems(f"{place}/saved.jsonl", settings(task="sums").field_map) == [problem]
