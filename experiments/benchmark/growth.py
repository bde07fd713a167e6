"""How cost grows: completion tokens a second against slots, completion length, layers and
vocabulary, beside the machine's limit.

    python -m experiments.benchmark.growth --json=growth.jsonl --picture=growth.png
    python -m experiments.benchmark.growth --from=growth.jsonl --picture=growth.png    # draws again

One size changes at a time, from the base: the tiny model (4 layers of width 128, 512 tokens), 64
slots, 64 + 128 tokens a sequence, 64 sequences (256 where slots change).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.benchmark.__main__ import Lines, Machine, limit_seconds
from experiments.benchmark.peers import PeerFailed, run_command
from experiments.benchmark.works import WORKS, Work

BASE: dict[str, Any] = {"model": "tiny", "prompt_tokens": 64, "completion_tokens": 128}
# Axis -> its values
AXES: dict[str, tuple[int, ...]] = {
    "slots": (16, 32, 64, 128, 256),
    "completion tokens": (128, 256, 512, 1024, 2048),
    "layers": (2, 4, 8, 16),
    "vocabulary": (512, 2048, 8192, 32768),
}
WORKS_OF_AXIS = {axis: ("W1",) if axis == "slots" else ("W1", "W2") for axis in AXES}


@dataclasses.dataclass(frozen=True)
class Point:
    """One measurement: a work at one value of an axis."""

    axis: str
    value: int
    name: str  # of the work
    work: Work
    settings: list[str]


def points(axes: Sequence[str]) -> Iterator[Point]:
    """Yields what is measured, axis by axis."""
    for axis in axes:
        for name in WORKS_OF_AXIS[axis]:
            for value in AXES[axis]:
                sizes, settings = changed(axis, value)
                work = dataclasses.replace(WORKS[name], **BASE | sizes)
                yield Point(axis, value, name, work, settings)


def changed(axis: str, value: int) -> tuple[dict[str, Any], list[str]]:
    """Returns the sizes of the work and the settings that an axis changes."""
    if axis == "slots":
        return {"slots": value, "prompts": 32}, []
    if axis == "completion tokens":
        return {"completion_tokens": value}, []
    if axis == "layers":
        unrolled = value if value <= 8 else 1
        return {}, [f"model.layers={value}", f"trainer.scan_unroll={unrolled}"]
    return {}, [f"problems.task=experiments.benchmark.prompts:V{value}"]


def measured(axes: Sequence[str], repeats: int, lines: Lines) -> list[dict[str, Any]]:
    """Measures every point in a process of its own. Returns the records; a point that fails is told
    and left out.
    """
    environment = dict(os.environ)
    machine, records = Machine(environment), []
    command = [sys.executable, "-m", "experiments.benchmark.measure"]
    for point in points(axes):
        asked = {"name": point.name, "work": dataclasses.asdict(point.work), "repeats": repeats}
        try:
            found = run_command([*command, json.dumps(asked | {"settings": point.settings})])
            limits = machine.limits(found["products"], lines)
        except PeerFailed as error:
            lines.error(f"{point.name}, {point.axis} {point.value}", error)
            continue
        tokens, limit = found["completion_tokens"], limit_seconds(found["needs"], limits)
        record = {
            "axis": point.axis,
            "value": point.value,
            "work": point.name,
            "tokens_per_second": tokens / found["seconds"]["median"],
            "limit_tokens_per_second": tokens / limit,
            "peak_host_gib": found["peak_host_gib"],
            "seconds": found["seconds"],
            "device": found["device"],
        }
        lines.write(record, words(record))
        records.append(record)
    return records


def words(record: dict[str, Any]) -> str:
    """Returns a point in words."""
    rate, limit = record["tokens_per_second"], record["limit_tokens_per_second"]
    return (
        f"{record['work']}, {record['axis']} {record['value']:,}: {rate:,.0f} completion tokens/s, "
        f"{rate / limit:.0%} of the limit, peak {record['peak_host_gib']:.2f} GiB"
    )


def draw(records: Sequence[dict[str, Any]], file: Path) -> None:
    """Draws tokens a second and the limit, logarithmic, a panel for each work and axis."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    axes = [axis for axis in AXES if any(record["axis"] == axis for record in records)]
    figure = Figure(figsize=(3.2 * len(axes), 5.6), layout="constrained")
    panels = figure.subplots(2, len(axes), squeeze=False)
    for row, (name, title) in enumerate((("W1", "generation"), ("W2", "update"))):
        for column, axis in enumerate(axes):
            panel = panels[row, column]
            own = [one for one in records if (one["work"], one["axis"]) == (name, axis)]
            if not own:
                panel.set_axis_off()
                continue
            values = [one["value"] for one in own]
            for key, label, style in (
                ("limit_tokens_per_second", "limit of the machine", {"color": "0.6", "ls": "--"}),
                ("tokens_per_second", "measured", {"color": "tab:blue", "marker": "o"}),
            ):
                panel.loglog(values, [one[key] for one in own], label=label, **style)
            panel.set_xticks(values, [f"{value:,}" for value in values], rotation=30)
            panel.xaxis.set_minor_locator(NullLocator())
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            panel.yaxis.set_minor_locator(NullLocator())
            panel.set_xlabel(axis)
            panel.set_title(title, fontsize=10)
            panel.set_ylabel("completion tokens / s")
    panels[0, 0].legend(fontsize=8)
    figure.savefig(file, dpi=110)


def main() -> int:
    """Measures or reads, and draws."""
    parser = argparse.ArgumentParser(
        "python -m experiments.benchmark.growth",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--axes", nargs="+", choices=AXES, default=list(AXES))
    add("--repeats", type=int, default=3)
    add("--json", type=Path, metavar="FILE", help="appends the lines of JSON to it as well")
    add("--picture", type=Path, metavar="FILE", help="where the curves are drawn")
    add("--from", dest="read", type=Path, metavar="FILE", help="lines of an earlier --json")
    options = parser.parse_args()
    lines = Lines(options.json)
    if options.read is None:
        records = measured(options.axes, options.repeats, lines)
    else:
        found = map(json.loads, options.read.read_text().splitlines())
        records = [one for one in found if one.get("axis") in options.axes]
    if options.picture is not None:
        draw(records, options.picture)
    return int(lines.failed)


if __name__ == "__main__":
    raise SystemExit(main())
