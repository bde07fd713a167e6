"""Problem sets by name: rows are read exactly, or refused by their place and field."""

import dataclasses
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import tensorflow_datasets as tfds
from named_sets import load_problems

from cegppo_jax import short_forms
from cegppo_jax.data.fields import FIELD_MAPS, FieldMap, change_fields
from cegppo_jax.data.tasks.table import TASKS, Split, held_out_set, split_of
from cegppo_jax.types import Problem

PLAIN, VERL = FIELD_MAPS["plain"], FIELD_MAPS["verl"]
GOOD = '{"problem": "1+1", "answer": "2"}'


def load(path):
    return load_problems(str(path), PLAIN)


def test_jsonl_reads_every_field_in_order(tmp_path):
    path = tmp_path / "sums.small.jsonl"
    path.write_text(
        '{"problem": "1+1", "answer": "2", "id": "a", "source": "x", "solution": "1+1=2", "n": 1}\n'
        "\n"
        '{"problem": " é ", "answer": 42, "id": 7, "solution": null}\n'
        '{"answer": "3", "problem": "1+2"}'  # no newline at the end
    )
    assert load(path) == [
        Problem(id="a", problem="1+1", answer="2", source="x", solution="1+1=2"),
        Problem(id="7", problem=" é ", answer="42", source="sums", solution=None),
        Problem(id="sums/4", problem="1+2", answer="3", source="sums", solution=None),
    ]


def test_jsonl_maps_fields(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text('{"q": "1+1", "gold": "2", "uid": "a", "set": "x", "proof": "p"}\n')
    read = load_problems(str(path), FieldMap("q", "gold", "uid", "set", "proof"))
    assert read == [Problem(id="a", problem="1+1", answer="2", source="x", solution="p")]


def test_jsonl_reads_gzip_and_byte_order_mark(tmp_path):
    with gzip.open(tmp_path / "sums.jsonl.gz", "wt", encoding="utf-8-sig") as stream:
        stream.write(f"{GOOD}\n{GOOD}\n")
    assert [p.id for p in load(tmp_path / "sums.jsonl.gz")] == ["sums/1", "sums/2"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"problem": "1+1", ', "not JSON: "),
        ('{"answer": ' + "9" * 5000 + "}", "not JSON: "),
        ("[" * 100_000, "not JSON: "),
        ('{"problem": "1+1", "answer": "\\ud800"}', "not JSON: "),
        ('["1+1", "2"]', "expected a JSON object with named fields, found list"),
        ('{"answer": "2", "a": 1}', r"no field 'problem'; the row has \['a', 'answer'\]"),
        ('{"problem": "1+1"}', r"no field 'answer'; the row has \['problem'\]"),
        ('{"problem": "1+1", "answer": null}', "field 'answer' is null"),
        ('{"problem": null, "answer": "2"}', "field 'problem' is null"),
        ('{"problem": null}', "field 'problem' is null"),
        ('{"answer": null}', "no field 'problem'; the row has .'answer'"),
        ("{}", r"no field 'problem'; the row has \[\]"),
        ('{"problem": ["1+1"], "answer": "2"}', r"field 'problem' must be text, found .*\(list"),
        ('{"problem": [], "answer": "2"}', r"field 'problem' must be text, found \[\] .list"),
        ('{"problem": {"text": "1"}, "answer": "2"}', "field 'problem' must be .*object"),
        ('{"problem": false, "answer": "2"}', "field 'problem' must be text, found False .boolean"),
        ('{"problem": "1+1", "answer": []}', r"field 'answer' must be .* found \[\] .list"),
        ('{"problem": "", "answer": "2"}', "field 'problem' is empty"),
        ('{"problem": "1+1", "answer": " "}', "field 'answer' is empty"),
        ('{"problem": 11, "answer": "2"}', "field 'problem' must be text, found 11 .number"),
        (
            '{"problem": "1+1", "answer": 2.0}',
            "field 'answer' must be text or a whole number, found 2.0 .number",
        ),
        (
            '{"problem": "1+1", "answer": true}',
            "field 'answer' must be text or a whole number, found True .boolean",
        ),
        (
            '{"problem": "1+1", "answer": ["2"]}',
            r"field 'answer' must be text or a whole number, found \['2'\] .list",
        ),
        ('{"problem": "1+1", "answer": "2", "id": ""}', "field 'id' is empty"),
        (
            '{"problem": "1+1", "answer": "2", "source": 3}',
            "field 'source' must be text, found 3 .number",
        ),
        ('{"problem": "1+1", "answer": "2", "solution": 3}', "field 'solution' must be text"),
    ],
)
def test_jsonl_names_file_and_line(tmp_path, line, message):
    path = tmp_path / "bad.jsonl"
    path.write_text(f"{GOOD}\n\n{line}\n{GOOD}\n")
    with pytest.raises(ValueError, match=f"bad.jsonl:3: {message}"):
        load(path)


