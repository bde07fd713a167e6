"""Kills commands at random moments and compares what they leave with what an undisturbed one does.

    python experiments/kill_matrix.py --kills=200

Every command that writes is killed (SIGKILL) a few times, started again until it is done, and
compared to the last bit: parameters, optimizer state, counters, metrics, samples, completions,
exported weights; torn and doubled lines of logs are counted. Then the next one, until so many
kills are done. The commands, and what is compared, are those of tests/kills.py.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

KILLS_IN_ONE = 5  # of one command, at most, before it may end


def main() -> None:
    """Prints a line for each command that was killed, and a table at the end."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200, help="in all, at least (200)")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begins no turn after them")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    parser.add_argument("--at-once", type=int, default=2, help="commands at a time (2)")
    parser.add_argument("--folder", type=Path, help="for runs and compiled programs (a new one)")
    parser.add_argument("--record", action="store_true", help="write it to experiments/promises.md")
    options = parser.parse_args()
    import promises
    from compiling import compile_fast

    compile_fast()
    with (
        tempfile.TemporaryDirectory(prefix="kill_matrix-") as scratch,
        ProcessPoolExecutor(options.at_once, multiprocessing.get_context("spawn")) as pool,
    ):
        table = matrix(options, options.folder or Path(scratch), pool)
    print("\n| command | kills | compared | differences, torn or doubled lines |")
    print("|---|---|---|---|")
    for name, row in table.items():
        print(f"| {name} | {row[0]} | {row[1]} | {row[2]} |")
    kills, compared, differences = table["all"]
    if options.record:
        promises.record(
            f"{kills} random kills of {len(table) - 1} commands, {compared} results compared, "
            f"{differences} differences"
        )
    raise SystemExit(1 if differences else 0)


def matrix(
    options: argparse.Namespace, scratch: Path, pool: ProcessPoolExecutor
) -> dict[str, list[int]]:
    """Returns a row for each command and one for all: kills, results compared, differences."""
    import kills

    scratch.mkdir(parents=True, exist_ok=True)
    names = [work.name for work in kills.works(scratch)]
    counted = scratch / "changes.json"  # of a folder that was used before
    changes = json.loads(counted.read_text()) if counted.exists() else {}
    for name in names:  # others read what the first one leaves
        if name not in changes:
            changes[name] = pool.submit(undisturbed, scratch, name).result()
            counted.write_text(json.dumps(changes))
        print(f"{name}: files changed {changes[name]} times", flush=True)
    table = {name: [0, 0, 0] for name in [*names, "all"]}
    moments, turns = random.Random(options.seed), itertools.cycle(names)
    began = time.monotonic()
    while table["all"][0] < options.kills and time.monotonic() - began < options.seconds:
        left, planned = options.kills - table["all"][0], list[tuple[str, int, float]]()
        while sum(times for _, times, _ in planned) < left and len(planned) < len(names):
            planned.append((next(turns), moments.randint(2, KILLS_IN_ONE), moments.random()))
        ended = pool.map(partial(killed, scratch, changes), planned)
        for (name, _, _), (times, found) in zip(planned, ended, strict=True):
            for row in (table[name], table["all"]):
                row[:] = row[0] + times, row[1] + 1, row[2] + len(found)
            print(f"{table['all'][0]:4} kills  {name}: {times} of them, {len(found)} differences")
            print(*[f"      {line}" for line in found], sep="\n", end="", flush=True)
    return table


def undisturbed(scratch: Path, name: str) -> int:
    """Runs a command to its end. Returns how often its files were seen to change."""
    import kills

    kills.prepare(scratch / "compiled")
    return kills.finish(kills.work_named(name, scratch), kills.place(name, scratch))


def killed(
    scratch: Path, changes: dict[str, int], planned: tuple[str, int, float]
) -> tuple[int, list[str]]:
    """Kills a command a number of times, at moments of a seed, and lets it end. Returns how often
    it was killed, and a line for each difference to the undisturbed one.
    """
    import kills
    from absl import logging

    logging.set_verbosity(logging.ERROR)
    name, times, seed = planned
    kills.prepare(scratch / "compiled")
    folder = scratch / "killed" / f"{name} {time.time_ns()}".replace(" ", "_")
    work = kills.work_named(name, scratch)
    try:
        done = kills.kill_often(work, folder, changes[name], times, random.Random(seed))
        found = kills.differences(folder, kills.place(name, scratch))
    except Exception as error:
        return 0, [f"{folder}: {type(error).__name__}: {error}"]
    if not found:
        shutil.rmtree(folder)
    return done, [f"{folder}: {line}" for line in found]


if __name__ == "__main__":
    main()
