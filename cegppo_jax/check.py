"""Makes every check of a start, in seconds and without training, and lists what is wrong.

    cegppo check --config=configs/quickstart.py --workdir=runs/quickstart

The checks are those that `train` makes itself before it compiles anything. Nothing is written.
The exit code is 0 if all pass, else 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from absl import flags, logging
from ml_collections import ConfigDict

from cegppo_jax.activity import Activity
from cegppo_jax.console.start import ends_on_bad_input
from cegppo_jax.rewards.workers.open_scorer import open_scorer
from cegppo_jax.rewards.workers.pool import PoolScorer
from cegppo_jax.run import command_line
from cegppo_jax.run.disk import check_disk
from cegppo_jax.run.door import CHECKS, VERIFIERS_NEED, RunParts
from cegppo_jax.run.lifecycle import check_directory
from cegppo_jax.run.one_writer import writer_lock
from cegppo_jax.run.settings import RunSettings, read_settings
from cegppo_jax.storage.mirror import named_by_url, opened_folder, shown_place


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of one check."""

    name: str
    mark: str  # "ok", "wrong", or "-": it could not be made
    words: str  # what was found, what is wrong, or which checks come first

    def __str__(self) -> str:
        first, *others = self.words.splitlines() or [""]
        return "\n".join([f"{self.mark:6} {self.name}: {first}", *(f"{'':7}{o}" for o in others)])


class StartChecks:
    """The checks of a start, made one by one."""

    def __init__(self) -> None:
        self.passed: set[str] = set()

    def make(self, name: str, needs: Sequence[str], check: Callable[[], str]) -> Result:
        """Makes a check, unless one that it needs has not passed."""
        if missing := [one for one in needs if one not in self.passed]:
            return Result(name, "-", f"comes after: {', '.join(missing)}")
        try:
            words = check()
        except (ValueError, OSError) as error:
            return Result(name, "wrong", str(error))
        self.passed.add(name)
        return Result(name, "ok", words)


def check_start(config: ConfigDict, workdir: Path) -> Iterator[Result]:
    """Yields what comes of each check of the start of a run in `workdir`, as it is made."""
    checks = StartChecks()
    try:
        settings = read_settings(config)
    except ValueError as error:
        yield Result("settings", "wrong", str(error))
        return
    yield Result("settings", "ok", settings.arithmetic())
    yield checks.make("directory", (), lambda: _directory(config, settings, workdir))
    parts = RunParts(settings, Activity())
    for check in CHECKS:
        yield checks.make(check.name, check.needs, lambda check=check: check.passed(parts))  # type: ignore[misc]
    yield checks.make(
        "disk",
        ("directory", "model, tokenizer and mesh"),
        lambda: check_disk(workdir, settings, parts.model, parts.mesh, settings.steps),
    )
    yield checks.make("verifiers", VERIFIERS_NEED, lambda: _verifiers(parts))


def _directory(config: ConfigDict, settings: RunSettings, workdir: Path) -> str:
    with writer_lock(workdir) as lock:
        taken, lines = check_directory(config, workdir, "train", lock)
    begun = "a new run" if taken is None else f"has taken {taken} of {settings.steps} steps"
    return "\n".join([f"{shown_place(workdir)}: {begun}", *lines])


def _verifiers(parts: RunParts) -> str:
    reward = parts.settings.reward
    scorer = open_scorer(reward, parts.problems.held_out)
    scorer.close()
    where = f"{reward.workers} processes" if reward.workers else "this process"
    if isinstance(scorer, PoolScorer):
        where += " without a network" if scorer.offline else " that may use the network"
    return f"their self-test holds in {where}"


def main(argv: Sequence[str]) -> None:
    """Prints a line for each check. Raises SystemExit(1) when one failed."""
    del argv
    logging.set_verbosity(logging.WARNING)
    wrong = 0
    with ends_on_bad_input(), opened_folder("--workdir", flags.FLAGS.workdir) as workdir:
        for result in check_start(flags.FLAGS.config, workdir):
            print(named_by_url(str(result)), flush=True)
            wrong += result.mark == "wrong"
    if wrong:
        raise SystemExit(f"error: {wrong} of the checks above failed; train would stop there")
    print("all is well: cegppo train with the same flags begins")


if __name__ == "__main__":
    command_line.run("check", main)
