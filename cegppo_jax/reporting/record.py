"""What a training run writes of its steps, file by file: metrics, updates and samples."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from cegppo_jax import distributed
from cegppo_jax.reporting.metrics import (
    UPDATES_FILE_NAME,
    MetricsWriter,
    Phase,
    Position,
    open_log,
    update_lines,
)
from cegppo_jax.reporting.samples import SAMPLES_FILE_NAME
from cegppo_jax.storage.jsonl import JsonlLog


class Metrics(Protocol):
    """Takes the metrics of steps: a MetricsWriter, or nobody on a host that writes nothing."""

    def write(self, phase: str, step: int, values: Mapping[str, Any]) -> None:
        """Takes those of one step."""
        ...

    def sync(self) -> dict[str, int]:
        """Waits until all of them are on the disk. Returns how many lines each file has, by name:
        a checkpoint has to know.
        """
        ...


class Unwritten:
    """The files of a run on a host other than the main one, which writes them."""

    def __enter__(self) -> Unwritten:
        return self

    def __exit__(self, *exception: object) -> None:
        """Has nothing to close."""

    def write(self, phase: str, step: int, values: Mapping[str, Any]) -> None:
        """Leaves the metrics to the main host."""

    def append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Leaves the lines to the main host. They are not even made."""

    def sync(self) -> dict[str, int]:
        """Has nothing to wait for."""
        return {}


class RunRecord:
    """The open files of a run. `open_record` opens and closes them."""

    def __init__(
        self, metrics: Metrics, updates: JsonlLog | Unwritten, samples: JsonlLog | Unwritten
    ) -> None:
        self.metrics = metrics
        self._updates, self._samples = updates, samples

    def write_step(
        self,
        step: int,
        values: Mapping[str, Any],
        updates: Sequence[Mapping[str, Any]],
        samples: Iterable[Mapping[str, Any]],
    ) -> None:
        """Writes an RL step: its metrics, those of each of its updates, and the lines of its
        completions.
        """
        self.metrics.write(Phase.RL, step, values)
        self._updates.append(update_lines(step, updates))
        self._samples.append(samples)

    def sync(self) -> dict[str, int]:
        """Waits until every line is on the disk: before the checkpoint that counts on them. Returns
        how many lines each file has, by name.
        """
        return self.metrics.sync() | self._updates.sync() | self._samples.sync()


@contextlib.contextmanager
def open_record(
    workdir: Path, resume_after: Position | None, writers: Sequence[str]
) -> Iterator[RunRecord]:
    """Opens a run's files for what comes after a position (None: from the start), and closes them.
    Of several hosts, only the main one writes.

    Raises:
        ValueError: for a malformed line, with its number.
    """
    if not distributed.is_main():
        yield RunRecord(Unwritten(), Unwritten(), Unwritten())
        return
    with (
        MetricsWriter(workdir, resume_after, writers) as metrics,
        open_log(workdir / UPDATES_FILE_NAME, resume_after) as updates,
        open_log(workdir / SAMPLES_FILE_NAME, resume_after) as samples,
    ):
        yield RunRecord(metrics, updates, samples)


@contextlib.contextmanager
def open_metrics(
    workdir: Path, resume_after: Position | None, writers: Sequence[str]
) -> Iterator[Metrics]:
    """Opens the metrics alone, of a run that has no updates to tell apart; as open_record."""
    if not distributed.is_main():
        yield Unwritten()
        return
    with MetricsWriter(workdir, resume_after, writers) as metrics:
        yield metrics