def test_jsonl_refuses_repeated_ids(tmp_path):
    path = tmp_path / "twice.jsonl"
    rows = [{"problem": "p", "answer": "1", "id": name} for name in ("a", "b", "a")]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(ValueError, match=r"twice\.jsonl:3: the id 'a' is already that of row 1"):
        load(path)


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_jsonl_refuses_an_empty_file(tmp_path, text):
    (tmp_path / "none.jsonl").write_text(text)
    with pytest.raises(ValueError, match=r"none\.jsonl: it has no problem in it"):
        load(tmp_path / "none.jsonl")


def test_jsonl_refuses_broken_bytes(tmp_path):
    (tmp_path / "latin.jsonl").write_bytes(f"{GOOD}\n".encode() + b'{"problem": "\xe9"}\n')
    with pytest.raises(ValueError, match=r"latin\.jsonl:2: not UTF-8: "):
        load(tmp_path / "latin.jsonl")
    (tmp_path / "plain.jsonl.gz").write_text(GOOD)
    with pytest.raises(ValueError, match=r"plain\.jsonl\.gz:1: not a whole gzip file: "):
        load(tmp_path / "plain.jsonl.gz")
    whole = gzip.compress(f"{GOOD}\n".encode() * 1000)
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[:-20])
    with pytest.raises(ValueError, match=r"cut\.jsonl\.gz:\d+: not a whole gzip file: "):
        load(tmp_path / "cut.jsonl.gz")


# --- answers that are missing


