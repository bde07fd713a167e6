"""Kills commands at random moments and compares what they leave with what an undisturbed one does.

    python experiments/kill_matrix.py --kills=200

Every command that writes is killed (SIGKILL) a few times, started again until it is done, and
compared to the last bit: parameters, optimizer state, counters, metrics, samples, completions,
exported weights; torn and doubled lines of logs are counted. Then the next one, until so many
kills are done. The commands, and what is compared, are those of tests/kills.py.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

KILLS_IN_ONE = 5  # of one command, at most, before it may end


def main() -> None:
    """Prints a row for each command that was killed, and a table at the end."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200, help="in all (200)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after these")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    parser.add_argument("--folder", type=Path, help="for runs and compiled programs (a new one)")
    options = parser.parse_args()
    from absl import logging
    from compiling import compile_fast

    compile_fast()
    logging.set_verbosity(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="kill_matrix-") as scratch:
        ended = matrix(options, options.folder or Path(scratch))
    raise SystemExit(1 if ended else 0)


def matrix(options: argparse.Namespace, scratch: Path) -> int:
    """Returns in how many files, arrays and lines what was killed differs."""
    import kills

    cache, run = scratch / "compiled", scratch / "run"
    cache.mkdir(parents=True, exist_ok=True)
    works = kills.works(run, scratch)
    rows = {work.name: [0, 0, 0] for work in works}  # kills, commands compared, differences
    expected = {work.name: scratch / work.name.replace(" ", "_") for work in works}
    expected[works[0].name] = run
    counted = scratch / "changes.json"  # of a folder that was used before
    changes = json.loads(counted.read_text()) if counted.exists() else {}
    for work in works:
        if work.name not in changes:
            changes[work.name] = kills.changes_until_done(work, expected[work.name], cache)
            counted.write_text(json.dumps(changes))
        print(f"{work.name}: files changed {changes[work.name]} times", flush=True)
    moments, began, turn = random.Random(options.seed), time.monotonic(), 0
    while sum(row[0] for row in rows.values()) < options.kills:
        if time.monotonic() - began > options.seconds:
            break
        work, row = works[turn % len(works)], rows[works[turn % len(works)].name]
        turn, folder = turn + 1, scratch / "killed" / f"{time.time_ns()}"
        folder.parent.mkdir(exist_ok=True)
        times = moments.randint(2, KILLS_IN_ONE)
        try:
            done = kills.kill_often(work, folder, changes[work.name], times, moments, cache)
            found = kills.differences(folder, expected[work.name])
        except Exception as error:
            done, found = 0, [f"{type(error).__name__}: {error}"]
        row[0], row[1], row[2] = row[0] + done, row[1] + 1, row[2] + len(found)
        so_far = sum(one[0] for one in rows.values())
        print(f"{so_far:4} kills  {work.name}: killed {done} times, {len(found)} differences")
        print(*[f"      {line}" for line in found], sep="\n", end="", flush=True)
        if not found:
            shutil.rmtree(folder, ignore_errors=True)
    print(
        "\n| command | kills | compared | differences, torn or doubled lines |\n|---|---|---|---|"
    )
    for name, row in rows.items():
        print(f"| {name} | {row[0]} | {row[1]} | {row[2]} |")
    totals = [sum(column) for column in zip(*rows.values(), strict=True)]
    print(f"| all | {totals[0]} | {totals[1]} | {totals[2]} |", flush=True)
    return totals[2]


if __name__ == "__main__":
    main()
