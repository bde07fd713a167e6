"""Measures works in turn with peers, and says how near they come to the machine's limits.

    python -m experiments.benchmark W1
    python -m experiments.benchmark all --repeats=1 --json=benchmark.jsonl
    python -m experiments.benchmark W4 --against='python another_framework.py'

Standard output has a line of JSON for each measurement, standard error the same in words. What the
works are, what a peer prints, and how limits are counted: experiments/benchmark/README.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.benchmark.peers import PeerFailed, run_command, seconds_of
from experiments.benchmark.works import LENGTHS, MODELS, SIZES, WORKS, Work


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        "python -m experiments.benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "works",
        nargs="+",
        choices=[*WORKS, "all"],
        help="; ".join(f"{name}: {work.title}" for name, work in WORKS.items()),
        metavar="WORK",
    )
    add("--against", action="append", default=[], metavar="COMMAND", help="a peer; may be repeated")
    add("--key", default="", help="where a peer's line has its seconds; a+b adds two keys")
    add("--repeats", type=int, default=3, help="of a work in its process, after one that compiles")
    add("--rounds", type=int, default=0, help="of the work and its peers in turn; 3 with peers")
    add("--model", help=f"{', '.join(MODELS)} (random weights), or as setting model.pretrained")
    add("--platform", help="cpu, gpu, cuda, tpu; else JAX's choice")
    add("--dtype", choices=["float32", "bfloat16"])
    add("--lengths", choices=LENGTHS)
    for size in SIZES:
        add(f"--{size}", type=int)
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="of configs/base.py")
    add("--json", type=Path, metavar="FILE", help="appends the lines of JSON to it as well")
    options = parser.parse_args(arguments)
    if options.repeats < 1 or options.rounds < 0:
        parser.error(f"--repeats={options.repeats} --rounds={options.rounds}: at least 1")
    try:
        options.asked = {name: work_of(name, options) for name in named(options.works)}
    except ValueError as error:
        parser.error(str(error))
    options.rounds = options.rounds or (3 if options.against else 1)
    return options


def named(works: Sequence[str]) -> list[str]:
    """Returns the names of the works, each once."""
    return list(WORKS) if "all" in works else list(dict.fromkeys(works))


def work_of(name: str, options: argparse.Namespace) -> Work:
    """Returns a work at the sizes of the command line. The quickstart's are those of its config."""
    sizes = ("model", "dtype", "lengths", *SIZES)
    given = {size: getattr(options, size) for size in sizes if getattr(options, size) is not None}
    return dataclasses.replace(WORKS[name], **(given if name != "quickstart" else {}))


class Lines:
    """Where results go: JSON to standard output and to a file, words to standard error."""

    def __init__(self, file: Path | None):
        self._file = file
        self.failed = False

    def write(self, record: dict[str, Any], words: str) -> None:
        """Writes one result."""
        line = json.dumps(record)
        print(line, flush=True)
        print(words, file=sys.stderr, flush=True)
        if self._file is not None:
            with self._file.open("a") as file:
                file.write(line + "\n")

    def error(self, work: str, error: PeerFailed) -> None:
        """Writes that a command failed."""
        self.failed = True
        self.write({"work": work, "error": str(error)}, f"error: {work}: {error}")


class Machine:
    """The machine's limits, measured once for each shape of products."""

    def __init__(self, environment: dict[str, str]):
        self._environment = environment
        self._known: dict[str, dict[str, Any]] = {}

    def limits(self, products: dict[str, Any], lines: Lines) -> dict[str, Any]:
        """Returns the rates of machine.py for the products of a work.

        Raises:
          PeerFailed: they cannot be measured.
        """
        asked = json.dumps(products)
        if asked not in self._known:
            command = [sys.executable, "-m", "experiments.benchmark.machine", asked]
            found = self._known[asked] = run_command(command, self._environment)
            lines.write(found, machine_words(found))
        return self._known[asked]