def write_lines(path, *rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


UNANSWERED = (
    {"problem": "a", "answer": "1"},
    {"problem": "b", "answer": ""},
    {"problem": "c"},
    {"problem": "d", "answer": " "},
    {"problem": "e", "answer": None},
    {"problem": "f", "answer": 0},
)


def test_unanswered_rows_are_skipped_by_choice_and_counted(tmp_path, capsys):
    name = write_lines(tmp_path / "open.jsonl", *UNANSWERED)
    with pytest.raises(ValueError, match=r"open.jsonl:2: field 'answer' is empty \(unanswered ="):
        load(name)
    kept = load_problems(f"{name}?unanswered=skip", PLAIN)
    assert [(p.id, p.answer) for p in kept] == [("open/1", "1"), ("open/6", "0")]
    message = "open.jsonl: 4 of 6 rows have no 'answer' and are skipped, the first is row 2"
    assert message in capsys.readouterr().out
    assert load_problems(name, dataclasses.replace(PLAIN, unanswered="skip")) == kept


def test_skipping_does_not_hide_a_misspelt_field(tmp_path):
    name = write_lines(tmp_path / "open.jsonl", *UNANSWERED)
    with pytest.raises(ValueError, match="none of its 6 rows has a 'anser'"):
        load_problems(f"{name}?unanswered=skip&answer=anser", PLAIN)


def test_skipping_answers_does_not_skip_other_faults(tmp_path):
    name = write_lines(tmp_path / "open.jsonl", {"answer": "1"}, {"problem": "b", "answer": ""})
    with pytest.raises(ValueError, match=r"open.jsonl:1: no field 'problem'"):
        load_problems(f"{name}?unanswered=skip", PLAIN)


# --- field maps


VERL_ROW = {
    "data_source": "gsm8k",
    "prompt": [{"role": "user", "content": "1+1"}],
    "reward_model": {"ground_truth": "2", "style": "rule"},
    "extra_info": {"index": 3},
}


def test_verl_rows(tmp_path):
    pa.parquet.write_table(pa.Table.from_pylist([VERL_ROW]), tmp_path / "v.parquet")
    expected = [Problem(id="gsm8k/1", problem="1+1", answer="2", source="gsm8k")]
    assert load_problems(str(tmp_path / "v.parquet"), VERL) == expected
    assert load_problems(f"{tmp_path}/v.parquet?verl", PLAIN) == expected
    [changed] = load_problems(f"{tmp_path}/v.parquet?verl&id=extra_info.index&source=", PLAIN)
    assert (changed.id, changed.source) == ("3", "v")


@pytest.mark.parametrize("roles", [("system", "user"), ("user", "assistant"), ("user",) * 2])
def test_a_conversation_is_not_cut_in_silence(tmp_path, roles):
    messages = [{"role": role, "content": role} for role in roles]
    name = write_lines(tmp_path / "v.jsonl", VERL_ROW | {"prompt": messages})
    with pytest.raises(ValueError, match=r"v.jsonl:1: 'prompt.0.content' reads message 0 of a c"):
        load_problems(name, VERL)


def test_a_system_message_may_be_left_out_by_choice(tmp_path):
    messages = [{"role": "system", "content": "Think"}, {"role": "user", "content": "1+1"}]
    name = write_lines(tmp_path / "v.jsonl", VERL_ROW | {"prompt": messages})
    [problem] = load_problems(f"{name}?verl&problem=prompt.1.content", PLAIN)
    assert problem.problem == "1+1"


@pytest.mark.parametrize(
    ("row", "path", "message"),
    [
        ({"q": None, "answer": "2"}, "q.text", "the row has .* and its 'q' is null"),
        ({"q": {"text": None}, "answer": "2"}, "q.text", "field 'q.text' is null"),
        ({"q": {"body": "x"}, "answer": "2"}, "q.text", r"its 'q' is \{'body': 'x'\} \(object"),
        ({"q": {"text": ["x"]}, "answer": "2"}, "q.text", r"'q.text' must be text.*\(list"),
        ({"q": "x", "answer": "2"}, "q.text", r"its 'q' is 'x' \(text"),
        ({"q": ["x"], "answer": "2"}, "q.3", r"its 'q' is \['x'\] \(list"),
        ({"q": [None], "answer": "2"}, "q.0", "field 'q.0' is null"),
    ],
)
def test_what_is_wrong_with_a_nested_field_is_named(tmp_path, row, path, message):
    (tmp_path / "n.jsonl").write_text(json.dumps(row))
    with pytest.raises(ValueError, match=f"n.jsonl:1: .*{message}"):
        load(f"{tmp_path / 'n.jsonl'}?problem={path}")


@pytest.mark.parametrize("path", ["prompt.1.content", "prompt.x", "prompt.0.content.x", "none.0"])
def test_a_path_that_leads_nowhere_is_a_missing_field(tmp_path, path):
    name = write_lines(tmp_path / "v.jsonl", VERL_ROW)
    with pytest.raises(ValueError, match=f"v.jsonl:1: no field '{path}'; the row has"):
        load_problems(f"{name}?verl&problem={path}", PLAIN)


def test_a_name_with_a_dot_is_a_name_first(tmp_path):
    name = write_lines(tmp_path / "v.jsonl", {"a.b": "1+1", "a": {"b": "no"}, "answer": 2})
    assert load_problems(f"{name}?problem=a.b", PLAIN)[0].problem == "1+1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("verll", "problems.fields: layout = 'verll' does not exist: did you mean 'verl'"),
        ("question=q", "problems.fields: role = 'question' does not exist: "),
        ("problem=", "problem and answer need the name of a field"),
        ("unanswered=drop", "unanswered is 'drop': choose one of"),
    ],
)
def test_field_maps_that_do_not_exist(changes, message):
    with pytest.raises(ValueError, match=message):
        change_fields("problems.fields", PLAIN, short_forms.field_changes(changes))


# --- Parquet


def test_parquet_reads_as_jsonl_does(tmp_path):
    rows = [{"problem": f"é{i}", "answer": i, "id": f"x{i}", "solution": None} for i in range(3)]
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet", row_group_size=2)
    write_lines(tmp_path / "p.jsonl", *rows)
    assert load(tmp_path / "p.parquet") == load(tmp_path / "p.jsonl")


def test_parquet_names_the_row(tmp_path):
    rows = [{"problem": "a", "answer": 1.0}, {"problem": "", "answer": 2.0}]
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    with pytest.raises(ValueError, match=r"p.parquet, row 1: field 'answer' must be text or a who"):
        load(tmp_path / "p.parquet")
    (tmp_path / "p.parquet").write_text("no")
    with pytest.raises(ValueError, match=r"p.parquet: not a whole Parquet file"):
        load(tmp_path / "p.parquet")
    with pytest.raises(FileNotFoundError, match=r"none\.parquet"):
        load(tmp_path / "none.parquet")


