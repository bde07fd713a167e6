"""Writes one HTML page from one run or many, finished or going on, and prints what the doctor says.

    python -m cegppo_jax.report runs/quickstart --out=report.html
    python -m cegppo_jax.report runs/* --out=report.html

Runs whose configs are equal but for the seed become one arm: the mean over seeds, and a band. The
page needs no network; --cdn makes it 5 MB smaller.
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import app, flags

from cegppo_jax.page.arms import group_runs
from cegppo_jax.page.page import Diagnosis, write_page
from cegppo_jax.paths import local_path


def doctors_words(diagnoses: Sequence[Diagnosis]) -> str:
    """Returns what the doctor found, run by run, as lines of text."""
    lines = []
    for one in diagnoses:
        lines.append(f"{one.run}:")
        for finding in one.findings:
            advice = f" {finding.advice}" if finding.advice else ""
            lines.append(f"  {finding.severity:8}{finding.seen}{advice}")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    """Writes the page of the command line. Bad input ends with one line."""
    values = flags.FLAGS
    try:
        if not argv[1:]:
            raise ValueError("no run: give the directories of one run or more, RUN...")
        runs = [local_path("RUN", name) for name in argv[1:]]
        out = local_path("--out", values.out)
        if out.is_dir():
            raise ValueError(f"--out={out} is a folder: name a file, {out / 'report.html'}")
        diagnoses = write_page(group_runs(runs), out, title=values.title, cdn=values.cdn)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    print(doctors_words(diagnoses))
    print(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    flags.DEFINE_string("out", "report.html", "the file to write")
    flags.DEFINE_string("title", "", "of the page; default: the names of the arms")
    flags.DEFINE_bool("cdn", False, "load plotly.js from its server instead of embedding it")
    app.run(main)
