"""Compares two evaluations of the same problems: the paired difference, its interval and p-value.

    cegppo compare runs/grpo runs/ce_gppo
        the newest evaluation of each run (cegppo evaluate --run=RUN makes one)
    cegppo compare results/base runs/ce_gppo/evaluations/step50-1b2c3d4e --out=comparison.json
        two evaluations by their folders

Problems are hard or easy for both models. The interval is therefore that of each problem's
difference, and narrower than the two intervals suggest. Figures that depend on the number of
samples (pass@k, maj@k, problems solved more often) are taken at one k, the smaller number of
samples.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from math import comb
from pathlib import Path

import numpy as np
from absl import flags

from cegppo_jax.console.start import ends_on_bad_input, start_command
from cegppo_jax.evaluation.estimates import (
    Attempt,
    by_problem,
    correct_of,
    majority_correct,
    pass_at_k,
)
from cegppo_jax.evaluation.files import (
    COMPLETIONS,
    RESULT,
    measured_otherwise,
    newest_evaluation,
    read_attempts,
    read_finished_attempts,
)
from cegppo_jax.evaluation.intervals import Estimate, mean_of_shares, mean_within, paired_p_value
from cegppo_jax.storage import strict_json
from cegppo_jax.storage.mirror import named_by_url, opened_folder, shown_place
from cegppo_jax.storage.outputs import written_place
from cegppo_jax.types import StopReason

Figure = Callable[[Sequence[Attempt]], float]  # attempts at one problem -> a figure


@dataclasses.dataclass(frozen=True)
class Difference:
    """One figure of both evaluations, and the second minus the first."""

    first: Estimate
    second: Estimate
    difference: Estimate
    p_value: float  # two-sided, for no difference: intervals.paired_p_value

    def points(self) -> str:
        """Returns the difference in percentage points, its interval and its p-value."""
        mean, low, high = (100 * one for one in dataclasses.astuple(self.difference))
        return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]  {self.p_value:.3f}"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two evaluations, problem by problem."""

    problems: int
    accuracy: Difference
    k: int  # the smaller of their numbers of samples
    pass_at_k: Difference
    majority: Difference  # maj@k
    tokens_mean: Difference  # tokens a completion
    truncated: Difference  # share of completions
    # Expected numbers of problems of which k samples of the second solve more than k of the first,
    # and fewer: whole where both have k samples. At unequal numbers the same policy would differ
    # from itself: 1 of 16 beats 0 of 4.
    better: float
    worse: float

    def __str__(self) -> str:
        k = self.k
        rows = {"accuracy": self.accuracy, f"pass@{k}": self.pass_at_k, f"maj@{k}": self.majority}
        rows["truncated"] = self.truncated
        lines = [f"{'':12} {'first':>24} {'second':>24}   second - first, points; p-value"]
        for name, row in rows.items():
            lines.append(f"{name:12} {row.first!s:>24} {row.second!s:>24}   {row.points()}")
        tokens = self.tokens_mean
        change = tokens.difference
        lines.append(
            f"{'tokens':12} {tokens.first.mean:24,.1f} {tokens.second.mean:24,.1f}   "
            f"{change.mean:+,.1f} [{change.low:+,.1f}, {change.high:+,.1f}]  {tokens.p_value:.3f}"
        )
        equal = self.problems - self.better - self.worse
        counts = (f"{round(count, 1):g}" for count in (self.better, self.worse, equal))
        lines.append(
            "{} problems, {} samples each: {} better, {} worse, {} equal".format(
                self.problems, k, *counts
            )
        )
        return "\n".join(lines)


def compare(first: Sequence[Attempt], second: Sequence[Attempt]) -> Comparison:
    """Compares attempts at the same problems, in any order and with any number of samples.

    Raises:
      ValueError: they are not of the same problems, or an id is of several problems.
    """
    pairs = paired(first, second)
    k = min(len(group) for pair in pairs for group in pair)
    longest = float(max(attempt.tokens for attempt in (*first, *second)))

    def difference(value: Figure, limit: float) -> Difference:
        one, other = np.asarray([[value(group) for group in pair] for pair in pairs]).T
        mean = mean_of_shares if limit == 1 else lambda values: mean_within(values, 0, limit)
        change = other - one
        return Difference(
            mean(one), mean(other), mean_within(change, -limit, limit), paired_p_value(change)
        )

    chances = [more_and_fewer(*pair, k) for pair in pairs]
    return Comparison(
        problems=len(pairs),
        accuracy=difference(lambda group: float(np.mean(correct_of(group))), 1),
        k=k,
        pass_at_k=difference(lambda g: pass_at_k(len(g), int(correct_of(g).sum()), k), 1),
        majority=difference(lambda group: float(majority_correct(group, [k])[0]), 1),
        tokens_mean=difference(lambda g: float(np.mean([one.tokens for one in g])), longest),
        truncated=difference(
            lambda g: float(np.mean([one.stop_reason is StopReason.LENGTH for one in g])), 1
        ),
        better=float(sum(more for more, _ in chances)),
        worse=float(sum(fewer for _, fewer in chances)),
    )


