"""Shows what a verifier makes of answers and completions: look before you trust a reward.

    cegppo verify --verifier=math --gold='\\frac{1}{2}' --text='The answer is 0.5.'
    cegppo verify --verifier=math --rows=labelled.jsonl

The first prints the outcome, what was read, the rule that found it (rewards/extraction.py: RULES)
and the time. The second does so for a file: a JSON object a line (.jsonl, .jsonl.gz; - is standard
input) with `gold` and `prediction`, and `correct` (true or false) if they are labelled. It
prints precision, recall, the rules' shares and the disagreements. samples.jsonl of a run and
completions.jsonl of an evaluation can be read as they are.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import gzip
import json
import sys
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

from absl import flags

from cegppo_jax.console.start import ends_on_bad_input, start_command
from cegppo_jax.read_settings import check_choice
from cegppo_jax.rewards.extraction import SCOPES, in_scope
from cegppo_jax.rewards.finding import UNPARSED, Finding
from cegppo_jax.rewards.verifiers import resolve_verifier
from cegppo_jax.storage import strict_json
from cegppo_jax.storage.bucket import in_bucket, local_copy
from cegppo_jax.storage.paths import local_path
from cegppo_jax.types import Outcome, Problem

LONGEST_SHOWN = 100  # characters of a text, from its end


@dataclasses.dataclass(frozen=True)
class AnswerRow:
    """A gold answer, a completion, and perhaps a label."""

    id: str
    gold: str
    text: str
    label: bool | None


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a verifier says about a row."""

    row: AnswerRow
    outcome: Outcome
    answer: str | None  # as read; why, where the verifier raised an error
    rule: str | None
    seconds: float  # CPU time of one core, so other programs on the machine do not count

    @property
    def agrees(self) -> bool:
        """Whether the verdict is right exactly when the label says so. True without a label."""
        return self.row.label in (None, self.outcome is Outcome.CORRECT)

    def __str__(self) -> str:
        label = (
            "" if self.row.label is None else f", label {'right' if self.row.label else 'wrong'}"
        )
        rule = "" if self.rule is None else f" by {self.rule!r}"
        read = "nothing" if self.answer is None else repr(self.answer)
        return (
            f"{self.row.id}: {self.outcome}{label}, read {read}{rule}, "
            f"gold {self.row.gold[-LONGEST_SHOWN:]!r}, text {self.row.text[-LONGEST_SHOWN:]!r}"
        )


def verdict_of(row: AnswerRow, verifier: str, scope: str) -> Verdict:
    """Returns the verdict on a row. An error of the verifier, including an unreadable gold
    answer, is a crash.
    """
    verify = resolve_verifier(verifier, "--verifier")
    began = time.process_time()
    try:
        text = in_scope(row.text, scope)
        problem = Problem(row.id, "", row.gold, "verify")
        finding = UNPARSED if text is None else verify(text, problem)
    except Exception as error:
        finding = Finding(Outcome.CRASHED, f"{type(error).__name__}: {error}")
    seconds = time.process_time() - began
    return Verdict(row, finding.outcome, finding.answer, finding.rule, seconds)


@dataclasses.dataclass(frozen=True)
class Summary:
    """Verdicts on some rows, and how they agree with the labels."""

    verdicts: tuple[Verdict, ...]

    @classmethod
    def of(cls, rows: Sequence[AnswerRow], verifier: str, scope: str) -> Summary:
        """Verifies rows and summarises the verdicts. The first row is verified once before, so
        that lazy imports do not count as its time.
        """
        if not rows:
            raise ValueError("there is no row to verify")
        verdict_of(rows[0], verifier, scope)
        return cls(tuple(verdict_of(row, verifier, scope) for row in rows))

    @property
    def labelled(self) -> list[Verdict]:
        return [one for one in self.verdicts if one.row.label is not None]

    @property
    def disagreements(self) -> list[Verdict]:
        return [one for one in self.verdicts if not one.agrees]

    @property
    def precision(self) -> float | None:
        """The share of rows called right that are labelled right; None if no labelled row is
        called right.
        """
        return _share(one.row.label for one in self.labelled if one.outcome is Outcome.CORRECT)

    @property
    def recall(self) -> float | None:
        """The share of rows labelled right that are called right; None if no row is labelled
        right.
        """
        return _share(one.outcome is Outcome.CORRECT for one in self.labelled if one.row.label)

    @property
    def agreement(self) -> float | None:
        """The share of labels that the verifier agrees with; None if no row has a label."""
        return _share(one.agrees for one in self.labelled)

    @property
    def items_per_second(self) -> float:
        return len(self.verdicts) / max(1e-9, sum(one.seconds for one in self.verdicts))

    def figures(self) -> dict[str, Any]:
        """Returns everything that is counted, for --json and for tables."""
        groups = collections.defaultdict(list)
        for one in self.verdicts:
            groups[one.rule or "none"].append(one)
        ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
        return {
            "items": len(self.verdicts),
            "labelled": len(self.labelled),
            "precision": self.precision,
            "recall": self.recall,
            "agreement": self.agreement,
            "outcomes": dict(collections.Counter(one.outcome.value for one in self.verdicts)),
            "rules": {
                rule: {
                    "items": len(group),
                    "correct": sum(one.outcome is Outcome.CORRECT for one in group),
                    "disagreements": sum(not one.agrees for one in group),
                }
                for rule, group in ordered
            },
            "items_per_second": round(self.items_per_second, 1),
            "slowest_seconds": max(one.seconds for one in self.verdicts),
        }