def limit_seconds(needs: Sequence[dict[str, Any]], limits: dict[str, Any]) -> float:
    """Returns the least time of a work: of each part, the longer of its arithmetic at the best rate
    of its products and its memory traffic at the rate of a copy.
    """
    devices = limits["devices"]
    rates = {rows: max(found.values()) for rows, found in limits["products_gflops"].items()}
    copy = 1e9 * devices * limits["copy_gbytes_per_second"]
    return sum(
        max(part["flops"] / (1e9 * devices * rates[part["rows"]]), part["bytes"] / copy)
        for part in needs
    )


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Returns theirs / ours, round by round: above 1, ours is faster."""
    each = [peer / own for own, peer in zip(ours, theirs, strict=True)]
    return {"median": statistics.median(each), "min": min(each), "max": max(each), "all": each}


def compare(name: str, work: Work, options: argparse.Namespace, lines: Lines) -> None:
    """Runs a work and its peers in turn, round after round."""
    environment = dict(os.environ)
    if options.platform:
        environment["JAX_PLATFORMS"] = {"gpu": "cuda"}.get(options.platform, options.platform)
    machine = Machine(environment)
    asked = {"name": name, "work": dataclasses.asdict(work), "settings": options.set}
    command = [sys.executable, "-m", "experiments.benchmark.measure"]
    keys = [options.key] if options.key else work.peer_keys
    pairs: dict[str, list[tuple[str, str, float, float]]] = {one: [] for one in options.against}
    for _ in range(options.rounds):
        try:
            ours = run_command(
                [*command, json.dumps(asked | {"repeats": options.repeats})], environment
            )
            limits = machine.limits(ours["products"], lines)
        except PeerFailed as error:
            return lines.error(name, error)
        limit = limit_seconds(ours["needs"], limits)
        own = ours["seconds"]["median"]
        ours |= {"limit_seconds": limit, "fraction_of_limit": limit / own}
        lines.write(ours, our_words(ours))
        for peer in options.against:
            try:
                theirs = run_command(peer)
                key, seconds = seconds_of(theirs, keys)
            except PeerFailed as error:
                lines.error(name, error)
                continue
            who = str(theirs.get("peer", peer))
            record = {"work": name, "against": peer, "key": key, "theirs": theirs}
            lines.write(record | {"seconds": seconds}, f"{name}: {who}: {key} {seconds:.4g} s")
            pairs[peer].append((who, key, own, seconds))
    for peer, rounds in pairs.items():
        if rounds:
            [who, key], *_ = [one[:2] for one in rounds]
            own_seconds, their_seconds = ([one[place] for one in rounds] for place in (2, 3))
            ratio = ratios(own_seconds, their_seconds)
            record = {"work": name, "against": peer, "peer": who, "key": key, "ratio": ratio}
            record |= {"our_seconds": own_seconds, "their_seconds": their_seconds}
            lines.write(record, ratio_words(name, who, key, ratio))


def our_words(ours: dict[str, Any]) -> str:
    """Returns the measurement of a work in words."""
    seconds, device = ours["seconds"], ours["peak_device_gib"]
    return (
        f"{ours['work']} {ours['title']}: {seconds['median']:.4g} s ({seconds['min']:.4g} to "
        f"{seconds['max']:.4g}), first call {ours['first_seconds']:.3g} s, compiling "
        f"{ours['compile_seconds']:.3g} s; {ours['completion_tokens_per_second']:,.0f} completion "
        f"tokens/s; {ours['plain_gflops']:,.1f} GFLOP/s of the plain count; at the limit "
        f"{ours['limit_seconds']:.3g} s, {ours['fraction_of_limit']:.0%} reached; peak memory "
        f"{ours['peak_host_gib']:.2f} GiB"
        + (f", of a device {device:.2f} GiB" if device is not None else "")
    )


def machine_words(found: dict[str, Any]) -> str:
    """Returns the machine's limits in words."""
    shapes = [shape for kind in found["products_gflops"].values() for shape in kind.items()]
    rates = ", ".join(f"{shape} {rate:,.0f}" for shape, rate in shapes)
    return (
        f"{found['machine']}: GFLOP/s of {found['dtype']} products {rates}; copying "
        f"{found['copy_gbytes_per_second']:.1f} GB/s"
    )


def ratio_words(name: str, who: str, key: str, ratio: dict[str, Any]) -> str:
    """Returns a ratio in words."""
    return (
        f"{name}: {who} ({key}) / ours = {ratio['median']:.2f} ({ratio['min']:.2f} to "
        f"{ratio['max']:.2f}, {len(ratio['all'])} rounds)"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 1 if a command failed."""
    options = read_options(arguments)
    lines = Lines(options.json)
    for name, work in options.asked.items():
        compare(name, work, options, lines)
    return int(lines.failed)


if __name__ == "__main__":
    raise SystemExit(main())