def paired(
    first: Sequence[Attempt], second: Sequence[Attempt]
) -> list[tuple[list[Attempt], list[Attempt]]]:
    """Returns both evaluations' attempts at each problem, matched by id. Raises ValueError as
    compare does.
    """
    one, other = by_id(first), by_id(second)
    alone = sorted(one.keys() ^ other.keys())
    if alone:
        raise ValueError(
            f"the evaluations have {len(one)} and {len(other)} problems, and {len(alone)} of them "
            f"are in one only, for example {alone[:3]}: compare evaluations of one problem set"
        )
    if changed := [name for name, group in one.items() if group[0].gold != other[name][0].gold]:
        raise ValueError(f"problems {changed[:3]} have other answers in the second evaluation")
    return [(one[name], other[name]) for name in sorted(one)]


def by_id(attempts: Sequence[Attempt]) -> dict[str, list[Attempt]]:
    """Returns the attempts at each problem by its id. Raises ValueError if several problems
    share one.
    """
    groups = by_problem(attempts)
    named = {group[0].id: group for group in groups}
    if len(named) < len(groups):
        ids = [group[0].id for group in groups]
        repeated = sorted({name for name in ids if ids.count(name) > 1})
        raise ValueError(f"ids {repeated[:3]} are of several problems each: they cannot be paired")
    return named


def more_and_fewer(
    first: Sequence[Attempt], second: Sequence[Attempt], k: int
) -> tuple[float, float]:
    """Returns the chances that k of the second's attempts at a problem, drawn without
    replacement, have more correct than k of the first's, and fewer.
    """
    one, other = (
        [comb(c, j) * comb(n - c, k - j) / comb(n, k) for j in range(k + 1)]
        for n, c in ((len(group), int(correct_of(group).sum())) for group in (first, second))
    )
    both = np.outer(one, other)  # [k + 1, k + 1]
    return float(np.triu(both, 1).sum()), float(np.tril(both, -1).sum())


def read_results(folder: Path) -> list[Attempt]:
    """Reads the attempts of a finished evaluation from its folder.

    Raises:
      ValueError: it holds none, or one that has lost completions or was interrupted: the problems
        that ended first are not a fair sample of all.
    """
    if not (folder / RESULT).is_file():
        attempts = read_attempts(folder / COMPLETIONS)
        raise ValueError(
            f"{folder} holds an evaluation that is not finished ({len(attempts)} completions, no "
            f"{RESULT}): repeat its command to finish it"
        )
    return read_finished_attempts(folder)


@contextlib.contextmanager
def named_folders(
    first: str | None, second: str | None, others: Sequence[str]
) -> Iterator[list[Path]]:
    """Yields the folders of the two evaluations that the command line names, each as an
    evaluation's own folder or as a run's, whose newest evaluation is taken.

    Args:
      first, second: flags; None where one was not given.
      others: arguments that are not flags, for what the flags leave open.

    Raises:
      ValueError: it names fewer or more than two, or a run without an evaluation.
    """
    left = list(others)
    given = [
        text if text is not None else left.pop(0) if left else None for text in (first, second)
    ]
    if None in given or left:
        raise ValueError(
            "give two evaluations or runs, as in: cegppo compare runs/grpo runs/quickstart"
        )
    named = zip(("FIRST", "SECOND"), given, strict=True)
    with contextlib.ExitStack() as stack:
        folders = [stack.enter_context(opened_folder(place, str(text))) for place, text in named]
        yield [newest_evaluation(folder) for folder in folders]


def main(argv: Sequence[str]) -> None:
    """Prints a table for the command line, and writes a JSON file if asked."""
    values = flags.FLAGS
    with ends_on_bad_input(), contextlib.ExitStack() as stack:
        out = None
        if values.out is not None:
            out = stack.enter_context(written_place("--out", values.out, may_exist=True))
        named = named_folders(values.first, values.second, argv[1:])
        folders = stack.enter_context(named)
        for place, folder in zip(("first", "second"), folders, strict=True):
            print(f"{place:8}{shown_place(folder)}")
        for line in measured_otherwise(*folders):
            print(f"{'note':8}{named_by_url(line)}")
        comparison = compare(*map(read_results, folders))
        print(comparison)
        if out is not None:
            strict_json.write_json(out, dataclasses.asdict(comparison))


if __name__ == "__main__":
    start_command("compare", main)
