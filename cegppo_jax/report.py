"""Writes one HTML page from one run or many, finished or going on, and prints what the doctor says.

    cegppo report runs/quickstart --out=report.html
    cegppo report runs --out=report.html

Of a folder that is no run, the runs below it are taken. Runs whose configs are equal but for the
seed become one arm: the mean over seeds, and a band. The page needs no network; --cdn makes it 5 MB
smaller.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from absl import flags

from cegppo_jax.console.start import ends_on_bad_input, start_command
from cegppo_jax.page.arms import find_runs, group_runs
from cegppo_jax.page.page import write_page
from cegppo_jax.storage.mirror import named_by_url, opened_folder
from cegppo_jax.storage.outputs import written_place


def main(argv: Sequence[str]) -> None:
    """Writes the page of the command line. Bad input ends with one line."""
    values = flags.FLAGS
    with ends_on_bad_input(), contextlib.ExitStack() as stack:
        if not argv[1:]:
            raise ValueError("no run: give the directories of one run or more, RUN...")
        named = [stack.enter_context(opened_folder("RUN", name)) for name in argv[1:]]
        runs = [run for path in named for run in find_runs(path)]
        out = stack.enter_context(written_place("--out", values.out, may_exist=True))
        if out.is_dir():
            raise ValueError(f"--out={out} is a folder: name a file, {out / 'report.html'}")
        diagnoses = write_page(group_runs(runs), out, title=values.title, cdn=values.cdn)
        print(*map(named_by_url, map(str, diagnoses)), sep="\n")
        print(f"wrote {values.out} ({out.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    start_command("report", main)
