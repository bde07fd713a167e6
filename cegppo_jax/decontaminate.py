"""Reports the problems that training and evaluation problem sets share.

    cegppo decontaminate --train=train.jsonl.gz --against=math500.jsonl,aime2024.jsonl \\
        --out=overlap.json --write=clean.jsonl.gz

A training problem that shares --ngram consecutive words (9) with an evaluation problem is listed,
and left out of the file that --write names. For names of problem sets see
cegppo_jax/data/problem_files.py.
"""

from __future__ import annotations

import collections
import dataclasses
import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from cegppo_jax import short_forms
from cegppo_jax.console.start import ends_on_bad_input, start_command
from cegppo_jax.data.fields import FIELD_MAPS, FieldMap, change_fields
from cegppo_jax.data.overlap import Match, find_overlap
from cegppo_jax.data.problem_files import load_problems, named_set
from cegppo_jax.storage import strict_json
from cegppo_jax.storage.paths import local_path
from cegppo_jax.storage.writing import writing
from cegppo_jax.types import Problem

PRINTED = 3  # pairs of each evaluation set that are also printed; the report has all


def decontaminate(
    train_name: str,
    evaluation_names: Sequence[str],
    fields: FieldMap,
    ngram_words: int,
    min_share: float,
) -> tuple[dict[str, Any], list[Problem]]:
    """Returns the report, and the training problems that match nothing.

    Args:
      fields: where rows hold what, unless a name says otherwise.
      ngram_words: how many consecutive shared words make a match.
      min_share: matches that share less of the evaluation problem's n-grams are ignored; 0:
        one is enough.

    Raises:
      ValueError: see load_problems; there is no such file; a built-in task to train on, whose
        training side has no end and shares nothing with its held-out side by construction; a share
        outside [0, 1].
    """
    train_set = named_set(train_name)
    if train_set.task:
        raise ValueError(f"--train={train_name}: built-in tasks are split by construction")
    if not 0 <= min_share <= 1:
        raise ValueError(f"--min_share={min_share}: must be in [0, 1]")
    if not evaluation_names:
        raise ValueError("--against names no problem set")
    train = _loaded("--train", train_name, fields)
    sets, matched = {}, set()
    for name in evaluation_names:
        evaluation = _loaded("--against", name, fields)
        matches = find_overlap(train, evaluation, ngram_words)
        matches = [match for match in matches if match.share >= min_share]
        matched |= {match.train for match in matches}
        sets[name] = _describe(train, evaluation, matches)
    report = {
        "train": train_name,
        "ngram_words": ngram_words,
        "min_share": min_share,
        "train_problems": len(train),
        "train_matched": len(matched),
        "against": sets,
    }
    return report, [problem for i, problem in enumerate(train) if i not in matched]


def _loaded(flag: str, name: str, fields: FieldMap) -> list[Problem]:
    try:
        return load_problems(named_set(name), fields)
    except OSError as error:
        raise ValueError(
            f"{flag}={name} cannot be read ({error.strerror or error}): give a .jsonl, .jsonl.gz "
            "or .parquet file, hf:NAME or tfds:NAME"
        ) from error


def _describe(
    train: Sequence[Problem], evaluation: Sequence[Problem], matches: Sequence[Match]
) -> dict[str, Any]:
    """Returns the part of the report about one evaluation set, the largest share first."""
    pairs = [
        {
            "share": round(match.share, 4),
            "train_id": train[match.train].id,
            "evaluation_id": evaluation[match.evaluation].id,
            "shared": match.shared,
            "train_problem": train[match.train].problem,
            "evaluation_problem": evaluation[match.evaluation].problem,
        }
        for match in sorted(matches, key=lambda match: -match.share)
    ]
    best: dict[int, float] = collections.defaultdict(float)
    for match in matches:
        best[match.evaluation] = max(best[match.evaluation], match.share)
    return {
        "problems": len(evaluation),
        "problems_matched": len(best),
        # all of whose n-grams are in one training problem
        "problems_contained": sum(share == 1 for share in best.values()),
        "train_matched": len({match.train for match in matches}),
        "pairs": pairs,
    }


def write_problems(path: Path, problems: Sequence[Problem]) -> None:
    """Writes problems to a .jsonl or .jsonl.gz file with id, problem, answer, source and solution.

    Raises:
      ValueError: the name has another ending.
    """
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise ValueError(f"--write={path}: the name must end in .jsonl or .jsonl.gz")
    text = "".join(
        strict_json.dumps(dataclasses.asdict(problem), ensure_ascii=False) + "\n"
        for problem in problems
    )
    content = text.encode("utf-8")
    with writing(path):
        path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def check_outputs(outputs: Sequence[Path], inputs: Sequence[str]) -> None:
    """Raises ValueError when a file to write is also read or has no folder, or when two files to
    write are the same.
    """
    labels = [named_set(one).label for one in inputs]
    read = {local_path("problem set", one).resolve() for one in labels if "://" not in one}
    written = [path.resolve() for path in outputs]
    for path in written:
        if path in read:
            raise ValueError(f"{path} is read as a problem set: it is not overwritten")
        if not path.parent.is_dir():
            raise ValueError(f"{path} has no folder to be written to: make {path.parent} first")
    if len(set(written)) < len(written):
        raise ValueError(f"--out and --write both name {written[0]}")


def summary(report: Mapping[str, Any]) -> str:
    """Returns a few lines about each evaluation set of a report."""
    share = f", and {report['min_share']:.0%} of its runs" if report["min_share"] else ""
    lines = [
        f"{report['train_matched']:,} of {report['train_problems']:,} training problems share "
        f"{report['ngram_words']} words in a row with an evaluation problem{share}"
    ]
    for name, found in report["against"].items():
        lines.append(
            f"{name}: {found['problems_matched']} of {found['problems']} problems matched, "
            f"{found['problems_contained']} of them contained whole, by {found['train_matched']} "
            "training problems"
        )
        lines += [
            f"  {pair['share']:4.0%}  {pair['train_id']} ~ {pair['evaluation_id']}: "
            f"{' ... '.join(pair['shared'])[:100]}"
            for pair in found["pairs"][:PRINTED]
        ]
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    """Writes report.json and, if asked, a cleaned training file, and prints a summary."""
    del argv
    values = flags.FLAGS
    with ends_on_bad_input():
        out = local_path("--out", values.out)
        write = local_path("--write", values.write) if values.write else None
        check_outputs([out] if write is None else [out, write], (values.train, *values.against))
        report, clean = decontaminate(
            values.train,
            values.against,
            change_fields(
                "--fields", FIELD_MAPS["plain"], short_forms.field_changes(values.fields)
            ),
            values.ngram,
            values.min_share,
        )
        if write is not None:
            write_problems(write, clean)
        text = strict_json.dumps(report, indent=2, ensure_ascii=False)
        with writing(out):
            out.write_text(f"{text}\n", encoding="utf-8")
    print(summary(report))
    print(f"all pairs: {out}")
    if write is not None:
        print(f"{len(clean):,} training problems without a match: {write}")


if __name__ == "__main__":
    start_command("decontaminate", main)
