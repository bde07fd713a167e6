"""Kills one of two processes that train together at random moments: do the others stop, in words
and within a bound, and does the restarted run end as if nothing had happened?

    python experiments/process_kills.py --kills=20

One process of two is killed (SIGKILL), the same run is started again on both, up to KILLS_IN_ONE
times, and then to its end, which is compared to the last bit with that of an undisturbed run. Of
five kills one falls while the processes start, the others after a random number of changes of the
run's files. What is compared is that of tests/kills.py: arrays of all checkpoints, metrics,
samples, torn and doubled lines.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

KILLS_IN_ONE = 4  # of one run
AT_THE_START = 5  # one kill of so many falls before the first change of a file
BOUNDS = ("--heartbeat_timeout_seconds=10", "--start_timeout_seconds=50")
RANDOM_SECONDS = 0.1


class Group:
    """The processes of a run; to those who watch, one that ends when the first does."""

    def __init__(self, count: int, folder: Path, cache: Path) -> None:
        from processes import FLAGS, begin, train

        words = train(folder, *FLAGS, *BOUNDS)
        self.children: list[subprocess.Popen[str]] = begin(count, *words, cache=cache, devices=2)

    def poll(self) -> int | None:
        """Returns an exit code once some process has one."""
        return next((one for child in self.children if (one := child.poll()) is not None), None)

    def is_alive(self) -> bool:
        """Whether all of them run."""
        return self.poll() is None

    def end(self, limit: float | None = None) -> list[str]:
        """Waits for all and returns their errors; one that takes longer is killed."""
        errors = []
        for child in self.children:
            try:
                errors.append(child.communicate(timeout=limit)[1])
            except subprocess.TimeoutExpired:
                child.kill()
                errors.append(f"still there after {limit} s\n{child.communicate()[1]}")
        return errors


def kill_one(
    folder: Path, cache: Path, moments: random.Random, changes: int, starting: float | None
) -> tuple[float, str] | None:
    """Kills one of two processes. Returns the seconds that the other took to stop, and its error;
    None: the run had ended before.

    Args:
      changes: of files, by an undisturbed run; the kill falls before so many.
      starting: seconds until the first change, within which the kill falls; None: after it.
    """
    import kills

    group = Group(2, folder, cache)
    if starting is None:
        kills.watch(group, folder, moments.randint(1, changes))
        time.sleep(moments.uniform(0, RANDOM_SECONDS))
    else:
        time.sleep(moments.uniform(0, starting))
    place = moments.randrange(2)
    victim, other = group.children[place], group.children[1 - place]
    if group.poll() is not None:
        group.end()
        return None
    victim.send_signal(signal.SIGKILL)
    began = time.monotonic()
    _, error = other.communicate()
    victim.communicate()
    lines = re.findall(r"error: .*", error) or error.strip().splitlines()[-1:] or ["nothing"]
    return time.monotonic() - began, f"exit code {other.returncode}: {lines[0]}"


def main() -> None:
    """Prints a line for each kill, and what came of all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="in all (20)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    options = parser.parse_args()
    from compiling import compile_fast

    compile_fast()
    with tempfile.TemporaryDirectory(prefix="process_kills-") as scratch:
        raise SystemExit(1 if kill_and_compare(options, Path(scratch)) else 0)


def kill_and_compare(options: argparse.Namespace, scratch: Path) -> int:
    """Returns how many files, arrays and lines differ, and processes that ended in silence."""
    import kills

    cache, expected = scratch / "compiled", scratch / "expected"
    cache.mkdir()
    Group(2, scratch / "warm", cache).end()  # compiles
    began = time.monotonic()
    group = Group(2, expected, cache)
    kills.watch(group, expected, 1)
    starting = time.monotonic() - began
    changes = kills.watch(group, expected, 10**9)
    group.end()
    print(f"undisturbed: {starting:.0f} s to the first change of {changes}", flush=True)
    moments, seconds, wrong, runs = random.Random(options.seed), list[float](), 0, 0
    while len(seconds) < options.kills:
        folder, runs = scratch / f"killed_{runs}", runs + 1
        for _ in range(min(KILLS_IN_ONE, options.kills - len(seconds))):
            at_start = starting if len(seconds) % AT_THE_START == 0 else None
            stopped = kill_one(folder, cache, moments, changes // KILLS_IN_ONE, at_start)
            if stopped is None:
                break
            seconds.append(stopped[0])
            wrong += "error:" not in stopped[1] or "exit code 1:" not in stopped[1]
            print(f"{len(seconds):3} {stopped[0]:6.1f} s  {stopped[1]}", flush=True)
        errors = Group(2, folder, cache).end()
        found = kills.differences(folder, expected) if folder.exists() else errors
        print(f"    ended: {len(found)} differences", *found, sep="\n      ", flush=True)
        wrong += len(found)
        shutil.rmtree(folder, ignore_errors=True)
    print(
        f"{len(seconds)} kills in {runs} runs: the other stopped after {min(seconds):.1f} to "
        f"{max(seconds):.1f} s; {wrong} differences, torn or doubled lines, or ends in silence"
    )
    return wrong


if __name__ == "__main__":
    main()
