"""The log of lines: what is appended is there at once, and what a kill left of a line is not."""

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cegppo_jax.storage.jsonl import JsonlLog, read_jsonl

LINES = [{"n": 0, "text": "é \u2028 \r\n"}, {"n": 1, "text": None}, {"n": 2, "text": [1.5]}]


def whole_number(line):
    if not isinstance(line["n"], int):
        raise TypeError(f"n = {line['n']!r}")
    return line["n"]


def write(path, lines, keeps=None):
    with JsonlLog(path, keeps, "a numbered line") as log:
        log.append(lines)
    return path.read_bytes()


def test_lines_come_back_and_are_there_before_the_file_is_closed(tmp_path):
    path = tmp_path / "made" / "log.jsonl"
    with JsonlLog(path, None, "a numbered line") as log:
        log.append(LINES)
        assert read_jsonl(path, lambda line: line, "a line") == LINES
    assert path.read_bytes().count(b"\n") == 3
    log.close()  # again, and nothing happens


def test_what_is_not_finite_is_null(tmp_path):
    values = {"nan": float("nan"), "inf": float("-inf"), "one": 1.0, "zero": -0.0}
    written = write(tmp_path / "log.jsonl", [values])
    assert written == b'{"nan": null, "inf": null, "one": 1.0, "zero": -0.0}\n'


def test_a_refused_line_leaves_nothing_of_its_step(tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        write(tmp_path / "log.jsonl", [LINES[0], {"n": object()}])
    assert (tmp_path / "log.jsonl").read_bytes() == b""


@given(st.lists(st.text(), min_size=1, max_size=4), st.data())
def test_half_a_line_is_not_read_and_is_dropped_by_the_next_opening(tmp_path_factory, texts, data):
    """Wherever a kill cuts the last line; a line that lacks its newline alone is whole."""
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    lines = [{"n": n, "text": text} for n, text in enumerate(texts)]
    whole = write(path, lines)
    lost = data.draw(st.integers(1, len(whole.splitlines(keepends=True)[-1])))
    path.write_bytes(whole[:-lost])
    left = len(lines) - (lost > 1)
    assert read_jsonl(path, whole_number, "a numbered line") == list(range(left))
    assert write(path, lines[left:], lambda line: True) == whole


def test_a_log_is_checked_and_cut_without_being_held_in_memory(tmp_path):
    path = tmp_path / "log.jsonl"
    line = json.dumps({"n": 0, "text": "x" * 20_000}).encode() + b"\n"
    path.write_bytes(400 * line)
    kept = iter(range(400))
    tracemalloc.start()
    JsonlLog(path, lambda line: next(kept) % 200 < 150, "a numbered line").close()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size == 300 * len(line)  # 6 MB
    assert peak < 2_500_000


def test_lines_are_cut_back_byte_for_byte(tmp_path):
    path = tmp_path / "log.jsonl"
    spaced = b'{ "n":0 }\n{"n" : 1}\n{"n":  2}\n'
    path.write_bytes(spaced)
    assert write(path, [], lambda line: line["n"] != 2) == spaced[:-10]
    before = path.stat()
    assert write(path, [], lambda line: True) == spaced[:-10]
    assert path.stat().st_ino == before.st_ino  # nothing to cut: the file is not written anew
    assert write(path, [], None) == b""
    assert [p.name for p in tmp_path.iterdir()] == ["log.jsonl"]


@pytest.mark.parametrize("bad", [b"{not json}", b'{"m": 1}', b'{"n": "1"}', b"[]", b"\xff", b""])
def test_a_malformed_line_is_named_and_the_file_stays(tmp_path, bad):
    path = tmp_path / "log.jsonl"
    content = b"\n".join((json.dumps(LINES[0]).encode(), bad, b'{"n": 2}', b""))
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"log\.jsonl, line 2: not a numbered line"):
        read_jsonl(path, whole_number, "a numbered line")
    with pytest.raises(ValueError, match="line 2"):
        JsonlLog(path, lambda line: whole_number(line) < 2, "a numbered line")
    assert path.read_bytes() == content
