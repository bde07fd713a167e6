"""The last lines of a run: what it learned, where to look, and what to run next."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cegppo_jax.console.table import how_to_run
from cegppo_jax.reporting.metrics import read_metrics
from cegppo_jax.reporting.panels import FORMATS
from cegppo_jax.reporting.writers import Phase

STEPS_SETTING = {
    "train": "steps",
    "supervised": "warm_start.steps",
}  # how many a command's run takes


def closing_words(workdir: Path, profile: str | None = None, best: int | None = None) -> str:
    """Returns the last lines of a finished run of `train`; `profile`: those about a trace; `best`:
    step of the best checkpoint, if there is one.
    """
    lines = [line for line in read_metrics(workdir) if line["phase"] == Phase.RL]
    evaluated = [line for line in lines if "evaluation/accuracy" in line]
    first, last = evaluated[0], evaluated[-1]
    gain = 100 * (last["evaluation/accuracy"] - first["evaluation/accuracy"])
    words = [
        "",
        f"held-out accuracy  {_accuracy(first)} -> {_accuracy(last)}, {gain:+.1f} points in "
        f"{last['step']} steps "
        "(95 % intervals over problems)",
    ]
    trained = [line for line in lines if line.get("policy/entropy") is not None]
    if trained:
        names = ("policy/clip_count_low", "policy/clip_count_high")
        clipped = [sum(line[name] for line in trained) for name in names]
        words.append(
            f"policy entropy     {trained[0]['policy/entropy']:.3f} -> "
            f"{trained[-1]['policy/entropy']:.3f} nats; clipped tokens: {clipped[0]:,.0f} left, "
            f"{clipped[1]:,.0f} right of the interval"
        )
    words += [
        *_where_to_look(workdir),
        f"completions        {workdir}/samples.jsonl   with their scores",
        *([profile] if profile else []),
        f"evaluate it        {how_to_run('evaluate', f'--run={workdir}')}",
        *_best(workdir, best),
    ]
    return "\n".join(words)


def supervised_closing_words(
    workdir: Path, profile: str | None = None, best: int | None = None
) -> str:
    """Returns the last lines of a finished run of `supervised`; arguments as of closing_words."""
    lines = read_metrics(workdir)
    last = lines[-1]
    return "\n".join(
        [
            "",
            f"loss               {lines[0]['supervised/loss']:.3f} -> "
            f"{last['supervised/loss']:.3f} nats a token in {len(lines)} steps",
            f"held-out accuracy  {_accuracy(last)}",
            *_where_to_look(workdir),
            *([profile] if profile else []),
            f"use the model      {how_to_run('export', f'--run={workdir}', '--out=FOLDER')}",
            "                   then --config.model.pretrained=FOLDER",
            *_best(workdir, best),
        ]
    )


def complete_words(workdir: Path, command: str, steps: int, arguments: Sequence[str]) -> str:
    """Returns what a command says of a run that has nothing left to do.

    Args:
      steps: those that it has taken.
      arguments: those of the command line.
    """
    words = {"train": closing_words, "supervised": supervised_closing_words}[command](workdir)
    option = f"--config.{STEPS_SETTING[command]}="
    kept = [one for one in arguments if not one.startswith(option)]
    return (
        f"{workdir} is complete: it has taken all of its {steps} steps, and nothing is changed"
        f"\n{words}"
        f"\nmake it longer     {how_to_run(command, *kept, f'{option}{2 * max(steps, 1)}')}"
    )


def _best(workdir: Path, step: int | None) -> list[str]:
    """Returns the line about the best checkpoint."""
    if step is None:
        return []
    return [f"the best one       {how_to_run('evaluate', f'--run={workdir}', f'--step={step}')}"]


def _accuracy(line: dict[str, Any]) -> str:
    low, high = line["evaluation/accuracy_low"], line["evaluation/accuracy_high"]
    return f"{line['evaluation/accuracy']:.1%} [{low:.1%}, {high:.1%}]"


def _where_to_look(workdir: Path) -> list[str]:
    """Returns the lines about curves: files that are there, and programs that are installed."""
    page = how_to_run("report", str(workdir), f"--out={workdir}/report.html")
    drawn = [path for path in (workdir / f"report.{one}" for one in FORMATS) if path.is_file()]
    lines = [f"curves             {'  '.join(map(str, drawn))}"] if drawn else []
    if (workdir / "tensorboard").is_dir():
        logs = f"{workdir}/tensorboard"
        viewer = f"tensorboard --logdir {logs}" if shutil.which("tensorboard") else logs
        lines.append(f"{'' if lines else 'curves':19}{viewer}")
    return [*lines, f"page of the run    {page}"]
