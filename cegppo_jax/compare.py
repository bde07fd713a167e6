"""Two evaluations of the same problems -> their difference, paired, with its interval.

    python -m cegppo_jax.compare --first=results/base --second=results/ours

Problems are hard or easy for both alike: the interval of the difference, whose resamples keep each
problem's two results together, is narrower than the two intervals suggest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import app, flags

from cegppo_jax.evaluation.estimates import (
    Estimate,
    ProblemResult,
    bootstrap_mean,
    pass_at_k,
    problem_results,
)
from cegppo_jax.evaluation.files import COMPLETIONS, RESULT, read_attempts
from cegppo_jax.paths import local_path
from cegppo_jax.run import command_line
from cegppo_jax.run import directory as run_directory


@dataclasses.dataclass(frozen=True)
class Difference:
    """One figure of both, and the second less the first."""

    first: Estimate
    second: Estimate
    difference: Estimate

    @classmethod
    def of(cls, first: Sequence[float], second: Sequence[float]) -> Difference:
        """One value a problem of each, paired -> Difference."""
        one, other = np.asarray(first), np.asarray(second)
        return cls(bootstrap_mean(one), bootstrap_mean(other), bootstrap_mean(other - one))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two evaluations, problem by problem."""

    problems: int
    accuracy: Difference
    k: int  # the smaller of their numbers of samples
    pass_at_k: Difference
    majority: Difference
    tokens_mean: Difference  # tokens a completion
    better: int  # problems of which the second solves a larger share
    worse: int

    def __str__(self) -> str:
        rows = {"accuracy": self.accuracy, f"pass@{self.k}": self.pass_at_k}
        rows["majority"] = self.majority
        lines = [f"{'':12} {'first':>24} {'second':>24}   second - first, points"]
        for name, row in rows.items():
            change = row.difference
            points = f"{100 * change.mean:+.1f} [{100 * change.low:+.1f}, {100 * change.high:+.1f}]"
            lines.append(f"{name:12} {row.first!s:>24} {row.second!s:>24}   {points}")
        tokens = self.tokens_mean
        change = tokens.difference
        lines.append(
            f"{'tokens':12} {tokens.first.mean:24,.1f} {tokens.second.mean:24,.1f}   "
            f"{change.mean:+,.1f} [{change.low:+,.1f}, {change.high:+,.1f}]"
        )
        equal = self.problems - self.better - self.worse
        lines.append(
            f"{self.problems} problems: {self.better} better, {self.worse} worse, {equal} equal"
        )
        return "\n".join(lines)


def compare(first: Sequence[ProblemResult], second: Sequence[ProblemResult]) -> Comparison:
    """Results of the same problems, in any order and of any number of samples -> Comparison.

    Raises:
      ValueError: they are not of the same problems.
    """
    one, other = ({row.id: row for row in rows} for rows in (first, second))
    alone = sorted(one.keys() ^ other.keys())
    if alone:
        raise ValueError(
            f"the evaluations have {len(one)} and {len(other)} problems, and {len(alone)} of them "
            f"are in one only, for example {alone[:3]}: compare evaluations of one problem set"
        )
    if changed := [name for name, row in one.items() if row.gold != other[name].gold]:
        raise ValueError(f"problems {changed[:3]} have other answers in the second evaluation")
    names = sorted(one)
    pairs = [(one[name], other[name]) for name in names]
    k = min(row.samples for pair in pairs for row in pair)
    shares = np.asarray([[row.correct / row.samples for row in pair] for pair in pairs])

    def difference(values: list[tuple[float, float]]) -> Difference:
        return Difference.of(*zip(*values, strict=True))

    return Comparison(
        problems=len(names),
        accuracy=Difference.of(*shares.T),
        k=k,
        pass_at_k=difference(
            [
                (pass_at_k(a.samples, a.correct, k), pass_at_k(b.samples, b.correct, k))
                for a, b in pairs
            ]
        ),
        majority=difference([(a.majority_correct, b.majority_correct) for a, b in pairs]),
        tokens_mean=difference([(a.tokens_mean, b.tokens_mean) for a, b in pairs]),
        better=int((shares[:, 1] > shares[:, 0]).sum()),
        worse=int((shares[:, 1] < shares[:, 0]).sum()),
    )


def read_results(folder: Path) -> list[ProblemResult]:
    """Folder of a finished evaluation -> its problems.

    Raises:
      ValueError: it holds none, or one that was interrupted: the problems that ended first are not
        all of them.
    """
    attempts = read_attempts(folder / COMPLETIONS)
    if not (folder / RESULT).is_file():
        raise ValueError(
            f"{folder} holds an evaluation that is not finished ({len(attempts)} completions, no "
            f"{RESULT}): give its command again"
        )
    return problem_results(attempts)


def main(argv: Sequence[str]) -> None:
    """Command line -> a table of text, and a file of JSON if asked."""
    if argv[1:]:
        raise SystemExit(f"error: {argv[1:]} are no flags: write --NAME=VALUE")
    values = flags.FLAGS
    with command_line.ends_on_bad_input():
        first = local_path("--first", values.first)
        second = local_path("--second", values.second)
        out = None if values.out is None else local_path("--out", values.out)
        comparison = compare(read_results(first), read_results(second))
        print(comparison)
        if out is not None:
            run_directory.write_json(out, dataclasses.asdict(comparison))


if __name__ == "__main__":
    flags.DEFINE_string("first", None, "folder of an evaluation")
    flags.DEFINE_string("second", None, "folder of another")
    flags.DEFINE_string("out", None, "file for the comparison as JSON; default: none")
    flags.mark_flags_as_required(["first", "second"])
    app.run(main)
