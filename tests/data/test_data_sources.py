"""Sources: files are read exactly or refused by line; order depends on (seed, position) alone."""

import gzip
import json
from collections import Counter

import pytest

from cegppo_jax.data.sources import FiniteSource, GeneratedSource, epoch_order, read_jsonl
from cegppo_jax.data.tasks import TASKS, Split, generate_problem
from cegppo_jax.types import Problem

GOOD = '{"problem": "1+1", "answer": "2"}'


def numbered(n):
    return [Problem(id=str(i), problem=f"p{i}", answer="0", source="s") for i in range(n)]


def test_read_jsonl_reads_every_field_in_order(tmp_path):
    path = tmp_path / "sums.small.jsonl"
    path.write_text(
        '{"problem": "1+1", "answer": "2", "id": "a", "source": "x", "solution": "1+1=2", "n": 1}\n'
        "\n"
        '{"problem": " é ", "answer": 42, "id": 7, "solution": null}\n'
        '{"answer": "3", "problem": "1+2"}'  # no newline at the end
    )
    assert read_jsonl(path) == [
        Problem(id="a", problem="1+1", answer="2", source="x", solution="1+1=2"),
        Problem(id="7", problem=" é ", answer="42", source="sums", solution=None),
        Problem(id="sums/4", problem="1+2", answer="3", source="sums", solution=None),
    ]


def test_read_jsonl_maps_fields(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text('{"q": "1+1", "gold": "2", "uid": "a", "set": "x", "proof": "p"}\n')
    read = read_jsonl(str(path), "q", "gold", "uid", "set", "proof")
    assert read == [Problem(id="a", problem="1+1", answer="2", source="x", solution="p")]


def test_read_jsonl_reads_gzip_and_byte_order_mark(tmp_path):
    with gzip.open(tmp_path / "sums.jsonl.gz", "wt", encoding="utf-8-sig") as stream:
        stream.write(f"{GOOD}\n{GOOD}\n")
    assert [p.id for p in read_jsonl(tmp_path / "sums.jsonl.gz")] == ["sums/1", "sums/2"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"problem": "1+1", ', "not JSON: "),
        ('{"answer": ' + "9" * 5000 + "}", "not JSON: "),
        ('["1+1", "2"]', "expected a JSON object with named fields, found list"),
        ('{"answer": "2", "a": 1}', r"no field 'problem'; the line has \['a', 'answer'\]"),
        ('{"problem": "1+1"}', r"no field 'answer'; the line has \['problem'\]"),
        ('{"problem": "1+1", "answer": null}', "no field 'answer'"),
        ('{"problem": "", "answer": "2"}', "field 'problem' is empty"),
        ('{"problem": "1+1", "answer": " "}', "field 'answer' is empty"),
        ('{"problem": 11, "answer": "2"}', "field 'problem' must be text, found 11"),
        (
            '{"problem": "1+1", "answer": 2.0}',
            "field 'answer' must be text or a whole number, found 2.0",
        ),
        (
            '{"problem": "1+1", "answer": true}',
            "field 'answer' must be text or a whole number, found True",
        ),
        (
            '{"problem": "1+1", "answer": ["2"]}',
            r"field 'answer' must be text or a whole number, found \['2'\]",
        ),
        ('{"problem": "1+1", "answer": "2", "id": ""}', "field 'id' is empty"),
        ('{"problem": "1+1", "answer": "2", "source": 3}', "field 'source' must be text, found 3"),
        ('{"problem": "1+1", "answer": "2", "solution": 3}', "field 'solution' must be text"),
    ],
)
def test_read_jsonl_names_file_and_line(tmp_path, line, message):
    path = tmp_path / "bad.jsonl"
    path.write_text(f"{GOOD}\n\n{line}\n{GOOD}\n")
    with pytest.raises(ValueError, match=f"bad.jsonl:3: {message}"):
        read_jsonl(path)


def test_read_jsonl_refuses_repeated_ids(tmp_path):
    path = tmp_path / "twice.jsonl"
    rows = [{"problem": "p", "answer": "1", "id": name} for name in ("a", "b", "a")]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(ValueError, match=r"twice\.jsonl:3: the id 'a' is already that of line 1"):
        read_jsonl(path)


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_read_jsonl_refuses_an_empty_file(tmp_path, text):
    (tmp_path / "none.jsonl").write_text(text)
    with pytest.raises(ValueError, match=r"none\.jsonl: the file has no problem in it"):
        read_jsonl(tmp_path / "none.jsonl")


def test_read_jsonl_refuses_broken_bytes(tmp_path):
    (tmp_path / "latin.jsonl").write_bytes(f"{GOOD}\n".encode() + b'{"problem": "\xe9"}\n')
    with pytest.raises(ValueError, match=r"latin\.jsonl:2: not UTF-8: "):
        read_jsonl(tmp_path / "latin.jsonl")
    (tmp_path / "plain.jsonl.gz").write_text(GOOD)
    with pytest.raises(ValueError, match=r"plain\.jsonl\.gz:1: not a whole gzip file: "):
        read_jsonl(tmp_path / "plain.jsonl.gz")
    whole = gzip.compress(f"{GOOD}\n".encode() * 1000)
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[:-20])
    with pytest.raises(ValueError, match=r"cut\.jsonl\.gz:\d+: not a whole gzip file: "):
        read_jsonl(tmp_path / "cut.jsonl.gz")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_each_epoch_has_each_problem_exactly_once(size):
    source = FiniteSource(numbered(size))
    for seed in (0, 1):
        for epoch in range(4):
            positions = range(epoch * size, (epoch + 1) * size)
            ids = [source.problem_at(seed, position).id for position in positions]
            assert sorted(ids, key=int) == [str(i) for i in range(size)]


def test_order_is_the_same_in_every_version_and_another_for_another_seed_or_epoch():
    """A changed value here means that runs resumed from older checkpoints see other problems."""
    # the indices i, sorted by: printf 0/0/i | b2sum -l 64
    assert epoch_order(0, 0, 10) == (0, 4, 2, 3, 8, 7, 6, 9, 5, 1)
    orders = {epoch_order(seed, epoch, 50) for seed in range(10) for epoch in range(10)}
    assert len(orders) == 100


def test_order_does_not_depend_on_what_was_asked_before():
    source = FiniteSource(numbered(30))
    forward = [source.problem_at(4, position) for position in range(100)]
    epoch_order.cache_clear()
    assert [source.problem_at(4, p) for p in reversed(range(100))] == forward[::-1]


def test_order_is_uniform():
    """First place over 3,000 seeds, 6 problems: 500 expected each, standard deviation 20."""
    firsts = Counter(epoch_order(seed, 0, 6)[0] for seed in range(3000))
    assert set(firsts) == set(range(6))
    assert all(400 < count < 600 for count in firsts.values())


def test_finite_source_knows_its_problems():
    problems = numbered(3)
    assert list(FiniteSource(problems).known_problems) == problems
    with pytest.raises(ValueError, match="a finite source needs at least 1 problem"):
        FiniteSource([])


def test_generated_source_is_the_task_at_that_index():
    task = TASKS["chained_arithmetic"]
    source = GeneratedSource(task=task, split=Split.TRAIN, min_steps=2, max_steps=3)
    assert len(source.known_problems) == 0
    for position in (0, 1, 10**12):
        expected = generate_problem(task, Split.TRAIN, 8, position, 2, 3)
        assert source.problem_at(8, position) == expected
    with pytest.raises(ValueError, match="min_steps is 3 and max_steps is 2"):
        GeneratedSource(task=task, split=Split.TRAIN, min_steps=3, max_steps=2)
