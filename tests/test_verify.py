"""python -m cegppo_jax.verify: what a researcher sees of a verifier before trusting it."""

import gzip
import io
import json
import subprocess
import sys

import pytest

from cegppo_jax.types import Outcome
from cegppo_jax.verify import AnswerRow, Summary, describe_summary, opened, read_rows, verdict_of

ROWS = [
    {"id": "a", "gold": "42", "prediction": r"so \boxed{42}", "correct": True},
    {"id": "b", "gold": "42", "prediction": "The answer is 42.", "correct": True},
    {"id": "c", "gold": "42", "prediction": "The answer is 41.", "correct": True},  # disagrees
    {"id": "d", "gold": "42", "prediction": r"\boxed{42}", "correct": False},  # disagrees
    {"id": "e", "gold": "42", "prediction": r"\boxed{43}", "correct": False},
    {"id": "f", "gold": "42", "prediction": "I do not know what to do here", "correct": False},
]
LINES = [json.dumps(row) for row in ROWS]


def run(*arguments, stdin=""):
    command = [sys.executable, "-m", "cegppo_jax.verify", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True)


def test_one_completion():
    child = run("--verifier=math", r"--gold=\frac{1}{2}", "--text=The answer is 0.5.")
    assert child.returncode == 0, child.stderr
    outcome, read, rule, seconds = child.stdout.splitlines()
    assert (outcome, read, rule) == ("correct", "read  1/2", "rule  answer is")
    assert seconds.startswith("time  ")


def test_rows_from_standard_input_as_json():
    child = run("--verifier=math", "--rows=-", "--json", "--show=1", stdin="\n".join(LINES))
    found = json.loads(child.stdout)
    assert (found["items"], found["labelled"]) == (6, 6)
    assert found["precision"] == pytest.approx(2 / 3)  # a, b of a, b, d
    assert found["recall"] == pytest.approx(2 / 3)  # a, b of a, b, c
    assert found["rules"]["box"] == {"items": 3, "correct": 2, "disagreements": 1}
    assert found["rules"]["answer is"] == {"items": 2, "correct": 1, "disagreements": 1}
    assert [one["id"] for one in found["disagreements"]] == ["c"]  # d is one too many


def test_the_command_needs_no_jax():
    script = "import sys, cegppo_jax.verify; print('jax' in sys.modules)"
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert child.stdout == "False\n", child.stderr


def test_figures_to_read():
    summary = Summary.of(list(read_rows(LINES, "rows")), "math", "full")
    text = describe_summary(summary, shown=1)
    assert "precision 0.6667, recall 0.6667, 2 disagreements" in text
    assert "c: wrong, label right, read '41' by 'answer is'" in text
    assert "\nd: " not in text
    assert "1 more (--show)" in text


def test_without_labels_the_first_rows_are_shown():
    lines = ['{"answer": "42", "completion": "\\\\boxed{42}"}', '{"gold": "4", "completion": "5"}']
    summary = Summary.of(list(read_rows(lines, "rows")), "math", "full")
    assert (summary.precision, summary.recall, summary.agreement) == (None, None, None)
    text = describe_summary(summary, shown=1)
    assert "1: correct, read '42' by 'box'" in text
    unread = Summary.of([AnswerRow("a", "42", "none of these", None)], "final_answer", "full")
    assert "a: unparsed, read nothing, gold '42'" in describe_summary(unread, shown=1)
    assert "1 more (--show)" in text


def test_scope_and_crash():
    row = AnswerRow("a", "42", r"<think>\boxed{42}</think>none of these words is it", None)
    assert verdict_of(row, "math", "full").outcome is Outcome.CORRECT
    assert verdict_of(row, "gsm8k", "after_think").outcome is Outcome.UNPARSED
    crashed = verdict_of(AnswerRow("a", "", "42", None), "math", "full")
    assert crashed.outcome is Outcome.CRASHED
    assert "cannot read ''" in crashed.answer


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_files(tmp_path, name):
    path, content = tmp_path / name, "\n".join(LINES).encode()
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with opened(str(path)) as lines:
        assert [row.label for row in read_rows(lines, name)] == [row["correct"] for row in ROWS]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "rows, line 2: not an object"),
        ("[1]", "rows, line 2: not an object"),
        ('{"gold": "1"}', "rows, line 2: not an object with gold and prediction"),
        ('{"gold": 1, "prediction": "1"}', "line 2: gold and prediction must be strings"),
        ('{"gold": "1", "prediction": "1", "correct": "yes"}', "correct true or false.*'yes'"),
    ],
)
def test_bad_rows(line, message):
    with pytest.raises(ValueError, match=message):
        list(read_rows(io.StringIO(f"{LINES[0]}\n{line}\n"), "rows"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--verifier=maths", "--gold=1", "--text=1"], "did you mean 'math'"),
        (["--verifier=math", "--gold=1"], "give --gold and --text, or --rows"),
        (["--verifier=math", "--rows=-", "--gold=1"], "give --gold and --text, or --rows"),
        (["--verifier=math", "--rows=/nowhere"], "/nowhere"),
        (["--verifier=math", "--rows=-"], "there is no row"),
    ],
)
def test_bad_commands_end_in_one_line(arguments, message):
    child = run(*arguments)
    assert child.returncode == 1
    assert child.stderr.startswith("error: ")
    assert len(child.stderr.splitlines()) == 1
    assert message in child.stderr
