"""How often do the verifiers agree with other people's labels, and how fast are they?

    python experiments/verifier_agreement.py --data FOLDER --page experiments/verifiers.md

reads these files of the folder, one JSON object a line (none of them is part of the project):

    verifier_cases.jsonl                     pairs of answers: id, gold, prediction, source, correct
                                             (the label, true or false), kind (pairs of a kind are
                                             counted together)
    verifier_gsm8k_openai_graded.jsonl.gz    solutions of GSM8K problems with OpenAI's gradings:
                                             id, gold, prediction, source, correct
    math_train.jsonl.gz, deepscaler_40k.jsonl.gz, hmmt_feb_2025.jsonl
                                             problems whose answers must agree with themselves: id,
                                             answer, source

It prints every disagreement, and writes its tables into the page, between the two lines that
mark them. For a file of yours: python -m cegppo_jax.verify --rows=FILE.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from pathlib import Path

from cegppo_jax.rewards.verifiers import EXAMPLES, VERIFIERS, check_gold, resolve_verifier
from cegppo_jax.types import Outcome, Problem
from cegppo_jax.verify import AnswerRow, Summary, opened, read_rows

CASES = "verifier_cases.jsonl"
GSM8K = "verifier_gsm8k_openai_graded.jsonl.gz"
ANSWERS = ("math_train.jsonl.gz", "deepscaler_40k.jsonl.gz", "hmmt_feb_2025.jsonl",
           "math500.jsonl", "aime2024.jsonl", "aime2025.jsonl")  # fmt: skip
KINDS = ("core", "policy", "multilingual_or_mcq")
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
LONG = 100_000  # characters
REPEATED = (
    " ", "\n", "9", "1,", "{", "<answer>", "<answer>1</answer>", r"\boxed{", r"\boxed{1},", "$",
    r"\(", "the answer is ", "answer\n", "|", "**", "####", "-", "1+", "\\", r"\frac{1}{", "x_",
)  # fmt: skip


def load(path: Path, kind: str | None = None) -> list[AnswerRow]:
    """Reads the rows of a labelled file, only those of one kind if it is given."""
    with opened(str(path)) as lines:
        kept = [one for one in lines if kind is None or f'"kind": "{kind}"' in one]
    return list(read_rows(kept, path.name))


def raw(text: str) -> str:
    """Returns the text unchanged."""
    return text


def wrapped(text: str) -> str:
    """Puts a text in $ $ if it has no delimiter and is not a sentence, since math-verify does
    not recognise bare LaTeX.
    """
    marked = any(mark in text for mark in ("$", r"\(", r"\[", r"\boxed", "\n"))
    return text if marked else f"${text}$"


def math_verify_by(feed: Callable[[str], str]) -> Callable[[AnswerRow], bool]:
    """Returns math-verify alone, without its time limits; `feed` says how texts are given to it."""
    import math_verify  # of the extra `parity`; the tests of the package read files without it

    def verify(row: AnswerRow) -> bool:
        gold, text = (
            math_verify.parse(feed(one), parsing_timeout=None) for one in (row.gold, row.text)
        )
        return bool(math_verify.verify(gold, text, timeout_seconds=None))

    return verify


def compare_math_verify(
    rows: list[AnswerRow], feed: Callable[[str], str]
) -> tuple[float, float, float]:
    """Returns precision, recall and items a second of math-verify on labelled rows."""
    verify = math_verify_by(feed)
    verify(rows[0])
    began = time.process_time()
    called = [verify(row) for row in rows]
    seconds = time.process_time() - began
    both = sum(right and bool(row.label) for right, row in zip(called, rows, strict=True))
    labelled = sum(bool(row.label) for row in rows)
    return both / max(1, sum(called)), both / max(1, labelled), len(rows) / seconds


def inconsistent(path: Path, verifier: str = "math") -> tuple[list[str], int]:
    """Returns the answers of a problem file that are not right against themselves, bare and
    boxed, or cannot be read; and the number of answers.
    """
    verify = resolve_verifier(verifier)
    with opened(str(path)) as lines:
        answers = [row.gold for row in read_rows(map(as_row, lines), path.name)]
    wrong = []
    for answer in answers:
        problem = Problem("", "", answer, path.name)
        try:
            check_gold(problem, verifier)
        except ValueError as error:
            wrong.append(str(error))
            continue
        texts = answer, f"So we get\n$$\\boxed{{{answer}}}$$"
        if any(verify(text, problem).outcome is not Outcome.CORRECT for text in texts):
            wrong.append(answer)
    return wrong, len(answers)


def as_row(line: str) -> str:
    """Returns a problem file's line with its answer also as the completion."""
    return f'{line.rstrip()[:-1]}, "completion": ""}}'


