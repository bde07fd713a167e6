"""Writes one HTML page from one run or many, finished or going on, and prints what the doctor says.

    cegppo report runs/quickstart --out=report.html
    cegppo report runs/* --out=report.html

Runs whose configs are equal but for the seed become one arm: the mean over seeds, and a band. The
page needs no network; --cdn makes it 5 MB smaller.
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from cegppo_jax.console.start import ends_on_bad_input, start_command
from cegppo_jax.page.arms import group_runs
from cegppo_jax.page.page import write_page
from cegppo_jax.paths import local_path


def main(argv: Sequence[str]) -> None:
    """Writes the page of the command line. Bad input ends with one line."""
    values = flags.FLAGS
    with ends_on_bad_input():
        if not argv[1:]:
            raise ValueError("no run: give the directories of one run or more, RUN...")
        runs = [local_path("RUN", name) for name in argv[1:]]
        out = local_path("--out", values.out)
        if out.is_dir():
            raise ValueError(f"--out={out} is a folder: name a file, {out / 'report.html'}")
        diagnoses = write_page(group_runs(runs), out, title=values.title, cdn=values.cdn)
    print(*diagnoses, sep="\n")
    print(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    start_command("report", main)
