"""Prints the table of the paper's claims and what the runs here say, from results/runs.csv.

    python -m experiments.paper.claims

A difference is paired by seed, with a 95 % interval. The verdict follows from the interval alone:
"shown" if all of it has the claim's sign, "refuted" if none of it has, else "not shown".
"""

import argparse
from pathlib import Path
from typing import NamedTuple

from cegppo_jax.evaluation.intervals import Estimate
from experiments.paper.tables import (
    COLUMNS,
    GROUPS,
    HERE,
    ORDERS,
    Runs,
    break_test,
    changes_of,
    difference,
    order,
    read_runs,
    text,
)


class Claim(NamedTuple):
    """One arm is above or below another in a column of runs.csv."""

    words: str
    arm: str
    other: str
    column: str
    sign: int  # 1: above, -1: below


CLAIMS = (
    Claim("CE-GPPO (0.5, 1) beats GRPO", "ce_gppo_0.5_1", "grpo", "accuracy", 1),
    Claim("(0.75, 1), the betas of 7B, beats GRPO", "ce_gppo_0.75_1", "grpo", "accuracy", 1),
    Claim("(0.5, 1) beats DAPO's clip-higher", "ce_gppo_0.5_1", "dapo", "accuracy", 1),
    Claim("(0.5, 1) beats CISPO", "ce_gppo_0.5_1", "cispo", "accuracy", 1),
    Claim("(0.5, 1) beats GSPO", "ce_gppo_0.5_1", "gspo", "accuracy", 1),
    Claim("(0.5, 1) keeps more entropy than GRPO", "ce_gppo_0.5_1", "grpo", "entropy_area", 1),
    Claim("beta2 > beta1 beats (1, 1)", "ce_gppo_0.5_1", "ce_gppo_1_1", "accuracy", 1),
    Claim("(1, 0.5) ruins accuracy", "ce_gppo_1_0.5", "grpo", "accuracy", -1),
    Claim(
        "a larger beta2 keeps more entropy: (1, 1) against (1, 0.5)",
        *("ce_gppo_1_1", "ce_gppo_1_0.5", "entropy_area", 1),
    ),
    Claim("the same on sums", "sums_1_1", "sums_1_0.5", "entropy_area", 1),
    Claim(
        "(0.5, 1) beats an entropy bonus of 0.003 (Fig. 5)",
        *("ce_gppo_0.5_1", "bonus_0.003", "accuracy", 1),
    ),
    Claim("the same, bonus of 0.03", "ce_gppo_0.5_1", "bonus_0.03", "accuracy", 1),
    Claim(
        "explore, then exploit beats the constant (0.5, 1) (Fig. 6)",
        *("explore_exploit", "ce_gppo_0.5_1", "accuracy", 1),
    ),
    Claim("others' re-run: GPPO, (1, 1), is below GRPO", "ce_gppo_1_1", "grpo", "accuracy", -1),
)
ORDERED = ("a larger beta1 makes entropy fall faster", "the same on sums")  # the first of ORDERS


def verdict(found: Estimate, sign: int = 1) -> str:
    """Returns the verdict on a claim that a quantity has a sign, by its interval."""
    low, high = sorted((sign * found.low, sign * found.high))
    return "shown" if low > 0 else "refuted" if high < 0 else "not shown"


def table(runs: Runs) -> str:
    """Returns the table as Markdown. Claims whose runs are missing are marked so."""
    lines = ["| claim | measured | seeds | difference, 95 % interval | verdict |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for words, name in zip(ORDERED, ORDERS, strict=False):
        try:
            found = order(runs, ORDERS[name], "entropy_area")
        except ValueError:
            lines.append(f"| {words} | Kendall's tau | 0 | not run | open |")
            continue
        assert found.tau is not None
        tau = f"{found.tau.mean:+.2f} [{found.tau.low:+.2f}, {found.tau.high:+.2f}]"
        measured = "Kendall's tau of entropy along falling beta1"
        lines.append(f"| {words} | {measured} | {found.seeds} | {tau} | {verdict(found.tau)} |")
    for claim in CLAIMS:
        title = COLUMNS[claim.column].title
        unit = "points" if COLUMNS[claim.column].share else "nats"
        gap = difference(runs, claim.arm, claim.other, claim.column)
        if gap is None:
            lines.append(f"| {claim.words} | {title} | 0 | not run | open |")
            continue
        seeds = len(changes_of(runs, claim.arm, claim.other, claim.column))
        value = f"{text(claim.column, gap, signed=True)} {unit}"
        cells = (claim.words, title, str(seeds), value, verdict(gap, claim.sign))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Prints the table, and how many runs broke with much and with little of the left gradient."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=HERE / "results" / "runs.csv")
    runs = read_runs(parser.parse_args().runs)
    print(table(runs))
    for name, groups in GROUPS.items():
        print(f"\nbroken runs, {name}: {break_test(runs, *groups)}")


if __name__ == "__main__":
    main()
