"""How often do the verifiers agree with labels that others gave, and how fast are they?

    python experiments/verifier_agreement.py --data FOLDER

reads these files of the folder, as far as they are there, one JSON object a line:

    verifier_cases.jsonl                     pairs of answers: id, gold, prediction, source, correct
                                             (the label, true or false), kind (pairs of a kind are
                                             counted together)
    verifier_gsm8k_openai_graded.jsonl.gz    solutions of GSM8K problems with OpenAI's gradings:
                                             id, gold, prediction, source, correct
    math_train.jsonl.gz, deepscaler_40k.jsonl.gz, hmmt_feb_2025.jsonl
                                             problems whose answers must agree with themselves: id,
                                             answer, source

and prints precision, recall, agreement, self-consistency, items a second on one core, and every
disagreement. None of them is part of the project. What the disagreements are:
experiments/verifiers.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cegppo_jax.rewards.verifiers import check_gold, resolve_verifier
from cegppo_jax.types import Outcome, Problem

CASES = "verifier_cases.jsonl"
GSM8K = "verifier_gsm8k_openai_graded.jsonl.gz"
ANSWERS = ("math_train.jsonl.gz", "deepscaler_40k.jsonl.gz", "hmmt_feb_2025.jsonl")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One labelled pair, and what the verifier says."""

    id: str
    gold: str
    prediction: str
    label: bool
    correct: bool
    answer: str | None  # as the verifier read it
    seconds: float  # of one core: what else runs on the machine does not count


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Verdicts against labels."""

    verdicts: tuple[Verdict, ...]

    @property
    def disagreements(self) -> list[Verdict]:
        return [one for one in self.verdicts if one.correct != one.label]

    @property
    def agreement(self) -> float:
        return 1 - len(self.disagreements) / len(self.verdicts)

    @property
    def precision(self) -> float:
        return self._both / max(1, sum(one.correct for one in self.verdicts))

    @property
    def recall(self) -> float:
        return self._both / max(1, sum(one.label for one in self.verdicts))

    @property
    def items_per_second(self) -> float:
        return len(self.verdicts) / sum(one.seconds for one in self.verdicts)

    @property
    def _both(self) -> int:
        return sum(one.correct and one.label for one in self.verdicts)

    def __str__(self) -> str:
        speed, slowest = self.items_per_second, max(one.seconds for one in self.verdicts)
        return (
            f"{len(self.verdicts)} items: precision {self.precision:.4f}, recall "
            f"{self.recall:.4f}, agreement {self.agreement:.4f}, {speed:,.0f} items/s, "
            f"slowest {slowest:.2f} s"
        )


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """A .jsonl or .jsonl.gz file -> its rows."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        yield from map(json.loads, lines)


def compare(verifier: str, rows: list[dict[str, Any]]) -> Agreement:
    """Labelled rows -> verdicts. The first row is verified once before, for what loads lazily."""
    verify = resolve_verifier(verifier)
    verdicts = []
    for row in [rows[0], *rows]:
        problem = Problem(row["id"], "", row["gold"], row["source"])
        begin = time.process_time()
        finding = verify(row["prediction"], problem)
        seconds = time.process_time() - begin
        correct = finding.outcome is Outcome.CORRECT
        texts = row["gold"], row["prediction"]
        verdicts.append(
            Verdict(row["id"], *texts, row["correct"], correct, finding.answer, seconds)
        )
    return Agreement(tuple(verdicts[1:]))


def inconsistent(path: Path, verifier: str = "math") -> tuple[list[str], int]:
    """A problem file -> the answers that are not right against themselves, bare and in a box, or
    cannot be read; and how many answers there are.
    """
    verify = resolve_verifier(verifier)
    wrong, rows = [], 0
    for rows, row in enumerate(read_rows(path), start=1):  # noqa: B007 rows is returned
        problem = Problem(row["id"], "", row["answer"], row["source"])
        texts = row["answer"], f"So we get\n$$\\boxed{{{row['answer']}}}$$"
        try:
            check_gold(problem, verifier)
        except ValueError as error:
            wrong.append(str(error))
            continue
        if any(verify(text, problem).outcome is not Outcome.CORRECT for text in texts):
            wrong.append(row["answer"])
    return wrong, rows


def main() -> None:
    """Prints it all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the labelled files")
    folder = parser.parse_args().data
    there = [name for name in (CASES, GSM8K, *ANSWERS) if (folder / name).is_file()]
    if not there:
        raise SystemExit(f"error: {folder} has none of {(CASES, GSM8K, *ANSWERS)}")
    runs = []
    if CASES in there:
        cases = list(read_rows(folder / CASES))
        runs += [
            (f"{CASES}, {kind}", "math", [row for row in cases if row["kind"] == kind])
            for kind in sorted({row["kind"] for row in cases})
        ]
    if GSM8K in there:
        gsm8k = list(read_rows(folder / GSM8K))
        runs += [(GSM8K, "gsm8k", gsm8k), (GSM8K, "math", gsm8k)]
    for name, verifier, rows in runs:
        agreement = compare(verifier, rows)
        print(f"{name}, verifier {verifier}: {agreement}")
        for one in agreement.disagreements:
            print(f"    {one.id}: label {one.label}, gold {one.gold[-80:]!r}, "
                  f"read {one.answer!r} in {one.prediction[-80:]!r}")  # fmt: skip
    for name in (name for name in ANSWERS if name in there):
        wrong, count = inconsistent(folder / name)
        print(f"{name}: {1 - len(wrong) / count:.5f} of {count} answers agree with themselves")
        for text in wrong:
            print(f"    {text[:160]!r}")


if __name__ == "__main__":
    main()