def _share(values: Iterable[bool | None]) -> float | None:
    known = list(values)
    return sum(map(bool, known)) / len(known) if known else None


def read_rows(lines: Iterable[str], name: str) -> Iterator[AnswerRow]:
    """Yields the rows in lines of JSON; the file's `name` is for messages.

    Raises:
      ValueError: a line, whose number is given, is not an object with a gold answer and a text.
    """
    for number, line in enumerate(lines, start=1):
        try:
            fields = strict_json.parse(line)
            gold = fields["gold"] if "gold" in fields else fields["answer"]
            text = fields["prediction"] if "prediction" in fields else fields["completion"]
            label = fields.get("correct")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{name}, line {number}: not an object with gold and prediction, or answer and "
                f"completion ({type(error).__name__}: {error})"
            ) from error
        if not (isinstance(gold, str) and isinstance(text, str) and label in (None, False, True)):
            raise ValueError(
                f"{name}, line {number}: gold and prediction must be strings, and correct true or "
                f"false; found {type(gold).__name__}, {type(text).__name__} and {label!r}"
            )
        yield AnswerRow(str(fields.get("id", number)), gold, text, label)


@contextlib.contextmanager
def opened(name: str) -> Iterator[IO[str]]:
    """Opens a .jsonl or .jsonl.gz file, or standard input for "-", for reading lines.

    Raises:
      ValueError: there is no such file, or what is read is not UTF-8 or not a whole gzip file.
    """
    if name == "-":
        yield sys.stdin
        return
    path = local_copy("--rows", name, ()) if in_bucket(name) else local_path("--rows", name)
    if path.is_dir() or not path.exists():
        raise ValueError(f"--rows={name}: there is no such file: give a .jsonl or .jsonl.gz file")
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            yield lines
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"--rows={name} cannot be read: {error}") from error


def describe_summary(summary: Summary, shown: int) -> str:
    """Describes a summary in lines: figures, rules, and at most `shown` rows, which are the
    disagreements or, without labels, the first ones.
    """
    figures = summary.figures()
    outcomes = ", ".join(f"{count:,} {name}" for name, count in figures["outcomes"].items())
    lines = [
        f"{figures['items']:,} items: {outcomes}; {figures['items_per_second']:,.0f} items/s, "
        f"slowest {figures['slowest_seconds']:.3f} s"
    ]
    if summary.labelled:
        shares = (f"{name} {_percent(figures[name])}" for name in ("precision", "recall"))
        lines.append(
            f"{figures['labelled']:,} labelled: {', '.join(shares)}, "
            f"{len(summary.disagreements):,} disagreements"
        )
    lines.append("rule                     items   correct   disagreements")
    lines += [
        f"{rule:20} {counts['items']:9,} {counts['correct']:9,} {counts['disagreements']:15,}"
        for rule, counts in figures["rules"].items()
    ]
    listed = summary.disagreements if summary.labelled else summary.verdicts
    lines += map(str, listed[:shown])
    if len(listed) > shown:
        lines.append(f"... and {len(listed) - shown:,} more (--show)")
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "undefined" if share is None else f"{share:.4f}"


def verdict_fields(verdict: Verdict) -> dict[str, Any]:
    """Returns a verdict as one flat object, for --json."""
    found = dataclasses.asdict(verdict)
    return found.pop("row") | found


def main(argv: Sequence[str]) -> None:
    """Prints a verdict, or the summary of a file, for the command line."""
    del argv
    values = flags.FLAGS
    with ends_on_bad_input():
        check_choice("--scope", values.scope, SCOPES)
        if {values.gold is None, values.text is None} != {values.rows is not None}:
            raise ValueError("give --gold and --text, or --rows and neither of them")
        resolve_verifier(values.verifier, "--verifier")
        if values.rows is None:
            one = verdict_of(
                AnswerRow("--gold", values.gold, values.text, None), values.verifier, values.scope
            )
            text = f"{one.outcome}\nread  {one.answer}\nrule  {one.rule}\ntime  {one.seconds:.4f} s"
            print(json.dumps(verdict_fields(one), ensure_ascii=False) if values.json else text)
            return
        with opened(values.rows) as lines:
            summary = Summary.of(list(read_rows(lines, values.rows)), values.verifier, values.scope)
    if values.json:
        shown = [verdict_fields(one) for one in summary.disagreements[: values.show]]
        print(json.dumps(summary.figures() | {"disagreements": shown}, ensure_ascii=False))
    else:
        print(describe_summary(summary, values.show))


if __name__ == "__main__":
    start_command("verify", main)
