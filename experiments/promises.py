"""Writes the tables of promises.md: what a run promises, what holds it, and how much was tried.

    python experiments/promises.py

PROMISES below is the one place to change a promise. Figures of commands are those of promises.json,
where the commands put them that are called with --record; they write the page anew.
tests/test_promises.py checks that the page is what this writes, and that every test exists.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent
PAGE, FIGURES = FOLDER / "promises.md", FOLDER / "promises.json"
BEGIN, END = "<!-- written by promises.py: begin -->", "<!-- end -->"


class Promise(NamedTuple):
    """A line of the page."""

    words: str
    held_by: str  # files in tests/, each with the word that picks its tests (pytest's -k) or none
    tried: str = ""  # how much; {command} stands for the figures of that command


PROMISES = {
    "Killed": [
        Promise(
            "Killed (SIGKILL) at any moment, the same command ends with the same bits: parameters, "
            "optimizer state, metrics, samples",
            "test_resume.py -k killed",
            "7 named moments, 3 random ones",
        ),
        Promise(
            "So does every command that writes, and no line of a log is torn or there twice",
            "test_resume.py -k random_moments",
            "{kill_matrix}",
        ),
        Promise(
            "With a rollout drawn ahead (`batch.rollout_lag_steps = 1`) the same holds",
            "test_rollout_lag.py -k bits, test_rollout_lag.py -k killed",
        ),
        Promise(
            "What a killed export left is written anew; a running one is not touched",
            "test_export.py -k left",
        ),
    ],
    "Stopped": [
        Promise(
            "SIGTERM, SIGHUP and Ctrl-C save what was computed, say so in a line, and end with the "
            "exit code 75; the same command goes on to the same bits, also inside a warm start",
            "run/test_stopping.py, test_resume.py -k asked_to_stop",
            "3 signals in 4 stages; a run stopped in its warm start and in a step",
        ),
        Promise("A second Ctrl-C leaves at once", "run/test_stopping.py -k second"),
        Promise(
            "`sweep --run` stops its runs, which save; `export` leaves nothing half-made; every "
            "command says that it was stopped, and ends with 75",
            "sweeps/test_sweep.py -k stopped, test_export.py -k stopped, "
            "run/test_command_line.py -k signal",
        ),
        Promise(
            "`evaluate` keeps every completion that was drawn, and says how many",
            "test_evaluate.py -k asked_to_stop, run/test_stopping.py -k completions",
        ),
    ],
    "One writer": [
        Promise(
            "One process writes to a directory; a second one is told the host, the number and the "
            "start of the first; a killed one leaves nothing behind",
            "run/test_one_writer.py",
            "`train`, `supervised`, `evaluate`",
        ),
        Promise(
            "In a bucket too, where a run that is killed or stopped ends with the bits of one on a "
            "disk",
            "storage/test_bucket.py, test_resume.py -k bucket",
            "on a local server",
        ),
    ],
    "Nothing is erased": [
        Promise(
            "A run whose checkpoints are missing or not mounted is refused and keeps its logs",
            "run/test_nothing_lost.py -k gone, run/test_nothing_lost.py -k starts_over",
        ),
        Promise(
            "A log with other lines than its checkpoint counts on is named: metrics, updates, "
            "samples",
            "run/test_nothing_lost.py -k counts_on",
            "4 kinds of loss in 3 files",
        ),
        Promise(
            "Lines are on the disk before the checkpoint that counts on them",
            "run/test_nothing_lost.py -k sync",
        ),
    ],
    "Checkpoints": [
        Promise(
            "No flipped bit, of a checkpoint or a reference policy, is restored as another number, "
            "on any mesh",
            "run/test_checkpoint.py -k flipped, run/test_checksums.py",
            "24 flips in files, 60 in arrays",
        ),
        Promise(
            "A damaged one is named and moved aside, and the one before is used; without a whole "
            "one nothing is moved",
            "run/test_checkpoint.py -k damaged, run/test_checkpoint.py -k without_a_whole",
            "an empty folder, cut files, no position, no state, another step",
        ),
        Promise(
            "The newest, every k-th and the best are kept, whenever the run is resumed",
            "run/test_retention.py",
            "5 choices of what to keep, 7 resumptions each",
        ),
    ],
    "Disks": [
        Promise(
            "A disk that is full, read-only or broken ends a command with one line that names the "
            "file and the space; the last good checkpoint stays, and the same command goes on to "
            "the same bits",
            "storage/test_writing.py, test_full_disk.py",
            "file systems that fill or become read-only (root only), limits on files",
        ),
    ],
    "Bad numbers": [
        Promise(
            "Updates that are left out are on the screen; after `checkpoint.stop_after_skipped` in "
            "a row the run stops, and its newest checkpoint is the last good one",
            "reporting/test_skipped_updates.py",
            "a learning rate of 1e30",
        ),
        Promise(
            "`cegppo replay` computes the first of them again to the last bit, and names the "
            "micro-batch and the leaf that are not finite",
            "run/test_bad_batch.py",
            "every metric of an update; 3 places",
        ),
        Promise("Rewards beyond 1e6 in size are refused", "rewards/test_scoring.py -k float32"),
    ],
    "Bad input": [
        Promise(
            "`cegppo check` makes every check of a start without training; what it finds wrong, "
            "`train` refuses in the same words before anything is computed or written",
            "test_check.py",
            "12 wrong starts, a busy directory, a full disk",
        ),
        Promise(
            "Every number of a config has bounds and is refused by name beyond either end, before "
            "anything of its size is made; every token id is checked",
            "run/test_bounds.py",
            "both ends of every number",
        ),
        Promise(
            "A file that is cut, zeroed, nested, of another type or another file is refused by "
            "name, or changes nothing",
            "test_damaged_files.py, storage/test_strict_json.py",
            "{damaged_files}",
        ),
        Promise(
            "A hub that does not answer is told within seconds; what is in the cache is read",
            "data/test_hub.py",
        ),
        Promise(
            "`~`, `$NAME` and `${NAME}` are expanded in paths; no cell of problems.csv is a "
            "formula",
            "storage/test_paths.py -k variables, evaluation/test_result_files.py -k formula",
        ),
    ],
    "Verifiers": [
        Promise(
            "A verifier that hangs, crashes, forks or eats memory costs its own completion, and "
            "leaves no process behind",
            "rewards/test_pool.py",
            "20 ways",
        ),
        Promise(
            "It gains no privileges, sees nothing of the environment but what Python needs, and "
            "has no network unless `reward.pool.network` says so or the kernel does not let it be "
            "taken away",
            "rewards/test_pool.py -k rights, rewards/test_pool.py -k network",
            "as root and as a user without rights",
        ),
        Promise("What it replies is not pickle, and runs nothing", "rewards/test_pool.py -k reply"),
    ],
    "What grows": [
        Promise(
            "From step to step no array, handle, thread or process is left over, and nothing is "
            "compiled again; memory grows by about 10 kB",
            "test_leaks.py",
            "{leaks}",
        ),
        Promise(
            "Resuming holds one line of a log in memory, not the log",
            "storage/test_jsonl.py -k memory",
            "a log of 8 MB",
        ),
    ],
}


def main() -> None:
    """Writes the page."""
    PAGE.write_text(page(PAGE.read_text("utf-8"), figures()), "utf-8")


def figures() -> dict[str, Any]:
    """Returns what commands have recorded, by their names."""
    found: dict[str, Any] = json.loads(FIGURES.read_text("utf-8")) if FIGURES.exists() else {}
    return found


def record(words: str) -> None:
    """Keeps the figures of this command, in words, and writes the page anew."""
    name = Path(sys.argv[0]).stem
    own = ("--record", "--folder=")  # of who runs it
    arguments = [one for one in sys.argv[1:] if not one.startswith(own)]
    kept = figures() | {
        name: {
            "command": shlex.join(["python", f"experiments/{name}.py", *arguments]),
            "words": words,
            "machine": machine(),
            "day": str(datetime.datetime.now(datetime.UTC).date()),
        }
    }
    FIGURES.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", "utf-8")
    main()


def machine() -> str:
    """Returns what this process runs on (Linux)."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{os.cpu_count()} cores, {found[1] if found else platform.machine()}"


def page(before: str, recorded: Mapping[str, Any]) -> str:
    """Returns the page with its tables made anew; what is around them stays."""
    head, _, rest = before.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{tables(recorded)}\n{END}{tail}"


def tables(recorded: Mapping[str, Any]) -> str:
    """Returns a table for each topic, and the commands whose figures they have."""
    lines = []
    for topic, promises in PROMISES.items():
        lines += [f"### {topic}", "", "| promise | held by | tried |", "|---|---|---|"]
        lines += [row(promise, recorded) for promise in promises] + [""]
    lines += ["| command | machine | day |", "|---|---|---|"]
    for _, one in sorted(recorded.items()):
        lines.append(f"| `{one['command']}` | {one['machine']} | {one['day']} |")
    return "\n".join(lines) + "\n"


def row(promise: Promise, recorded: Mapping[str, Any]) -> str:
    """Returns a line of a table."""
    held = "<br>".join(f"`{one}`" for one in promise.held_by.split(", "))
    tried = re.sub(r"\{(\w+)\}", lambda name: recorded[name[1]]["words"], promise.tried)
    return f"| {promise.words} | {held} | {tried} |"


if __name__ == "__main__":
    main()
