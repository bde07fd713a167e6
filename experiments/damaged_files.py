"""Damages files of runs, models, tokenizers and problem sets, and has the package read them.

    python experiments/damaged_files.py --files=500

A table: how many of each kind were refused in words that name the file, read as if they were whole,
are another whole file (nothing shows that it should not be), changed a number without a word, or
ended in an error that only a traceback explains. The last two must be 0. Files, damages and readers
are those of tests/damage.py.
"""

from __future__ import annotations

import argparse
import collections
import os
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS.parent), str(TESTS), str(TESTS / "models")]

OUTCOMES = {
    "refused": "refused with words",
    "the same": "accepted, unchanged",
    "another": "another whole file",
    "changed": "accepted, changed",
    "traceback": "tracebacks",
}


def main() -> None:
    """Prints a row for each kind of file, and what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=500, help="damaged files, at least (500)")
    parser.add_argument("--seed", type=int, default=0, help="of the damages (0)")
    parser.add_argument("--record", action="store_true", help="write it to experiments/promises.md")
    options = parser.parse_args()
    import damage
    import promises

    pairs = len(damage.KINDS) * len(damage.DAMAGES)
    times, wrong = -(-options.files // pairs), []
    all_counts: collections.Counter[str] = collections.Counter()
    print(f"| file | tried | {' | '.join(OUTCOMES.values())} |")
    print("|---|" + "---|" * (1 + len(OUTCOMES)))
    for kind in damage.KINDS:
        counts: collections.Counter[str] = collections.Counter()
        for how in damage.DAMAGES:
            for seed in range(options.seed, options.seed + times):
                outcome, words = damage.outcome_of(kind, how, seed)
                counts[outcome] += 1
                if outcome in ("changed", "traceback"):
                    wrong.append(f"{kind.name}, {how.__name__}, seed {seed}: {outcome}: {words}")
        print(row(kind.name, counts), flush=True)
        all_counts += counts
    print(row("all", all_counts))
    print(*wrong, sep="\n")
    if options.record:
        counted = "; ".join(f"{all_counts[one]:,} {words}" for one, words in OUTCOMES.items())
        promises.record(
            f"{sum(all_counts.values()):,} files of {len(damage.KINDS)} kinds: {counted}"
        )
    raise SystemExit(1 if wrong else 0)


def row(name: str, counts: collections.Counter[str]) -> str:
    """Returns a row of the table."""
    numbers = [sum(counts.values()), *(counts[one] for one in OUTCOMES)]
    return f"| {name} | {' | '.join(map(str, numbers))} |"


if __name__ == "__main__":
    main()