def slowest(verifier: str) -> tuple[float, str]:
    """Returns the seconds that a verifier takes on the worst of the texts of REPEATED, and that
    text.
    """
    verify, problem = VERIFIERS[verifier], EXAMPLES[verifier].problem
    verify("7", problem)
    found = []
    for piece in REPEATED:
        for text in ((piece * LONG)[:LONG], f"7. {piece * LONG}"[:LONG]):
            began = time.process_time()
            verify(text, problem)
            found.append((time.process_time() - began, piece))
    return max(found)


def measure(folder: Path) -> list[str]:
    """Returns the page's tables, line by line, from a folder of labelled files. Prints
    disagreements.
    """
    lines = [
        "| set | verifier | items | precision | recall | items/s |",
        "|---|---|---|---|---|---|",
    ]
    rules = ["| set | rule | items | called right | disagreements |", "|---|---|---|---|---|"]
    sets = [(f"cases, {kind}", "math", load(folder / CASES, kind)) for kind in KINDS]
    gsm8k = load(folder / GSM8K)
    sets += [("GSM8K graded by OpenAI", name, gsm8k) for name in ("gsm8k", "math")]
    for name, verifier, rows in sets:
        summary = Summary.of(rows, verifier, "full")
        figures = summary.figures()
        print(f"{name}, {verifier}", *summary.disagreements, sep="\n    ")
        lines.append(
            f"| {name} | `{verifier}` | {len(rows):,} | {summary.precision:.3f} | "
            f"{summary.recall:.3f} | {summary.items_per_second:,.0f} |"
        )
        rules += [
            f"| {name}, `{verifier}` | {rule} | {counts['items']:,} | {counts['correct']:,} | "
            f"{counts['disagreements']} |"
            for rule, counts in figures["rules"].items()
        ]
        for fed in (raw, wrapped) if name == "cases, core" else ():
            precision, recall, speed = compare_math_verify(rows, fed)
            lines.append(
                f"| the same | math-verify, fed {fed.__name__} | {len(rows):,} | {precision:.3f} | "
                f"{recall:.3f} | {speed:,.0f} |"
            )
    own = ["| answers against themselves, bare and boxed | answers | right |", "|---|---|---|"]
    for name in ANSWERS:
        wrong, count = inconsistent(folder / name)
        print(name, *wrong, sep="\n    ")
        own.append(f"| {name.partition('.')[0]} | {count:,} | {1 - len(wrong) / count:.2%} |")
    worst = ["| 100,000 characters of | verifier | seconds |", "|---|---|---|"]
    gc.collect()
    gc.freeze()  # sympy's objects, which came with math-verify, are in no verifier's process
    for verifier in VERIFIERS:
        seconds, piece = slowest(verifier)
        worst.append(f"| `{piece!r}`, its worst | `{verifier}` | {seconds:.3f} |")
    return [*lines, "", *rules, "", *own, "", *worst]


def main() -> None:
    """Prints the disagreements; writes the tables into the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the labelled files")
    parser.add_argument("--page", type=Path, help="Markdown file whose tables are written anew")
    arguments = parser.parse_args()
    tables = "\n".join(measure(arguments.data))
    print(tables)
    if arguments.page:
        before, _, rest = arguments.page.read_text().partition(BEGIN)
        _, _, behind = rest.partition(END)
        arguments.page.write_text(f"{before}{BEGIN}\n{tables}\n{END}{behind}")


if __name__ == "__main__":
    main()
