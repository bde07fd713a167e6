"""How much of an update do chips spend on rows, if each shard has whole rows of 20,480 tokens?

    python experiments/rows_and_shards.py
    python experiments/rows_and_shards.py --recipe=r1_distill_qwen_7b --lengths constant:16384

A mini-batch of R packed rows on N shards (data x fsdp) takes ceil(R / N) rows of each, so R in
N * ceil(R / N) of them are filled. Rows are packed as `cegppo plan` does. A tensor axis of t leaves
chips / t shards. Arithmetic, from the recipe alone: nothing is compiled.
"""

import argparse
import importlib
import math

from cegppo_jax.planning.lengths import packed_rows, plan_lengths
from cegppo_jax.run.settings import read_settings

CHIPS = (4, 8, 16, 32, 64, 128, 256)
TENSOR = (1, 2, 4)  # each divides the heads of every recipe


def filled(rows: list[int], shards: int) -> float:
    """Returns the share of the rows that shards go through which hold tokens."""
    return sum(rows) / sum(shards * math.ceil(one / shards) for one in rows)


def main() -> None:
    """Prints a table for each distribution of lengths."""
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    flags.add_argument("--recipe", default="r1_distill_qwen_1p5b")
    flags.add_argument("--lengths", nargs="*", default=["lognormal:6000", "lognormal:12000"])
    args = flags.parse_args()
    settings = read_settings(importlib.import_module(f"configs.{args.recipe}").get_config())
    for text in args.lengths:
        lengths = plan_lengths(text, None, settings)
        rows = packed_rows(lengths, settings)
        print(f"\n{lengths.words}: {min(rows)} to {max(rows)} rows a mini-batch\n")
        print("| chips |" + "".join(f" tensor = {t} |" for t in TENSOR))
        print("|---|" + "---|" * len(TENSOR))
        for chips in CHIPS:
            shares = [filled(rows, chips // t) if chips >= t else None for t in TENSOR]
            cells = ["" if one is None else f"{one:.0%}" for one in shares]
            print(f"| {chips} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