# --- Hugging Face


ROWS = [{"problem": f"{i}+{i}", "answer": str(2 * i), "n": [i]} for i in range(5)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders as `datasets` writes them, and its cache in a place of its own."""
    folder = tmp_path_factory.mktemp("hf")
    rows = datasets.Dataset.from_list(ROWS)
    rows.save_to_disk(str(folder / "one"))
    datasets.DatasetDict(train=rows, test=rows.select([4])).save_to_disk(str(folder / "dict"))
    (folder / "parquet/data").mkdir(parents=True)
    rows.to_parquet(str(folder / "parquet/data/train-00000-of-00001.parquet"))
    rows.select([4]).to_parquet(str(folder / "parquet/data/test-00000-of-00001.parquet"))
    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    yield folder
    datasets.config.HF_DATASETS_CACHE = before


@pytest.mark.parametrize(
    ("place", "source", "places"),
    [
        ("one", "one", range(5)),
        ("dict:train", "dict", range(5)),
        ("dict:test", "dict", [4]),
        ("dict:train[1:3]", "dict", [1, 2]),
        ("parquet:train", "parquet", range(5)),
        ("parquet:train[:40%]", "parquet", [0, 1]),
        ("parquet:test", "parquet", [4]),
    ],
)
def test_huggingface_folders(saved, place, source, places):
    read = load_problems(f"hf:{saved}/{place}", PLAIN)
    assert read == [
        Problem(f"{source}/{n}", ROWS[i]["problem"], ROWS[i]["answer"], source)
        for n, i in enumerate(places, start=1)
    ]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("one:train", "it was saved as one data set, leave out the split 'train'"),
        ("dict", r"it has several splits, name one of \['test', 'train'\]"),
        ("parquet", r"it has several splits, name one of \['test', 'train'\]"),
        ("dict:tset", r"there is no split 'tset' of \['test', 'train'\]"),
        ("none", "there is no folder"),
        ("dict:test?problem=question", r"dict:test, row 1: no field 'question'; the row has \['an"),
    ],
)
def test_huggingface_folders_refused(saved, place, message):
    with pytest.raises(ValueError, match=message):
        load_problems(f"hf:{saved}/{place}", PLAIN)


def test_hub_out_of_reach_says_what_to_do(saved, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        ValueError, match=r"'hf:a/b/main:train' cannot be opened .*hf download --re"
    ):
        load_problems("hf:a/b/main:train", PLAIN)
    with pytest.raises(ValueError, match=r"expected hf:ORG/NAME\[/CONFIG\]\[:SPLIT\]"):
        load_problems("hf:gsm8k", PLAIN)


# --- TFDS


class TinyProblems(tfds.core.GeneratorBasedBuilder):
    """Two splits of made-up problems, with nested and repeated features."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        message = {"role": tfds.features.Text(), "content": tfds.features.Text()}
        features = tfds.features.FeaturesDict(
            {
                "question": tfds.features.Text(),
                "answer": np.int64,
                "prompt": tfds.features.Sequence(message),
                "meta": {"origin": tfds.features.Text()},
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(5), "test": self._generate_examples(2)}

    def _generate_examples(self, n):
        for i in range(n):
            yield (
                i,
                {
                    "question": f"é {i} + {i}",
                    "answer": 2 * i,
                    "prompt": [{"role": "user", "content": f"p{i}"}],
                    "meta": {"origin": "hand"},
                },
            )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """TFDS's data directory with that data set in it."""
    folder = tmp_path_factory.mktemp("tfds")
    TinyProblems(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


FIELDS = FieldMap("question", "answer", "", "meta.origin", "")


@pytest.mark.parametrize("form", ["folder", "name", "name and version"])
def test_tfds(prepared, monkeypatch, form):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    name = {
        "folder": f"tfds:{prepared}/tiny_problems/1.0.0",
        "name": "tfds:tiny_problems",
        "name and version": "tfds:tiny_problems:1.0.0",
    }[form]
    train = load_problems(f"{name}:train", FIELDS)
    # TFDS shuffles when it prepares
    assert sorted((p.problem, p.answer) for p in train) == [
        (f"é {i} + {i}", str(2 * i)) for i in range(5)
    ]
    assert [p.id for p in train] == [f"hand/{n}" for n in range(1, 6)]
    assert load_problems(f"{name}:train[1:3]?id=question", FIELDS)[0].problem == train[1].problem
    assert len(load_problems(f"{name}:test", FIELDS)) == 2
    by_message = load_problems(f"{name}:test?problem=prompt.content.0&source=", FIELDS)
    assert {p.problem for p in by_message} == {"p0", "p1"}
    assert {p.source for p in by_message} == {"tiny_problems"}
    with pytest.raises(ValueError, match=r"it has several splits, name one of \['test', 'train'\]"):
        load_problems(name, FIELDS)
    with pytest.raises(ValueError, match="there is no split 'dev' of"):
        load_problems(f"{name}:dev", FIELDS)


def test_tfds_that_is_not_there(prepared, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    for name in ("tfds:gsm8k:train", f"tfds:{prepared}/tiny_problems:train"):
        with pytest.raises(
            ValueError, match=r"cannot be opened .*tfds build NAME --file_format=arr"
        ):
            load_problems(name, FIELDS)


def test_reading_needs_no_tensorflow(prepared):
    script = (
        "import sys\n"
        "from cegppo_jax.data.fields import FieldMap\n"
        "from cegppo_jax.data.problem_files import ProblemSet, load_problems\n"
        "fields = FieldMap('question', 'answer', '', '', '')\n"
        f"read = load_problems(ProblemSet('tfds:{prepared}/tiny_problems/1.0.0:test'), fields)\n"
        "print(len(read), 'tensorflow' in sys.modules, 'jax' in sys.modules)"
    )
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert child.stdout == "2 False False\n", child.stderr


# --- built-in tasks


def test_task_names():
    read = load_problems("task:countdown:2-3:20", PLAIN)
    assert read == held_out_set(TASKS["countdown"], 20, seed=0, min_steps=2, max_steps=3)
    assert {split_of(p.problem) for p in read} == {Split.HELD_OUT}
    usual = load_problems("task:expressions", PLAIN)
    assert usual == held_out_set(TASKS["expressions"], 256, 0, *TASKS["expressions"].usual_steps)
    assert load_problems("task:expressions:2-4", PLAIN) == usual


@pytest.mark.parametrize("name", ["task:sums:4", "task:sums:4-8:", "task:sums?plain", "task:"])
def test_task_names_of_another_form(name):
    with pytest.raises(ValueError, match=r"expected task:NAME\[:MIN-MAX\[:COUNT\]\]"):
        load_problems(name, PLAIN)


def test_a_task_that_does_not_exist():
    with pytest.raises(ValueError, match=r"'task:chess': task = 'chess' does not exist: .*'sums'"):
        load_problems("task:chess", PLAIN)


@pytest.mark.parametrize("name", ["train.csv", "train"])
def test_names_of_no_form(name):
    with pytest.raises(ValueError, match=r"names no problem set: expected a file ending in"):
        load_problems(name, PLAIN)


def test_no_name():
    with pytest.raises(ValueError, match="names no problem set: give either a name or a task"):
        load_problems("", PLAIN)


# --- files beside the checkout


@pytest.mark.skipif("CEGPPO_DATA" not in os.environ, reason="CEGPPO_DATA names no problem files")
@pytest.mark.parametrize(
    ("file", "rows"), [("deepscaler_40k.jsonl.gz", 39808), ("math500.jsonl", 500)]
)
def test_real_files(file, rows):
    assert len(load(Path(os.environ["CEGPPO_DATA"]) / file)) == rows


def test_rows_with_empty_answers_are_counted(tmp_path, capsys):
    """As in the training set of MATH, of which 2 of 7,500 rows have none."""
    answers = ["1", "", "3", None, "5"]
    rows = [json.dumps({"problem": "p", "answer": answer}) for answer in answers]
    (tmp_path / "math.jsonl").write_text("\n".join(rows))
    with pytest.raises(ValueError, match=r"math.jsonl:2: field 'answer' is empty"):
        load(tmp_path / "math.jsonl")
    assert len(load(f"{tmp_path / 'math.jsonl'}?unanswered=skip")) == 3
    printed = capsys.readouterr().out
    assert "2 of 5 rows have no 'answer' and are skipped, the first is row 2" in printed
